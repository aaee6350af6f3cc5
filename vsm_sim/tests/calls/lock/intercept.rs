//! The policy for secure intercepts: which writes of VTL0 are carried out, and which end in a #GP.

use litebox_platform_lvbs::hv::message::{InterceptAccess, MemoryIntercept, MsrIntercept, RegisterIntercept};
use litebox_platform_lvbs::hv::{HvMessage, HvRegisterName, HvRegisterValue, MessageType, msr};
use litebox_platform_lvbs::vtl0::ControlRegMap;
use vsm_handlers::intercept::{Verdict, Violation, decide};
use zerocopy::FromZeros;

const RIP: u64 = 0xffff_ffff_8100_0000;
const CR0: u64 = 0x8005_0033;
const CR4: u64 = 0x0037_06f0;
const XCR0: u64 = 7;
const MISC_ENABLE: u64 = 0x85_0089;

/// What LockRegs would have recorded: CR0, CR4, LSTAR, STAR, CSTAR, APIC_BASE, EFER, SYSENTER_CS, ESP, EIP, SFMASK, and
/// where the hypervisor lets it XCR0, TSC_AUX and MISC_ENABLE.
fn recorded() -> ControlRegMap {
    let contract = [CR0, CR4, 0xffff_ffff_8200_0000, 0x23_0010, 3, 0xfee0_0900, 0xd01, 0x10, 8, 9, 0x25_7fd5];
    let mut values = [XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, XCR0, 5, MISC_ENABLE];
    values[..contract.len()].copy_from_slice(&contract);
    ControlRegMap::new(values)
}

fn msr_message(number: u32, value: u64, access: InterceptAccess, length_and_cr8: u8) -> HvMessage {
    let mut payload = MsrIntercept::new_zeroed();
    payload.header.rip = RIP;
    payload.header.access = access;
    payload.header.instruction_length_and_cr8 = length_and_cr8;
    payload.msr = number;
    // The upper halves of RDX and RAX are no part of the value.
    payload.rdx = 0xdead_beef << 32 | value >> 32;
    payload.rax = 0xfeed_face << 32 | value & 0xffff_ffff;
    HvMessage::new(MessageType::MSR_INTERCEPT, 0, &payload)
}

fn register_message(register: HvRegisterName, value: HvRegisterValue, access: InterceptAccess) -> HvMessage {
    let mut payload = RegisterIntercept::new_zeroed();
    payload.header.rip = RIP;
    payload.header.access = access;
    payload.header.instruction_length_and_cr8 = 3;
    payload.register = register;
    payload.value = value;
    HvMessage::new(MessageType::REGISTER_INTERCEPT, 0, &payload)
}

fn control_write(register: HvRegisterName, value: u64) -> Verdict {
    decide(&register_message(register, value.into(), InterceptAccess::WRITE), Some(&recorded()))
}

#[test]
fn an_msr_may_be_written_with_the_value_it_has_and_no_other() {
    let msrs = [
        (msr::LSTAR, HvRegisterName::LSTAR),
        (msr::STAR, HvRegisterName::STAR),
        (msr::CSTAR, HvRegisterName::CSTAR),
        (msr::APIC_BASE, HvRegisterName::APIC_BASE),
        (msr::EFER, HvRegisterName::EFER),
        (msr::SYSENTER_CS, HvRegisterName::SYSENTER_CS),
        (msr::SYSENTER_ESP, HvRegisterName::SYSENTER_ESP),
        (msr::SYSENTER_EIP, HvRegisterName::SYSENTER_EIP),
        (msr::SFMASK, HvRegisterName::SFMASK),
        (msr::TSC_AUX, HvRegisterName::TSC_AUX),
    ];
    for (number, register) in msrs {
        let value = recorded().get(register).unwrap();
        // CR8 shares a byte with the instruction length.
        let message = msr_message(number, value, InterceptAccess::WRITE, 0xf2);
        let expected = Verdict::CarryOut { register, value, rip: RIP + 2 };
        assert_eq!(decide(&message, Some(&recorded())), expected, "{register}");
        for bit in 0..64 {
            let other = value ^ 1 << bit;
            let message = msr_message(number, other, InterceptAccess::WRITE, 2);
            let expected = Verdict::Fault(Violation::Pinned { register, value: other });
            assert_eq!(decide(&message, Some(&recorded())), expected, "{register} bit {bit}");
        }
        let message = msr_message(number, value, InterceptAccess::WRITE, 2);
        assert_eq!(decide(&message, None), Verdict::Fault(Violation::NotLocked));
        let message = msr_message(number, value, InterceptAccess::READ, 2);
        assert_eq!(decide(&message, Some(&recorded())), Verdict::Fault(Violation::Msr(number)));
    }
}

/// Bit 34 of IA32_MISC_ENABLE turns no-execute off (Intel SDM vol. 4).
#[test]
fn misc_enable_is_compared_on_xd_disable_alone() {
    let register = HvRegisterName::MISC_ENABLE;
    for bit in 0..64 {
        let value = MISC_ENABLE ^ 1 << bit;
        let verdict = decide(&msr_message(msr::MISC_ENABLE, value, InterceptAccess::WRITE, 2), Some(&recorded()));
        let expected = match bit {
            34 => Verdict::Fault(Violation::Pinned { register, value }),
            _ => Verdict::CarryOut { register, value, rip: RIP + 2 },
        };
        assert_eq!(verdict, expected, "bit {bit}");
    }
}

/// The VTLs share XCR0, so that VTL1 does not write it: the value it has is stepped over.
#[test]
fn xcr0_may_be_written_with_the_value_it_has() {
    let register = HvRegisterName::XFEM;
    assert_eq!(control_write(register, XCR0), Verdict::StepOver { rip: RIP + 3 });
    for bit in 0..64 {
        let value = XCR0 ^ 1 << bit;
        assert_eq!(control_write(register, value), Verdict::Fault(Violation::Pinned { register, value }));
    }
}

/// A hypervisor that cannot intercept a register has no business to say that it did.
#[test]
fn a_register_that_was_not_recorded_is_not_written() {
    let narrow = ControlRegMap::of(recorded().iter().take(11));
    for number in [msr::TSC_AUX, msr::MISC_ENABLE] {
        let message = msr_message(number, MISC_ENABLE, InterceptAccess::WRITE, 2);
        assert_eq!(decide(&message, Some(&narrow)), Verdict::Fault(Violation::NotLocked));
    }
    let message = register_message(HvRegisterName::XFEM, XCR0.into(), InterceptAccess::WRITE);
    assert_eq!(decide(&message, Some(&narrow)), Verdict::Fault(Violation::NotLocked));
}

#[test]
fn the_number_of_sfmask_is_c0000084_and_not_84() {
    let value = recorded().get(HvRegisterName::SFMASK).unwrap();
    let message = |number| msr_message(number, value, InterceptAccess::WRITE, 2);
    assert!(matches!(decide(&message(0xc000_0084), Some(&recorded())), Verdict::CarryOut { .. }));
    assert_eq!(decide(&message(0x84), Some(&recorded())), Verdict::Fault(Violation::Msr(0x84)));
}

#[test]
fn control_registers_are_compared_on_their_pinned_bits() {
    for (register, recorded, free) in [
        (HvRegisterName::CR0, CR0, !0x8001_0001_u64),
        (HvRegisterName::CR4, CR4, 1 << 2 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 13),
    ] {
        for bit in 0..64 {
            let value = recorded ^ 1 << bit;
            let verdict = control_write(register, value);
            if free & 1 << bit != 0 {
                assert_eq!(verdict, Verdict::CarryOut { register, value, rip: RIP + 3 }, "{register} bit {bit}");
            } else {
                assert_eq!(verdict, Verdict::Fault(Violation::Pinned { register, value }), "{register} bit {bit}");
            }
        }
        let wide = HvRegisterValue { low: recorded, high: 1 };
        let message = register_message(register, wide, InterceptAccess::WRITE);
        assert_eq!(decide(&message, Some(&self::recorded())), Verdict::Fault(Violation::Register(register)));
        let message = register_message(register, recorded.into(), InterceptAccess::READ);
        assert_eq!(decide(&message, Some(&self::recorded())), Verdict::Fault(Violation::Register(register)));
        let message = register_message(register, recorded.into(), InterceptAccess::WRITE);
        assert_eq!(decide(&message, None), Verdict::Fault(Violation::NotLocked));
    }
}

#[test]
fn descriptor_tables_and_other_registers_are_never_written() {
    let registers = [
        HvRegisterName::GDTR,
        HvRegisterName::IDTR,
        HvRegisterName::LDTR,
        HvRegisterName::TR,
        HvRegisterName::CR3,
        HvRegisterName::EFER,
        HvRegisterName(0xffff_ffff),
    ];
    for register in registers {
        assert_eq!(control_write(register, 0), Verdict::Fault(Violation::Register(register)));
    }
    for number in [0, 0x10, msr::PAT, msr::KERNEL_GS_BASE, 0xda0, 0x6a2, 0x4000_0001, u32::MAX] {
        let message = msr_message(number, 0, InterceptAccess::WRITE, 2);
        assert_eq!(decide(&message, Some(&recorded())), Verdict::Fault(Violation::Msr(number)));
    }
}

#[test]
fn an_access_beyond_a_frames_permission_is_a_fault() {
    for access in [InterceptAccess::READ, InterceptAccess::WRITE, InterceptAccess::EXECUTE, InterceptAccess(77)] {
        let mut payload = MemoryIntercept::new_zeroed();
        payload.gpa = 0x1234_5000;
        payload.header.access = access;
        let message = HvMessage::new(MessageType::GPA_INTERCEPT, 0, &payload);
        let expected = Verdict::Fault(Violation::Memory { gpa: 0x1234_5000, access });
        assert_eq!(decide(&message, None), expected);
    }
}

#[test]
fn a_message_of_unknown_type_or_too_short_is_a_fault_and_one_that_is_not_the_hypervisors_ignored() {
    for kind in [0, 1, 0x7fff_ffff, 0x8000_0000, 0x8000_0021, 0x8001_0000, 0x8001_0002, u32::MAX] {
        let mut message = HvMessage::new_zeroed();
        message.message_type = MessageType(kind);
        message.payload.fill(0xff);
        let expected = match kind >> 31 {
            0 => Verdict::Ignore,
            _ => Verdict::Fault(Violation::Unknown(MessageType(kind))),
        };
        assert_eq!(decide(&message, Some(&recorded())), expected, "{kind:#x}");
    }
    let mut message = msr_message(msr::EFER, 0xd01, InterceptAccess::WRITE, 2);
    message.payload_size -= 1;
    assert_eq!(decide(&message, Some(&recorded())), Verdict::Fault(Violation::Malformed(MessageType::MSR_INTERCEPT)));
}

#[test]
fn an_instruction_of_unknown_length_is_not_stepped_over() {
    let message = msr_message(msr::EFER, 0xd01, InterceptAccess::WRITE, 0xf0);
    assert_eq!(decide(&message, Some(&recorded())), Verdict::Fault(Violation::Malformed(MessageType::MSR_INTERCEPT)));
}
