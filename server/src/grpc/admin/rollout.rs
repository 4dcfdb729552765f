//! `RolloutService`.

use chrono::Utc;
use ota_domain::{
    DeploymentId, RolloutId, Violations,
    filter::Filter,
    rollout::{CancelReach, Draft},
};
use ota_proto::{
    admin::v1::{
        self as wire, CancelDeploymentRequest, CancelDeploymentResponse, CancelRolloutRequest, CancelRolloutResponse,
        CreateRolloutRequest, CreateRolloutResponse, GetDeploymentRequest, GetDeploymentResponse, GetRolloutRequest,
        GetRolloutResponse, ListDeploymentsRequest, ListDeploymentsResponse, ListRolloutsRequest, ListRolloutsResponse,
        PauseRolloutRequest, PauseRolloutResponse, PreviewRolloutRequest, PreviewRolloutResponse,
        PromoteRolloutRequest, PromoteRolloutResponse, ResumeRolloutRequest, ResumeRolloutResponse,
        RetryDeploymentRequest, RetryDeploymentResponse, rollout_service_server::RolloutService,
    },
    convert::admin::{name, rollout as convert},
};
use tonic::{Request, Response, Status};

use crate::{
    app::{self, App, Error, Reason, deployments, rollouts},
    auth::Caller,
    db::{deployment::Query, page},
    grpc::{caller, not_implemented},
};

/// Serves rollouts and deployments.
#[derive(Debug)]
pub struct Rollouts {
    app: App,
}

impl Rollouts {
    /// The service over `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl RolloutService for Rollouts {
    async fn create_rollout(
        &self,
        request: Request<CreateRolloutRequest>,
    ) -> Result<Response<CreateRolloutResponse>, Status> {
        let caller = caller(&request);
        let told = request.into_inner();
        let (id, draft) = draft(&told.rollout_id, told.rollout)?;
        let rollout = rollouts::create(&self.app, &caller, id, &draft, Utc::now()).await?;
        Ok(Response::new(CreateRolloutResponse { rollout: Some(convert::rollout(&rollout)) }))
    }

    async fn preview_rollout(
        &self,
        request: Request<PreviewRolloutRequest>,
    ) -> Result<Response<PreviewRolloutResponse>, Status> {
        let caller = caller(&request);
        let (_, draft) = draft("", request.into_inner().rollout)?;
        let preview = rollouts::preview(&self.app, &caller, &draft).await?;
        Ok(Response::new(convert::preview(&preview)))
    }

    async fn get_rollout(&self, request: Request<GetRolloutRequest>) -> Result<Response<GetRolloutResponse>, Status> {
        let rollout = rollouts::get(&self.app, &caller(&request), rollout_id(&request.get_ref().name)?).await?;
        Ok(Response::new(GetRolloutResponse { rollout: Some(convert::rollout(&rollout)) }))
    }

    async fn list_rollouts(
        &self,
        request: Request<ListRolloutsRequest>,
    ) -> Result<Response<ListRolloutsResponse>, Status> {
        let caller = caller(&request);
        let told = request.into_inner();
        let page = rollouts::list(&self.app, &caller, &page::request(told.page_size, &told.page_token)?).await?;
        Ok(Response::new(ListRolloutsResponse {
            rollouts: page.rows.iter().map(convert::rollout).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn pause_rollout(&self, _: Request<PauseRolloutRequest>) -> Result<Response<PauseRolloutResponse>, Status> {
        Err(not_implemented("pauses of rollouts"))
    }

    async fn resume_rollout(
        &self,
        _: Request<ResumeRolloutRequest>,
    ) -> Result<Response<ResumeRolloutResponse>, Status> {
        Err(not_implemented("pauses of rollouts"))
    }

    async fn promote_rollout(
        &self,
        _: Request<PromoteRolloutRequest>,
    ) -> Result<Response<PromoteRolloutResponse>, Status> {
        Err(not_implemented("phases of rollouts"))
    }

    async fn cancel_rollout(
        &self,
        request: Request<CancelRolloutRequest>,
    ) -> Result<Response<CancelRolloutResponse>, Status> {
        let caller = caller(&request);
        let told = request.into_inner();
        let reach = if told.force { CancelReach::NotSwitched } else { CancelReach::NotBegun };
        let rollout = rollouts::cancel(&self.app, &caller, rollout_id(&told.name)?, reach, Utc::now()).await?;
        Ok(Response::new(CancelRolloutResponse { rollout: Some(convert::rollout(&rollout)) }))
    }

    async fn get_deployment(
        &self,
        request: Request<GetDeploymentRequest>,
    ) -> Result<Response<GetDeploymentResponse>, Status> {
        let id = deployment_id(&request.get_ref().name)?;
        let deployment = deployments::get(&self.app, &caller(&request), id).await?;
        Ok(Response::new(GetDeploymentResponse { deployment: Some(convert::deployment(&deployment)) }))
    }

    async fn list_deployments(
        &self,
        request: Request<ListDeploymentsRequest>,
    ) -> Result<Response<ListDeploymentsResponse>, Status> {
        let caller = caller(&request);
        let told = request.into_inner();
        let query = query(&caller, &told)?;
        let page = deployments::list(&self.app, &query, &page::request(told.page_size, &told.page_token)?).await?;
        Ok(Response::new(ListDeploymentsResponse {
            deployments: page.rows.iter().map(convert::deployment).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn cancel_deployment(
        &self,
        request: Request<CancelDeploymentRequest>,
    ) -> Result<Response<CancelDeploymentResponse>, Status> {
        let caller = caller(&request);
        let id = deployment_id(&request.into_inner().name)?;
        let deployment = deployments::cancel(&self.app, &caller, id, Utc::now()).await?;
        Ok(Response::new(CancelDeploymentResponse { deployment: Some(convert::deployment(&deployment)) }))
    }

    async fn retry_deployment(
        &self,
        request: Request<RetryDeploymentRequest>,
    ) -> Result<Response<RetryDeploymentResponse>, Status> {
        let caller = caller(&request);
        let id = deployment_id(&request.into_inner().name)?;
        let deployment = deployments::retry(&self.app, &caller, id, Utc::now()).await?;
        Ok(Response::new(RetryDeploymentResponse { deployment: Some(convert::deployment(&deployment)) }))
    }
}

fn draft(rollout_id: &str, told: Option<wire::Rollout>) -> app::Result<(Option<RolloutId>, Draft)> {
    let told = told.ok_or_else(|| Error::invalid("rollout", "must be set"))?;
    let unserved = convert::unserved(&told);
    if !unserved.is_empty() {
        let message = format!("not part of this server yet: {}", unserved.join(", "));
        return Err(Error::refused(Reason::NotImplemented, message));
    }
    Ok(convert::draft(rollout_id, &told)?)
}

fn query(caller: &Caller, told: &ListDeploymentsRequest) -> app::Result<Query> {
    let mut violations = Violations::default();
    let rollout = match told.rollout.as_str() {
        "" => None,
        rollout => violations.take("rollout", name::parse(rollout, convert::ROLLOUT)),
    };
    let device = match told.device.as_str() {
        "" => None,
        device => violations.take("device", name::parse(device, convert::DEVICE)),
    };
    let filter = violations.take("filter", Filter::parse(&told.filter));
    Ok(violations.finish(filter.map(|filter| Query { rollout, device, scope: caller.scope().clone(), filter }))?)
}

fn rollout_id(text: &str) -> app::Result<RolloutId> {
    name::parse(text, convert::ROLLOUT).map_err(|error| Error::invalid("name", error))
}

fn deployment_id(text: &str) -> app::Result<DeploymentId> {
    name::parse(text, convert::DEPLOYMENT).map_err(|error| Error::invalid("name", error))
}
