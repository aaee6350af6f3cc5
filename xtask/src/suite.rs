//! The whole test suite: `cargo xtask test`.
//!
//! It starts from a fresh clone: the image is built first, what the machine tests need is installed, and at the end it
//! says what was not run and why.

use std::path::Path;

use anyhow::{Context, Result};

use crate::doctor;
use crate::image;
use crate::kernels;
use crate::lint::{fuzz_tests, host_cargo};
use crate::process::{find_program, run};
use crate::workspace;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Leave out the tests that boot a machine.
    pub without_machine: bool,
    /// Passed on to the test runner: names of tests, or its options.
    pub arguments: Vec<String>,
}

/// Names of tests that start an emulator begin a path element with one of these.
const MACHINE_TESTS: [&str; 2] = ["machine_", "engine_"];

/// Builds the image and runs every test of the workspace, doc tests included.
pub fn run_all(root: &Path, options: &Options) -> Result<()> {
    let mut skipped = Vec::new();
    if options.without_machine {
        skipped.push("tests that boot a machine: --without-machine".to_owned());
    } else {
        doctor::ensure(&doctor::QEMU).context("to run the other tests, type: cargo xtask test --without-machine")?;
    }

    let built = image::build(root, image::Options { debug: false, quiet: false })?;

    let mut command = host_cargo(root);
    // The machine's tests boot this file; without the variable each of them would build it again.
    command.env("VTL1_IMAGE", &built.vmlinux);
    if find_program("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--workspace", "--no-tests=pass"]);
        if options.without_machine {
            command.args(["-E", &format!("not test(/{}/)", MACHINE_TESTS.join("|"))]);
        }
        command.args(&options.arguments);
    } else {
        eprintln!("cargo-nextest is not installed (optional); using `cargo test`");
        command.args(["test", "--workspace", "--lib", "--bins", "--tests", "--"]);
        if options.without_machine {
            command.args(MACHINE_TESTS.iter().flat_map(|name| ["--skip", name]));
        }
        command.args(&options.arguments);
    }
    run(&mut command)?;
    if options.arguments.is_empty() {
        run(host_cargo(root).args(["test", "--workspace", "--doc", "--quiet"])).context("doc tests")?;
        fuzz_tests(root).context("the tests of the fuzz targets")?;
    } else {
        skipped.push("doc tests and the tests of the fuzz targets: only the named tests were asked for".to_owned());
    }

    if !workspace::captures_dir(root).is_dir() {
        skipped.push("tests on what real kernels had in memory: no captures, see `cargo xtask doctor`".to_owned());
    }
    if kernels::present(root).is_none() {
        skipped.push("tests of a distribution's signed kernel: there is none, see `cargo xtask doctor`".to_owned());
    }
    if skipped.is_empty() {
        println!("all tests passed, nothing was skipped");
    } else {
        println!("all tests that ran passed; skipped:");
        for reason in skipped {
            println!("  - {reason}");
        }
    }
    Ok(())
}
