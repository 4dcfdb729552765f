//! A disk that loses its power: whatever was not synced is there, or torn, or gone, name by name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

use super::disk::Disk;

/// One file's content: what programs read, and what a power cut would leave of it.
#[derive(Debug, Clone, Default)]
struct Inode {
    content: Vec<u8>,
    synced: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    /// Names as programs see them.
    names: BTreeMap<PathBuf, usize>,
    /// Names as the last sync of the folder left them.
    synced_names: BTreeMap<PathBuf, usize>,
    /// Steps until the power goes.
    steps_left: Option<u32>,
    steps: u32,
}

/// A disk in memory, with one folder.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelDisk(RefCell<State>);

impl ModelDisk {
    /// Lets the power go in front of the step after the next `steps`: from then on nothing works.
    pub(crate) fn cut_after(&self, steps: u32) {
        self.0.borrow_mut().steps_left = Some(steps);
    }

    /// Returns how many steps were taken.
    pub(crate) fn steps(&self) -> u32 {
        self.0.borrow().steps
    }

    /// Returns what is found when the power is back. Each name that was not synced is the old or the new one; each file
    /// that was not synced is old, whole, cut off, or something else of any length.
    pub(crate) fn after_power_cut(&self, rng: &mut StdRng) -> Self {
        let state = self.0.borrow();
        let mut names = BTreeMap::new();
        let all: std::collections::BTreeSet<_> = state.names.keys().chain(state.synced_names.keys()).collect();
        for name in all {
            let kept = if rng.random() { state.names.get(name) } else { state.synced_names.get(name) };
            if let Some(&inode) = kept {
                names.insert(name.clone(), inode);
            }
        }
        let inodes = state.inodes.iter().map(|inode| {
            let content = survivor(inode, rng);
            Inode { synced: Some(content.clone()), content }
        });
        let state = State { inodes: inodes.collect(), synced_names: names.clone(), names, steps_left: None, steps: 0 };
        Self(RefCell::new(state))
    }

    /// Changes a file behind everybody's back, as a failing disk does; `None` deletes it. Tells whether it was there.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(&inode) = state.names.get(path) else { return false };
        match change(state.inodes[inode].content.clone()) {
            Some(content) => {
                state.inodes.push(Inode { synced: Some(content.clone()), content });
                let inode = state.inodes.len() - 1;
                state.names.insert(path.to_owned(), inode);
                state.synced_names.insert(path.to_owned(), inode);
            }
            None => {
                state.names.remove(path);
                state.synced_names.remove(path);
            }
        }
        true
    }

    fn step(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        match &mut state.steps_left {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        state.steps += 1;
        Ok(())
    }
}

fn survivor(inode: &Inode, rng: &mut StdRng) -> Vec<u8> {
    if let Some(synced) = &inode.synced {
        return synced.clone();
    }
    let length = rng.random_range(0..=inode.content.len());
    match rng.random_range(0..3) {
        0 => inode.content.clone(),
        1 => inode.content[..length].to_vec(),
        _ => vec![rng.random(); length],
    }
}

impl Disk for &ModelDisk {
    type File = usize;

    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let state = self.0.borrow();
        let Some(&inode) = state.names.get(path) else { return Ok(None) };
        let mut content = state.inodes[inode].content.clone();
        content.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Some(content))
    }

    fn create(&self, path: &Path, _mode: u32) -> io::Result<usize> {
        self.step()?;
        let mut state = self.0.borrow_mut();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), inode);
        Ok(inode)
    }

    fn fill(&self, file: &mut usize, content: &[u8]) -> io::Result<()> {
        // Written in two steps, so that the power can go in between.
        let (first, _) = content.split_at(content.len() / 2);
        for part in [first, content] {
            self.step()?;
            self.0.borrow_mut().inodes[*file] = Inode { content: part.to_vec(), synced: None };
        }
        Ok(())
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        self.step()?;
        let inode = &mut self.0.borrow_mut().inodes[*file];
        inode.synced = Some(inode.content.clone());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let mut state = self.0.borrow_mut();
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.0.borrow_mut().names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        self.step()?;
        let mut state = self.0.borrow_mut();
        state.synced_names = state.names.clone();
        Ok(())
    }
}
