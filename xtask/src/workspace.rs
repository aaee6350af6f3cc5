//! Where things are: the workspace root, the image's build directory and the optional test data next to the clone.

use std::path::{Path, PathBuf};

/// The image target's specification, relative to the workspace root.
pub const TARGET_SPEC: &str = "x86_64_vtl1.json";
/// The name of that target, as cargo uses it for directories.
pub const TARGET_NAME: &str = "x86_64_vtl1";
/// The package that is the boot image.
pub const IMAGE_PACKAGE: &str = "litebox_runner_lvbs";
/// The oldest compiler the workspace builds with (`rust-version` in the root manifest).
pub const MINIMUM_RUST: (u32, u32) = (1, 95);

/// The root of the workspace.
///
/// Cargo says at run time where the manifest is; a copied binary falls back to where it was built.
pub fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    // Another crate's tests may call in here: every member lies directly below the root.
    manifest
        .ancestors()
        .find(|directory| directory.join(TARGET_SPEC).is_file() || directory.join("Cargo.lock").is_file())
        .map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// The build directory of the image, apart from the host's so that neither waits for the other's lock.
pub fn image_dir(root: &Path) -> PathBuf {
    root.join("target").join("vtl1")
}

/// Captures of what a real kernel had in memory: optional test data that lies next to the clone.
pub fn captures_dir(root: &Path) -> PathBuf {
    root.join("..").join("shared").join("captures")
}
