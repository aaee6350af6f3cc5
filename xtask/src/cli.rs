//! The command line of `cargo xtask`. Every command is described by its own `--help`; the work is done in the other modules.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use peak_alloc::PeakAlloc;
use vsm_sim::trials::validate::accept::Meter;

use crate::ci::{self, Extent};
use crate::{
    abi, book, doctor, explain, fuzz, image, lint, linux, map, new_call, repro, run, stress, suite, validate_capture,
    workspace,
};

/// Counts heap, for the memory that the validation of a module takes.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// Builds, boots, checks and tests the VTL1 kernel.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the boot image.
    ///
    /// Finds a toolchain that has the standard library's source, or completes or installs one, says which it took and
    /// why, and prints the size of every section, the SHA-256 sum and where the files are. The same sources and the same
    /// toolchain give the same bytes, wherever the clone lies.
    #[command(after_help = "Example: cargo xtask build-vtl1 --debug")]
    BuildVtl1 {
        /// Build without optimisation; the files' names end in `-debug`.
        #[arg(long)]
        debug: bool,
        /// Build with optimisation (the default).
        #[arg(long, conflicts_with = "debug")]
        release: bool,
        /// Print nothing but errors.
        #[arg(long)]
        quiet: bool,
    },
    /// Boot the image in the simulator and play a whole VTL0 life against it.
    ///
    /// Builds the image, boots it as a VTL0 loader does, makes the calls of a Linux boot and calls that must be refused,
    /// and prints VTL1's console and a table of all calls. Ends with status 0 only if every call ended as it must.
    #[command(after_help = "Example: cargo xtask run --loader g3 --cpus 4 --trace")]
    Run(run::Options),
    /// Boot a distribution's own Linux in VTL0, with VTL1 beside it, and have it hand over its memory and modules.
    ///
    /// Fetches Debian's signed kernel with its headers (once; nothing is installed but compilers), builds image, driver and
    /// initramfs, boots, plays steps inside that Linux, and prints a table of them. Ends with status 0 only if every step
    /// ended as it must. With --kernel it boots somebody's own kernel and reports every VSM call that its driver makes.
    #[command(after_help = "Example: cargo xtask linux --debian 6.1 --vps 1")]
    Linux(linux::Options),
    /// Draw the frame registry: who owns which memory and what VTL0 may do with it, before and after each step of a boot.
    ///
    /// Plays a boot on the hosted machine and writes a picture (SVG).
    #[command(after_help = "Example: cargo xtask map --out frames.svg")]
    Map(map::Options),
    /// Fuzz what VTL0 can send: list the targets, or build and run them.
    #[command(subcommand)]
    Fuzz(fuzz::Action),
    /// Do everything that VTL0 can do, at random, on all its processors at once, and check the rules meanwhile.
    ///
    /// Boots machine after machine; on each of them every call, honest and hostile, instructions that VTL1 intercepts, and
    /// memory rewritten while VTL1 reads it. Prints a table at the end, and ends with status 0 only if no rule was broken;
    /// otherwise it says which, what happened last, and the command that repeats it.
    #[command(after_help = "Example: cargo xtask stress --vps 8 --seconds 600")]
    Stress(stress::Options),
    /// Run the whole test suite.
    ///
    /// Builds the image first and installs the emulator if it is missing. Uses cargo-nextest where it is installed, else
    /// `cargo test`. Says at the end what was skipped and why.
    #[command(after_help = "Example: cargo xtask test --without-machine -- lock_regs")]
    Test {
        /// Leave out the tests that boot a machine.
        #[arg(long)]
        without_machine: bool,
        /// Names of tests or options, for the test runner.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Prove the rules of the boot image on the linked file.
    ///
    /// Checks what the VTL0 loaders demand, W^X, that the jump table is complete, alone on its pages and read-only, that
    /// every entry is a function, and, in the disassembly, that the index is clamped. Reports every broken rule and then
    /// ends with a status other than 0.
    #[command(after_help = "Example: cargo xtask verify-elf --twice")]
    VerifyElf {
        /// The file; without it the image is built and checked.
        file: Option<PathBuf>,
        /// Also build the image in two copies of the sources, in directories of different names, and compare the bytes.
        #[arg(long, conflicts_with = "file")]
        twice: bool,
    },
    /// Write everything that follows from the table of the calls, or check it: `abi/` and the README's table.
    #[command(after_help = "Example: cargo xtask abi --check")]
    Abi(abi::Options),
    /// Explain a diagnostic of the macros; without a code list them all.
    #[command(after_help = "Example: cargo xtask explain VSM010")]
    Explain(explain::Options),
    /// Add a call: its row, a handler that answers -ENOTSUP, a test, a step of the simulator, and what follows from the row.
    #[command(after_help = "Example: cargo xtask new-call QueryModule --phase boot")]
    NewCall(new_call::Options),
    /// Validate modules that a real kernel has loaded, from a capture of its memory.
    ///
    /// Prints for each module what explained its bytes, how long that took and how much memory. Ends with status 0 only
    /// if every module is accepted and, with `--mutate`, every change of one is refused.
    #[command(after_help = "Example: cargo xtask validate-capture ../shared/captures --mutate 64")]
    ValidateCapture(validate_capture::Options),
    /// Build the book, check its links, and try what it tells a reader to type.
    #[command(after_help = "Example: cargo xtask book --run-commands")]
    Book(book::Options),
    /// Type-check the host's crates and the image, for an editor with `--json`.
    #[command(after_help = "Example: cargo xtask check --json")]
    Check {
        /// Print cargo's JSON messages.
        #[arg(long)]
        json: bool,
    },
    /// Check formatting, and run clippy for the host, the fuzz targets and the image, with warnings as errors.
    #[command(after_help = "Example: cargo xtask lint --fix")]
    Lint {
        /// Format every file first.
        #[arg(long)]
        fix: bool,
    },
    /// Say what was found on this machine, what is missing, and the command that helps.
    #[command(after_help = "Example: cargo xtask doctor --fix")]
    Doctor {
        /// Install what is missing: rustup components, and as root Debian packages.
        #[arg(long)]
        fix: bool,
    },
    /// Run every check a change must pass, as continuous integration does.
    ///
    /// Formatting, clippy, dependencies, `abi/`, verify-elf, tests, the book with its commands and its page about adding a
    /// call, a boot with each loader, a real Linux in VTL0, some seconds of every fuzz target, and a minute of stress.
    #[command(after_help = "Example: cargo xtask ci --quick")]
    Ci {
        /// Also build the image twice and compare.
        #[arg(long)]
        full: bool,
        /// Only formatting, clippy, dependencies, `abi/` and verify-elf.
        #[arg(long, conflicts_with = "full")]
        quick: bool,
        /// Leave out the test suite: `cargo xtask test` has been run.
        #[arg(long, conflicts_with_all = ["full", "quick"])]
        without_tests: bool,
    },
}

/// The heap of this process.
#[derive(Default)]
struct HeapMeter {
    base: std::cell::Cell<usize>,
}

impl Meter for HeapMeter {
    fn reset(&self) {
        self.base.set(HEAP.current_usage());
        HEAP.reset_peak_usage();
    }

    fn peak(&self) -> Option<usize> {
        Some(HEAP.peak_usage().saturating_sub(self.base.get()))
    }
}

fn execute(command: Command) -> Result<()> {
    let root = workspace::root();
    match command {
        Command::BuildVtl1 { debug, release: _, quiet } => {
            image::build(&root, image::Options { debug, quiet }).map(drop)
        }
        Command::Run(options) => run::run(&root, &options),
        Command::Linux(options) => linux::run(&root, &options),
        Command::Map(options) => map::run(&root, &options),
        Command::Fuzz(action) => fuzz::execute(&root, &action),
        Command::Stress(options) => stress::run(&root, &options, Some(|| HEAP.current_usage())),
        Command::Test { without_machine, arguments } => {
            suite::run_all(&root, &suite::Options { without_machine, arguments })
        }
        Command::VerifyElf { file: Some(file), .. } => ci::verify_file(&file),
        Command::VerifyElf { file: None, twice } => {
            ci::verify_built(&root)?;
            if twice { repro::check(&root) } else { Ok(()) }
        }
        Command::Abi(options) => abi::execute(&root, &options),
        Command::Explain(options) => explain::execute(&root, &options),
        Command::NewCall(options) => new_call::execute(&root, &options),
        Command::ValidateCapture(options) => validate_capture::run(&options, &HeapMeter::default()),
        Command::Book(options) => book::execute(&root, options),
        Command::Check { json } => lint::check(&root, json),
        Command::Lint { fix } => lint::all(&root, fix),
        Command::Doctor { fix } => doctor::examine(&root, fix),
        Command::Ci { full, quick, without_tests } => ci::run_all(
            &root,
            match (quick, full, without_tests) {
                (true, ..) => Extent::Quick,
                (_, true, _) => Extent::Full,
                (.., true) => Extent::WithoutTests,
                (false, false, false) => Extent::Normal,
            },
        ),
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    /// A command that a person can type has an example in its help, and the example is accepted.
    #[test]
    fn the_help_of_every_command_has_an_example() {
        fn check(command: &mut clap::Command, path: &str) {
            if command.has_subcommands() {
                for part in command.get_subcommands_mut() {
                    let path = format!("{path} {}", part.get_name());
                    check(part, &path);
                }
                // `abi` is a command itself as well.
                if command.is_subcommand_required_set() {
                    return;
                }
            }
            let help = command.render_long_help().to_string();
            assert!(command.get_about().is_some(), "{path} does not say what it does");
            let example = help.lines().find_map(|line| line.strip_prefix("Example: "));
            let example = example.unwrap_or_else(|| panic!("the help of `{path}` has no example:\n{help}"));
            assert!(example.starts_with(path), "the example of `{path}` is of another command: {example}");
            Cli::try_parse_from(example.split_whitespace().skip(1))
                .unwrap_or_else(|error| panic!("{example}: {error}"));
        }
        check(&mut Cli::command(), "cargo xtask");
    }

    /// A command that the book names in a sentence is one that there is.
    #[test]
    fn the_book_mentions_only_commands_that_there_are() {
        let mentioned = book::commands::mentioned(&book::pages(&workspace::root()).unwrap());
        assert!(mentioned.len() > 20, "the book mentions commands");
        for (place, words) in mentioned {
            let words = std::iter::once("xtask".to_owned()).chain(words);
            if let Err(error) = Cli::try_parse_from(words) {
                let shows_help = [ErrorKind::DisplayHelp, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand];
                assert!(shows_help.contains(&error.kind()), "{place}: {error}");
            }
        }
    }
}
