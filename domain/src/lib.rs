//! The words of the project and the decisions made with them.
//!
//! Pure: no I/O, no clock, no random numbers; what a function needs of those it takes as an argument. Server, agent and
//! command line all speak in these types.

pub mod api_token;
pub mod archive_path;
pub mod deployment;
pub mod device;
pub mod digest;
pub mod enroll_token;
pub mod enrollment;
pub mod event;
pub mod filter;
pub mod id;
pub mod inventory;
pub mod label;
pub mod name;
pub mod package;
pub mod payload;
pub mod release;
pub mod role;
pub mod rollout;
pub mod schedule;
pub mod scope;
pub mod secret;
pub mod selector;
pub mod text;
pub mod trust_fault;
pub mod upload;
pub mod version;
pub mod violation;

pub use digest::Sha256Digest;
pub use id::{ApiTokenId, DeploymentId, DeviceId, EnrollTokenId, PackageId, ReleaseId, RolloutId, UploadId};
pub use label::Labels;
pub use name::{Hardware, PackageName};
pub use scope::Scope;
pub use selector::Selector;
pub use trust_fault::TrustFault;
pub use version::Version;
pub use violation::{Violation, Violations};
