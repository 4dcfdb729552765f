//! The gRPC front: reads requests, calls the use cases, writes answers. Decides nothing.

pub mod admin;
pub mod device;
mod status;

pub use status::{DOMAIN, not_implemented};

use tonic::Request;

use crate::auth::Caller;

/// Who is calling, as the auth layer found.
fn caller<T>(request: &Request<T>) -> Caller {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .expect("the auth layer puts a caller into every request it lets through")
}
