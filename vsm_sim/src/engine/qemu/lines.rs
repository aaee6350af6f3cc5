//! The lines by which the host calls a CPU: an NMI for each write to an eventfd.
//!
//! QEMU's `ivshmem-doorbell` turns eventfds into MSI-X messages, and the stub makes the messages NMIs, one vector for each
//! CPU. We are the server of the device's protocol (QEMU `docs/specs/ivshmem-spec.rst`), which says everything before the
//! emulator starts. The shared memory that the device is made for is never mapped. The device is function 1 of a slot
//! without a function 0, where neither firmware nor an operating system looks.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::layout;
use crate::engine::error::{EngineError, Result};

/// Messages of the protocol: its version, our peer's number, and "here is the shared memory".
const VERSION: i64 = 0;
const PEER: i64 = 0;
const SHARED_MEMORY: i64 = -1;

/// Our ends of the lines.
pub struct Lines {
    bells: Vec<File>,
    /// The device's server must not hang up.
    _server: UnixStream,
}

/// What the emulator inherits.
pub struct Theirs {
    socket: UnixStream,
}

impl Theirs {
    /// The descriptor to inherit.
    pub fn fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// The emulator's options for the device.
    pub fn options(&self) -> [String; 4] {
        let (fd, cpus, [slot, function]) = (self.fd(), layout::MAX_CPUS, layout::LINES_AT);
        [
            "-chardev".into(),
            format!("socket,id=lines,fd={fd}"),
            "-device".into(),
            format!("ivshmem-doorbell,chardev=lines,vectors={cpus},addr={slot:x}.{function}"),
        ]
    }
}

impl Lines {
    /// A line for each of `cpus` CPUs, and the emulator's end. `shared` becomes the memory of the device: one page.
    pub fn new(cpus: u32, shared: &OwnedFd) -> Result<(Self, Theirs)> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed("socketpair", error))?;
        let bell = |_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(File::from);
        let bells = (0..cpus).map(bell).collect::<Result<Vec<_>, _>>().map_err(|error| failed("eventfd", error))?;
        send(&ours, VERSION, None)?;
        send(&ours, PEER, None)?;
        send(&ours, SHARED_MEMORY, Some(shared.as_fd()))?;
        for bell in &bells {
            send(&ours, PEER, Some(bell.as_fd()))?;
        }
        Ok((Self { bells, _server: ours }, Theirs { socket: theirs }))
    }

    /// Sends an NMI to a CPU.
    pub fn ring(&self, cpu: u32) -> Result<()> {
        let written = (&self.bells[cpu as usize]).write_all(&1_u64.to_ne_bytes());
        written.map_err(|error| failed("write to an eventfd", error))
    }
}

/// Sends one message, and a descriptor with it.
fn send(socket: &UnixStream, message: i64, descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|one| [one]);
    if let Some(descriptors) = &descriptors
        && !control.push(SendAncillaryMessage::ScmRights(descriptors))
    {
        return Err(EngineError::Config("no room for a descriptor".into()));
    }
    let bytes = message.to_le_bytes();
    match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(sent) => Err(failed("sendmsg to the emulator", format!("{sent} bytes sent"))),
        Err(error) => Err(failed("sendmsg to the emulator", error)),
    }
}

fn failed(call: &'static str, reason: impl ToString) -> EngineError {
    EngineError::System { call, reason: reason.to_string() }
}
