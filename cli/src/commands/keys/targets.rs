//! `keys add` and `keys remove`: whose keys sign releases.

use clap::Args;
use ota_proto::admin::v1::AddTargetsKeyRequest;
use ota_trust::{
    key::{KeyId, PublicKey, Signer},
    metadata::{Mode, Role},
};

use super::{RootKeys, borrowed};
use crate::{
    client::Client,
    error::Failure,
    publication,
    roots::{self, Draft, Roots, Which},
    session::Session,
    signing::TargetsKey,
};

/// Arguments of `keys add`.
#[derive(Debug, Args)]
#[command(after_help = "\
The key is what otactl shows to somebody whose key may not sign yet: its public half on one line. Compare the key id with \
that person over another channel.

Examples:
  otactl keys add MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
  otactl keys add MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE= --root-key root-1.pem --root-key root-2.pem")]
pub struct Add {
    /// The public key: a SubjectPublicKeyInfo in DER, as base64
    #[arg(value_name = "PUBLIC-KEY", value_parser = parse_key)]
    key: PublicKey,
    #[command(flatten)]
    root_keys: RootKeys,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Arguments of `keys remove`.
#[derive(Debug, Args)]
#[command(after_help = "\
What is listed is signed again with your own key first, so that devices go on believing it.

Examples:
  otactl keys remove 1f0c7a52
  otactl keys remove 1f0c7a52 --root-key root-1.pem --root-key root-2.pem")]
pub struct Remove {
    /// The key's id, or its beginning
    #[arg(value_name = "KEY-ID", value_parser = parse_id)]
    id: String,
    #[command(flatten)]
    root_keys: RootKeys,
    #[command(flatten)]
    key: TargetsKey,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    let der = data_encoding::BASE64.decode(text.trim().as_bytes()).map_err(|_| "it is not base64".to_owned())?;
    PublicKey::from_spki_der(&der).map_err(|error| error.to_string())
}

/// Fewest characters of an id: fewer would name the wrong key by a slip.
const MIN_ID: usize = 6;

fn parse_id(text: &str) -> Result<String, String> {
    let good = (MIN_ID..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if good { Ok(text.to_ascii_lowercase()) } else { Err(format!("must be {MIN_ID} to 64 hexadecimal digits")) }
}

impl Add {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let id = self.key.id();
        session.asker.confirm(&format!("Let the key {id} sign releases?"), self.yes)?;
        allow(session, &client, &self.root_keys, &self.key).await?;
        session.printer.gone(&id.to_string(), "may sign releases")
    }
}

/// Adds a key to those that sign releases.
pub(super) async fn allow(
    session: &Session,
    client: &Client,
    root_keys: &RootKeys,
    key: &PublicKey,
) -> Result<(), Failure> {
    if Roots::refresh(session, client).await?.mode() == Mode::Managed {
        client.trust().add_targets_key(AddTargetsKeyRequest { public_key: key.to_spki_der().into() }).await?;
        return Ok(());
    }
    let signers = root_keys.open(session.asker)?;
    let edit = |draft: &mut Draft<'_>| {
        if draft.which == Which::Image {
            let mut keys: Vec<_> = draft.old.keys_of(Role::Targets).collect();
            keys.push(key);
            let threshold = draft.old.threshold(Role::Targets);
            draft.root.set_role(Role::Targets, threshold, &keys);
        }
        Ok(())
    };
    roots::change(session, client, &borrowed(&signers), edit).await.map(|_| ())
}

impl Remove {
    pub(super) async fn run(self, session: &mut Session) -> Result<(), Failure> {
        let client = session.client().await?;
        let roots = Roots::refresh(session, &client).await?;
        let id = find(roots.image.root().keys_of(Role::Targets), &self.id)?;
        session.asker.confirm(&format!("Let the key {id} sign releases no more?"), self.yes)?;
        let key = self.key.ready(session, &client).await?;
        if key.signer.public_key().id() == id {
            return Err(Failure::usage(
                "that is your own key, and what is listed has to be signed with one that stays",
            )
            .hint("`otactl keys rotate targets` replaces your own key"));
        }
        publication::publish_all(session, &client, &key).await?;
        forbid(session, &client, &self.root_keys, key.signer.as_ref(), &id).await?;
        session.printer.gone(id.as_str(), "signs releases no more")
    }
}

/// Takes a key from those that sign releases.
pub(super) async fn forbid(
    session: &Session,
    client: &Client,
    root_keys: &RootKeys,
    stays: &dyn Signer,
    id: &KeyId,
) -> Result<(), Failure> {
    let signers = root_keys.open(session.asker)?;
    let edit = |draft: &mut Draft<'_>| {
        if draft.which == Which::Image {
            let keys: Vec<_> = draft.old.keys_of(Role::Targets).filter(|key| key.id() != *id).collect();
            if !keys.contains(&stays.public_key()) {
                return Err(Failure::failed("the key that signed the list may not sign any more: somebody removed it"));
            }
            let threshold = draft.old.threshold(Role::Targets);
            draft.root.set_role(Role::Targets, threshold, &keys);
        }
        Ok(())
    };
    roots::change(session, client, &borrowed(&signers), edit).await.map(|_| ())
}

/// Finds the one key that is meant.
fn find<'a>(keys: impl Iterator<Item = &'a PublicKey>, beginning: &str) -> Result<KeyId, Failure> {
    let found: Vec<KeyId> = keys.map(PublicKey::id).filter(|id| id.as_str().starts_with(beginning)).collect();
    match found.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::failed(format!("no key that signs releases has an id that begins with {beginning}"))
            .hint("see `otactl keys status -o json`")),
        several => Err(Failure::usage(format!("{} keys have an id that begins with {beginning}", several.len()))),
    }
}

#[cfg(test)]
mod tests {
    use ota_trust::key::PrivateKey;

    use super::*;

    #[test]
    fn a_public_key_travels_on_one_line() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(parse_key(&publication::encode(&key)).as_ref(), Ok(key.public_key()));
        for wrong in ["", "!", "AAAA", &data_encoding::BASE64.encode(&key.to_pkcs8_der())] {
            assert!(parse_key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_found_by_the_beginning_of_its_id() {
        let keys: Vec<_> = (0..3).map(|_| PrivateKey::generate().unwrap()).collect();
        let public = || keys.iter().map(Signer::public_key);
        let id = keys[1].public_key().id();
        assert_eq!(find(public(), &id.as_str()[..12]).unwrap(), id);
        assert!(find(public(), &"0".repeat(64)).is_err());
        assert_eq!(parse_id("ABCDEF"), Ok("abcdef".to_owned()));
        assert!(parse_id("abcde").is_err() && parse_id("abcdeg").is_err());
    }
}
