//! Is the image reproducible? Two copies of the sources, in directories of different names and depths, are built from
//! nothing and compared: `cargo xtask reproduce`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::image::{self, Options};
use crate::process::capture;

/// A directory that is removed when it goes out of scope.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind lies in the system's directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Builds two copies of the workspace at `root` and compares their images.
///
/// # Errors
/// A copy cannot be made or built, or the images differ; the message holds both sums.
pub fn check(root: &Path) -> Result<()> {
    let scratch = Scratch(std::env::temp_dir().join(format!("vtl1-reproduce-{}", std::process::id())));
    let mut sums = Vec::new();
    for name in ["first", "another place/second-clone"] {
        let copy = scratch.0.join(name);
        copy_sources(root, &copy)?;
        let built = image::build(&copy, Options { debug: false, quiet: true })
            .with_context(|| format!("building the copy in {}", copy.display()))?;
        println!("{}  {}", built.sha256, copy.display());
        sums.push(built.sha256);
    }
    if sums.windows(2).any(|pair| pair.first() != pair.last()) {
        bail!("the image is not reproducible: {}", sums.join(" and "));
    }
    println!("the image is reproducible");
    Ok(())
}

/// Every file that git knows or would take, from the root: what a clone has, plus what is not committed yet.
///
/// # Errors
/// Git does not say.
pub fn source_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    // A repository that belongs to another user is as good.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = capture(git.current_dir(root))?;
    let names = list.split('\0').filter(|name| !name.is_empty());
    // A file that is deleted but not yet committed as such is not part of the sources.
    Ok(names.filter(|name| root.join(name).is_file()).map(PathBuf::from).collect())
}

fn copy_sources(root: &Path, to: &Path) -> Result<()> {
    for name in source_files(root)? {
        let (source, target) = (root.join(&name), to.join(&name));
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(&source, &target)
            .with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
    }
    Ok(())
}
