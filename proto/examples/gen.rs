//! Writes `src/gen` from the `.proto` files; with `--check`, only says whether it is current.
//!
//! The generated code is committed, so that a build needs neither protoc nor this program.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use prost::Message;

/// Every file of the API, by its import path.
fn sources(root: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for package in ["ota/admin/v1", "ota/device/v1"] {
        for entry in fs::read_dir(root.join(package))? {
            files.push(Path::new(package).join(entry?.file_name()));
        }
    }
    files.sort();
    Ok(files)
}

fn generate(root: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut descriptors = protox::compile(sources(root)?, [root, &root.join("third_party")])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Options are read by people and linters, never by our code.
    descriptors.file.retain(|file| !file.name().starts_with("google/api/"));
    tonic_prost_build::configure().bytes(".ota").out_dir(out).compile_fds(descriptors)?;
    Ok(())
}

fn differing(current: &Path, fresh: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(fresh)? {
        let name = entry?.file_name();
        if fs::read(current.join(&name)).ok() != Some(fs::read(fresh.join(&name))?) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let current = root.join("src/gen");
    if std::env::args().any(|argument| argument == "--check") {
        let fresh = std::env::temp_dir().join(format!("ota-gen-{}", std::process::id()));
        fs::create_dir_all(&fresh)?;
        let result = generate(root, &fresh).and_then(|()| differing(&current, &fresh));
        fs::remove_dir_all(&fresh)?;
        let stale = result?;
        if !stale.is_empty() {
            eprintln!("error: generated code is stale: {}\nhint: run `make gen` and commit", stale.join(", "));
            return Ok(ExitCode::FAILURE);
        }
    } else {
        fs::create_dir_all(&current)?;
        generate(root, &current)?;
    }
    Ok(ExitCode::SUCCESS)
}
