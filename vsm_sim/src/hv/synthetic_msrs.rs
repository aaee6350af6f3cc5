//! Synthetic MSRs and hypervisor CPUID leaves (TLFS "Hypervisor Synthetic MSRs", "Feature and Interface Discovery").
//!
//! All of them are private to a VTL but VP_INDEX, TIME_REF_COUNT and the frequencies. GUEST_OS_ID, HYPERCALL, REFERENCE_TSC and
//! TSC_INVARIANT_CONTROL exist once per VTL and partition, the others once per VTL and processor.

use litebox_platform_lvbs::hv::cpuid::{self, Privileges};
use litebox_platform_lvbs::hv::{MapFlags, Vtl, msr};

use super::Fault;
use super::memory::GuestMemory;
use super::partition::{Effect, Partition, State};
use super::trace::TraceEvent;

/// Whether `number` lies in the range the hypervisor answers for.
pub fn is_synthetic(number: u32) -> bool {
    (0x4000_0000..0x4000_1000).contains(&number)
}

/// [`cpuid::LEAF_VERSION`]: build number, major and minor version, service pack, service branch; those of a Windows Server 2022.
const VERSION: [u32; 4] = [20348, 10 << 16, 0, 0];

/// Which page of a VTL a page MSR places.
const PAGE_MSRS: [u32; 3] = [msr::VP_ASSIST_PAGE, msr::SIMP, msr::SIEFP];

impl Partition {
    /// Reads a synthetic MSR.
    ///
    /// # Errors
    /// The exception raised instead.
    pub fn msr_read(&self, vp: u32, vtl: Vtl, number: u32) -> Result<u64, Fault> {
        let mut state = self.lock();
        let result = self.read_msr(&mut state, vp, vtl, number);
        state.event(&TraceEvent::MsrRead { vp, vtl, msr: number, result });
        result
    }

    /// Writes a synthetic MSR.
    ///
    /// # Errors
    /// The exception raised instead.
    pub fn msr_write(&self, vp: u32, vtl: Vtl, number: u32, value: u64, memory: &dyn GuestMemory) -> Result<(), Fault> {
        let mut state = self.lock();
        let result = self.write_msr(&mut state, vp, vtl, number, value, memory);
        state.event(&TraceEvent::MsrWrite { vp, vtl, msr: number, value, result });
        result
    }

    /// EAX, EBX, ECX, EDX of a hypervisor leaf; zeros beyond the last one. `None` for leaves of the processor itself.
    pub fn cpuid(&self, leaf: u32) -> Option<[u32; 4]> {
        let privileges = self.config.privileges.bits();
        let [low, high] = [privileges, privileges >> 32].map(|half| u32::try_from(half & 0xffff_ffff).unwrap_or(0));
        match leaf {
            cpuid::LEAF_VENDOR => {
                let [ebx, ecx, edx] = cpuid::VENDOR_MICROSOFT_HV;
                Some([cpuid::LEAF_LIMITS, ebx, ecx, edx])
            }
            cpuid::LEAF_INTERFACE => Some([cpuid::INTERFACE_HV1, 0, 0, 0]),
            cpuid::LEAF_VERSION => Some(VERSION),
            cpuid::LEAF_FEATURES => {
                let frequencies = if self.config.clock.is_some() { cpuid::FEATURE_FREQUENCIES } else { 0 };
                Some([low, high, 0, frequencies])
            }
            cpuid::LEAF_LIMITS => Some([self.config.vps, self.config.vps, 0, 0]),
            _ => (leaf >> 16 == 0x4000).then_some([0; 4]),
        }
    }

    /// Whether `vtl` has asked for the invariant TSC to be shown in CPUID.
    pub fn shows_invariant_tsc(&self, vtl: Vtl) -> bool {
        self.lock().vtls[vtl.index()].invariant_tsc != 0
    }

    /// The privilege an MSR needs; `None` for an MSR the model does not have.
    fn privilege(&self, number: u32) -> Option<Privileges> {
        let clock = [msr::REFERENCE_TSC, msr::TSC_FREQUENCY, msr::APIC_FREQUENCY, msr::TSC_INVARIANT_CONTROL];
        if self.config.clock.is_none() && clock.contains(&number) {
            return None;
        }
        Some(match number {
            msr::GUEST_OS_ID | msr::HYPERCALL => Privileges::ACCESS_HYPERCALL_MSRS,
            msr::VP_INDEX => Privileges::ACCESS_VP_INDEX,
            msr::TIME_REF_COUNT => Privileges::ACCESS_PARTITION_REFERENCE_COUNTER,
            msr::REFERENCE_TSC => Privileges::ACCESS_PARTITION_REFERENCE_TSC,
            msr::TSC_FREQUENCY | msr::APIC_FREQUENCY => Privileges::ACCESS_FREQUENCY_REGS,
            msr::TSC_INVARIANT_CONTROL => Privileges::ACCESS_TSC_INVARIANT_CONTROLS,
            msr::VP_ASSIST_PAGE => Privileges::ACCESS_INTR_CTRL_REGS,
            msr::SCONTROL | msr::SVERSION | msr::SIEFP | msr::SIMP | msr::EOM => Privileges::ACCESS_SYNIC_REGS,
            _ if sint(number).is_some() => Privileges::ACCESS_SYNIC_REGS,
            _ => return None,
        })
    }

    fn check_access(&self, state: &mut State, vp: u32, vtl: Vtl, number: u32) -> Result<(), Fault> {
        match self.privilege(number) {
            Some(privilege) if self.config.privileges.contains(privilege) => Ok(()),
            Some(_) => Err(Fault::GeneralProtection),
            None => {
                state.report(vp, vtl, format!("synthetic MSR {number:#x} is not one the model has"));
                Err(Fault::GeneralProtection)
            }
        }
    }

    fn read_msr(&self, state: &mut State, vp: u32, vtl: Vtl, number: u32) -> Result<u64, Fault> {
        self.check_access(state, vp, vtl, number)?;
        if number == msr::TIME_REF_COUNT {
            return Ok(state.reference_time(self.started));
        }
        let partition = &state.vtls[vtl.index()];
        Ok(match number {
            msr::GUEST_OS_ID => partition.guest_os_id,
            msr::HYPERCALL => partition.hypercall_page,
            msr::VP_INDEX => u64::from(vp),
            msr::REFERENCE_TSC => partition.reference_tsc,
            msr::TSC_FREQUENCY => self.config.clock.map_or(0, |clock| clock.tsc),
            msr::APIC_FREQUENCY => self.config.clock.map_or(0, |clock| clock.apic),
            msr::TSC_INVARIANT_CONTROL => partition.invariant_tsc,
            msr::VP_ASSIST_PAGE => state.vtl(vp, vtl).assist_page,
            msr::SCONTROL => state.vtl(vp, vtl).synic.control,
            msr::SVERSION => msr::SVERSION_VALUE,
            msr::SIEFP => state.vtl(vp, vtl).synic.event_page,
            msr::SIMP => state.vtl(vp, vtl).synic.message_page,
            // EOM is write-only and reads as zero.
            _ => sint(number).map_or(0, |index| state.vtl(vp, vtl).synic.sints[index].0),
        })
    }

    fn write_msr(
        &self,
        state: &mut State,
        vp: u32,
        vtl: Vtl,
        number: u32,
        value: u64,
        memory: &dyn GuestMemory,
    ) -> Result<(), Fault> {
        self.check_access(state, vp, vtl, number)?;
        if PAGE_MSRS.contains(&number) || number == msr::REFERENCE_TSC {
            self.check_page(state, vp, vtl, number, value)?;
        }
        match number {
            msr::GUEST_OS_ID => {
                let partition = &mut state.vtls[vtl.index()];
                partition.guest_os_id = value;
                // TLFS: without an identity there is no hypercall page.
                if value == 0 && partition.hypercall_page & msr::PAGE_ENABLE != 0 {
                    partition.hypercall_page &= !msr::PAGE_ENABLE;
                    state.effect(Effect::HypercallPage { vtl, gfn: None });
                }
            }
            msr::HYPERCALL => return self.write_hypercall_page(state, vp, vtl, value),
            msr::REFERENCE_TSC => {
                state.vtls[vtl.index()].reference_tsc = value;
                let gfn = (value & msr::PAGE_ENABLE != 0).then_some(value >> 12);
                state.effect(Effect::ReferenceTscPage { vtl, gfn });
            }
            msr::TSC_INVARIANT_CONTROL if value & !1 != 0 => return Err(Fault::GeneralProtection),
            msr::TSC_INVARIANT_CONTROL => state.vtls[vtl.index()].invariant_tsc = value,
            msr::VP_ASSIST_PAGE => state.vtl(vp, vtl).assist_page = value,
            msr::SCONTROL => {
                state.vtl(vp, vtl).synic.control = value;
                state.deliver_all(vp, vtl, memory);
            }
            msr::SIEFP => state.vtl(vp, vtl).synic.event_page = value,
            msr::SIMP => {
                state.vtl(vp, vtl).synic.message_page = value;
                state.deliver_all(vp, vtl, memory);
            }
            msr::EOM => state.deliver_all(vp, vtl, memory),
            // Read-only.
            msr::VP_INDEX | msr::TIME_REF_COUNT | msr::SVERSION | msr::TSC_FREQUENCY | msr::APIC_FREQUENCY => {
                return Err(Fault::GeneralProtection);
            }
            _ => {
                let source = msr::Sint(value);
                let masked = value & msr::Sint::MASKED != 0;
                if !masked && source.vector() < msr::Sint::FIRST_VECTOR {
                    return Err(Fault::GeneralProtection);
                }
                if let Some(index) = sint(number) {
                    state.vtl(vp, vtl).synic.sints[index] = source;
                }
            }
        }
        Ok(())
    }

    fn write_hypercall_page(&self, state: &mut State, vp: u32, vtl: Vtl, value: u64) -> Result<(), Fault> {
        let old = state.vtls[vtl.index()].hypercall_page;
        if old & msr::HYPERCALL_LOCKED != 0 {
            return Err(Fault::GeneralProtection);
        }
        if state.vtls[vtl.index()].guest_os_id == 0 {
            // TLFS "Establishing the Hypercall Interface": the enable bit stays clear.
            state.vtls[vtl.index()].hypercall_page = value & !msr::PAGE_ENABLE;
            return Ok(());
        }
        self.check_page(state, vp, vtl, msr::HYPERCALL, value)?;
        state.vtls[vtl.index()].hypercall_page = value;
        let gfn = (value & msr::PAGE_ENABLE != 0).then_some(value >> 12);
        state.effect(Effect::HypercallPage { vtl, gfn });
        Ok(())
    }

    /// Whether a page MSR may place its page there.
    fn check_page(&self, state: &mut State, vp: u32, vtl: Vtl, number: u32, value: u64) -> Result<(), Fault> {
        if value >> 52 != 0 {
            return Err(Fault::GeneralProtection);
        }
        if value & msr::PAGE_ENABLE == 0 {
            return Ok(());
        }
        let gfn = value >> 12;
        let name = msr::name(number).unwrap_or("page");
        let wanted = MapFlags::READ | MapFlags::WRITE;
        let problem = if !self.is_ram(gfn) {
            "which is not RAM; the model has no overlay pages"
        } else if vtl == Vtl::Vtl0 && !state.protections.get(gfn).contains(wanted) {
            "which VTL1 has taken from VTL0"
        } else if state.overlays_another(vp, vtl, number, gfn) {
            "where another overlay page lies: undefined"
        } else {
            return Ok(());
        };
        state.report(vp, vtl, format!("{name} at {:#x}, {problem}", gfn << 12));
        Err(Fault::GeneralProtection)
    }
}

impl State {
    /// Whether an enabled page other than (`vp`, `vtl`, `number`)'s own lies on frame `gfn`.
    fn overlays_another(&self, vp: u32, vtl: Vtl, number: u32, gfn: u64) -> bool {
        let is_there = |page: u64| page & msr::PAGE_ENABLE != 0 && page >> 12 == gfn;
        let of_partition = Vtl::ALL.into_iter().any(|other| {
            let pages = &self.vtls[other.index()];
            [(msr::HYPERCALL, pages.hypercall_page), (msr::REFERENCE_TSC, pages.reference_tsc)]
                .into_iter()
                .any(|(which, page)| !(other == vtl && number == which) && is_there(page))
        });
        of_partition
            || (0..).zip(&self.vps).any(|(other_vp, processor)| {
                Vtl::ALL.into_iter().any(|other_vtl| {
                    let pages = &processor.vtls[other_vtl.index()];
                    let placed = [pages.assist_page, pages.synic.message_page, pages.synic.event_page];
                    PAGE_MSRS.into_iter().zip(placed).any(|(other, page)| {
                        let own = other_vp == vp && other_vtl == vtl && other == number;
                        !own && is_there(page)
                    })
                })
            })
    }
}

/// The index of the interrupt source whose register `number` is.
fn sint(number: u32) -> Option<usize> {
    let index = number.checked_sub(msr::SINT0).filter(|index| *index < msr::SINT_COUNT)?;
    usize::try_from(index).ok()
}
