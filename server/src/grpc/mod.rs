//! The gRPC front: reads requests, calls the use cases, writes answers. Decides nothing.

pub mod admin;
pub mod device;
mod status;

pub use status::{DOMAIN, not_implemented};

use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::{
    app::App,
    auth::{Caller, Connection},
};

/// What a stream says that ends because its connection or the server does.
const RETIRED: &str = "this connection ends; make another";

/// Fires when streams without an end of their own have to end.
fn retiring<T>(request: &Request<T>, app: &App) -> CancellationToken {
    match request.extensions().get::<Connection>() {
        Some(connection) => connection.retiring.clone(),
        None => app.fleet.stopping(),
    }
}

/// Who is calling, as the auth layer found.
fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .expect("the auth layer puts a caller into every request it lets through")
}
