//! `GroupService`. Its shape is settled; its work is not done yet.

use ota_proto::admin::v1::{
    CreateGroupRequest, CreateGroupResponse, DeleteGroupRequest, DeleteGroupResponse, GetGroupRequest,
    GetGroupResponse, ListGroupsRequest, ListGroupsResponse, UpdateGroupRequest, UpdateGroupResponse,
    group_service_server::GroupService,
};
use tonic::{Request, Response, Status};

use crate::grpc::not_implemented;

const WHAT: &str = "groups";

/// Keeps saved selectors.
#[derive(Debug)]
pub struct Groups;

#[tonic::async_trait]
impl GroupService for Groups {
    async fn create_group(&self, _: Request<CreateGroupRequest>) -> Result<Response<CreateGroupResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn get_group(&self, _: Request<GetGroupRequest>) -> Result<Response<GetGroupResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn update_group(&self, _: Request<UpdateGroupRequest>) -> Result<Response<UpdateGroupResponse>, Status> {
        Err(not_implemented(WHAT))
    }

    async fn delete_group(&self, _: Request<DeleteGroupRequest>) -> Result<Response<DeleteGroupResponse>, Status> {
        Err(not_implemented(WHAT))
    }
}
