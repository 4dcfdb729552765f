//! `EnrollTokenService`.

use ota_proto::{
    admin::v1::{
        CreateEnrollTokenRequest, CreateEnrollTokenResponse, GetEnrollTokenRequest, GetEnrollTokenResponse,
        ListEnrollTokensRequest, ListEnrollTokensResponse, RevokeEnrollTokenRequest, RevokeEnrollTokenResponse,
        enroll_token_service_server::EnrollTokenService,
    },
    convert::admin::enroll_token::{self as wire, ENROLL_TOKEN},
};
use tonic::{Request, Response, Status};

use super::{name, now};
use crate::{
    app::{App, Error, enroll_tokens},
    db::page,
    grpc::caller,
};

/// Keeps the tokens with which machines join the fleet.
#[derive(Debug)]
pub struct EnrollTokens {
    app: App,
}

impl EnrollTokens {
    /// Serves from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl EnrollTokenService for EnrollTokens {
    async fn create_enroll_token(
        &self,
        request: Request<CreateEnrollTokenRequest>,
    ) -> Result<Response<CreateEnrollTokenResponse>, Status> {
        let (caller, now) = (caller(&request), now());
        let draft = wire::draft(request.into_inner().enroll_token.unwrap_or_default(), now).map_err(Error::Invalid)?;
        let (token, string) = enroll_tokens::create(&self.app, &caller, draft, now).await?;
        Ok(Response::new(CreateEnrollTokenResponse {
            enroll_token: Some(wire::enroll_token(&token, now)),
            enrollment_string: string.to_string(),
        }))
    }

    async fn get_enroll_token(
        &self,
        request: Request<GetEnrollTokenRequest>,
    ) -> Result<Response<GetEnrollTokenResponse>, Status> {
        let id = name(&request.get_ref().name, ENROLL_TOKEN)?;
        let token = enroll_tokens::get(&self.app, &caller(&request), id).await?;
        Ok(Response::new(GetEnrollTokenResponse { enroll_token: Some(wire::enroll_token(&token, now())) }))
    }

    async fn list_enroll_tokens(
        &self,
        request: Request<ListEnrollTokensRequest>,
    ) -> Result<Response<ListEnrollTokensResponse>, Status> {
        let caller = caller(&request);
        let (wanted, now) = (request.into_inner(), now());
        let page = page::request(wanted.page_size, &wanted.page_token)?;
        let page = enroll_tokens::list(&self.app, &caller, page).await?;
        Ok(Response::new(ListEnrollTokensResponse {
            enroll_tokens: page.rows.iter().map(|token| wire::enroll_token(token, now)).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn revoke_enroll_token(
        &self,
        request: Request<RevokeEnrollTokenRequest>,
    ) -> Result<Response<RevokeEnrollTokenResponse>, Status> {
        let (caller, now) = (caller(&request), now());
        let id = name(&request.get_ref().name, ENROLL_TOKEN)?;
        let token = enroll_tokens::revoke(&self.app, &caller, id, now).await?;
        Ok(Response::new(RevokeEnrollTokenResponse { enroll_token: Some(wire::enroll_token(&token, now)) }))
    }
}
