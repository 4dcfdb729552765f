//! `TrustService`. Its shape is settled; its work is not done yet.

use ota_proto::admin::v1::{
    GetMetadataRequest, GetMetadataResponse, GetTrustStatusRequest, GetTrustStatusResponse, PublishRootRequest,
    PublishRootResponse, PublishTargetsRequest, PublishTargetsResponse, trust_service_server::TrustService,
};
use tonic::{Request, Response, Status};

use crate::grpc::not_implemented;

const WHAT: &str = "signed metadata and keys";

/// Keeps the signed metadata that devices trust.
#[derive(Debug)]
pub struct Trust;

#[tonic::async_trait]
impl TrustService for Trust {
    async fn get_trust_status(
        &self,
        _: Request<GetTrustStatusRequest>,
    ) -> Result<Response<GetTrustStatusResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn get_metadata(&self, _: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn publish_targets(
        &self,
        _: Request<PublishTargetsRequest>,
    ) -> Result<Response<PublishTargetsResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn publish_root(&self, _: Request<PublishRootRequest>) -> Result<Response<PublishRootResponse>, Status> {
        Err(not_implemented(WHAT))
    }
}
