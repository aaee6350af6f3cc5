//! The switch between VTLs: VTL call, interrupt entry, VTL return (TLFS "VTL Entry", "VTL Exit").

use litebox_platform_lvbs::hv::{EntryReason, MapFlags, VpAssistPage, VsmVpSecureConfig, Vtl, msr};
use zerocopy::IntoBytes;

use super::Fault;
use super::memory::GuestMemory;
use super::partition::{Partition, State};
use super::trace::TraceEvent;

/// What a VTL return does besides switching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VtlReturn {
    /// RAX and RCX to load before VTL0 runs; `None` after a fast return.
    pub restore: Option<(u64, u64)>,
    /// An interrupt for VTL1 waits: the machine enters VTL1 again at once, whatever VTL1's RFLAGS.IF was.
    pub reenter: bool,
}

impl State {
    /// The guest-physical address of a VTL's assist page, if it is enabled.
    fn assist_page(&mut self, vp: u32, vtl: Vtl) -> Option<u64> {
        let page = self.vtl(vp, vtl).assist_page;
        (page & msr::PAGE_ENABLE != 0).then_some(page & msr::PAGE_FRAME_MASK)
    }

    fn enter(&mut self, vp: u32, reason: EntryReason, memory: &dyn GuestMemory) {
        self.vp(vp).active = Vtl::Vtl1;
        if let Some(page) = self.assist_page(vp, Vtl::Vtl1) {
            let _ = memory.write(page + VpAssistPage::ENTRY_REASON as u64, reason.as_bytes());
        }
        self.event(&TraceEvent::Enter { vp, reason });
    }

    /// RAX and RCX from VTL1's assist page.
    fn return_registers(&mut self, vp: u32, memory: &dyn GuestMemory) -> Option<(u64, u64)> {
        let mut registers = [[0; 8]; 2];
        let page = self.assist_page(vp, Vtl::Vtl1);
        let read = page.is_some_and(|page| {
            let [rax, rcx] = &mut registers;
            memory.read(page + VpAssistPage::VTL_RETURN_RAX as u64, rax).is_ok()
                && memory.read(page + VpAssistPage::VTL_RETURN_RCX as u64, rcx).is_ok()
        });
        if !read {
            self.report(vp, Vtl::Vtl1, "a return that is not fast, without a VP assist page".into());
            return None;
        }
        if let Some(page) = page
            && self.partition_config.is_protection_enabled()
            && self.protections.get(page >> 12).intersects(MapFlags::WRITE)
        {
            self.report(vp, Vtl::Vtl1, "a return with registers from a page VTL0 can write".into());
        }
        let [rax, rcx] = registers.map(u64::from_le_bytes);
        Some((rax, rcx))
    }
}

impl Partition {
    /// VTL0 of `vp` makes a VTL call at privilege level `cpl` with `control` in RCX.
    ///
    /// # Errors
    /// #UD when VTL0 is not running in ring 0, VTL1 is not enabled on the processor, or `control` is not zero.
    pub fn vtl_call(&self, vp: u32, cpl: u8, control: u64, memory: &dyn GuestMemory) -> Result<(), Fault> {
        let mut state = self.lock();
        let processor = state.vp(vp);
        if cpl != 0 || control != 0 || processor.active != Vtl::Vtl0 || !processor.vtl1_enabled {
            return Err(Fault::InvalidOpcode);
        }
        state.enter(vp, EntryReason::VTL_CALL, memory);
        Ok(())
    }

    /// Enters VTL1 of `vp` for an interrupt that waits. Whether there was one, and VTL0 was running.
    pub fn interrupt_entry(&self, vp: u32, memory: &dyn GuestMemory) -> bool {
        let mut state = self.lock();
        let processor = state.vp(vp);
        let waits = !processor.vtls[Vtl::Vtl1.index()].interrupts.is_empty();
        if processor.active != Vtl::Vtl0 || !processor.vtl1_enabled || !waits {
            return false;
        }
        state.enter(vp, EntryReason::INTERRUPT, memory);
        true
    }

    /// VTL1 of `vp` returns at privilege level `cpl` with `control` in RCX (bit 0: fast return).
    ///
    /// # Errors
    /// #UD when VTL1 is not running in ring 0, or `control` has undefined bits.
    pub fn vtl_return(&self, vp: u32, cpl: u8, control: u64, memory: &dyn GuestMemory) -> Result<VtlReturn, Fault> {
        let mut state = self.lock();
        if cpl != 0 || control & !1 != 0 || state.vp(vp).active != Vtl::Vtl1 {
            return Err(Fault::InvalidOpcode);
        }
        let fast = control & 1 != 0;
        let restore = if fast { None } else { state.return_registers(vp, memory) };
        let processor = state.vp(vp);
        processor.active = Vtl::Vtl0;
        // TLFS "TlbLocked": a return releases the locks the processor holds.
        processor.secure_config.0 &= !VsmVpSecureConfig::TLB_LOCKED;
        let reenter = !processor.vtls[Vtl::Vtl1.index()].interrupts.is_empty();
        state.event(&TraceEvent::Return { vp, fast });
        Ok(VtlReturn { restore, reenter })
    }
}
