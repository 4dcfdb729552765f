//! The programs as they are shipped: real processes that are started, killed and started again, and what people and
//! devices see of that.

mod fleet;

mod first_evening;
mod hostile_archive;
mod identity;
mod keys;
mod kill;
mod login;
mod logs;
mod memory;
mod schema;
mod secret_files;
mod server_program;
mod shutdown;
