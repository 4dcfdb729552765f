//! The client of The Update Framework, through its command line, against repositories that python-tuf writes: whatever
//! conforms to the specification is followed, whatever attacks it is refused, and devices demand more than that.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod artifacts;
mod attacks;
mod delegations;
mod keys;
mod power;
mod refresh;
mod strict;
mod world;
