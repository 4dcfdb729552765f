//! Names, versions, ids, digests and paths in archives: one spelling each, and none that a file system takes amiss.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ota_domain::{DeviceId, Hardware, PackageName, Sha256Digest, Version, archive_path::EntryPath};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(path)) = EntryPath::parse(bytes) {
        let path = path.as_str();
        assert!(!path.starts_with('/') && !path.split('/').any(|part| matches!(part, "" | "." | "..")));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<PackageName>() {
        assert!(name.as_str() == text && !text.contains(['/', '\\', '\0']) && !text.contains(".."));
        assert!(text.parse::<Hardware>().is_ok());
    }
    if let Ok(version) = text.parse::<Version>() {
        assert_eq!(version.to_string(), text);
    }
    if let Ok(id) = text.parse::<DeviceId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(digest) = text.parse::<Sha256Digest>() {
        assert!(digest.to_string().eq_ignore_ascii_case(text));
    }
});
