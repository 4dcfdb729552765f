//! How many messages of gRPC go by in a body: each begins with a prefix that says how long it is.

/// Bytes of a prefix: a flag and the length (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;

/// Counts messages by their prefixes, however the bytes are cut into frames.
#[derive(Debug, Default)]
pub struct Messages {
    /// What came of a prefix.
    prefix: [u8; PREFIX_BYTES],
    /// How much of it.
    filled: usize,
    /// How much is to come of the message whose prefix came last.
    rest: usize,
}

impl Messages {
    /// Takes the next bytes, and answers how many messages begin in them: each is counted with the end of its prefix.
    pub fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        loop {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return begun;
            }
            let taken = (PREFIX_BYTES - self.filled).min(bytes.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.rest = u32::from_be_bytes(length) as usize;
                self.filled = 0;
                begun += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            lengths in proptest::collection::vec(0..40_usize, 0..12),
            cuts in proptest::collection::vec(1..30_usize, 1..60),
        ) {
            let mut stream = Vec::new();
            for length in &lengths {
                stream.push(0);
                stream.extend(u32::try_from(*length).unwrap().to_be_bytes());
                stream.extend(vec![0xff; *length]);
            }
            let (mut messages, mut counted, mut rest) = (Messages::default(), 0, stream.as_slice());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (frame, after) = rest.split_at(cut.min(rest.len()));
                counted += messages.count(frame);
                rest = after;
            }
            prop_assert_eq!(counted, lengths.len() as u64);
        }
    }
}
