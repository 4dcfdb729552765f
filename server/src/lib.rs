//! The server: a gRPC control plane over Postgres and a blob store.
//!
//! Data flows one way: [`grpc`] reads a request, [`app`] does the work in a transaction with what [`db`] offers and
//! `ota_domain` decides. [`fleet`] keeps what a check-in needs in memory, [`reconcile`] does what no request asks for.

pub mod app;
pub mod auth;
pub mod blobs;
pub mod ca;
pub mod config;
pub mod db;
pub mod fleet;
pub mod grpc;
pub mod keys;
pub mod metrics;
pub mod postgres;
pub mod reconcile;
pub mod secret_file;
pub mod serve;
pub mod server;
pub mod tls;
