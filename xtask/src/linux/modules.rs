//! The distribution's modules that go into the guest: those that are asked for, and those they depend on.
//!
//! What a module needs stands in its own `.modinfo`; the package has no index of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};
use vsm_integrity::signature::trailer;

use super::payload;

/// A module, as the guest gets it.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, with `_` for `-` as Linux has it.
    pub name: String,
    /// Where it lies below the kernel's directory of modules, without the suffix of a compression.
    pub path: String,
    /// The signed file, unpacked.
    pub bytes: Vec<u8>,
    /// The names of the modules that must be loaded before it.
    pub depends: Vec<String>,
    /// Patterns of names it is also asked for by.
    pub aliases: Vec<String>,
}

/// All modules of a kernel, by name.
pub struct Catalogue {
    directory: PathBuf,
    files: BTreeMap<String, PathBuf>,
}

/// A module's name from that of its file.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, suffix) = file.split_once(".ko")?;
    (suffix.is_empty() || suffix.starts_with('.')).then(|| name.replace('-', "_"))
}

impl Catalogue {
    /// Lists the modules below a kernel's directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut left = vec![directory.join("kernel")];
        while let Some(next) = left.pop() {
            for entry in fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    left.push(entry.path());
                } else if let Some(name) = name_of(&entry.path()) {
                    files.insert(name, entry.path());
                }
            }
        }
        Ok(Self { directory: directory.to_path_buf(), files })
    }

    /// Reads a module.
    ///
    /// # Errors
    /// There is none of that name, or its file is damaged.
    pub fn module(&self, name: &str) -> Result<Module> {
        let name = name.replace('-', "_");
        let file = self.files.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
        let path = file.strip_prefix(&self.directory)?.to_str().context("a module's path is no text")?;
        let path = path.split_once(".ko").map_or(path, |(start, _)| start).to_owned() + ".ko";
        let bytes = payload::module(fs::read(file)?).with_context(|| format!("cannot unpack {}", file.display()))?;
        let words = |tag| modinfo(&bytes, tag);
        let depends = words("depends")?;
        let depends = depends.iter().flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
        let depends = depends.map(|name| name.replace('-', "_")).collect();
        let aliases = words("alias")?;
        Ok(Module { name, path, bytes, depends, aliases })
    }

    /// The named modules with all that they depend on, each after those it needs.
    ///
    /// # Errors
    /// As [`Self::module`]; dependencies that go in a circle.
    pub fn with_dependencies(&self, names: &[String]) -> Result<Vec<Module>> {
        let mut modules = Vec::new();
        let (mut done, mut open) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            self.add(&name.replace('-', "_"), &mut modules, &mut done, &mut open)?;
        }
        Ok(modules)
    }

    fn add(
        &self,
        name: &str,
        modules: &mut Vec<Module>,
        done: &mut BTreeSet<String>,
        open: &mut BTreeSet<String>,
    ) -> Result<()> {
        if done.contains(name) {
            return Ok(());
        }
        if !open.insert(name.to_owned()) {
            bail!("modules depend on each other in a circle at {name}");
        }
        let module = self.module(name)?;
        for needed in &module.depends {
            self.add(needed, modules, done, open).with_context(|| format!("{name} depends on {needed}"))?;
        }
        done.insert(name.to_owned());
        modules.push(module);
        Ok(())
    }

    /// Whether there is a module of that name.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(&name.replace('-', "_"))
    }

    /// The names of modules whose files lie below one of these folders, in the order of the paths.
    pub fn below(&self, folders: &[&str]) -> Vec<String> {
        let mut found: Vec<(&PathBuf, &String)> = self
            .files
            .iter()
            .filter(|(_, file)| {
                folders.iter().any(|folder| file.starts_with(self.directory.join("kernel").join(folder)))
            })
            .map(|(name, file)| (file, name))
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// The values of a tag in a module's `.modinfo`.
fn modinfo(module: &[u8], tag: &str) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(Vec::new()) };
    let entries = section.data()?.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let value = |entry: std::borrow::Cow<'_, str>| {
        entry.strip_prefix(tag).and_then(|rest| rest.strip_prefix('=')).map(str::to_owned)
    };
    Ok(entries.filter_map(value).collect())
}

/// A signed module without its signature.
///
/// # Errors
/// The module is not signed.
pub fn without_signature(module: &[u8]) -> Result<&[u8]> {
    let layout = trailer::locate(module.len(), module)?;
    Ok(&module[..layout.content])
}

/// A module with one bit changed in the middle of its code; a signature stays as it is.
///
/// # Errors
/// The module has no code.
pub fn with_flipped_bit(module: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(module)?;
    let text = file.section_by_name(".text").and_then(|section| section.file_range());
    let (start, size) = text.filter(|(_, size)| *size > 0).context("the module has no code")?;
    let mut changed = module.to_vec();
    changed[usize::try_from(start + size / 2)?] ^= 1;
    Ok(changed)
}

/// The index by which a module is found with what it needs, as `depmod` writes it: `modules.dep`.
pub fn dep_file(modules: &[Module]) -> String {
    let path = |name: &String| modules.iter().find(|module| module.name == *name).map(|module| module.path.as_str());
    let line = |module: &Module| {
        // All of them, the one that is loaded first last.
        let mut needed: Vec<&String> = Vec::new();
        let mut left: Vec<&String> = module.depends.iter().rev().collect();
        while let Some(name) = left.pop() {
            needed.retain(|other| *other != name);
            needed.push(name);
            left.extend(
                modules.iter().filter(|other| other.name == *name).flat_map(|other| other.depends.iter().rev()),
            );
        }
        let needed: Vec<String> = needed.into_iter().filter_map(path).map(|path| format!(" {path}")).collect();
        format!("{}:{}\n", module.path, needed.concat())
    };
    modules.iter().map(line).collect()
}

/// The index of other names: `modules.alias`.
pub fn alias_file(modules: &[Module]) -> String {
    let lines = |module: &Module| {
        let line = |alias: &String| format!("alias {alias} {}\n", module.name);
        module.aliases.iter().map(line).collect::<String>()
    };
    modules.iter().map(lines).collect()
}

#[cfg(test)]
mod tests {
    use object::write::{Object as Writer, StandardSection};
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    use super::*;

    /// A relocatable object with that `.modinfo`.
    fn file(info: &[u8]) -> Vec<u8> {
        let mut object = Writer::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &[0x90; 64], 16);
        let section = object.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::ReadOnlyData);
        object.append_section_data(section, info, 1);
        object.write().unwrap()
    }

    fn catalogue(modules: &[(&str, &str)]) -> (tempfile::TempDir, Catalogue) {
        let directory = tempfile::tempdir().unwrap();
        for (path, depends) in modules {
            let path = directory.path().join("kernel").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file(format!("license=GPL\0depends={depends}\0alias=fs-x\0").as_bytes())).unwrap();
        }
        let catalogue = Catalogue::read(directory.path()).unwrap();
        (directory, catalogue)
    }

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let (_directory, all) =
            catalogue(&[("fs/x/x.ko", "lib-b,a"), ("lib/lib-b.ko", "a"), ("lib/a.ko", ""), ("fs/other.ko", "")]);
        let modules = all.with_dependencies(&["x".into(), "a".into()]).unwrap();
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["a", "lib_b", "x"]);
        assert_eq!(
            dep_file(&modules),
            "kernel/lib/a.ko:\nkernel/lib/lib-b.ko: kernel/lib/a.ko\nkernel/fs/x/x.ko: kernel/lib/lib-b.ko kernel/lib/a.ko\n"
        );
        assert_eq!(alias_file(&modules[2..]), "alias fs-x x\n");
        assert_eq!(all.below(&["lib"]), ["a", "lib_b"]);
        assert!(all.has("lib-b") && !all.has("lib_c"));
    }

    #[test]
    fn missing_modules_and_circles_are_named() {
        let (_directory, all) = catalogue(&[("a.ko", "b"), ("b.ko", "a"), ("c.ko", "d")]);
        let error = |name: &str| format!("{:#}", all.with_dependencies(&[name.to_owned()]).unwrap_err());
        assert!(error("a").contains("circle"), "{}", error("a"));
        assert!(error("c").contains("c depends on d: the kernel has no module d"), "{}", error("c"));
    }

    #[test]
    fn a_signature_is_taken_off_and_a_bit_of_the_code_is_changed() {
        let plain = file(b"depends=\0");
        let signed = vsm_sim::vtl0::signer::appended(&plain, b"no real message");
        assert!(without_signature(&signed).unwrap() == plain);
        assert!(without_signature(&plain).is_err());
        let changed = with_flipped_bit(&signed).unwrap();
        let differ: Vec<usize> = (0..signed.len()).filter(|at| signed[*at] != changed[*at]).collect();
        let [at] = differ[..] else { panic!("{differ:?}") };
        assert_eq!((signed[at], changed[at]), (0x90, 0x91));
    }
}
