//! Starting other programs: one place that says what is started, whether it worked, and how to look for a program.
//!
//! Trusts the programs found on `PATH`; nothing here goes through a shell.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The command as a person would type it, for messages. Arguments with blanks are quoted.
pub fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        text.push(' ');
        if argument.contains(char::is_whitespace) || argument.is_empty() {
            text.push('"');
            text.push_str(&argument);
            text.push('"');
        } else {
            text.push_str(&argument);
        }
    }
    text
}

/// Runs a command with this process's standard streams.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a command and returns what it wrote to standard output, without the trailing newline.
pub fn capture(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({}): {}", describe(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The first executable file of that name on `PATH`.
pub fn find_program(name: impl AsRef<Path>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name.as_ref()))
        .find(|candidate| is_executable(candidate))
}

/// Whether the path is a file with any execute bit set.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether this process may install system packages.
pub fn is_root() -> bool {
    let mut command = Command::new("id");
    capture(command.arg("-u")).is_ok_and(|uid| uid == "0")
}

/// Removes the variables that would make a nested cargo build something else than what its arguments say: flags,
/// wrappers, target directories and profiles of an outer cargo run, or of the person's shell.
///
/// Kept are the ones that say how to reach the package registry and how to print.
pub fn clear_build_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if leaks_into_build(&name) {
            command.env_remove(name);
        }
    }
    // An empty value also switches off a wrapper that a configuration file names.
    command.env("RUSTC_WRAPPER", "");
    command.env("RUSTC_WORKSPACE_WRAPPER", "");
}

fn leaks_into_build(name: &OsStr) -> bool {
    const KEPT: [&str; 10] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
        "RUSTUP_HOME",
        "RUSTUP_DIST_SERVER",
    ];
    // A profile of the compiler's own commands; none of these means anything to a build that names its inputs.
    const DROPPED: [&str; 6] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_", "RUST_TARGET_PATH"];
    let Some(name) = name.to_str() else {
        return false;
    };
    !KEPT.iter().any(|kept| name.starts_with(kept)) && DROPPED.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_wrappers_leak_and_registry_settings_do_not() {
        for leaking in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC_WRAPPER",
            "RUSTC",
            "RUSTUP_TOOLCHAIN",
            "CARGO_BUILD_TARGET",
            "RUSTC_BOOTSTRAP",
            "RUSTDOCFLAGS",
        ] {
            assert!(leaks_into_build(OsStr::new(leaking)), "{leaking}");
        }
        for kept in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_BUILD_JOBS", "PATH", "RUST_BACKTRACE", "RUSTUP_HOME"] {
            assert!(!leaks_into_build(OsStr::new(kept)), "{kept}");
        }
    }

    #[test]
    fn a_failing_program_is_named_with_its_status() {
        let mut command = Command::new("false");
        let error = run(command.arg("with blank")).unwrap_err().to_string();
        assert!(error.contains("false \"with blank\""), "{error}");
        let error = capture(&mut Command::new("no-such-program-here")).unwrap_err().to_string();
        assert!(error.contains("cannot start `no-such-program-here`"), "{error}");
    }

    #[test]
    fn a_program_is_found_on_the_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-here").is_none());
    }
}
