//! `cargo xtask`: what it does is in the library.

fn main() -> std::process::ExitCode {
    xtask::cli::main()
}
