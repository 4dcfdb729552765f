//! What devices, operators and servers do with signed metadata, and what attackers would like to.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod attacks;
mod chain;
mod image;
mod properties;
mod recovery;
mod updates;
mod world;
