//! The emulator process: its command line, its death, and its last words. All files it uses are anonymous and inherited, so nothing has a name that could
//! be left behind. The process must not outlive us: a thread of its own starts it (the parent-death signal fires when the *thread* that started a
//! child ends) and kills it when told, or when this process dies.

use super::config::{Config, Mode};
use super::layout;
use super::lines::{Lines, Theirs};
use super::pvh::pvh_elf;
use crate::engine::error::{EngineError, Result};
use crate::engine::ram::Mapping;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Where RAM above the engine's own starts: in the memory file, and in the emulated machine ("max-ram-below-4g").
pub const LOW_MEMORY: u64 = 1 << 30;
const FOUR_GIB: u64 = 4 << 30;

/// Where an offset of the memory file lies in the emulated machine.
pub fn machine_address(offset: u64) -> u64 {
    if offset < LOW_MEMORY { offset } else { offset - LOW_MEMORY + FOUR_GIB }
}

/// The running emulator.
pub struct Process {
    /// The emulator's process id.
    pub id: u32,
    stop: Option<mpsc::Sender<()>>,
    owner: Option<JoinHandle<()>>,
    stderr: OwnedFd,
}

fn memory_file(name: &core::ffi::CStr, content: &[u8]) -> Result<OwnedFd> {
    // SAFETY: the name is a C string; the call has no other precondition.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(EngineError::system("memfd_create for the emulator"));
    }
    // SAFETY: the descriptor was just created and has no other owner.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    std::fs::File::from(
        fd.try_clone().map_err(|error| EngineError::System { call: "dup", reason: error.to_string() })?,
    )
    .write_all(content)
    .map_err(|error| EngineError::System { call: "write of a memory file", reason: error.to_string() })?;
    Ok(fd)
}

/// A connected pair of sockets: ours, the emulator's.
fn pair() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().map_err(|error| EngineError::System { call: "socketpair", reason: error.to_string() })
}

/// What the caller keeps of a started emulator.
pub struct Started {
    /// The process.
    pub process: Process,
    /// Our end of each CPU's doorbell.
    pub doorbells: Vec<UnixStream>,
    /// Our ends of the lines by which CPUs are called.
    pub lines: Lines,
    /// Our end of a guest's COM1; of no use in the other mode.
    pub console: UnixStream,
}

/// Starts the emulator on `memory` with `cpus` CPUs.
pub fn start(config: &Config, memory: &Mapping) -> Result<Started> {
    let (program, cpus) = (config.program.as_str(), config.vps);
    let stub = pvh_elf().map_err(|error| EngineError::System { call: "ELF writer", reason: error.to_string() })?;
    let kernel = memory_file(c"vsm_sim stub", &stub)?;
    let stderr = memory_file(c"vsm_sim stderr", b"")?;
    let (lines, lines_theirs): (Lines, Theirs) = Lines::new(cpus, &memory_file(c"vsm_sim lines", &[0; 0x1000])?)?;
    let (console, console_theirs) = pair()?;
    let mut doorbells = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..cpus {
        let (a, b) = pair()?;
        doorbells.push(a);
        theirs.push(b);
    }
    let mut command = Command::new(program);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max"]);
    let threads = if config.shares_thread() { "single" } else { "multi" };
    command.arg("-accel").arg(format!("tcg,thread={threads}"));
    if config.count_instructions {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    let size = memory.size();
    command.arg("-smp").arg(format!("{cpus},sockets=1,cores={cpus},threads=1"));
    command.arg("-m").arg(format!("{}k", size >> 10));
    command.arg("-machine").arg(format!("pc,memory-backend=ram,max-ram-below-4g={LOW_MEMORY}"));
    command
        .arg("-object")
        .arg(format!("memory-backend-file,id=ram,size={size},mem-path=/proc/self/fd/{},share=on", memory.fd()));
    command.arg("-kernel").arg(format!("/proc/self/fd/{}", kernel.as_raw_fd()));
    command.args(lines_theirs.options());
    if config.mode == Mode::Guest {
        command.arg("-chardev").arg(format!("socket,id=com1,fd={}", console_theirs.as_raw_fd()));
        command.args(["-device", "isa-serial,iobase=0x3f8,irq=4,chardev=com1"]);
    }
    for (cpu, socket) in theirs.iter().enumerate() {
        command.arg("-chardev").arg(format!("socket,id=bell{cpu},fd={}", socket.as_raw_fd()));
        let port = usize::from(layout::DOORBELL) + cpu;
        command.arg("-device").arg(format!("isa-debugcon,iobase={port:#x},chardev=bell{cpu}"));
    }
    let error_file =
        stderr.try_clone().map_err(|error| EngineError::System { call: "dup", reason: error.to_string() })?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(error_file));
    let mut inherited = vec![memory.fd(), kernel.as_raw_fd()];
    inherited.extend([lines_theirs.fd(), console_theirs.as_raw_fd()]);
    inherited.extend(theirs.iter().map(AsRawFd::as_raw_fd));
    // SAFETY: between fork and exec only async-signal-safe system calls on numbers computed before; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            for fd in &inherited {
                if libc::fcntl(*fd, libc::F_SETFD, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let (started, has_started) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let owner = std::thread::Builder::new().name("vsm_sim emulator".into()).spawn(move || {
        let child = command.spawn();
        // The emulator holds its own copies now; ours must go, or its end would never be seen as the end of the sockets.
        drop((command, kernel, lines_theirs, console_theirs, theirs));
        match child {
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let _ = stopped.recv();
                let _ = child.kill();
                let _ = child.wait();
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    });
    let owner = owner.map_err(|error| EngineError::System { call: "start of a thread", reason: error.to_string() })?;
    let outcome = has_started.recv().unwrap_or_else(|_| Err(std::io::Error::other("the starting thread ended")));
    let id =
        outcome.map_err(|error| EngineError::CannotStart { program: program.to_owned(), reason: error.to_string() })?;
    Ok(Started { process: Process { id, stop: Some(stop), owner: Some(owner), stderr }, doorbells, lines, console })
}

impl Process {
    /// The error that says how the emulator ended.
    pub fn died(&self) -> EngineError {
        let path = format!("/proc/self/fd/{}", self.stderr.as_raw_fd());
        let text = std::fs::read(path).unwrap_or_default();
        EngineError::Died { stderr: String::from_utf8_lossy(&text).trim().to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}
