//! Compiles the C header as a driver would, in both languages, with every compiler there is.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{capture, find_program};

/// Compilers, each for C and for C++.
const COMPILERS: [(&str, &str); 2] = [("gcc", "g++"), ("clang", "clang++")];

/// Compiles a file that includes `header` twice. Returns which compilers did; one that is not installed is left out.
///
/// # Errors
/// A compiler refuses it; the message holds its words.
pub fn compile_header(header: &Path) -> Result<Vec<String>> {
    let header = header.canonicalize().with_context(|| format!("cannot find {}", header.display()))?;
    let include = format!("#include \"{0}\"\n#include \"{0}\"\n", header.display());
    compile(&format!("{include}int main(void) {{ return sizeof(struct heki_page) != 4096; }}\n"))
}

/// Compiles a program.
///
/// # Errors
/// As [`compile_header`].
pub fn compile(program: &str) -> Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    compile_in(directory.path(), program)
}

fn compile_in(directory: &Path, program: &str) -> Result<Vec<String>> {
    let mut compiled = Vec::new();
    for (c, cxx) in COMPILERS {
        for (compiler, name, standard) in [(c, "test.c", "-std=gnu11"), (cxx, "test.cpp", "-std=gnu++17")] {
            if find_program(compiler).is_none() {
                continue;
            }
            let file = directory.join(name);
            fs::write(&file, program)?;
            let mut command = Command::new(compiler);
            command.args([standard, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]).arg(&file);
            match capture(&mut command) {
                Ok(_) => compiled.push(compiler.to_owned()),
                Err(error) => bail!("{compiler} refuses it: {error:#}"),
            }
        }
    }
    Ok(compiled)
}
