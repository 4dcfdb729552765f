//! `keys status`.

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use ota_proto::admin::v1::{
    GetTrustStatusRequest, GetTrustStatusResponse, KeyStatus, Repository as WireRepository, RoleStatus, TrustMode,
};
use ota_trust::metadata::Mode;

use crate::{
    error::Failure,
    output::{Cell, Document, Fact, Tone},
    roots::Roots,
    session::Session,
    signing, text, time,
};

/// What a person has to do before this long is shown in colour.
const WARN_BEFORE: TimeDelta = TimeDelta::days(30);

/// Characters of a key's id that are shown.
const SHOWN_ID: usize = 12;

/// Arguments of `keys status`.
#[derive(Debug, Args)]
#[command(after_help = "\
MANAGED means that the server holds the root keys: whoever takes the server over can install anything. ADOPTED means that \
people hold them: see `otactl keys adopt`.

What is shown is what the server says; the signatures are checked as well, and the exit code is 1 when they are not right.

Examples:
  otactl keys status
  otactl keys status -o json | jq -r '.roles[] | [.repository, .role, .expireTime] | @tsv'")]
pub struct Status {}

impl Status {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let status = client.trust().get_trust_status(GetTrustStatusRequest {}).await?.into_inner();
        let own = signing::open(&session.targets_key_path(client.context())?)?;
        let own = own.map(|key| ota_trust::key::Signer::public_key(&key).id().to_string());
        let document = Document::new("ota.admin.v1.GetTrustStatusResponse", &status);
        let facts = facts(&status, own.as_deref(), session.now());
        session.printer.answer(&document, mode_word(status.mode()), &facts)?;
        let verified = Roots::refresh(session, &client).await?;
        let signed = match verified.mode() {
            Mode::Managed => TrustMode::Managed,
            Mode::Adopted => TrustMode::Adopted,
        };
        if signed == status.mode() {
            Ok(())
        } else {
            Err(Failure::failed(format!(
                "the server says {}, and the signed root says {}",
                mode_word(status.mode()),
                mode_word(signed)
            )))
        }
    }
}

fn facts(status: &GetTrustStatusResponse, own: Option<&str>, now: DateTime<Utc>) -> Vec<Fact> {
    let mut facts = vec![Fact::new("Root keys", mode_cell(status.mode()))];
    for role in &status.roles {
        let repository = match role.repository() {
            WireRepository::Image => "image",
            WireRepository::Director => "director",
            WireRepository::Unspecified => "unknown",
        };
        facts.push(Fact::new(format!("{repository} {}", role.role), role_cell(role, own, now)));
    }
    facts
}

fn role_cell(role: &RoleStatus, own: Option<&str>, now: DateTime<Utc>) -> Cell {
    let count = format!("{} of {}", role.threshold, text::count(i64::try_from(role.keys.len()).unwrap_or(0), "key"));
    let keys = keys(role, own);
    let Some(expires) = role.expire_time.as_ref().and_then(time::moment) else {
        return format!("{count}, one document per device\n{keys}").into();
    };
    let until = time::until(role.expire_time.as_ref(), now);
    let text = format!("version {}, {count}, runs out {until}\n{keys}", role.version);
    // What the server signs lives shorter than that, and renews itself.
    let is_offline = role.role == "root" || role.role == "targets";
    if expires <= now {
        Cell::toned(text, Tone::Bad)
    } else if is_offline && expires - now < WARN_BEFORE {
        Cell::toned(text, Tone::Busy)
    } else {
        text.into()
    }
}

/// Lists a role's keys, one a line, with whose they are.
fn keys(role: &RoleStatus, own: Option<&str>) -> String {
    let line = |key: &KeyStatus| {
        let id = key.key_id.get(..SHOWN_ID).unwrap_or(&key.key_id);
        let whose = match (key.held_by_server, own == Some(key.key_id.as_str())) {
            (true, _) => " (the server's)",
            (false, true) => " (yours, on this machine)",
            (false, false) => "",
        };
        format!("{id}{whose}")
    };
    role.keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Says who holds the root keys.
pub fn mode_cell(mode: TrustMode) -> Cell {
    let tone = match mode {
        TrustMode::Adopted => Tone::Good,
        TrustMode::Managed | TrustMode::Unspecified => Tone::Busy,
    };
    let text = match mode {
        TrustMode::Managed => "MANAGED: the server holds them; `otactl keys adopt` takes them over",
        TrustMode::Adopted => "ADOPTED: people hold them",
        TrustMode::Unspecified => "unknown",
    };
    Cell::toned(text, tone)
}

/// Says it in a word.
pub fn mode_word(mode: TrustMode) -> &'static str {
    match mode {
        TrustMode::Managed => "MANAGED",
        TrustMode::Adopted => "ADOPTED",
        TrustMode::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    fn role(name: &str, seconds: Option<i64>) -> RoleStatus {
        RoleStatus {
            repository: WireRepository::Image.into(),
            role: name.to_owned(),
            version: 3,
            expire_time: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
            threshold: 2,
            keys: vec![
                KeyStatus { key_id: "a".repeat(64), held_by_server: true },
                KeyStatus { key_id: "b".repeat(64), held_by_server: false },
                KeyStatus { key_id: "c".repeat(64), held_by_server: false },
            ],
        }
    }

    #[test]
    fn what_people_have_to_renew_is_coloured_before_it_runs_out() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let in_days = |days: i64| Some(1_000_000 + days * 86_400);
        let table = [
            ("root", in_days(31), Tone::Plain),
            ("root", in_days(29), Tone::Busy),
            ("targets", in_days(29), Tone::Busy),
            ("timestamp", in_days(1), Tone::Plain),
            ("timestamp", in_days(-1), Tone::Bad),
            ("root", in_days(-1), Tone::Bad),
        ];
        for (name, expires, tone) in table {
            let role = role(name, expires);
            let text = role_cell(&role, None, now).text().to_owned();
            assert_eq!(role_cell(&role, None, now), Cell::toned(text, tone), "{name} {expires:?}");
        }
    }

    #[test]
    fn every_key_says_whose_it_is() {
        let own = "b".repeat(64);
        assert_eq!(
            keys(&role("targets", None), Some(&own)),
            "aaaaaaaaaaaa (the server's)\nbbbbbbbbbbbb (yours, on this machine)\ncccccccccccc"
        );
    }
}
