//! A frame around what has to survive a power cut: whose format it is, which generation, how long, and a SHA-256 over all
//! of it, so that a torn or damaged file is noticed and never half believed.

use std::io;

use sha2::{Digest, Sha256};

/// Magic, generation and length.
const HEADER_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 32;

/// Bytes that a frame adds to its payload.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

/// Highest generation there is. No device gets here by counting; a file that says more was not written by one, and counting
/// on from it would end at 0.
pub(crate) const MAX_GENERATION: u64 = u64::MAX >> 1;

/// Returns the generation after this one. An error when there is none: better no record than one that looks old.
pub(crate) fn next_generation(generation: u64) -> io::Result<u64> {
    let next = generation.checked_add(1).filter(|next| *next <= MAX_GENERATION);
    next.ok_or_else(|| io::Error::other(format!("there is no generation after {generation}")))
}

/// Frames a payload. The last byte of the magic is the version of the format.
pub(crate) fn encode(magic: &[u8; 8], generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + payload.len());
    bytes.extend_from_slice(magic);
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    bytes.extend_from_slice(payload);
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Returns the generation and the payload of a frame that is whole.
pub(crate) fn decode<'a>(expected: &[u8; 8], bytes: &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (framed, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let (header, payload) = framed.split_at_checked(HEADER_BYTES)?;
    let (magic, numbers) = header.split_at(expected.len());
    let (generation, length) = numbers.split_at(8);
    let generation = u64::from_be_bytes(generation.try_into().ok()?);
    let length = u64::from_be_bytes(length.try_into().ok()?);
    let is_whole = magic == expected
        && generation <= MAX_GENERATION
        && length == payload.len() as u64
        && Sha256::digest(framed)[..] == *checksum;
    is_whole.then_some((generation, payload))
}
