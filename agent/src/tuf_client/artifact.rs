//! Fetches an artifact and puts it where it belongs, whole or not at all, and never in memory as a whole.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use ota_trust::verify::chain::{Content, TargetFile};

use super::escape;
use super::mirror::Mirror;
use crate::durable;

/// Fetches what is listed under a path, unless it is there already.
pub(super) async fn fetch(
    mirror: &Mirror,
    path: &str,
    file: &TargetFile,
    is_consistent: bool,
    folder: &Path,
) -> anyhow::Result<()> {
    let there = folder.join(escape(path));
    if is_same(&there, file) {
        return Ok(());
    }
    // No path is ever escaped to this name.
    let part = there.with_added_extension("%part");
    let fetched = fetch_to(mirror, &remote(path, file, is_consistent)?, file, &part).await;
    if let Err(error) = fetched {
        durable::remove(&part)?;
        return Err(error);
    }
    durable::rename(&part, &there).with_context(|| format!("cannot write {}", there.display()))
}

async fn fetch_to(mirror: &Mirror, remote: &str, listed: &TargetFile, part: &Path) -> anyhow::Result<()> {
    let mut content = Content::expect(listed)?;
    let mut file = File::create(part).with_context(|| format!("cannot make {}", part.display()))?;
    mirror
        .target(remote, listed.length, |piece| {
            content.take(piece)?;
            Ok(file.write_all(piece)?)
        })
        .await?;
    content.finish()?;
    Ok(file.sync_all()?)
}

/// Where an artifact is. With consistent snapshots its file's name begins with its hash.
fn remote(path: &str, file: &TargetFile, is_consistent: bool) -> anyhow::Result<String> {
    if !is_consistent {
        return Ok(path.to_owned());
    }
    let known = ["sha256", "sha512"].iter().find_map(|name| file.hashes.get(*name));
    let hash = known.context("no hash of the artifact is known")?;
    Ok(match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{hash}.{name}"),
        None => format!("{hash}.{path}"),
    })
}

/// Whether what is listed is on disk.
fn is_same(path: &Path, listed: &TargetFile) -> bool {
    let read = || -> anyhow::Result<()> {
        let mut content = Content::expect(listed)?;
        let mut file = File::open(path)?;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(content.finish()?),
                Ok(length) => content.take(&piece[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    };
    read().is_ok()
}
