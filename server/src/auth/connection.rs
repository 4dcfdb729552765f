//! What a request knows of its connection.

use tokio_util::sync::CancellationToken;

/// How a connection ends.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Fires when it shall end, because it is old or the server stops: streams that have no end of their own end then.
    pub retiring: CancellationToken,
}

impl Connection {
    /// One that ends with `stopping` at the latest.
    #[must_use]
    pub fn new(stopping: &CancellationToken) -> Self {
        Self { retiring: stopping.child_token() }
    }
}
