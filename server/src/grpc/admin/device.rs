//! `DeviceService`.

use chrono::Utc;
use ota_domain::{
    DeviceId,
    device::{Decision, Device},
};
use ota_proto::{
    admin::v1::{
        self, ApproveDeviceRequest, ApproveDeviceResponse, DecommissionDeviceRequest, DecommissionDeviceResponse,
        DeleteDeviceRequest, DeleteDeviceResponse, ExplainDeviceRequest, ExplainDeviceResponse, GetDeviceRequest,
        GetDeviceResponse, ListDevicesRequest, ListDevicesResponse, PackageExplanation, RejectDeviceRequest,
        RejectDeviceResponse, UpdateDeviceRequest, UpdateDeviceResponse, device_service_server::DeviceService,
    },
    convert::admin::device::{self as wire, DEVICE},
};
use tonic::{Request, Response, Status};

use super::{name, named};
use crate::{
    app::{App, Error, devices},
    auth::Caller,
    db::page,
    grpc::caller,
};

/// Keeps the fleet's devices.
#[derive(Debug)]
pub struct Devices {
    app: App,
}

impl Devices {
    /// Serves from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }

    fn wire(&self, device: Device) -> v1::Device {
        let online = devices::is_online(&self.app, &device, Utc::now());
        wire::device(device, online)
    }

    async fn decide(&self, caller: &Caller, device: &str, decision: Decision) -> Result<Option<v1::Device>, Status> {
        let id = name(device, DEVICE)?;
        let device = devices::decide(&self.app, caller, id, decision, Utc::now()).await?;
        Ok(Some(self.wire(device)))
    }
}

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Result<Response<GetDeviceResponse>, Status> {
        let id = name(&request.get_ref().name, DEVICE)?;
        let device = devices::get(&self.app, &caller(&request), id).await?;
        Ok(Response::new(GetDeviceResponse { device: Some(self.wire(device)) }))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let caller = caller(&request);
        let wanted = request.into_inner();
        let page = page::request(wanted.page_size, &wanted.page_token)?;
        let page = devices::list(&self.app, &caller, &wanted.selector, &wanted.filter, page, Utc::now()).await?;
        Ok(Response::new(ListDevicesResponse {
            devices: page.rows.into_iter().map(|device| self.wire(device)).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn update_device(
        &self,
        request: Request<UpdateDeviceRequest>,
    ) -> Result<Response<UpdateDeviceResponse>, Status> {
        let caller = caller(&request);
        let wanted = request.into_inner();
        let device = wanted.device.unwrap_or_default();
        let id: DeviceId = named("device.name", &device.name, DEVICE)?;
        let change = wire::label_change(&device, wanted.update_mask.as_ref()).map_err(Error::Invalid)?;
        let device = devices::label(&self.app, &caller, id, &device.etag, change).await?;
        Ok(Response::new(UpdateDeviceResponse { device: Some(self.wire(device)) }))
    }

    async fn approve_device(
        &self,
        request: Request<ApproveDeviceRequest>,
    ) -> Result<Response<ApproveDeviceResponse>, Status> {
        let wanted = request.get_ref();
        let device = if wanted.replace_conflicting {
            let id = name(&wanted.name, DEVICE)?;
            let device = devices::approve_replacing(&self.app, &caller(&request), id, Utc::now()).await?;
            Some(self.wire(device))
        } else {
            self.decide(&caller(&request), &wanted.name, Decision::Approve).await?
        };
        Ok(Response::new(ApproveDeviceResponse { device }))
    }

    async fn reject_device(
        &self,
        request: Request<RejectDeviceRequest>,
    ) -> Result<Response<RejectDeviceResponse>, Status> {
        let device = self.decide(&caller(&request), &request.get_ref().name, Decision::Reject).await?;
        Ok(Response::new(RejectDeviceResponse { device }))
    }

    async fn decommission_device(
        &self,
        request: Request<DecommissionDeviceRequest>,
    ) -> Result<Response<DecommissionDeviceResponse>, Status> {
        let device = self.decide(&caller(&request), &request.get_ref().name, Decision::Decommission).await?;
        Ok(Response::new(DecommissionDeviceResponse { device }))
    }

    async fn delete_device(
        &self,
        request: Request<DeleteDeviceRequest>,
    ) -> Result<Response<DeleteDeviceResponse>, Status> {
        let id = name(&request.get_ref().name, DEVICE)?;
        devices::delete(&self.app, &caller(&request), id).await?;
        Ok(Response::new(DeleteDeviceResponse {}))
    }

    async fn explain_device(
        &self,
        request: Request<ExplainDeviceRequest>,
    ) -> Result<Response<ExplainDeviceResponse>, Status> {
        let id = name(&request.get_ref().name, DEVICE)?;
        let stories = devices::explain(&self.app, &caller(&request), id, Utc::now()).await?;
        let packages = stories.into_iter().map(|story| PackageExplanation {
            package: story.package.to_string(),
            running_version: story.running.map(|version| version.to_string()).unwrap_or_default(),
            desired_version: story.desired.map(|version| version.to_string()).unwrap_or_default(),
            waiting_on: story.waiting_on,
        });
        Ok(Response::new(ExplainDeviceResponse { packages: packages.collect() }))
    }
}
