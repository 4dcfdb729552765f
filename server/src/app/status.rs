//! How the server and the fleet are.

use chrono::{DateTime, Utc};
use ota_domain::Scope;
use ota_trust::metadata::Mode;
use sqlx::PgConnection;

use super::{App, Result, devices, trust};
use crate::{
    auth::Caller,
    db::{
        self,
        status::{DeviceCounts, WorkCounts},
    },
    metrics::Stored,
};

/// What there is, and what needs a person.
#[derive(Debug)]
pub struct Status {
    /// Devices by their admission.
    pub devices: DeviceCounts,
    /// What there is beside devices.
    pub work: WorkCounts,
    /// Who holds the root keys.
    pub trust_mode: Mode,
    /// What needs a person, one sentence each.
    pub warnings: Vec<String>,
}

/// Counts what there is that the caller sees.
///
/// # Errors
/// When the database does not answer.
pub async fn get(app: &App, caller: &Caller, now: DateTime<Utc>) -> Result<Status> {
    let mut connection = app.pool.acquire().await?;
    let (devices, work) = look_up(app, &mut connection, caller.scope(), now).await?;
    let (trust_mode, expiries) = trust::expiries(&mut connection).await?;
    let expiring = expiries.iter().filter_map(|expiry| trust::warning(expiry, now));
    let warnings = warnings(app, &devices).into_iter().chain(expiring).collect();
    Ok(Status { devices, work, trust_mode, warnings })
}

/// Looks up what the metrics say of the whole fleet.
///
/// # Errors
/// When the database does not answer.
pub async fn stored(app: &App, now: DateTime<Utc>) -> Result<Stored> {
    let mut connection = app.pool.acquire().await?;
    let (devices, work) = look_up(app, &mut connection, &Scope::default(), now).await?;
    let rollouts = db::status::rollouts(&mut connection).await?;
    let (trust_mode, expiries) = trust::expiries(&mut connection).await?;
    Ok(Stored { devices, rollouts, work, trust_mode, expiries })
}

/// What a caller with this scope may count.
async fn look_up(
    app: &App,
    connection: &mut PgConnection,
    scope: &Scope,
    now: DateTime<Utc>,
) -> Result<(DeviceCounts, WorkCounts)> {
    let devices = db::status::devices(connection, devices::online_since(app, now), scope).await?;
    Ok((devices, db::status::work(connection, scope).await?))
}

fn warnings(app: &App, devices: &DeviceCounts) -> Vec<String> {
    let plain = "Connections are not encrypted by the server: without a proxy that does, credentials and software can be read on the way.";
    let plain = (!app.settings.tls).then(|| plain.to_owned());
    let waiting = match devices.pending {
        0 => None,
        1 => Some("1 device waits for approval.".to_owned()),
        pending => Some(format!("{pending} devices wait for approval.")),
    };
    let conflicting = match devices.conflicting {
        0 => None,
        1 => Some("1 of the waiting devices says it is a machine that another device is.".to_owned()),
        many => Some(format!("{many} of the waiting devices say they are a machine that another device is.")),
    };
    let disbelieving = match devices.disbelieving {
        0 => None,
        1 => Some("1 device does not believe what the server sends it, and installs nothing.".to_owned()),
        many => Some(format!("{many} devices do not believe what the server sends them, and install nothing.")),
    };
    [plain, waiting, conflicting, disbelieving].into_iter().flatten().collect()
}
