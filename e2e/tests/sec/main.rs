//! One folder per threat: what an attacker tries, and that it does not get through.
//!
//! The attacks on what a device believes are handed to the agent's own verification, store and driver ([`scene`]), byte
//! for byte, because no real server can be made to send them. What an intruder at a real server can do is done to one
//! ([`fleet`]).

mod fleet;
mod scene;

mod sec_arbitrary;
mod sec_db_rollback;
mod sec_endless;
mod sec_evil_server;
mod sec_freeze;
mod sec_mix_and_match;
mod sec_replay_other;
mod sec_replay_same;
mod sec_rollback_powercut;
mod sec_wrong_hw;
