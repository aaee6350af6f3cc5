//! The VTL1 boot image.
//!
//! | file | purpose |
//! |---|---|
//! | `entry.rs` | first instructions: registers saved, relocation, the map at the high address |
//! | `boot.rs` | from there to the first VTL return |
//! | `serve.rs` | the VTL-call loop, the jump table's place in memory, the function that indexes it |
//!
//! On a host this builds to a program that says where the image is; `cargo xtask build-vtl1` builds the image.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod serve;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use litebox_platform_lvbs::arch::panic::fail;
    match info.location() {
        Some(place) => fail(format_args!("{} ({place})", info.message())),
        None => fail(format_args!("{}", info.message())),
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "This is VTL1's boot image, not a program: build it with `cargo xtask build-vtl1`, see it run with `cargo xtask run`."
    );
    std::process::exit(1);
}
