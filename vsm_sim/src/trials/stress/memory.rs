//! Memory as VTL0's kernel on one processor gets at it: an access that VTL1 has taken away does not take place.

use crate::hv::{Access, GuestMemory, MemoryAccess, Mode, NotRam, Partition};

/// A processor's view of the memory. An access and a change of its permission never overlap, as on a real processor, whose
/// translations are gone before the hypercall that changes a permission returns.
#[derive(Clone, Copy)]
pub struct AsVtl0<'a> {
    partition: &'a Partition,
    memory: &'a dyn GuestMemory,
    vp: u32,
}

impl<'a> AsVtl0<'a> {
    /// The view of processor `vp`.
    pub fn new(partition: &'a Partition, memory: &'a dyn GuestMemory, vp: u32) -> Self {
        Self { partition, memory, vp }
    }

    fn access<R>(&self, gpa: u64, access: Access, work: impl FnOnce() -> Result<R, NotRam>) -> Result<R, NotRam> {
        let access = MemoryAccess { gpa, gva: None, access, mode: Mode { user: false, smep_disabled: false } };
        self.partition.while_allowed(self.vp, &access, work).unwrap_or(Err(NotRam(gpa)))
    }
}

impl GuestMemory for AsVtl0<'_> {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
        self.access(gpa, Access::Read, || self.memory.read(gpa, into))
    }

    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam> {
        self.access(gpa, Access::Write, || self.memory.write(gpa, from))
    }
}
