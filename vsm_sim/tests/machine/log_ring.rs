//! A log ring in VTL0's memory, and VTL0's reader of it.

use anyhow::{Result, ensure};
use litebox_platform_lvbs::vsm::VsmFunction;
use vsm_sim::machine::Vtl0;
use vsm_sim::vtl0::bytes;
use vsm_sim::vtl0::log_reader::{LogReader, Poll};

use crate::setup::call;

/// A ring that VTL0 has given to VTL1, and VTL0's reader of it.
pub struct Ring {
    /// First byte.
    pub start: u64,
    reader: LogReader,
    /// Console lines before the first of the ring.
    before: usize,
}

impl Ring {
    /// Gives `pages` pages of scratch memory for a ring.
    pub fn allocate(vtl0: &mut Vtl0, pages: u64) -> Result<Self> {
        let start = vtl0.with_scratch(|scratch| scratch.pages(pages))?;
        let before = vtl0.machine().console_lines().len();
        let result = call(vtl0, VsmFunction::AllocateRingbufferMemory, [start, pages << 12, 0])?;
        ensure!(result == 0, "AllocateRingbufferMemory returned {result}");
        Ok(Self { start, reader: LogReader::new(usize::try_from(pages << 12)?), before })
    }

    /// What is new in the ring.
    pub fn poll(&mut self, vtl0: &Vtl0) -> Poll {
        let machine = vtl0.machine();
        self.reader.poll(&mut |offset, into| {
            bytes::read(machine.ram(), self.start + offset as u64, into).expect("the ring is RAM");
        })
    }

    /// The console's lines since the ring is there.
    pub fn console(&self, vtl0: &Vtl0) -> Vec<String> {
        vtl0.machine().console_lines().split_off(self.before)
    }
}
