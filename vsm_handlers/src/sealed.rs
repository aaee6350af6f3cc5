//! Text that VTL0 can no longer write, by its virtual address: the kernel's, and that of modules that were accepted.
//!
//! Where an address lies VTL1 knows from LoadKData and from the modules' own ranges; whether the frame there is that text,
//! executable and not writable, the registry says before a byte of it is read. Its lock, held meanwhile, keeps it so.

use litebox_platform_lvbs::VsmError;
use litebox_platform_lvbs::access::PhysMutPtr;
use litebox_platform_lvbs::address::{PAGE_SIZE, PhysAddr};
use litebox_platform_lvbs::frames::{FrameRegistry, Permission};
use litebox_platform_lvbs::hardware::Hardware;
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::vtl0::{KernelData, ModuleMemoryMetadataMap};
use vsm_integrity::module::SealedText;

/// The text as it is now. Text for initialisation is not part of it, for it goes.
#[derive(Clone, Copy)]
pub(crate) struct Sealed<'a> {
    pub(crate) registry: &'a FrameRegistry,
    pub(crate) kernel: Option<&'a KernelData>,
    pub(crate) modules: &'a ModuleMemoryMetadataMap,
    pub(crate) hardware: &'a dyn Hardware,
}

impl Sealed<'_> {
    /// Physical address of the byte at `va`, and who must own its frame.
    fn place(&self, va: u64) -> Option<(Owner, u64)> {
        let of_kernel = self.kernel.and_then(|kernel| kernel.text.physical(va));
        of_kernel.map(|pa| (Owner::KernelText, pa)).or_else(|| self.modules.text(va))
    }

    /// Reads bytes that are all in one page.
    fn read_piece(&self, va: u64, into: &mut [u8]) -> Option<()> {
        let (owner, pa) = self.place(va)?;
        let at = PhysAddr::new(pa).ok()?;
        check_text(self.registry, owner, at).ok()?;
        PhysMutPtr::bytes(self.registry, owner, at, &[], into.len()).ok()?.read_into(self.hardware, into).ok()
    }
}

impl SealedText for Sealed<'_> {
    fn read(&self, va: u64, into: &mut [u8]) -> bool {
        let (mut va, mut rest) = (va, into);
        while !rest.is_empty() {
            let left = usize::try_from(PAGE_SIZE - va % PAGE_SIZE).unwrap_or(usize::MAX).min(rest.len());
            let Some((piece, after)) = rest.split_at_mut_checked(left) else { return false };
            let Some(()) = self.read_piece(va, piece) else { return false };
            rest = after;
            va = va.wrapping_add(left as u64);
        }
        true
    }
}

/// Checks that the frame at `at` is text of `owner`, which VTL0 can execute and not write.
pub(crate) fn check_text(registry: &FrameRegistry, owner: Owner, at: PhysAddr) -> Result<(), VsmError> {
    match registry.get(at.gfn().as_u64()) {
        Some((found, Permission::RX)) if found == owner => Ok(()),
        found => Err(VsmError::FrameOwned(at, found.map_or(Owner::Nobody, |(owner, _)| owner))),
    }
}
