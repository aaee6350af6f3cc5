//! Constants against the numbers of the LVBS contract §2.5, §5.1, §6 and §7, written out.

use litebox_platform_lvbs::hv::hypercall::{EnablePartitionVtl, EnableVpVtl, ModifyVtlProtectionMask};
use litebox_platform_lvbs::hv::message::{InterceptHeader, MemoryIntercept};
use litebox_platform_lvbs::hv::{
    CrInterceptControl, EntryReason, HvMessage, HvRegisterName as N, HvStatus, HypercallCode as C, HypercallControl,
    InitialVpContext, InputVtl, MapFlags, MessageType, PARTITION_ID_SELF, PendingEvent, VP_INDEX_SELF, VpAssistPage,
    VsmPartitionConfig, cpuid, msr,
};

#[test]
fn hypercall_codes() {
    let codes = [
        (C::MODIFY_VTL_PROTECTION_MASK, 0x000c),
        (C::ENABLE_PARTITION_VTL, 0x000d),
        (C::ENABLE_VP_VTL, 0x000f),
        (C::VTL_CALL, 0x0011),
        (C::VTL_RETURN, 0x0012),
        (C::FLUSH_VIRTUAL_ADDRESS_SPACE_EX, 0x0013),
        (C::FLUSH_VIRTUAL_ADDRESS_LIST_EX, 0x0014),
        (C::GET_VP_REGISTERS, 0x0050),
        (C::SET_VP_REGISTERS, 0x0051),
        (C::START_VIRTUAL_PROCESSOR, 0x0099),
        (C::GET_VP_INDEX_FROM_APIC_ID, 0x009a),
    ];
    for (code, number) in codes {
        assert_eq!(code.0, number, "{code}");
    }
    let control = HypercallControl::new(C(0x14)).with_varhead(3).with_reps(5).with_rep_start(2);
    assert_eq!(control.raw(), 0x14 | 3 << 17 | 5 << 32 | 2 << 48);
    assert_eq!((PARTITION_ID_SELF, VP_INDEX_SELF, InputVtl::VTL0.0), (u64::MAX, 0xffff_fffe, 0x10));
}

#[test]
fn status_codes() {
    let codes = [
        (HvStatus::SUCCESS, 0),
        (HvStatus::INVALID_HYPERCALL_CODE, 2),
        (HvStatus::INVALID_HYPERCALL_INPUT, 3),
        (HvStatus::INVALID_ALIGNMENT, 4),
        (HvStatus::INVALID_PARAMETER, 5),
        (HvStatus::ACCESS_DENIED, 6),
        (HvStatus::OPERATION_DENIED, 8),
        (HvStatus::INSUFFICIENT_MEMORY, 11),
        (HvStatus::INSUFFICIENT_BUFFERS, 19),
        (HvStatus::TIMEOUT, 120),
        (HvStatus::VTL_ALREADY_ENABLED, 134),
    ];
    for (status, number) in codes {
        assert_eq!(status.0, number, "{status}");
    }
}

#[test]
fn register_names() {
    let names = [
        (N::VSM_CODE_PAGE_OFFSETS, 0x000d_0002),
        (N::VSM_VP_STATUS, 0x000d_0003),
        (N::VSM_PARTITION_STATUS, 0x000d_0004),
        (N::VSM_VINA, 0x000d_0005),
        (N::VSM_CAPABILITIES, 0x000d_0006),
        (N::VSM_PARTITION_CONFIG, 0x000d_0007),
        (N::VSM_VP_SECURE_CONFIG_VTL0, 0x000d_0010),
        (N::CR_INTERCEPT_CONTROL, 0x000e_0000),
        (N::CR_INTERCEPT_CR0_MASK, 0x000e_0001),
        (N::CR_INTERCEPT_CR4_MASK, 0x000e_0002),
        (N::CR_INTERCEPT_IA32_MISC_ENABLE_MASK, 0x000e_0003),
        (N::PENDING_EVENT0, 0x0001_0004),
        (N::RIP, 0x0002_0010),
        (N::CR0, 0x0004_0000),
        (N::CR3, 0x0004_0002),
        (N::CR4, 0x0004_0003),
        (N::LDTR, 0x0006_0006),
        (N::TR, 0x0006_0007),
        (N::IDTR, 0x0007_0000),
        (N::GDTR, 0x0007_0001),
        (N::EFER, 0x0008_0001),
        (N::APIC_BASE, 0x0008_0003),
        (N::SYSENTER_CS, 0x0008_0005),
        (N::SYSENTER_EIP, 0x0008_0006),
        (N::SYSENTER_ESP, 0x0008_0007),
        (N::STAR, 0x0008_0008),
        (N::LSTAR, 0x0008_0009),
        (N::CSTAR, 0x0008_000a),
        (N::SFMASK, 0x0008_000b),
    ];
    for (name, number) in names {
        assert_eq!(name.0, number, "{name}");
    }
}

#[test]
fn msrs_and_cpuid() {
    let numbers = [
        (msr::GUEST_OS_ID, 0x4000_0000),
        (msr::HYPERCALL, 0x4000_0001),
        (msr::VP_INDEX, 0x4000_0002),
        (msr::VP_ASSIST_PAGE, 0x4000_0073),
        (msr::SCONTROL, 0x4000_0080),
        (msr::SIEFP, 0x4000_0082),
        (msr::SIMP, 0x4000_0083),
        (msr::EOM, 0x4000_0084),
        (msr::SINT0, 0x4000_0090),
        (msr::EFER, 0xc000_0080),
        (msr::STAR, 0xc000_0081),
        (msr::LSTAR, 0xc000_0082),
        (msr::CSTAR, 0xc000_0083),
        (msr::SFMASK, 0xc000_0084),
        (msr::APIC_BASE, 0x1b),
        (msr::SYSENTER_CS, 0x174),
        (msr::SYSENTER_ESP, 0x175),
        (msr::SYSENTER_EIP, 0x176),
    ];
    for (constant, number) in numbers {
        assert_eq!(constant, number);
    }
    assert_eq!(msr::Sint::auto_eoi(0xf3).0, 0xf3 | 1 << 17);
    assert_eq!(cpuid::INTERFACE_HV1.to_le_bytes(), *b"Hv#1");
    assert_eq!(cpuid::VENDOR_MICROSOFT_HV.map(u32::to_le_bytes).concat(), b"Microsoft Hv");
}

#[test]
fn vsm_registers_and_flags() {
    let lock_regs = CrInterceptControl::CR0_WRITE
        | CrInterceptControl::CR4_WRITE
        | CrInterceptControl::LSTAR_WRITE
        | CrInterceptControl::STAR_WRITE
        | CrInterceptControl::CSTAR_WRITE
        | CrInterceptControl::APIC_BASE_WRITE
        | CrInterceptControl::EFER_WRITE
        | CrInterceptControl::GDTR_WRITE
        | CrInterceptControl::IDTR_WRITE
        | CrInterceptControl::LDTR_WRITE
        | CrInterceptControl::TR_WRITE
        | CrInterceptControl::SYSENTER_CS_WRITE
        | CrInterceptControl::SYSENTER_EIP_WRITE
        | CrInterceptControl::SYSENTER_ESP_WRITE
        | CrInterceptControl::SFMASK_WRITE;
    assert_eq!(lock_regs.bits(), 0x7f_d543, "LVBS contract, LOCK_REGS");
    assert_eq!(CrInterceptControl::all().bits(), (1 << 29) - 1);
    assert_eq!(VsmPartitionConfig::new(MapFlags::ALL).0, 0x1f);
    assert_eq!(PendingEvent::GENERAL_PROTECTION.0, 0x000d_0101);
    let flags = [MapFlags::READ_ONLY, MapFlags::READ_WRITE, MapFlags::READ_EXECUTE, MapFlags::ALL, MapFlags::NONE];
    assert_eq!(flags.map(|flags| flags.bits()), [0x9, 0xb, 0xd, 0xf, 0x0]);
}

#[test]
fn sizes() {
    assert_eq!(size_of::<EnablePartitionVtl>(), 16);
    assert_eq!(size_of::<EnableVpVtl>(), 240);
    assert_eq!(size_of::<InitialVpContext>(), 224);
    assert_eq!(size_of::<ModifyVtlProtectionMask>(), 16);
    assert_eq!(size_of::<VpAssistPage>(), 4096);
    assert_eq!(size_of::<HvMessage>(), 256);
    assert_eq!(size_of::<InterceptHeader>(), 40);
    assert_eq!(size_of::<MemoryIntercept>(), 0x50);
    let offsets = [VpAssistPage::ENTRY_REASON, VpAssistPage::VTL_RETURN_RAX, VpAssistPage::VTL_RETURN_RCX];
    assert_eq!(offsets, [8, 16, 24]);
    assert_eq!([EntryReason::VTL_CALL, EntryReason::INTERRUPT, EntryReason::INTERCEPT].map(|r| r.0), [1, 2, 3]);
    let types = [MessageType::GPA_INTERCEPT, MessageType::MSR_INTERCEPT, MessageType::REGISTER_INTERCEPT];
    assert_eq!(types.map(|kind| kind.0), [0x8000_0001, 0x8001_0001, 0x8001_0006]);
}
