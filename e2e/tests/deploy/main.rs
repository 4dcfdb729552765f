//! The server as it is deployed: from its image, by its service unit, by its manifests.

use tokio::sync::Mutex;

mod compose;
mod image;
mod kube_play;
mod systemd;

/// Manifests name ports of this machine, of which there is one each: one test at a time has them.
static PORTS: Mutex<()> = Mutex::const_new(());
