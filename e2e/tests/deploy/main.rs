//! The server as it is deployed: from its image, by its service unit, by its manifests.

mod image;
mod systemd;
