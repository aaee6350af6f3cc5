//! Hyper-V set-up: of the partition once, of each processor at its first entry.
//!
//! Every MSR and every register that is set here is read back and compared: a hypervisor that drops a write must end the
//! boot, not weaken it. What LockRegs and the end of boot set later is not read back, because the hypervisor is trusted.
//! Values and order: LVBS contract §2.8 and §7.

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use x86_64::registers::model_specific::Msr;

use super::cpu::MissingFeature;
use super::exceptions::SINT_VECTOR;
use super::layout;
use super::vp::{self, VpState};
use crate::error::VsmError;
use crate::hardware::Hardware;
use crate::hardware::calls;
use crate::hv::cpuid::{
    HYPERVISOR_PRESENT, INTERFACE_HV1, LEAF_FEATURES, LEAF_INTERFACE, LEAF_LIMITS, LEAF_VENDOR, Privileges,
};
use crate::hv::msr::{self, Sint};
use crate::hv::{HvRegisterName, InputVtl, MapFlags, VsmCodePageOffsets, VsmPartitionConfig, VsmVpSecureConfig};

/// Why Hyper-V cannot be set up.
#[derive(Clone, Copy, Debug, Error)]
pub enum HypervError {
    /// The processor or the hypervisor lacks something.
    #[error("{0}")]
    Missing(MissingFeature),
    /// CPUID shows no hypervisor with the Hv#1 interface.
    #[error("no Hyper-V here: interface signature {0:#x}")]
    NoHyperv(u32),
    /// The partition lacks privileges VTL1 needs.
    #[error("the partition lacks the privileges {0:#x} (TLFS HV_PARTITION_PRIVILEGE_MASK)")]
    Privileges(u64),
    /// An MSR does not hold what was written.
    #[error("MSR {msr:#x} reads {read:#x} after {written:#x} was written")]
    MsrNotKept {
        /// Which MSR.
        msr: u32,
        /// What was written.
        written: u64,
        /// What was read back.
        read: u64,
    },
    /// A register does not hold what was written.
    #[error("{name} reads {read:#x} after {written:#x} was written")]
    RegisterNotKept {
        /// Which register.
        name: HvRegisterName,
        /// What was written.
        written: u64,
        /// What was read back.
        read: u64,
    },
    /// A hypercall or a table failed.
    #[error("{0}")]
    Vsm(#[from] VsmError),
}

/// VTL1's identity to the hypervisor: open source, type of Linux (TLFS "Reporting the Guest OS Identity": 1), our
/// version 0.1.
const GUEST_OS_ID: u64 = msr::guest_os_id(1, 0x0001_0000, 0);

/// Checks that this is Hyper-V and that the partition has what VTL1 needs.
pub fn check() -> Result<(), HypervError> {
    if __cpuid(1).ecx & HYPERVISOR_PRESENT == 0 {
        return Err(HypervError::NoHyperv(0));
    }
    let interface = __cpuid(LEAF_INTERFACE).eax;
    if interface != INTERFACE_HV1 || __cpuid(LEAF_VENDOR).eax < LEAF_LIMITS {
        return Err(HypervError::NoHyperv(interface));
    }
    let features = __cpuid(LEAF_FEATURES);
    let needed = Privileges::VSM
        | Privileges::ACCESS_HYPERCALL_MSRS
        | Privileges::ACCESS_VP_INDEX
        | Privileges::ACCESS_INTR_CTRL_REGS;
    let granted = Privileges::from_leaf(features.eax, features.ebx);
    HAS_REFERENCE_COUNTER.store(granted.contains(Privileges::ACCESS_PARTITION_REFERENCE_COUNTER), Ordering::Relaxed);
    let missing = needed - granted;
    if missing.is_empty() { Ok(()) } else { Err(HypervError::Privileges(missing.bits())) }
}

/// Whether the partition may read the reference counter.
static HAS_REFERENCE_COUNTER: AtomicBool = AtomicBool::new(false);

fn read_msr(number: u32) -> u64 {
    // SAFETY: only called below, with synthetic MSRs whose reading has no effect and for which `check` saw the privilege.
    unsafe { Msr::new(number).read() }
}

/// Index of the calling processor.
pub fn vp_index() -> u32 {
    // TLFS: 32 bits.
    (read_msr(msr::VP_INDEX) & 0xffff_ffff) as u32
}

/// The partition reference counter, in units of 100 ns, if the partition may read it.
pub fn reference_time() -> Option<u64> {
    HAS_REFERENCE_COUNTER.load(Ordering::Relaxed).then(|| read_msr(msr::TIME_REF_COUNT))
}

/// Tells the local APIC that the interrupt being served is done with (TLFS "EOI Register"; [`check`] saw the privilege).
/// Without one being served this does nothing.
pub fn end_of_interrupt() {
    put_msr(msr::EOI, 0);
}

fn put_msr(number: u32, value: u64) {
    // SAFETY: only called here, with synthetic MSRs and pages of ours; none of them changes memory Rust knows of but
    // the hypercall page, which holds no Rust code.
    unsafe { Msr::new(number).write(value) };
}

fn write_msr(number: u32, value: u64) -> Result<(), HypervError> {
    put_msr(number, value);
    let read = read_msr(number);
    if read == value { Ok(()) } else { Err(HypervError::MsrNotKept { msr: number, written: value, read }) }
}

fn set_register(hardware: &dyn Hardware, name: HvRegisterName, value: u64) -> Result<(), HypervError> {
    calls::set_vp_register(hardware, InputVtl::CURRENT, name, value)?;
    let read = calls::get_vp_register(hardware, InputVtl::CURRENT, name)?;
    if read == value { Ok(()) } else { Err(HypervError::RegisterNotKept { name, written: value, read }) }
}

/// Enables the hypercall page and VTL protections for the partition. Called once, by the boot processor.
pub fn initialise_partition(hardware: &dyn Hardware) -> Result<(), HypervError> {
    write_msr(msr::GUEST_OS_ID, GUEST_OS_ID)?;
    let page = layout::virt_to_phys(layout::hypercall_page()).ok_or(VsmError::OutOfMemory("the hypercall page"))?;
    write_msr(msr::HYPERCALL, msr::page_enabled(page))?;
    // What the hypervisor has enabled by itself stays enabled, such as zeroing the memory before a reset.
    let before = calls::get_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_PARTITION_CONFIG)?;
    let config = before | VsmPartitionConfig::new(MapFlags::ALL).0;
    set_register(hardware, HvRegisterName::VSM_PARTITION_CONFIG, config)
}

/// Sets up the calling processor: assist page, SynIC, where to return to VTL0, and MBEC and the TLB lock for VTL0.
pub fn initialise_vp(hardware: &dyn Hardware, vp: &VpState) -> Result<(), HypervError> {
    write_msr(msr::VP_ASSIST_PAGE, msr::page_enabled(vp.shared.assist))?;
    let offsets = calls::get_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_CODE_PAGE_OFFSETS)?;
    let entry = layout::hypercall_page() + u64::from(VsmCodePageOffsets(offsets).return_offset());
    vp.vtl_return.set(entry);
    vp::set_vtl_return(entry);
    write_msr(msr::SIMP, msr::page_enabled(vp.shared.messages))?;
    write_msr(msr::SINT0, Sint::auto_eoi(SINT_VECTOR).0)?;
    write_msr(msr::SCONTROL, msr::SCONTROL_ENABLE)?;
    let secure = calls::get_vp_register(hardware, InputVtl::CURRENT, HvRegisterName::VSM_VP_SECURE_CONFIG_VTL0)?;
    let wanted = secure | VsmVpSecureConfig::MBEC | VsmVpSecureConfig::TLB_LOCKED;
    set_register(hardware, HvRegisterName::VSM_VP_SECURE_CONFIG_VTL0, wanted)
}
