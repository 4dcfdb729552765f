//! Keeps bytes in two copies, so that damage to either one loses nothing.
//!
//! `a` is written and synced, then `b`; only then does the content count as kept. A power cut in between leaves at least
//! one whole copy that is no older than what counted. The whole copy of the highest generation counts; the other one is
//! made the same before anybody relies on it. When neither is whole nothing is known: the caller must not begin afresh.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::durable::disk::Disk;
use crate::frame;

const MAGIC: &[u8; 8] = b"OTATRST1";
const NAMES: [&str; 2] = ["a", "b"];

/// Longest content that is kept or read back. What a device trusts is a few hundred kilobytes; each document in it is
/// bounded, and a file beyond this is not one of ours.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The two copies in one folder.
#[derive(Debug)]
pub(crate) struct Copies<D> {
    disk: D,
    folder: PathBuf,
    generation: u64,
}

impl<D: Disk> Copies<D> {
    /// Opens the copies in a folder and returns what they hold; nothing when neither is whole.
    pub(crate) fn open(disk: D, folder: &Path) -> io::Result<(Self, Option<Vec<u8>>)> {
        let found = NAMES.map(|name| read(&disk, &folder.join(name)));
        let mut copies = Self { disk, folder: folder.to_owned(), generation: 0 };
        let Some((generation, content)) = newest(&found) else { return Ok((copies, None)) };
        copies.generation = generation;
        let content = content.clone();
        for (name, copy) in NAMES.iter().zip(&found) {
            if copy.as_ref() != Some(&(generation, content.clone())) {
                tracing::warn!(copy = name, "a copy of the trust store is old or damaged; it is made anew");
                copies.write(name, generation, &content)?;
            }
        }
        Ok((copies, Some(content)))
    }

    /// Replaces the content. When this returns without an error, it survives a power cut and the loss of either copy.
    pub(crate) fn replace(&mut self, content: &[u8]) -> io::Result<()> {
        if content.len() > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than a trust store may hold"));
        }
        // Also a generation that was begun in vain is never used again.
        self.generation = frame::next_generation(self.generation)?;
        NAMES.into_iter().try_for_each(|name| self.write(name, self.generation, content))
    }

    fn write(&self, name: &str, generation: u64, content: &[u8]) -> io::Result<()> {
        durable::write_on(&self.disk, &self.folder.join(name), &frame::encode(MAGIC, generation, content), 0o600)
    }
}

/// Returns what the copies hold without repairing them, for whoever does not own the folder.
pub(super) fn peek<D: Disk>(disk: &D, folder: &Path) -> Option<Vec<u8>> {
    let found = NAMES.map(|name| read(disk, &folder.join(name)));
    newest(&found).map(|(_, content)| content.clone())
}

fn newest(found: &[Option<(u64, Vec<u8>)>; 2]) -> Option<(u64, &Vec<u8>)> {
    found.iter().flatten().map(|(generation, content)| (*generation, content)).max_by_key(|(generation, _)| *generation)
}

/// Reads one copy. One that the disk does not give is as good as damaged: that is what the other is for.
fn read<D: Disk>(disk: &D, path: &Path) -> Option<(u64, Vec<u8>)> {
    let limit = (MAX_BYTES + frame::OVERHEAD_BYTES) as u64;
    let bytes = disk.read(path, limit).unwrap_or_else(|error| {
        tracing::warn!("cannot read {}: {error}", path.display());
        None
    })?;
    frame::decode(MAGIC, &bytes).map(|(generation, content)| (generation, content.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::durable::model::ModelDisk;

    const FOLDER: &str = "/trust";

    fn open(disk: &ModelDisk) -> io::Result<(Copies<&ModelDisk>, Option<u64>)> {
        let (copies, content) = Copies::open(disk, Path::new(FOLDER))?;
        Ok((copies, content.map(|content| number(&content))))
    }

    /// Content that says which one it is, in the first and the last bytes.
    fn content(number: u64) -> Vec<u8> {
        [&number.to_be_bytes()[..], &[7; 40], &number.to_be_bytes()].concat()
    }

    fn number(content: &[u8]) -> u64 {
        let (first, last) = (content[..8].try_into().unwrap(), content[48..].try_into().unwrap());
        let (first, last) = (u64::from_be_bytes(first), u64::from_be_bytes(last));
        assert_eq!(first, last, "the content is of one piece");
        first
    }

    /// A disk that keeps content number 3.
    fn kept() -> ModelDisk {
        let disk = ModelDisk::default();
        let (mut copies, found) = open(&disk).unwrap();
        assert_eq!(found, None);
        for number in 1..=3 {
            copies.replace(&content(number)).unwrap();
        }
        disk
    }

    fn path(name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    #[test]
    fn what_was_kept_is_found() {
        let disk = kept();
        assert_eq!(open(&disk).unwrap().1, Some(3));
        open(&disk).unwrap().0.replace(&content(9)).unwrap();
        assert_eq!(open(&disk).unwrap().1, Some(9));
    }

    #[test]
    fn either_copy_may_be_cut_at_any_length_or_be_gone() {
        let length = (&kept()).read(&path("a"), u64::MAX).unwrap().unwrap().len();
        for name in NAMES {
            for kept_bytes in (0..length).map(Some).chain([None]) {
                let disk = kept();
                assert!(disk.damage(&path(name), |bytes| Some(bytes[..kept_bytes?].to_vec())));
                assert_eq!(open(&disk).unwrap().1, Some(3), "{name} cut to {kept_bytes:?}");
                // And it was repaired: now the other one may go.
                let other = if name == "a" { "b" } else { "a" };
                disk.damage(&path(other), |_| None);
                assert_eq!(open(&disk).unwrap().1, Some(3), "{other} gone after the repair of {name}");
            }
        }
    }

    #[test]
    fn without_a_whole_copy_nothing_is_made_up() {
        for change in [|_: Vec<u8>| None, |bytes: Vec<u8>| Some(bytes[1..].to_vec()), |_: Vec<u8>| Some(Vec::new())] {
            let disk = kept();
            assert!(NAMES.iter().all(|name| disk.damage(&path(name), change)));
            assert_eq!(open(&disk).unwrap().1, None);
        }
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read_to_its_end() {
        let disk = kept();
        disk.damage(&path("b"), |_| Some(frame::encode(MAGIC, 99, &vec![0; MAX_BYTES + 1])));
        assert_eq!(open(&disk).unwrap().1, Some(3));
        assert!(open(&disk).unwrap().0.replace(&vec![0; MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn a_generation_at_the_end_of_numbers_is_no_copy_and_none_is_counted_past_it() {
        for generation in [u64::MAX, frame::MAX_GENERATION + 1] {
            let disk = kept();
            disk.damage(&path("a"), |_| Some(frame::encode(MAGIC, generation, &content(1))));
            assert_eq!(open(&disk).unwrap().1, Some(3));
            open(&disk).unwrap().0.replace(&content(9)).unwrap();
            assert_eq!(open(&disk).unwrap().1, Some(9));
        }
        let disk = kept();
        disk.damage(&path("a"), |_| Some(frame::encode(MAGIC, frame::MAX_GENERATION, &content(7))));
        open(&disk).unwrap().0.replace(&content(9)).unwrap_err();
        assert_eq!(open(&disk).unwrap().1, Some(7), "what was there stays");
    }

    #[test]
    fn an_error_is_told_and_nothing_older_is_found_after_it() {
        let disk = kept();
        let (mut copies, _) = open(&disk).unwrap();
        disk.cut_after(0);
        assert!(copies.replace(&content(4)).is_err());
    }

    /// What happens to one file behind the agent's back.
    fn damage() -> impl Strategy<Value = (usize, u8, prop::sample::Index)> {
        (0..2_usize, 0..3_u8, any::<prop::sample::Index>())
    }

    fn apply(disk: &ModelDisk, (copy, kind, at): (usize, u8, prop::sample::Index)) {
        disk.damage(&path(NAMES[copy]), |mut bytes| match kind {
            0 => None,
            1 => Some(bytes[..at.index(bytes.len())].to_vec()),
            _ => {
                let at = at.index(bytes.len());
                bytes[at] ^= 0x10;
                Some(bytes)
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// After a power cut at every step of keeping something, and after damage to any one file before or after it,
        /// and after another power cut during the repair, nothing is older than what was kept.
        #[test]
        fn nothing_that_was_kept_is_ever_taken_back(
            seed in any::<u64>(), before in any::<bool>(), harm in damage(), later_harm in damage(),
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let steps = {
                let disk = kept();
                let (mut copies, _) = open(&disk).unwrap();
                let start = disk.steps();
                copies.replace(&content(4)).unwrap();
                disk.steps() - start
            };
            prop_assert!(steps >= 10, "two files, each created, filled, synced, renamed, and its folder synced");
            for cut in 0..=steps {
                let disk = kept();
                let (mut copies, _) = open(&disk).unwrap();
                if before {
                    apply(&disk, harm);
                }
                disk.cut_after(cut);
                let is_kept = copies.replace(&content(4)).is_ok();
                prop_assert_eq!(is_kept, cut == steps);
                let least = if is_kept { 4 } else { 3 };
                let disk = disk.after_power_cut(&mut rng);
                if !before {
                    apply(&disk, harm);
                }
                // The power goes once more while the repair is at work.
                for repair_cut in 0..8 {
                    let disk = disk.after_power_cut(&mut rng);
                    disk.cut_after(repair_cut);
                    let repaired = open(&disk).map(|(_, found)| found);
                    let disk = disk.after_power_cut(&mut rng);
                    if let Ok(found) = repaired {
                        prop_assert!(found >= Some(least), "{found:?} after a cut at {cut}");
                        // Whoever saw it may rely on it, whatever happens to one file from here on.
                        apply(&disk, later_harm);
                        prop_assert!(open(&disk).unwrap().1 >= found);
                    }
                    prop_assert!(open(&disk).unwrap().1 >= Some(least), "{:?} after {cut}, {repair_cut}", open(&disk));
                }
            }
        }
    }
}
