//! A distribution's Linux boots in VTL0 beside the real image: `cargo xtask linux`, as a person types it.
//!
//! It needs Debian's packages, which `cargo xtask doctor --fix` fetches; without them the test says so and passes.

use std::path::Path;
use std::process::Command;

/// VTL1 starts, memory is protected (W^X), modules load, and the kernel's attacks on itself are stopped.
#[test]
fn machine_linux_boots_beside_vtl1_and_is_guarded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("target/linux/6.12/packages").is_file() {
        println!("SKIPPED: there is no Linux in target/linux/6.12; `cargo xtask doctor --fix` fetches one");
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["linux", "--debian", "6.12", "--vps", "1", "--steps", "boot,attacks"]).current_dir(&root);
    let output = command.output().expect("xtask starts");
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{said}\n{errors}");
    let ended_well = |part: &str| said.lines().any(|line| line.contains(part) && line.contains(" ok "));
    for part in [
        "boot/driver",
        "boot/locks",
        "boot/ProtectMemory",
        "boot/SignalEndOfBoot",
        "attack/text-alias",
        "attack/data-execute",
        "attack/unsigned",
        "attack/afterwards",
    ] {
        assert!(ended_well(part), "{part} is not among what ended well:\n{said}");
    }
}
