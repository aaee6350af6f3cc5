//! Is the image reproducible? Two copies of the sources, in directories of different names and depths, are built from
//! nothing and compared: `cargo xtask verify-elf --twice`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::image::{self, Options};
use crate::process::capture;

/// Builds two copies of the workspace at `root` and compares their images.
pub fn check(root: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let sum = |name: &str| {
        let copy = scratch.path().join(name);
        copy_sources(root, &copy, &source_files(root)?)?;
        let built = image::build(&copy, Options { debug: false, quiet: true })
            .with_context(|| format!("building the copy in {}", copy.display()))?;
        println!("{}  {}", built.sha256, copy.display());
        Ok::<_, anyhow::Error>(built.sha256)
    };
    let sums = [sum("first")?, sum("another place/second-clone")?];
    if sums[0] != sums[1] {
        bail!("the image is not reproducible: {}", sums.join(" and "));
    }
    println!("the image is reproducible");
    Ok(())
}

/// Every file that git knows or would take, from the root: what a clone has, plus what is not committed yet.
pub fn source_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    // A repository that belongs to another user is as good.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = capture(git.current_dir(root))?;
    let names = list.split('\0').filter(|name| !name.is_empty());
    // A file that is deleted but not yet committed as such is not part of the sources.
    Ok(names.filter(|name| root.join(name).is_file()).map(PathBuf::from).collect())
}

/// Copies files below `root`. One that is already there with these bytes is not written again, so that nothing is rebuilt for
/// a new date.
pub fn copy_sources(root: &Path, to: &Path, files: &[PathBuf]) -> Result<()> {
    for file in files {
        let (source, target) = (root.join(file), to.join(file));
        let bytes = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        if fs::read(&target).is_ok_and(|old| old == bytes) {
            continue;
        }
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&target, bytes).with_context(|| format!("cannot write {}", target.display()))?;
    }
    Ok(())
}
