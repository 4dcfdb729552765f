//! `AccessService`.

use ota_proto::{
    admin::v1::{
        CreateApiTokenRequest, CreateApiTokenResponse, GetCallerRequest, GetCallerResponse, GetLoginOptionsRequest,
        GetLoginOptionsResponse, ListApiTokensRequest, ListApiTokensResponse, RevokeApiTokenRequest,
        RevokeApiTokenResponse, Role, access_service_server::AccessService,
    },
    convert::admin::access::{self as wire, API_TOKEN},
};
use tonic::{Request, Response, Status};

use super::{name, now};
use crate::{
    app::{self, App, Error, Reason},
    auth::Principal,
    db::page,
    grpc::caller,
};

/// Keeps who may run the fleet.
#[derive(Debug)]
pub struct Access {
    app: App,
}

impl Access {
    /// Serves from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl AccessService for Access {
    async fn create_api_token(
        &self,
        request: Request<CreateApiTokenRequest>,
    ) -> Result<Response<CreateApiTokenResponse>, Status> {
        let (caller, now) = (caller(&request), now());
        let draft = wire::draft(request.into_inner().api_token.unwrap_or_default(), now).map_err(Error::Invalid)?;
        let (token, secret) = app::access::create(&self.app, &caller, draft, now).await?;
        Ok(Response::new(CreateApiTokenResponse {
            api_token: Some(wire::api_token(&token)),
            secret: secret.to_string(),
        }))
    }

    async fn list_api_tokens(
        &self,
        request: Request<ListApiTokensRequest>,
    ) -> Result<Response<ListApiTokensResponse>, Status> {
        let wanted = request.into_inner();
        let page = page::request(wanted.page_size, &wanted.page_token)?;
        let page = app::access::list(&self.app, page).await?;
        Ok(Response::new(ListApiTokensResponse {
            api_tokens: page.rows.iter().map(wire::api_token).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn revoke_api_token(
        &self,
        request: Request<RevokeApiTokenRequest>,
    ) -> Result<Response<RevokeApiTokenResponse>, Status> {
        let caller = caller(&request);
        let id = name(&request.get_ref().name, API_TOKEN)?;
        let token = app::access::revoke(&self.app, &caller, id, now()).await?;
        Ok(Response::new(RevokeApiTokenResponse { api_token: Some(wire::api_token(&token)) }))
    }

    async fn get_caller(&self, request: Request<GetCallerRequest>) -> Result<Response<GetCallerResponse>, Status> {
        let caller = caller(&request);
        let principal = &caller.principal;
        let role = match principal {
            Principal::Operator { role, .. } => Role::from(*role),
            Principal::Anonymous | Principal::Device(_) | Principal::Server => Role::Unspecified,
        };
        Ok(Response::new(GetCallerResponse {
            name: principal.to_string(),
            display_name: principal.display_name().to_owned(),
            role: role.into(),
            scope: wire::wire_scope(caller.scope()),
        }))
    }

    async fn get_login_options(
        &self,
        _: Request<GetLoginOptionsRequest>,
    ) -> Result<Response<GetLoginOptionsResponse>, Status> {
        let Some(provider) = &self.app.oidc else {
            let message = "the server has no identity provider; log in with an API token";
            return Err(Error::refused(Reason::IdentityProviderMissing, message).into());
        };
        let settings = provider.settings();
        Ok(Response::new(GetLoginOptionsResponse {
            issuer: settings.issuer.clone(),
            client_id: settings.client_id.clone(),
            scopes: settings.scopes.clone(),
        }))
    }
}
