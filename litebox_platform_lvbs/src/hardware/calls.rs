//! Thin typed hypercalls over the [`Hardware`] seam.
//!
//! Each function makes one hypercall and decides nothing. A rep hypercall has succeeded when the status is SUCCESS *and*
//! every element is done; after success for a part of the list the call continues from there, and an answer without
//! progress counts as a TIMEOUT.

use core::mem::size_of;

use zerocopy::IntoBytes;

use super::Hardware;
use crate::error::VsmError;
use crate::hv::flush::{FlushFlags, FlushHeader, GvaRange, VpSet};
use crate::hv::hypercall::{
    EnableVpVtl, HYPERCALL_PAGE_BYTES, HypercallCode, HypercallControl, MAX_GET_REGISTERS, MAX_SET_REGISTERS,
    MODIFY_VTL_PROTECTION_MASK_MAX_GFNS, ModifyVtlProtectionMask, SetRegister, VpRegistersHeader,
};
use crate::hv::{
    HvRegisterName, HvRegisterValue, HvStatus, InitialVpContext, InputVtl, MapFlags, PARTITION_ID_SELF, VP_INDEX_SELF,
    Vtl,
};

/// Issues a rep hypercall over `reps` elements; on failure says how many elements, from the first, are done.
fn rep_call(
    hw: &dyn Hardware,
    control: HypercallControl,
    reps: usize,
    input: &[u8],
    output: &mut [u8],
) -> Result<(), (usize, HvStatus)> {
    let count = u16::try_from(reps)
        .ok()
        .filter(|count| *count <= HypercallControl::MAX_REPS)
        .ok_or((0, HvStatus::INVALID_HYPERCALL_INPUT))?;
    let mut start = 0;
    loop {
        let control = control.with_reps(count).with_rep_start(start);
        let outcome = hw.hypercall(control, input, output);
        let done = outcome.reps_done.min(count);
        match outcome.status.ok() {
            Ok(()) if done == count => return Ok(()),
            // The hypervisor returned early. The TLFS says that it continues by itself; Linux expects both.
            Ok(()) if done > start => start = done,
            Ok(()) => return Err((usize::from(done), HvStatus::TIMEOUT)),
            // A failure with all elements done would leave nothing to roll back, but it is a failure.
            Err(status) => return Err((usize::from(done), status)),
        }
    }
}

/// Sets VTL0's rights to the frames with numbers `gfns` (at most [`MODIFY_VTL_PROTECTION_MASK_MAX_GFNS`]). An empty list
/// succeeds without a hypercall.
///
/// # Errors
/// How many frames, from the first of the list, were changed before the hypervisor stopped, and its status. A list that
/// is too long is INVALID_HYPERCALL_INPUT with nothing changed.
pub fn modify_vtl_protection_mask(
    hw: &dyn Hardware,
    protection: MapFlags,
    gfns: &[u64],
) -> Result<(), (usize, HvStatus)> {
    if gfns.is_empty() {
        return Ok(());
    }
    let header = ModifyVtlProtectionMask {
        partition: PARTITION_ID_SELF,
        map_flags: protection.bits(),
        input_vtl: InputVtl::CURRENT,
        reserved: [0; 3],
    };
    let mut page = [0; HYPERCALL_PAGE_BYTES];
    if gfns.len() > MODIFY_VTL_PROTECTION_MASK_MAX_GFNS {
        return Err((0, HvStatus::INVALID_HYPERCALL_INPUT));
    }
    let input = fill(&mut page, header.as_bytes(), gfns.as_bytes()).ok_or((0, HvStatus::INVALID_HYPERCALL_INPUT))?;
    rep_call(hw, HypercallControl::new(HypercallCode::MODIFY_VTL_PROTECTION_MASK), gfns.len(), input, &mut [])
}

/// Puts a header and a list into `page`; the part of the page that is used, or nothing when they don't fit.
fn fill<'a>(page: &'a mut [u8], header: &[u8], list: &[u8]) -> Option<&'a [u8]> {
    let used = page.get_mut(..header.len().checked_add(list.len())?)?;
    let (head, tail) = used.split_at_mut_checked(header.len())?;
    head.copy_from_slice(header);
    tail.copy_from_slice(list);
    Some(used)
}

fn registers_header(vp_index: u32, input_vtl: InputVtl) -> VpRegistersHeader {
    VpRegistersHeader { partition: PARTITION_ID_SELF, vp_index, input_vtl, reserved: [0; 3] }
}

/// Reads registers of this processor into `out`, in one hypercall; `names` and `out` have the same length, at most
/// [`MAX_GET_REGISTERS`]. Empty lists succeed without a hypercall.
///
/// # Errors
/// [`VsmError::Hypercall`]; `out` is unchanged then.
pub fn get_vp_registers(
    hw: &dyn Hardware,
    input_vtl: InputVtl,
    names: &[HvRegisterName],
    out: &mut [HvRegisterValue],
) -> Result<(), VsmError> {
    get_registers_of(hw, VP_INDEX_SELF, input_vtl, names, out)
}

/// As [`get_vp_registers`], of processor `vp`: only registers that are no part of a running processor's state.
fn get_registers_of(
    hw: &dyn Hardware,
    vp: u32,
    input_vtl: InputVtl,
    names: &[HvRegisterName],
    out: &mut [HvRegisterValue],
) -> Result<(), VsmError> {
    const HEADER: usize = size_of::<VpRegistersHeader>();
    let code = HypercallCode::GET_VP_REGISTERS;
    let refused = |status| VsmError::Hypercall { call: code.0, status };
    if names.len() != out.len() || names.len() > MAX_GET_REGISTERS {
        return Err(refused(HvStatus::INVALID_HYPERCALL_INPUT));
    }
    if names.is_empty() {
        return Ok(());
    }
    let mut page = [0; HEADER + MAX_GET_REGISTERS * size_of::<HvRegisterName>()];
    let header = registers_header(vp, input_vtl);
    let input =
        fill(&mut page, header.as_bytes(), names.as_bytes()).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
    let mut values = [HvRegisterValue::default(); MAX_GET_REGISTERS];
    let values = values.get_mut(..names.len()).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
    rep_call(hw, HypercallControl::new(code), names.len(), input, values.as_mut_bytes())
        .map_err(|(_, status)| refused(status))?;
    out.copy_from_slice(values);
    Ok(())
}

/// Reads one 64-bit register of this processor.
///
/// # Errors
/// [`VsmError::Hypercall`].
pub fn get_vp_register(hw: &dyn Hardware, input_vtl: InputVtl, name: HvRegisterName) -> Result<u64, VsmError> {
    let mut value = [HvRegisterValue::default()];
    get_vp_registers(hw, input_vtl, &[name], &mut value)?;
    let [value] = value;
    Ok(value.low)
}

/// Reads HvX64RegisterHypercall of VTL0 on processor `vp`: where its hypercall page is.
///
/// # Errors
/// [`VsmError::Hypercall`].
pub fn vtl0_hypercall_register(hw: &dyn Hardware, vp: u32) -> Result<u64, VsmError> {
    let mut value = [HvRegisterValue::default()];
    get_registers_of(hw, vp, InputVtl::VTL0, &[HvRegisterName::HYPERCALL], &mut value)?;
    let [value] = value;
    Ok(value.low)
}

/// Writes registers of this processor in one hypercall, at most [`MAX_SET_REGISTERS`]. An empty list succeeds
/// without a hypercall.
///
/// # Errors
/// [`VsmError::Hypercall`]; the elements before the one that failed have been written.
pub fn set_vp_registers(
    hw: &dyn Hardware,
    input_vtl: InputVtl,
    values: &[(HvRegisterName, HvRegisterValue)],
) -> Result<(), VsmError> {
    /// An intercept takes two at most; clearing a whole page would be most of its cost.
    const SHORT_LIST: usize = 4;
    if values.len() <= SHORT_LIST {
        set_registers(
            hw,
            input_vtl,
            values,
            &mut [0; size_of::<VpRegistersHeader>() + SHORT_LIST * size_of::<SetRegister>()],
        )
    } else {
        set_registers(hw, input_vtl, values, &mut [0; HYPERCALL_PAGE_BYTES])
    }
}

/// Writes registers through `page`, which is large enough if it has the size of one.
fn set_registers(
    hw: &dyn Hardware,
    input_vtl: InputVtl,
    values: &[(HvRegisterName, HvRegisterValue)],
    page: &mut [u8],
) -> Result<(), VsmError> {
    const HEADER: usize = size_of::<VpRegistersHeader>();
    let code = HypercallCode::SET_VP_REGISTERS;
    let refused = |status| VsmError::Hypercall { call: code.0, status };
    if values.is_empty() {
        return Ok(());
    }
    if values.len() > MAX_SET_REGISTERS {
        return Err(refused(HvStatus::INVALID_HYPERCALL_INPUT));
    }
    let (head, list) = page.split_at_mut(HEADER);
    head.copy_from_slice(registers_header(VP_INDEX_SELF, input_vtl).as_bytes());
    for (slot, (name, value)) in list.chunks_exact_mut(size_of::<SetRegister>()).zip(values) {
        slot.copy_from_slice(SetRegister { name: *name, reserved: [0; 3], value: *value }.as_bytes());
    }
    let used = HEADER + values.len() * size_of::<SetRegister>();
    let input = page.get(..used).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
    rep_call(hw, HypercallControl::new(code), values.len(), input, &mut []).map_err(|(_, status)| refused(status))
}

/// Writes one 64-bit register of this processor.
///
/// # Errors
/// [`VsmError::Hypercall`].
pub fn set_vp_register(
    hw: &dyn Hardware,
    input_vtl: InputVtl,
    name: HvRegisterName,
    value: u64,
) -> Result<(), VsmError> {
    set_vp_registers(hw, input_vtl, &[(name, value.into())])
}

/// Enables VTL1 on processor `vp`, which will start it with `context`.
///
/// # Errors
/// [`VsmError::Hypercall`]; its status is VTL_ALREADY_ENABLED when it is enabled already.
pub fn enable_vp_vtl(hw: &dyn Hardware, vp: u32, context: &InitialVpContext) -> Result<(), VsmError> {
    let code = HypercallCode::ENABLE_VP_VTL;
    let input = EnableVpVtl {
        partition: PARTITION_ID_SELF,
        vp_index: vp,
        target_vtl: Vtl::Vtl1.number(),
        reserved: [0; 3],
        context: *context,
    };
    let outcome = hw.hypercall(HypercallControl::new(code), input.as_bytes(), &mut []);
    outcome.status.ok().map_err(|status| VsmError::Hypercall { call: code.0, status })
}

/// Puts the header and the banks of a flush on `processors` into `page`: bytes used, and the control word's variable header.
fn flush_head(page: &mut [u8; HYPERCALL_PAGE_BYTES], processors: &VpSet) -> Option<(usize, u16)> {
    let header = FlushHeader {
        // VTL1 has one set of page tables, the same on all processors.
        address_space: 0,
        flags: FlushFlags::ALL_VIRTUAL_ADDRESS_SPACES.bits(),
        format: FlushHeader::SPARSE,
        valid_banks: processors.valid_banks(),
    };
    let head = fill(page, header.as_bytes(), &[])?.len();
    let banks = processors.banks().count();
    let used = head.checked_add(banks.checked_mul(size_of::<u64>())?)?;
    let slots = page.get_mut(head..used)?.chunks_exact_mut(size_of::<u64>());
    for (slot, bank) in slots.zip(processors.banks()) {
        slot.copy_from_slice(&bank.to_le_bytes());
    }
    Some((used, u16::try_from(banks).ok()?))
}

/// Makes `processors` flush all translations of VTL1. An empty set succeeds without a hypercall.
///
/// # Errors
/// [`VsmError::Hypercall`]; the translations may be in use then.
pub fn flush_address_space(hw: &dyn Hardware, processors: &VpSet) -> Result<(), VsmError> {
    if processors.is_empty() {
        return Ok(());
    }
    let code = HypercallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX;
    let refused = |status| VsmError::Hypercall { call: code.0, status };
    let mut page = [0; HYPERCALL_PAGE_BYTES];
    let (used, banks) = flush_head(&mut page, processors).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
    let input = page.get(..used).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
    hw.hypercall(HypercallControl::new(code).with_varhead(banks), input, &mut []).status.ok().map_err(refused)
}

/// Makes `processors` flush VTL1's translations of `ranges`, in as many hypercalls as the ranges need. An empty set or list
/// succeeds without a hypercall.
///
/// # Errors
/// [`VsmError::Hypercall`]; the translations may be in use then.
pub fn flush_addresses(hw: &dyn Hardware, processors: &VpSet, ranges: &[GvaRange]) -> Result<(), VsmError> {
    if processors.is_empty() {
        return Ok(());
    }
    let code = HypercallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX;
    let refused = |status| VsmError::Hypercall { call: code.0, status };
    let mut page = [0; HYPERCALL_PAGE_BYTES];
    let (head, banks) = flush_head(&mut page, processors).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
    let room = HYPERCALL_PAGE_BYTES.saturating_sub(head) / size_of::<GvaRange>();
    for part in ranges.chunks(room.max(1)) {
        let bytes = part.as_bytes();
        let used = head.saturating_add(bytes.len());
        let list = page.get_mut(head..used).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
        list.copy_from_slice(bytes);
        let input = page.get(..used).ok_or(refused(HvStatus::INVALID_HYPERCALL_INPUT))?;
        let control = HypercallControl::new(code).with_varhead(banks);
        rep_call(hw, control, part.len(), input, &mut []).map_err(|(_, status)| refused(status))?;
    }
    Ok(())
}
