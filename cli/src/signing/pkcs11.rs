//! Keys that a PKCS#11 module signs with: smart cards, HSMs, and key services with such a module.
//!
//! Takes Ed25519 (`CKM_EDDSA`) and ECDSA over P-256 (`CKM_ECDSA`). The public half must be there beside the private one,
//! with the same id.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{
        Mechanism,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use ota_trust::key::{PublicKey, SignError, Signer};
use sha2::{Digest, Sha256};

use super::Uri;
use crate::{
    consent::Asker,
    error::{Exit, Failure},
};

/// Environment variable that names the module when the URI does not.
const MODULE_VARIABLE: &str = "OTACTL_PKCS11_MODULE";

/// Environment variable that holds the PIN when the URI names no file with it.
const PIN_VARIABLE: &str = "OTACTL_PKCS11_PIN";

/// Everything in the DER of an Ed25519 `SubjectPublicKeyInfo` but the key (RFC 8410, section 4).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Everything in the DER of an ECDSA P-256 `SubjectPublicKeyInfo` but the uncompressed point (RFC 5480, section 2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Tag of an ASN.1 OCTET STRING, in which modules put the point of a public key.
const OCTET_STRING: u8 = 0x04;

/// A key behind a module.
pub(super) struct TokenKey {
    /// One call at a time: a session does one thing at once.
    session: Mutex<Session>,
    key: ObjectHandle,
    algorithm: Algorithm,
    public: PublicKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Ed25519,
    EcdsaP256,
}

impl Signer for TokenKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = match self.algorithm {
            Algorithm::Ed25519 => {
                let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
                session.sign(&mechanism, self.key, message)
            }
            Algorithm::EcdsaP256 => session.sign(&Mechanism::Ecdsa, self.key, &Sha256::digest(message)),
        };
        let signature = signed.map_err(|error| SignError::Signer(Box::new(error)))?;
        let signature = match self.algorithm {
            Algorithm::Ed25519 => signature,
            Algorithm::EcdsaP256 => asn1(&signature).ok_or(SignError::Library)?,
        };
        // A module with a fault, or a public key that is not this key's, is found here and not by a device.
        self.public.verify(message, &signature).map_err(|_| SignError::Library)?;
        Ok(signature)
    }
}

/// Finds and opens the key.
pub(super) fn open(uri: &Uri, asker: Asker) -> Result<TokenKey, Failure> {
    let module = uri.module_path.clone().or_else(|| std::env::var_os(MODULE_VARIABLE).map(PathBuf::from));
    let module = module.ok_or_else(|| {
        Failure::usage("the PKCS#11 URI names no module")
            .hint(format!("add ?module-path=/usr/lib/…/module.so to it, or set {MODULE_VARIABLE}"))
    })?;
    let context = load(&module)?;
    let slot = find_slot(&context, uri)?;
    let session =
        context.open_ro_session(slot).map_err(|error| Failure::because("cannot open the PKCS#11 token", &error))?;
    log_in(&context, slot, &session, uri, asker)?;
    let key = find_key(&session, uri)?;
    let (algorithm, public) = public_half(&session, key, uri)?;
    Ok(TokenKey { session: Mutex::new(session), key, algorithm, public })
}

fn load(module: &Path) -> Result<Pkcs11, Failure> {
    let cannot = |error: Error| {
        let failure = Failure::because(format!("cannot load the PKCS#11 module {}", module.display()), &error);
        if cfg!(target_feature = "crt-static") {
            // As in the image: it has no loader.
            failure.hint("this otactl is a static program and can load none: use one built for this system's C library")
        } else {
            failure
        }
    };
    let context = Pkcs11::new(module).map_err(cannot)?;
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(context),
        Err(error) => Err(cannot(error)),
    }
}

fn find_slot(context: &Pkcs11, uri: &Uri) -> Result<Slot, Failure> {
    let cannot = |error: Error| Failure::because("cannot list the PKCS#11 tokens", &error);
    let mut found = Vec::new();
    let mut labels = Vec::new();
    for slot in context.get_slots_with_initialized_token().map_err(cannot)? {
        let token = context.get_token_info(slot).map_err(cannot)?;
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        labels.push(token.label().to_owned());
        if fits(&uri.token, token.label())
            && fits(&uri.serial, token.serial_number())
            && fits(&uri.manufacturer, token.manufacturer_id())
            && fits(&uri.model, token.model())
            && uri.slot_id.is_none_or(|id| id == slot.id())
        {
            found.push(slot);
        }
    }
    match found.as_slice() {
        [slot] => Ok(*slot),
        [] => Err(Failure::failed("no PKCS#11 token is the one that the URI names")
            .details(labels.iter().map(|label| format!("there is {label:?}")))),
        several => Err(Failure::usage(format!("{} PKCS#11 tokens fit the URI", several.len()))
            .details(labels.iter().map(|label| format!("there is {label:?}")))
            .hint("say which: token=LABEL or serial=NUMBER")),
    }
}

fn log_in(context: &Pkcs11, slot: Slot, session: &Session, uri: &Uri, asker: Asker) -> Result<(), Failure> {
    let token =
        context.get_token_info(slot).map_err(|error| Failure::because("cannot read the PKCS#11 token", &error))?;
    if !token.login_required() {
        return Ok(());
    }
    let pin = match token.protected_authentication_path() {
        // It has keys of its own to type the PIN on.
        true => None,
        false => Some(find_pin(uri, token.label(), asker)?),
    };
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinIncorrect, _)) => {
            Err(Failure::failed(format!("the PIN of the PKCS#11 token {:?} is wrong", token.label()))
                .hint("some tokens lock themselves after a few wrong PINs"))
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => {
            Err(Failure::failed(format!("the PKCS#11 token {:?} is locked", token.label())))
        }
        Err(error) => Err(Failure::because("cannot log in to the PKCS#11 token", &error)),
    }
}

fn find_pin(uri: &Uri, label: &str, asker: Asker) -> Result<AuthPin, Failure> {
    if let Some(path) = &uri.pin_source {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::because(format!("cannot read the PIN from {}", path.display()), &error))?;
        return Ok(AuthPin::new(text.trim_end_matches(['\r', '\n']).into()));
    }
    if let Ok(text) = std::env::var(PIN_VARIABLE) {
        return Ok(AuthPin::new(text.into()));
    }
    if !asker.may_ask() {
        return Err(Failure::usage(format!("the PKCS#11 token {label:?} wants a PIN"))
            .hint(format!("add pin-source=file:/PATH to the URI, or set {PIN_VARIABLE}")));
    }
    match inquire::Password::new(&format!("PIN of {label}:")).without_confirmation().prompt() {
        Ok(text) => Ok(AuthPin::new(text.into())),
        Err(inquire::InquireError::OperationInterrupted | inquire::InquireError::OperationCanceled) => {
            Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed"))
        }
        Err(error) => Err(Failure::because("cannot ask for the PIN", &error)),
    }
}

/// Makes the template for the key, or for its other half.
fn template(class: ObjectClass, label: Option<&str>, id: Option<&[u8]>) -> Vec<Attribute> {
    let label = label.map(|label| Attribute::Label(label.as_bytes().to_vec()));
    let id = id.map(|id| Attribute::Id(id.to_vec()));
    std::iter::once(Attribute::Class(class)).chain(label).chain(id).collect()
}

fn find_key(session: &Session, uri: &Uri) -> Result<ObjectHandle, Failure> {
    let template = template(ObjectClass::PRIVATE_KEY, uri.object.as_deref(), uri.id.as_deref());
    let found =
        session.find_objects(&template).map_err(|error| Failure::because("cannot look for the PKCS#11 key", &error))?;
    match found.as_slice() {
        [key] => Ok(*key),
        [] => Err(Failure::failed(format!("the PKCS#11 token has no private key that {uri} names"))),
        several => Err(Failure::usage(format!("{} private keys of the PKCS#11 token fit {uri}", several.len()))
            .hint("say which: object=LABEL or id=%01")),
    }
}

fn public_half(session: &Session, key: ObjectHandle, uri: &Uri) -> Result<(Algorithm, PublicKey), Failure> {
    let cannot = |error: Error| Failure::because("cannot read the PKCS#11 key", &error);
    let mut id = None;
    let mut kind = None;
    for attribute in session.get_attributes(key, &[AttributeType::Id, AttributeType::KeyType]).map_err(cannot)? {
        if let Attribute::Id(bytes) = attribute {
            id = Some(bytes);
        } else if let Attribute::KeyType(found) = attribute {
            kind = Some(found);
        }
    }
    let algorithm = match kind {
        Some(KeyType::EC_EDWARDS) => Algorithm::Ed25519,
        Some(KeyType::EC) => Algorithm::EcdsaP256,
        Some(_) | None => return Err(wrong_kind()),
    };
    let id = id.filter(|id| !id.is_empty());
    let label = if id.is_some() { None } else { uri.object.as_deref() };
    let found = session.find_objects(&template(ObjectClass::PUBLIC_KEY, label, id.as_deref())).map_err(cannot)?;
    let missing = || {
        Failure::failed("the PKCS#11 token does not hold the public half of the key")
            .hint("it has to be there as a public key object with the same id")
    };
    let public = found.first().ok_or_else(missing)?;
    let attributes = session.get_attributes(*public, &[AttributeType::EcPoint]).map_err(cannot)?;
    let point = attributes
        .into_iter()
        .find_map(|attribute| if let Attribute::EcPoint(point) = attribute { Some(point) } else { None });
    let point = point.ok_or_else(missing)?;
    // Some modules leave out the OCTET STRING around the point.
    let (prefix, length) = match algorithm {
        Algorithm::Ed25519 => (ED25519_SPKI, 32),
        Algorithm::EcdsaP256 => (P256_SPKI, 65),
    };
    let bare = match point.as_slice() {
        [OCTET_STRING, size, rest @ ..] if usize::from(*size) == length && rest.len() == length => rest,
        all => all,
    };
    let public = PublicKey::from_spki_der(&[prefix, bare].concat()).map_err(|_| wrong_kind())?;
    Ok((algorithm, public))
}

fn wrong_kind() -> Failure {
    Failure::failed("the PKCS#11 key is of a kind that devices cannot verify")
        .hint("it has to be an Ed25519 key, or an ECDSA key over the curve P-256")
}

/// Writes the two numbers of an ECDSA signature, 32 bytes each, as ASN.1 (RFC 3279, section 2.2.3).
fn asn1(signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = signature.split_at_checked(32).filter(|(_, s)| s.len() == 32)?;
    let body = [integer(r), integer(s)].concat();
    Some([&[0x30, u8::try_from(body.len()).ok()?], body.as_slice()].concat())
}

/// Writes a positive number as ASN.1 does: no zeros before it but the one that keeps it positive.
fn integer(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len() - 1);
    let digits = &number[first..];
    let zero: &[u8] = if digits[0] & 0x80 != 0 { &[0] } else { &[] };
    let length = u8::try_from(zero.len() + digits.len()).expect("a number of 32 bytes at most");
    [&[0x02, length], zero, digits].concat()
}

#[cfg(test)]
mod tests;
