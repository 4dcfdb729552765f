//! Whether bytes are those that a repository lists, piece by piece, so that they never have to be in memory as a whole.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
pub use sigstore_tuf::TargetFile;

use crate::fault::{Because as _, Fault, TrustError};

/// Bytes on their way, compared with what is listed.
pub struct Content {
    left: u64,
    hashes: Vec<(Context, Vec<u8>)>,
}

impl Content {
    /// Expects what is listed. Of its hashes, all that are SHA-256 or SHA-512 have to match, and one has to be there.
    ///
    /// # Errors
    /// When no hash of it can be compared.
    pub fn expect(file: &TargetFile) -> Result<Self, TrustError> {
        let unusable = |what: &str| Fault::Arbitrary.because(format!("{what} of a listed file cannot be compared"));
        let mut hashes = Vec::new();
        for (name, hash) in &file.hashes {
            let algorithm = match name.as_str() {
                "sha256" => &SHA256,
                "sha512" => &SHA512,
                _ => continue,
            };
            let hash = hex::decode(hash).map_err(|_| unusable("the hash"))?;
            hashes.push((Context::new(algorithm), hash));
        }
        if hashes.is_empty() { Err(unusable("no hash")) } else { Ok(Self { left: file.length, hashes }) }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When there are more than are listed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), TrustError> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| Fault::Endless.because("there are more bytes than are listed"))?;
        self.hashes.iter_mut().for_each(|(context, _)| context.update(bytes));
        Ok(())
    }

    /// Says whether what was taken is what is listed.
    ///
    /// # Errors
    /// When bytes are missing or are others.
    pub fn finish(self) -> Result<(), TrustError> {
        if self.left > 0 {
            return Err(Fault::Arbitrary.because(format!("{} bytes are missing", self.left)));
        }
        let is_same = self.hashes.into_iter().all(|(context, hash)| context.finish().as_ref() == hash);
        if is_same { Ok(()) } else { Err(Fault::Arbitrary.because("the bytes are not those that are listed")) }
    }
}
