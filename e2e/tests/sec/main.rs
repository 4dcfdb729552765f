//! One folder per threat: what an attacker tries, and that it does not get through.
//!
//! An intruder at a real server changes its disk and its database, or speaks to a real agent in its place ([`fleet`]).
//! What would take too long over the wire, or what no server can do to a device, is done to the agent's own verification,
//! store and driver ([`scene`]), byte for byte.

mod fleet;
mod forged;
mod scene;

mod sec_arbitrary;
mod sec_db_rollback;
mod sec_endless;
mod sec_enroll_conflict;
mod sec_enroll_pin;
mod sec_enroll_request;
mod sec_enroll_token;
mod sec_evil_server;
mod sec_extra_dep;
mod sec_fast_forward;
mod sec_forged_report;
mod sec_freeze;
mod sec_mirror;
mod sec_mix_and_match;
mod sec_partial_set;
mod sec_replay_none;
mod sec_replay_other;
mod sec_replay_same;
mod sec_rollback_powercut;
mod sec_wrong_hw;
