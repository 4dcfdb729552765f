//! What a person or a program may do.

use serde::{Deserialize, Serialize};

/// A role. Publisher and deployer stand side by side, so that who makes software and who sends it out can be two people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "sqlx", derive(sqlx::Type), sqlx(type_name = "role", rename_all = "snake_case"))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Also uploads payloads and publishes releases.
    Publisher,
    /// Also assigns releases and looks after devices.
    Deployer,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Publisher, Self::Deployer, Self::Admin];

    /// The name the database, the events and the command line use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }

    /// Whether a caller with this role may do what needs `needed`.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Publisher | Self::Deployer => needed == self || needed == Self::Viewer,
            Self::Viewer => needed == Self::Viewer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publisher_and_deployer_stand_side_by_side() {
        assert!(!Role::Publisher.allows(Role::Deployer) && !Role::Deployer.allows(Role::Publisher));
        assert!(Role::ALL.into_iter().all(|role| role.allows(Role::Viewer) && Role::Admin.allows(role)));
        assert!(Role::ALL.into_iter().all(|role| role == Role::Admin || !role.allows(Role::Admin)));
    }
}
