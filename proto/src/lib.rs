//! The two gRPC APIs: `ota.device.v1` for devices, `ota.admin.v1` for the people who run the fleet.
//!
//! The generated code is in [`device`] and [`admin`]. [`convert`] turns what callers send into domain
//! types, with every fault named, and domain types into answers.

pub mod convert;

/// The API for devices.
pub mod device {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
    #[rustfmt::skip]
    pub mod v1 {
        include!("gen/ota.device.v1.rs");
    }
}

/// The API for the people who run the fleet.
pub mod admin {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
    #[rustfmt::skip]
    pub mod v1 {
        include!("gen/ota.admin.v1.rs");
    }
}

/// All descriptors of both APIs and of what they import, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");
