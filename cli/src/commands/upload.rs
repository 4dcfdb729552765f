//! `upload`: publish a file or a folder as a release.

use std::path::PathBuf;

use clap::Args;
use ota_domain::{Hardware, PackageName, Sha256Digest, Version};
use ota_proto::admin::v1::{
    CreateReleaseRequest, ErrorReason, GetPayloadRequest, GetReleaseRequest, Installer as WireInstaller, Release,
};
use tonic::{Code, Status};

use crate::{
    backoff::patiently,
    client::Client,
    commands::{
        package::parse_package,
        release::{Notes, size_of},
    },
    error::{Failure, promised, reason_of},
    output::{Fact, Resource},
    payload::{Installer, Payload, Source},
    progress::Progress,
    publication,
    reference::ReleaseRef,
    session::Session,
    signing::{OpenKey, TargetsKey},
    text,
    upload::{self, Sent},
};

const EXAMPLES: &str = "\
A folder is packed as a tar with sorted names, no times and no owners, so that the same folder always has the same \
SHA-256. Symbolic links and special files are refused, because devices refuse them.

The release is then put into the list of releases that devices trust, signed with your key: a file made on first use \
and kept beside the contexts, unless --targets-key names another or one in hardware. Keep a copy of it.

Bytes that the server has are not sent again: after an interruption, the same command goes on where it stopped, and \
repeating a command that was done changes nothing.

Examples:
  otactl upload ./build --package gateway-fw --version 1.2.0 --hardware rpi4 --hardware rpi5
  otactl upload app.bin --package sensor --version 2.0.0-rc.1 --notes-file CHANGES.md
  otactl upload ./build --package gateway-fw --version 1.2.0 --dry-run";

/// Arguments of `upload`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Upload {
    /// The file or folder
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The package; it is created when there is none
    #[arg(short, long, value_name = "PACKAGE", value_parser = parse_package)]
    package: PackageName,
    /// The version, in semver 2.0.0
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// Only for this hardware type; may be repeated
    #[arg(long, value_name = "HARDWARE")]
    hardware: Vec<Hardware>,
    /// How devices install it: directory or file [default: directory for a folder, file for a file]
    #[arg(long, value_enum, hide_possible_values = true)]
    installer: Option<Installer>,
    #[command(flatten)]
    notes: Notes,
    #[command(flatten)]
    key: TargetsKey,
    /// Say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Upload {
    /// Packs, sends and publishes.
    pub async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let release = ReleaseRef { package: self.package, version: self.version };
        let notes = self.notes.read()?;
        let (path, installer) = (self.path, self.installer);
        let source = blocking(move || Source::open(&path, installer)).await?;
        // A server that cannot be reached is found out before a gigabyte is hashed.
        let client = session.client().await?;
        let payload = pack(session, source).await?;
        let wanted = Release {
            name: release.name(),
            hardware: self.hardware.iter().map(ToString::to_string).collect(),
            installer: WireInstaller::from(payload.installer).into(),
            payload: payload_name(&payload.sha256),
            payload_size_bytes: i64::try_from(payload.size).unwrap_or(i64::MAX),
            unpacked_size_bytes: i64::try_from(payload.unpacked_size).unwrap_or(i64::MAX),
            notes,
            ..Release::default()
        };
        let existing = find(&client, &release).await?;
        if let Some(existing) = &existing {
            refuse_another(&release, existing, &wanted)?;
            if existing.is_signed {
                return already_published(session, &release, existing);
            }
        } else {
            validate(&client, &release, &wanted).await?;
        }
        if self.dry_run {
            return say_what_would_happen(session, &client, &release, &wanted).await;
        }
        let key = self.key.ready(session, &client).await?;
        if let Some(existing) = existing {
            session.messages.say(&format!("{release} is there already with these very bytes, and not signed"));
            return sign(session, &client, &key, &release, existing, &wanted).await;
        }
        match upload::send(&client, session.messages, &payload).await? {
            Sent::Nothing => session.messages.say("the server has these bytes already, nothing was sent"),
            Sent::From(offset) => {
                let sent = payload.size.saturating_sub(offset);
                session.messages.say(&format!("sent {}", text::bytes(i64::try_from(sent).unwrap_or(i64::MAX))));
            }
        }
        let publishing = async || publish(&client, &release, &wanted, false).await;
        match patiently(session.messages, "publishing", publishing).await {
            Ok(published) => {
                refuse_another(&release, &published, &wanted)?;
                sign(session, &client, &key, &release, published, &wanted).await
            }
            Err(status) if reason_of(&status) == Some(ErrorReason::ReleaseExists) => {
                // Somebody else was faster, or the answer to an earlier call of this very command was lost.
                let existing = promised(find(&client, &release).await?)?;
                refuse_another(&release, &existing, &wanted)?;
                sign(session, &client, &key, &release, existing, &wanted).await
            }
            Err(status) => Err(status.into()),
        }
    }
}

/// Runs what reads files outside the threads that talk to the server.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Failure::because("cannot read the payload", &error)))
}

async fn pack(session: &Session, source: Source) -> Result<Payload, Failure> {
    let label = match source.installer() {
        Installer::Directory => "packing",
        Installer::File => "hashing",
    };
    // Only a person who waits wants to see it: it is over in seconds.
    let messages = session.messages;
    let progress =
        if messages.is_live() { Progress::bytes(messages, label, source.bytes()) } else { Progress::hidden(label) };
    let (description, bar) = (source.describe(), progress.clone());
    let packed = blocking(move || source.pack(&bar)).await;
    progress.finish();
    let payload = packed?;
    let size = text::bytes(i64::try_from(payload.size).unwrap_or(i64::MAX));
    session.messages.say(&format!("{description}: {size}, sha256 {}", payload.sha256));
    Ok(payload)
}

fn payload_name(sha256: &Sha256Digest) -> String {
    format!("payloads/{sha256}")
}

/// Reads the release if it is there.
async fn find(client: &Client, release: &ReleaseRef) -> Result<Option<Release>, Failure> {
    match client.packages().get_release(GetReleaseRequest { name: release.name() }).await {
        Ok(answer) => Ok(Some(promised(answer.into_inner().release)?)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Finds what the server would refuse before any byte is sent.
async fn validate(client: &Client, release: &ReleaseRef, wanted: &Release) -> Result<(), Failure> {
    match publish(client, release, wanted, true).await {
        Ok(_) => Ok(()),
        // Of course: it is not sent yet.
        Err(status) if reason_of(&status) == Some(ErrorReason::PayloadNotFound) => Ok(()),
        Err(status) => Err(status.into()),
    }
}

async fn publish(
    client: &Client,
    release: &ReleaseRef,
    wanted: &Release,
    validate_only: bool,
) -> Result<Release, Status> {
    let request = CreateReleaseRequest {
        parent: release.parent(),
        version: release.version.to_string(),
        release: Some(wanted.clone()),
        create_package: true,
        validate_only,
    };
    let answer = client.packages().create_release(request).await?.into_inner();
    Ok(answer.release.unwrap_or_else(|| wanted.clone()))
}

/// Signs the release as it was packed here. Of what the server says, its counter alone is taken.
async fn sign(
    session: &mut Session,
    client: &Client,
    key: &OpenKey,
    name: &ReleaseRef,
    published: Release,
    wanted: &Release,
) -> Result<(), Failure> {
    let release =
        Release { release_counter: published.release_counter, hardware: published.hardware, ..wanted.clone() };
    let signed = publication::sign(session, client, key, name, &release).await.inspect_err(|_| {
        session.messages.say(&format!("{name} is published and not signed yet: the same command goes on from there"));
    })?;
    session.printer.done(&signed, "published and signed")
}

fn already_published(session: &mut Session, release: &ReleaseRef, existing: &Release) -> Result<(), Failure> {
    session.messages.say(&format!("{release} is published already with these very bytes, nothing was changed"));
    session.printer.done(existing, "published already")
}

/// Says what differs when the release is not there as wanted.
fn refuse_another(release: &ReleaseRef, existing: &Release, wanted: &Release) -> Result<(), Failure> {
    let differences = differences(existing, wanted);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("{release} exists, and is not what you upload"))
        .details(differences)
        .hint("releases never change: choose another version"))
}

/// Says in what a published release differs from the wanted one. Notes may change, so they do not count.
fn differences(existing: &Release, wanted: &Release) -> Vec<String> {
    let sorted = |release: &Release| {
        let mut hardware = release.hardware.clone();
        hardware.sort();
        hardware.join(",")
    };
    let word = |release: &Release| release.installer().as_str_name().trim_start_matches("INSTALLER_").to_lowercase();
    let pairs = [
        ("payload", existing.payload.clone(), wanted.payload.clone()),
        ("installer", word(existing), word(wanted)),
        ("hardware", sorted(existing), sorted(wanted)),
        ("size", existing.payload_size_bytes.to_string(), wanted.payload_size_bytes.to_string()),
        ("unpacked size", existing.unpacked_size_bytes.to_string(), wanted.unpacked_size_bytes.to_string()),
    ];
    let differing = pairs.into_iter().filter(|(_, there, here)| there != here);
    differing.map(|(field, there, here)| format!("{field}: {there:?} there, {here:?} here")).collect()
}

async fn say_what_would_happen(
    session: &mut Session,
    client: &Client,
    release: &ReleaseRef,
    wanted: &Release,
) -> Result<(), Failure> {
    let to_send = match client.packages().get_payload(GetPayloadRequest { name: wanted.payload.clone() }).await {
        Ok(_) => "nothing, the server has these bytes".to_owned(),
        Err(status) if status.code() == Code::NotFound => text::bytes(wanted.payload_size_bytes),
        Err(status) => return Err(status.into()),
    };
    let installer = if wanted.installer() == WireInstaller::Directory { "directory" } else { "file" };
    let hardware = if wanted.hardware.is_empty() { "any".to_owned() } else { wanted.hardware.join(",") };
    let facts = [
        Fact::new("Would publish", release.to_string()),
        Fact::new("Installer", installer),
        Fact::new("Hardware", hardware),
        Fact::new("SHA-256", wanted.payload.trim_start_matches("payloads/")),
        Fact::new("Size", size_of(wanted.payload_size_bytes)),
        Fact::new("Unpacked", size_of(wanted.unpacked_size_bytes)),
        Fact::new("To send", to_send),
    ];
    session.printer.answer(&wanted.document(), &wanted.name, &facts)?;
    session.messages.say("dry run: nothing was changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(payload: &str, hardware: &[&str]) -> Release {
        Release {
            payload: payload.to_owned(),
            hardware: hardware.iter().map(|text| (*text).to_owned()).collect(),
            installer: WireInstaller::File.into(),
            ..Release::default()
        }
    }

    #[test]
    fn the_order_of_hardware_and_the_notes_make_no_other_release() {
        let mut existing = release("payloads/a", &["rpi5", "rpi4"]);
        existing.notes = "old".to_owned();
        assert_eq!(differences(&existing, &release("payloads/a", &["rpi4", "rpi5"])), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named() {
        let found = differences(&release("payloads/a", &["rpi4"]), &release("payloads/b", &[]));
        assert_eq!(found, [r#"payload: "payloads/a" there, "payloads/b" here"#, r#"hardware: "rpi4" there, "" here"#]);
    }
}
