//! A machine's request to join the fleet.

use ota_domain::{
    Violation,
    enrollment::{Admission, Enrollment, Request},
};

use crate::device::v1;

/// A request to join, from the wire.
///
/// # Errors
/// Every field at fault.
pub fn enrollment(wire: &v1::EnrollRequest) -> Result<Enrollment, Vec<Violation>> {
    Enrollment::try_from(Request {
        token_id: &wire.token_id,
        secret: &wire.secret,
        hardware: &wire.hardware,
        hardware_id: &wire.hardware_id,
    })
}

impl From<Admission> for v1::EnrollmentState {
    fn from(admission: Admission) -> Self {
        match admission {
            Admission::Pending => Self::Pending,
            Admission::Accepted => Self::Accepted,
        }
    }
}
