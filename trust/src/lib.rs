//! What devices trust: two repositories of signed metadata after The Update Framework (TUF,
//! <https://theupdateframework.github.io/specification/>), and the rule that joins them.
//!
//! - The *image repository* lists every release that may be installed. Operators sign it ([`image`]).
//! - The *director repository* lists, for one device, what that device should run. The server signs it ([`director`]).
//!
//! A device installs only what both list, for its own identity and hardware, at or above its floors ([`device`]). Server,
//! command line and device verify with the same code ([`verify`]) and sign with the same code ([`metadata`], [`key`]).
//!
//! Pure: no I/O, no clock, no random numbers but for new keys. Bytes and `now` in, a verdict out.

pub mod device;
pub mod director;
pub mod fault;
pub mod image;
pub mod key;
pub mod metadata;
pub mod pin;
pub mod verify;

pub use device::{Order, Trusted, Update};
pub use fault::{Because, Fault, TrustError};
pub use verify::Repository;
