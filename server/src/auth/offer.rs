//! What a port has. Not who may call it: that is in [`super::policy`], and the same on every port.

use crate::app::{Error, Reason, Result};

const ADMIN: &str = "ota.admin.";
const DEVICE: &str = "ota.device.";

/// The APIs of a port, beside health checks and reflection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Both.
    All,
    /// The one for devices.
    Devices,
    /// The one for operators.
    Operators,
}

impl Offer {
    /// Whether the port has this service.
    #[must_use]
    pub fn has(self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Devices => !service.starts_with(ADMIN),
            Self::Operators => !service.starts_with(DEVICE),
        }
    }

    /// Refuses calls that belong to another port. Which one that is strangers need not know.
    pub(super) fn check(self, path: &str) -> Result<()> {
        if self.has(path.trim_start_matches('/')) {
            return Ok(());
        }
        let api = if self == Self::Devices { "admin" } else { "device" };
        let message = format!("the {api} API is served at another address of this server");
        Err(Error::refused(Reason::NotImplemented, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::policy;

    #[test]
    fn every_rpc_is_offered_once_and_what_belongs_to_no_api_twice() {
        for (path, _) in policy::rows() {
            let ports = [Offer::Devices, Offer::Operators].into_iter().filter(|offer| offer.check(&path).is_ok());
            assert_eq!(ports.count(), if path.starts_with("/ota.") { 1 } else { 2 }, "{path}");
            assert!(Offer::All.check(&path).is_ok());
        }
    }
}
