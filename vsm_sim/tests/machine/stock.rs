//! A distribution's own kernel as VTL0: it boots, finds its processors and switches the machine off. Its userspace is one
//! program of a few instructions, so that nothing but the kernel is needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use iced_x86::code_asm::{eax, edi, edx, esi, rsi};
use vsm_sim::linux::{self, End, Event, Options};
use vsm_sim::machine::guest::assemble;
use vsm_sim::vtl0::kexec::distribution_kernels;

/// What the program writes.
const GREETING: &str = "userspace is there\n";
/// Where it lies.
const BASE: u64 = 0x40_0000;
/// Bytes of the ELF header and one program header.
const HEADERS: u64 = 0x78;
/// System calls, and the arguments of reboot (Linux `include/uapi/linux/reboot.h`).
const WRITE: u32 = 1;
const REBOOT: u32 = 169;
const MAGIC: [u32; 2] = [0xfee1_dead, 672_274_793];
const POWER_OFF: u32 = 0x4321_fedc;
const RESTART: u32 = 0x0123_4567;

/// A program that writes the greeting and makes the system call reboot with `command`: an ELF file.
fn program(command: u32) -> Result<Vec<u8>> {
    let entry = BASE + HEADERS;
    let code = |greeting: u64| {
        assemble(entry, |asm| {
            asm.mov(eax, WRITE)?;
            asm.mov(edi, 1)?;
            asm.mov(rsi, greeting)?;
            asm.mov(edx, u32::try_from(GREETING.len()).unwrap_or(0))?;
            asm.syscall()?;
            asm.mov(eax, REBOOT)?;
            asm.mov(edi, MAGIC[0])?;
            asm.mov(esi, MAGIC[1])?;
            asm.mov(edx, command)?;
            asm.syscall()?;
            asm.ud2()
        })
    };
    // The address has the same length wherever it is.
    let code = code(entry + code(BASE)?.len() as u64)?;
    let size = HEADERS + (code.len() + GREETING.len()) as u64;
    let words = [
        // ELF64, little endian; executable, x86-64, version 1; entry; program headers at 64; sizes and numbers.
        u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0"),
        0,
        0x0000_0001_003e_0002,
        entry,
        64,
        0,
        0x0038_0040_0000_0000,
        1,
        // PT_LOAD, readable and executable; all of the file.
        1 | 5 << 32,
        0,
        BASE,
        BASE,
        size,
        size,
        0x1000,
    ];
    let headers: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    Ok([&headers, &code[..], GREETING.as_bytes()].concat())
}

/// A cpio archive (format "newc") with `/init`.
fn archive(init: &[u8]) -> Vec<u8> {
    let entry = |name: &str, mode: u32, data: &[u8]| {
        let fields = [0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0].map(|field| format!("{field:08x}"));
        let entry = format!("070701{:08x}{mode:08x}{}", 1, fields.concat());
        let mut entry = [entry.as_bytes(), name.as_bytes(), b"\0"].concat();
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry.extend_from_slice(data);
        entry.resize(entry.len().next_multiple_of(4), 0);
        entry
    };
    [entry("init", 0o100_755, init), entry("TRAILER!!!", 0, &[])].concat()
}

/// Boots every kernel that is there, on `vps` processors; each must end as `end`.
fn boots(vps: u32, command: u32, end: &End) -> Result<()> {
    let kernels = distribution_kernels();
    if kernels.is_empty() {
        println!("SKIPPED: there is no kernel in target/kernels; `cargo xtask doctor --fix` fetches one");
    }
    for path in kernels {
        let kernel = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let options = Options {
            vps,
            one_thread: true,
            watchdog: Duration::from_mins(2),
            ..Options::new(kernel, archive(&program(command)?), "console=ttyS0 panic=-1")
        };
        let (lines, started) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let observer = {
            let (lines, started) = (Arc::clone(&lines), Arc::clone(&started));
            move |_, event: Event<'_>| match event {
                Event::Vtl0Line(line) => {
                    lines.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
                }
                Event::Processor { started: true, .. } => {
                    *started.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
                _ => {}
            }
        };
        let outcome = linux::boot(options, Arc::new(observer))?;
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let console = lines.join("\n");
        ensure!(outcome.end == *end, "{}: {}\n{console}", path.display(), outcome.end);
        ensure!(lines.iter().any(|line| line == GREETING.trim_end()), "no userspace\n{console}");
        let started = *started.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(started == vps, "{started} processors of {vps} were started\n{console}");
        ensure!(outcome.reports.is_empty(), "{:?}", outcome.reports);
        ensure!(outcome.calls == 0 && outcome.exits.values().sum::<u64>() > 100, "{outcome:?}");
    }
    Ok(())
}

#[test]
fn machine_linux_boots_and_switches_the_machine_off() -> Result<()> {
    boots(1, POWER_OFF, &End::PowerOff)
}

#[test]
fn machine_linux_starts_its_processors_and_resets_the_machine() -> Result<()> {
    boots(2, RESTART, &End::Reboot)
}

#[test]
fn machine_linux_that_is_none_is_refused() {
    for kernel in [vec![], vec![0; 0x1000], [&[0; 0x202][..], b"HdrS"].concat()] {
        let error = linux::boot(Options::new(kernel, vec![], ""), Arc::new(|_, _| {})).unwrap_err();
        assert!(format!("{error:#}").contains("the kernel cannot be loaded"), "{error:#}");
    }
}
