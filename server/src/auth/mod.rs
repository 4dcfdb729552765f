//! Who is calling, and whether they may.
//!
//! Every request passes through [`Gate`] before any handler: it looks its row up in [`policy`], checks the credential
//! that row demands and puts the [`Caller`] into the request. A handler never decides who may call it.

mod call;
mod connection;
pub mod forwarded;
mod layer;
pub mod limits;
mod offer;
pub mod oidc;
pub mod policy;
mod principal;
pub mod session;
mod source;

pub use call::current_request_id;
pub use connection::Connection;
pub use layer::{Gate, REQUEST_ID_HEADER};
pub use offer::Offer;
pub use principal::{Caller, Identity, Principal};
pub use source::{Network, ParseNetworkError, PeerAddress, TrustedProxies};
