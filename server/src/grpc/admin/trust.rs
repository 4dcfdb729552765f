//! `TrustService`. Its shape is settled; its work is not done yet.

use ota_proto::admin::v1::{self, trust_service_server::TrustService};
use tonic::{Request, Response, Status};

use crate::grpc::not_implemented;

const WHAT: &str = "signed metadata and keys";

/// Keeps the signed metadata that devices trust.
#[derive(Debug)]
pub struct Trust;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl TrustService for Trust {
    async fn get_trust_status(&self, _: Request<v1::GetTrustStatusRequest>) -> Answer<v1::GetTrustStatusResponse> {
        Err(not_implemented(WHAT))
    }

    async fn get_metadata(&self, _: Request<v1::GetMetadataRequest>) -> Answer<v1::GetMetadataResponse> {
        Err(not_implemented(WHAT))
    }

    async fn publish_targets(&self, _: Request<v1::PublishTargetsRequest>) -> Answer<v1::PublishTargetsResponse> {
        Err(not_implemented(WHAT))
    }

    async fn publish_roots(&self, _: Request<v1::PublishRootsRequest>) -> Answer<v1::PublishRootsResponse> {
        Err(not_implemented(WHAT))
    }

    async fn add_targets_key(&self, _: Request<v1::AddTargetsKeyRequest>) -> Answer<v1::AddTargetsKeyResponse> {
        Err(not_implemented(WHAT))
    }

    async fn rotate_server_key(&self, _: Request<v1::RotateServerKeyRequest>) -> Answer<v1::RotateServerKeyResponse> {
        Err(not_implemented(WHAT))
    }

    async fn export_device_metadata(
        &self,
        _: Request<v1::ExportDeviceMetadataRequest>,
    ) -> Answer<v1::ExportDeviceMetadataResponse> {
        Err(not_implemented(WHAT))
    }
}
