//! Hypercalls, decoded: the control word and the input block are checked for form here (TLFS "Hypercall Inputs").
//!
//! The input block is copied out of guest memory once, whole, before anything in it is looked at.
//!
//! Reserved bits of the control word make a hypercall fail: the TLFS lists that under INVALID_HYPERCALL_INPUT. Of the input
//! block's reserved fields ("RsvdZ") it says that clients should zero them for forward compatibility, and nothing of what
//! comes of it otherwise ("Reserved Values"). The LVBS driver leaves old bytes there and runs on Hyper-V, and OpenVMM does not
//! look at them, so they are ignored unless [`Partition::check_reserved_fields`](super::Partition::check_reserved_fields)
//! asks for more. The reserved bits *within* a byte or word that has a meaning (HV_INPUT_VTL, map flags, the flags of
//! HvCallEnablePartitionVtl) make a value that is not defined, and are refused with it.

use std::fmt;

use litebox_platform_lvbs::hv::flush::FlushHeader;
use litebox_platform_lvbs::hv::hypercall::{
    EnablePartitionVtl, EnableVpVtl, ModifyVtlProtectionMask, SetRegister, VpRegistersHeader,
};
use litebox_platform_lvbs::hv::{
    HvRegisterName, HvRegisterValue, HvStatus, HypercallCode, HypercallControl, InitialVpContext, InputVtl,
    PARTITION_ID_SELF,
};
use zerocopy::FromBytes;

use super::flush::FlushRequest;
use super::memory::GuestMemory;

const PAGE: u64 = 4096;

/// What a hypercall asks. Lists are complete, with the elements before the rep start index too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// HvCallModifyVtlProtectionMask.
    ModifyVtlProtectionMask {
        /// The rights, as passed.
        flags: u32,
        /// The VTL that protects, as passed.
        target: InputVtl,
        /// The frames.
        gfns: Vec<u64>,
    },
    /// HvCallEnablePartitionVtl.
    EnablePartitionVtl {
        /// The VTL's number, as passed.
        target: u8,
        /// The flags, as passed.
        flags: u8,
    },
    /// HvCallEnableVpVtl.
    EnableVpVtl {
        /// The processor, as passed.
        vp: u32,
        /// The VTL's number, as passed.
        target: u8,
        /// What the processor starts with.
        context: Box<InitialVpContext>,
    },
    /// HvCallStartVirtualProcessor.
    StartVirtualProcessor {
        /// The processor, as passed.
        vp: u32,
        /// The VTL's number, as passed.
        target: u8,
    },
    /// HvCallFlushVirtualAddressSpaceEx or HvCallFlushVirtualAddressListEx.
    Flush(FlushRequest),
    /// HvCallGetVpRegisters.
    GetVpRegisters {
        /// The processor, as passed.
        vp: u32,
        /// The VTL, as passed.
        target: InputVtl,
        /// The registers.
        names: Vec<HvRegisterName>,
    },
    /// HvCallSetVpRegisters.
    SetVpRegisters {
        /// The processor, as passed.
        vp: u32,
        /// The VTL, as passed.
        target: InputVtl,
        /// The registers and their new values.
        values: Vec<(HvRegisterName, HvRegisterValue)>,
    },
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModifyVtlProtectionMask { flags, gfns, .. } => {
                write!(f, "flags {flags:#x}:")?;
                for (shown, (start, end)) in runs(gfns).enumerate() {
                    if shown == 4 {
                        return write!(f, " …");
                    }
                    write!(f, " {:#x}..{:#x}", start.wrapping_shl(12), end.wrapping_shl(12))?;
                }
                Ok(())
            }
            Self::EnablePartitionVtl { target, flags } => write!(f, "VTL{target}, flags {flags:#x}"),
            Self::EnableVpVtl { vp, target, context } => {
                write!(f, "VP {}, VTL{target}, RIP {:#x}", Vp(*vp), context.rip)
            }
            Self::Flush(FlushRequest { header, banks, ranges }) => {
                write!(f, "banks {:#x} {banks:x?}, flags {:#x}", header.valid_banks, header.flags)?;
                ranges.as_ref().map_or(Ok(()), |ranges| write!(f, ", {} ranges", ranges.len()))
            }
            Self::StartVirtualProcessor { vp, target } => write!(f, "VP {}, VTL{target}", Vp(*vp)),
            Self::GetVpRegisters { vp, target, names } => {
                write!(f, "VP {} {target:?}:", Vp(*vp))?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
            Self::SetVpRegisters { vp, target, values } => {
                write!(f, "VP {} {target:?}:", Vp(*vp))?;
                values.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
            }
        }
    }
}

struct Vp(u32);

impl fmt::Display for Vp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == litebox_platform_lvbs::hv::VP_INDEX_SELF { f.write_str("self") } else { self.0.fmt(f) }
    }
}

/// Groups ascending neighbours of a list of frames: first frame, first frame after.
pub(super) fn runs(gfns: &[u64]) -> impl Iterator<Item = (u64, u64)> + '_ {
    gfns.chunk_by(|a, b| a.checked_add(1) == Some(*b))
        .filter_map(|run| Some((*run.first()?, run.last()?.wrapping_add(1))))
}

/// Sizes of a hypercall's blocks, in bytes.
struct Shape {
    header: u64,
    /// Per element; zero for a simple hypercall.
    input_element: u64,
    output_element: u64,
    /// Whether there is a variable header.
    variable: bool,
}

/// The form of a hypercall the model carries out; `None` for all others.
fn shape(code: HypercallCode) -> Option<Shape> {
    let (header, input_element, output_element) = match code {
        HypercallCode::MODIFY_VTL_PROTECTION_MASK => (16, 8, 0),
        HypercallCode::ENABLE_PARTITION_VTL => (16, 0, 0),
        HypercallCode::ENABLE_VP_VTL | HypercallCode::START_VIRTUAL_PROCESSOR => (240, 0, 0),
        HypercallCode::GET_VP_REGISTERS => (16, 4, 16),
        HypercallCode::SET_VP_REGISTERS => (16, 32, 0),
        HypercallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX => (32, 0, 0),
        HypercallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX => (32, 8, 0),
        _ => return None,
    };
    let variable =
        matches!(code, HypercallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX | HypercallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX);
    Some(Shape { header, input_element, output_element, variable })
}

/// A hypercall whose form is right.
pub(super) struct Decoded {
    pub(super) request: Request,
    /// Bytes the answer to the whole list takes.
    pub(super) output_bytes: u64,
    /// Whether a reserved field of the input is not zero.
    pub(super) has_reserved: bool,
}

/// Whether `bytes` bytes at `gpa` are aligned and lie within one page below 2^52.
fn is_block(gpa: u64, bytes: u64) -> bool {
    gpa.is_multiple_of(8) && gpa % PAGE + bytes <= PAGE && gpa >> 52 == 0
}

/// Checks the form of a hypercall and copies its input.
///
/// # Errors
/// The status the hypercall ends with, and, where the TLFS leaves the case open, what to report.
pub(super) fn decode(
    control: HypercallControl,
    input_gpa: u64,
    output_gpa: u64,
    memory: &dyn GuestMemory,
) -> Result<Decoded, (HvStatus, Option<String>)> {
    let code = control.code();
    let Some(shape) = shape(code) else {
        let report = code.name().map(|name| format!("{name} is not modelled, or not called in this way"));
        return Err((HvStatus::INVALID_HYPERCALL_CODE, report));
    };
    let malformed = (HvStatus::INVALID_HYPERCALL_INPUT, None);
    if control.raw() & HypercallControl::RESERVED != 0 || control.is_nested() {
        return Err(malformed);
    }
    if control.varhead() != 0 && !shape.variable {
        return Err(malformed);
    }
    let is_rep = shape.input_element != 0;
    if is_rep && (control.reps() == 0 || control.rep_start() >= control.reps())
        || !is_rep && (control.reps() != 0 || control.rep_start() != 0)
    {
        return Err(malformed);
    }
    if control.is_fast() {
        return Err((HvStatus::INVALID_HYPERCALL_INPUT, Some(format!("{code} with register input is not modelled"))));
    }
    let reps = u64::from(control.reps());
    let variable = u64::from(control.varhead()) * 8;
    let input_bytes = shape.header + variable + reps * shape.input_element;
    let output_bytes = reps * shape.output_element;
    let misplaced = (HvStatus::INVALID_ALIGNMENT, None);
    if !is_block(input_gpa, input_bytes) || output_bytes != 0 && !is_block(output_gpa, output_bytes) {
        return Err(misplaced);
    }
    let mut block = vec![0; usize::try_from(input_bytes).map_err(|_| misplaced.clone())?];
    memory.read(input_gpa, &mut block).map_err(|_| misplaced)?;
    match parse(code, &block, variable) {
        Some((request, has_reserved)) => Ok(Decoded { request, output_bytes, has_reserved }),
        None => Err((HvStatus::INVALID_PARAMETER, None)),
    }
}

/// Takes the block apart, and says whether a reserved field is not zero; `None` when the partition is not the calling one.
fn parse(code: HypercallCode, block: &[u8], variable: u64) -> Option<(Request, bool)> {
    let (partition, reserved, request) = match code {
        HypercallCode::MODIFY_VTL_PROTECTION_MASK => {
            let (header, list) = ModifyVtlProtectionMask::read_from_prefix(block).ok()?;
            let gfns = elements::<u64>(list);
            let request = Request::ModifyVtlProtectionMask { flags: header.map_flags, target: header.input_vtl, gfns };
            (header.partition, header.reserved != [0; 3], request)
        }
        HypercallCode::ENABLE_PARTITION_VTL => {
            let input = EnablePartitionVtl::read_from_bytes(block).ok()?;
            let request = Request::EnablePartitionVtl { target: input.target_vtl, flags: input.flags };
            (input.partition, input.reserved != [0; 6], request)
        }
        HypercallCode::ENABLE_VP_VTL => {
            let input = EnableVpVtl::read_from_bytes(block).ok()?;
            let context = Box::new(input.context);
            let request = Request::EnableVpVtl { vp: input.vp_index, target: input.target_vtl, context };
            (input.partition, input.reserved != [0; 3], request)
        }
        HypercallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX | HypercallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX => {
            let (header, rest) = FlushHeader::read_from_prefix(block).ok()?;
            let (banks, list) = rest.split_at_checked(usize::try_from(variable).ok()?)?;
            let ranges = (code == HypercallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX).then(|| elements(list));
            let request = Request::Flush(FlushRequest { header, banks: elements(banks), ranges });
            (PARTITION_ID_SELF, false, request)
        }
        HypercallCode::START_VIRTUAL_PROCESSOR => {
            // The input is HvCallEnableVpVtl's, field by field.
            let input = EnableVpVtl::read_from_bytes(block).ok()?;
            let request = Request::StartVirtualProcessor { vp: input.vp_index, target: input.target_vtl };
            (input.partition, input.reserved != [0; 3], request)
        }
        HypercallCode::GET_VP_REGISTERS => {
            let (header, list) = VpRegistersHeader::read_from_prefix(block).ok()?;
            let names = elements(list);
            let request = Request::GetVpRegisters { vp: header.vp_index, target: header.input_vtl, names };
            (header.partition, header.reserved != [0; 3], request)
        }
        HypercallCode::SET_VP_REGISTERS => {
            let (header, list) = VpRegistersHeader::read_from_prefix(block).ok()?;
            let elements: Vec<SetRegister> = elements(list);
            let reserved = header.reserved != [0; 3] || elements.iter().any(|element| element.reserved != [0; 3]);
            let values = elements.iter().map(|element| (element.name, element.value)).collect();
            let request = Request::SetVpRegisters { vp: header.vp_index, target: header.input_vtl, values };
            (header.partition, reserved, request)
        }
        _ => return None,
    };
    (partition == PARTITION_ID_SELF).then_some((request, reserved))
}

fn elements<T: FromBytes>(list: &[u8]) -> Vec<T> {
    list.chunks_exact(size_of::<T>()).filter_map(|bytes| T::read_from_bytes(bytes).ok()).collect()
}
