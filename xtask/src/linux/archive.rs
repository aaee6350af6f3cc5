//! The format of an initramfs: a `newc` archive, as Linux's `Documentation/driver-api/early-userspace/buffer-format.rst`
//! says.
//!
//! Files have no times and belong to root, so that the same content gives the same bytes.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Result, ensure};
use cpio::newc::{Builder, trailer};

/// Kinds of files in a mode (Linux `include/uapi/linux/stat.h`).
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that is being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inodes: u32,
}

impl Archive {
    fn entry(&mut self, path: &str, mode: u32) -> Result<Builder> {
        ensure!(!path.starts_with('/'), "{path} begins with a slash");
        self.inodes += 1;
        Ok(Builder::new(path).ino(self.inodes).nlink(1).mode(mode))
    }

    fn put(&mut self, entry: Builder, content: &[u8]) -> Result<()> {
        let mut writer = entry.write(&mut self.bytes, u32::try_from(content.len())?);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    /// Adds a directory, with those it is in. Paths have no `/` at their start.
    ///
    /// # Errors
    /// None but a path that begins with `/`.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || self.directories.contains(path) {
            return Ok(());
        }
        self.directory(path.rsplit_once('/').map_or("", |(before, _)| before))?;
        self.directories.insert(path.to_owned());
        let entry = self.entry(path, DIRECTORY | 0o755)?;
        self.put(entry, &[])
    }

    /// Adds a file, with the directories it is in.
    ///
    /// # Errors
    /// It is larger than the format can say, or its path begins with `/`.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.directory(path.rsplit_once('/').map_or("", |(before, _)| before))?;
        let entry = self.entry(path, FILE | permissions)?;
        self.put(entry, content)
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.directory(path.rsplit_once('/').map_or("", |(before, _)| before))?;
        let entry = self.entry(path, CHARACTER_DEVICE | 0o600)?.rdev_major(major).rdev_minor(minor);
        self.put(entry, &[])
    }

    /// The finished archive.
    ///
    /// # Errors
    /// None: writing to memory does not fail.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use cpio::newc::Reader;

    use super::*;

    #[test]
    fn what_is_put_in_is_read_back() {
        let mut archive = Archive::default();
        archive.file("lib/modules/x.ko", 0o644, b"content").unwrap();
        archive.device("dev/console", 5, 1).unwrap();
        archive.file("init", 0o755, b"#!").unwrap();
        assert!(archive.file("/init", 0o755, b"").is_err());
        let bytes = archive.finish().unwrap();
        let mut found = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
            let entry = reader.entry();
            found.push((entry.name().to_owned(), entry.mode(), entry.rdev_major(), content));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("lib", 0o040_755, 0, ""),
            ("lib/modules", 0o040_755, 0, ""),
            ("lib/modules/x.ko", 0o100_644, 0, "content"),
            ("dev", 0o040_755, 0, ""),
            ("dev/console", 0o020_600, 5, ""),
            ("init", 0o100_755, 0, "#!"),
        ];
        assert_eq!(found, expected.map(|(name, mode, major, text)| (name.to_owned(), mode, major, text.into())));
    }
}
