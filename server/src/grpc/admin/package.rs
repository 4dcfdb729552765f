//! `PackageService`.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use chrono::Utc;
use futures_util::{Stream, StreamExt as _, stream};
use ota_domain::{PackageName, ReleaseId, Sha256Digest, UploadId, Version, Violations, text};
use ota_proto::{
    admin::v1::{self, create_upload_response::Presence, package_service_server::PackageService},
    convert::admin::{
        name,
        package::{self as convert, PACKAGE, PAYLOAD, UPLOAD},
    },
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    app::{
        App, Error, Reason,
        download::{self, Download},
        packages, payloads,
        releases::{self, Publishing},
        uploads::{self, Broken, Piece},
    },
    db::page,
    grpc::caller,
};

/// Bytes in a piece of a download.
const PIECE_BYTES: u64 = 256 * 1024;
/// Most characters in the reason for a yank.
const MAX_REASON: usize = 1_024;

type Answer<T> = Result<Response<T>, Status>;

/// Serves `PackageService`.
#[derive(Debug)]
pub struct Packages {
    app: App,
}

impl Packages {
    /// Serves it from `app`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

fn package_name(name: &str) -> Result<PackageName, Error> {
    name::parse(name, PACKAGE).map_err(|error| Error::invalid("name", error))
}

fn release_name(name: &str) -> Result<(PackageName, Version), Error> {
    name::parse_release(name).map_err(|error| Error::invalid("name", error))
}

fn payload_name(name: &str) -> Result<Sha256Digest, Error> {
    name::parse(name, PAYLOAD).map_err(|error| Error::invalid("name", error))
}

fn upload_name(name: &str) -> Result<UploadId, Error> {
    name::parse(name, UPLOAD).map_err(|error| Error::invalid("name", error))
}

/// A message of an upload as a piece.
fn piece(message: v1::UploadPayloadRequest) -> Piece {
    // A negative offset becomes one that no upload stands at.
    Piece { offset: message.offset.cast_unsigned(), crc32c: message.crc32c, data: message.data }
}

#[tonic::async_trait]
impl PackageService for Packages {
    async fn create_package(&self, request: Request<v1::CreatePackageRequest>) -> Answer<v1::CreatePackageResponse> {
        let caller = caller(&request);
        let (name, description) = convert::new_package(request.into_inner()).map_err(Error::from)?;
        let package = packages::create(&self.app, &caller, &name, &description, Utc::now()).await?;
        Ok(Response::new(v1::CreatePackageResponse { package: Some(convert::package(package)) }))
    }

    async fn get_package(&self, request: Request<v1::GetPackageRequest>) -> Answer<v1::GetPackageResponse> {
        let package = packages::get(&self.app, &caller(&request), &package_name(&request.get_ref().name)?).await?;
        Ok(Response::new(v1::GetPackageResponse { package: Some(convert::package(package)) }))
    }

    async fn list_packages(&self, request: Request<v1::ListPackagesRequest>) -> Answer<v1::ListPackagesResponse> {
        let caller = caller(&request);
        let request = request.get_ref();
        let page = page::request(request.page_size, &request.page_token)?;
        let page = packages::list(&self.app, &caller, &page).await?;
        Ok(Response::new(v1::ListPackagesResponse {
            packages: page.rows.into_iter().map(convert::package).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn update_package(&self, request: Request<v1::UpdatePackageRequest>) -> Answer<v1::UpdatePackageResponse> {
        let caller = caller(&request);
        let change = convert::package_change(request.into_inner()).map_err(Error::from)?;
        let package = packages::describe(&self.app, &caller, &change.name, &change.etag, &change.description).await?;
        Ok(Response::new(v1::UpdatePackageResponse { package: Some(convert::package(package)) }))
    }

    async fn delete_package(&self, request: Request<v1::DeletePackageRequest>) -> Answer<v1::DeletePackageResponse> {
        let caller = caller(&request);
        packages::delete(&self.app, &caller, &package_name(&request.get_ref().name)?).await?;
        Ok(Response::new(v1::DeletePackageResponse {}))
    }

    async fn create_release(&self, request: Request<v1::CreateReleaseRequest>) -> Answer<v1::CreateReleaseResponse> {
        let caller = caller(&request);
        let request = request.into_inner();
        let publishing = Publishing { create_package: request.create_package, validate_only: request.validate_only };
        let draft = convert::draft(request).map_err(Error::from)?;
        let release = releases::create(&self.app, &caller, &draft, publishing, Utc::now()).await?;
        Ok(Response::new(v1::CreateReleaseResponse { release: Some(convert::release(release)) }))
    }

    async fn get_release(&self, request: Request<v1::GetReleaseRequest>) -> Answer<v1::GetReleaseResponse> {
        let (package, version) = release_name(&request.get_ref().name)?;
        let release = releases::get(&self.app, &caller(&request), &package, &version).await?;
        Ok(Response::new(v1::GetReleaseResponse { release: Some(convert::release(release)) }))
    }

    async fn list_releases(&self, request: Request<v1::ListReleasesRequest>) -> Answer<v1::ListReleasesResponse> {
        let caller = caller(&request);
        let request = request.get_ref();
        let package = match request.parent.as_str() {
            "packages/-" => None,
            parent => Some(name::parse(parent, PACKAGE).map_err(|error| Error::invalid("parent", error))?),
        };
        let page = page::request::<ReleaseId>(request.page_size, &request.page_token)?;
        let page = releases::list(&self.app, &caller, package.as_ref(), &page).await?;
        Ok(Response::new(v1::ListReleasesResponse {
            releases: page.rows.into_iter().map(convert::release).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn update_release(&self, request: Request<v1::UpdateReleaseRequest>) -> Answer<v1::UpdateReleaseResponse> {
        let caller = caller(&request);
        let change = convert::release_change(request.into_inner()).map_err(Error::from)?;
        let release = (&change.package, &change.version);
        let release = releases::annotate(&self.app, &caller, release, &change.etag, &change.notes).await?;
        Ok(Response::new(v1::UpdateReleaseResponse { release: Some(convert::release(release)) }))
    }

    async fn yank_release(&self, request: Request<v1::YankReleaseRequest>) -> Answer<v1::YankReleaseResponse> {
        let caller = caller(&request);
        let v1::YankReleaseRequest { name, reason } = request.into_inner();
        let mut violations = Violations::default();
        let release = violations.take("name", name::parse_release(&name));
        violations.take("reason", text::check(&reason, MAX_REASON));
        let (package, version) = violations.finish(release).map_err(Error::from)?;
        let release = releases::yank(&self.app, &caller, (&package, &version), &reason, Utc::now()).await?;
        Ok(Response::new(v1::YankReleaseResponse { release: Some(convert::release(release)) }))
    }

    async fn delete_release(&self, request: Request<v1::DeleteReleaseRequest>) -> Answer<v1::DeleteReleaseResponse> {
        let caller = caller(&request);
        let (package, version) = release_name(&request.get_ref().name)?;
        releases::delete(&self.app, &caller, &package, &version).await?;
        Ok(Response::new(v1::DeleteReleaseResponse {}))
    }

    async fn create_upload(&self, request: Request<v1::CreateUploadRequest>) -> Answer<v1::CreateUploadResponse> {
        let payload = convert::announced(request.into_inner()).map_err(Error::from)?;
        let presence = match uploads::create(&self.app, payload, Utc::now()).await? {
            uploads::Presence::Payload(stored) => Presence::Payload(convert::payload(stored)),
            uploads::Presence::Upload(upload) => Presence::Upload(convert::upload(upload)),
        };
        Ok(Response::new(v1::CreateUploadResponse { presence: Some(presence) }))
    }

    async fn get_upload(&self, request: Request<v1::GetUploadRequest>) -> Answer<v1::GetUploadResponse> {
        let upload = uploads::get(&self.app, upload_name(&request.get_ref().name)?).await?;
        Ok(Response::new(v1::GetUploadResponse { upload: Some(convert::upload(upload)) }))
    }

    async fn upload_payload(
        &self,
        request: Request<Streaming<v1::UploadPayloadRequest>>,
    ) -> Answer<v1::UploadPayloadResponse> {
        let caller = caller(&request);
        let mut messages = request.into_inner();
        let nothing = || Error::refused(Reason::UploadIncomplete, "the stream ended before it named an upload");
        let first = messages.message().await?.ok_or_else(nothing)?;
        let id = upload_name(&first.name)?;
        let pieces = stream::iter([Ok(first)]).chain(messages).map(|message| message.map(piece).map_err(|_| Broken));
        let stored = uploads::receive(&self.app, &caller, id, pieces, Utc::now).await?;
        Ok(Response::new(v1::UploadPayloadResponse { payload: Some(convert::payload(stored)) }))
    }

    async fn delete_upload(&self, request: Request<v1::DeleteUploadRequest>) -> Answer<v1::DeleteUploadResponse> {
        uploads::delete(&self.app, upload_name(&request.get_ref().name)?).await?;
        Ok(Response::new(v1::DeleteUploadResponse {}))
    }

    async fn get_payload(&self, request: Request<v1::GetPayloadRequest>) -> Answer<v1::GetPayloadResponse> {
        let stored = payloads::get(&self.app, &caller(&request), payload_name(&request.get_ref().name)?).await?;
        Ok(Response::new(v1::GetPayloadResponse { payload: Some(convert::payload(stored)) }))
    }

    type DownloadPayloadStream = Pin<Box<dyn Stream<Item = Result<v1::DownloadPayloadResponse, Status>> + Send>>;

    async fn download_payload(
        &self,
        request: Request<v1::DownloadPayloadRequest>,
    ) -> Answer<Self::DownloadPayloadStream> {
        let caller = caller(&request);
        let request = request.into_inner();
        let Download { reader, range } =
            download::open_rest(&self.app, &caller, payload_name(&request.name)?, request.offset).await?;
        let metrics = Arc::clone(&self.app.metrics);
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let mut offset = range.start;
            while offset < range.end {
                let length = PIECE_BYTES.min(range.end - offset);
                let data = reader.read(offset, length as usize).await?;
                let crc32c = crc_fast::crc32_iscsi(&data);
                let start = offset.cast_signed();
                offset += data.len() as u64;
                metrics.artifact_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                yield v1::DownloadPayloadResponse { offset: start, crc32c, data };
            }
        })))
    }

    async fn delete_payload(&self, request: Request<v1::DeletePayloadRequest>) -> Answer<v1::DeletePayloadResponse> {
        let caller = caller(&request);
        payloads::delete(&self.app, &caller, payload_name(&request.get_ref().name)?).await?;
        Ok(Response::new(v1::DeletePayloadResponse {}))
    }
}
