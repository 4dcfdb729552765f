//! What the tests of the whole are made of: a server on a database of its own, the people and the devices that call it,
//! and real processes that can be killed.
//!
//! Tests speak to the server as its users do, through the API. They look into the database only for what no user may
//! see: that nothing was stored, and how much was asked. They never sleep: they wait for streams, or look again until a
//! deadline with [`eventually`].

pub mod balancer;
pub mod binaries;
pub mod container;
pub mod credential;
pub mod database;
pub mod database_port;
pub mod deadline;
pub mod device;
pub mod impostor;
pub mod installation;
pub mod issuer;
pub mod key;
pub mod object_store;
pub mod operator;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod refusal;
pub mod scratch;
pub mod server;
pub mod signed;
pub mod signing;
pub mod small_disk;
pub mod tree;

pub use balancer::Balancer;
pub use binaries::Binaries;
pub use deadline::eventually;
pub use device::TestDevice;
pub use impostor::Impostor;
pub use installation::Installation;
pub use issuer::Issuer;
pub use key::TestKey;
pub use object_store::ObjectStore;
pub use operator::Operator;
pub use proxy::CountingProxy;
pub use refusal::{assert_refused, assert_violates, reason, violated_fields};
pub use server::{Options, TestServer};
pub use signed::World;
pub use small_disk::SmallDisk;
