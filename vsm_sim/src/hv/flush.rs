//! HvCallFlushVirtualAddressSpaceEx and HvCallFlushVirtualAddressListEx: VTL1's own translations on several processors
//! (TLFS "Virtual MMU", `HV_VP_SET`).
//!
//! VTL0's flushes, which wait for TLB locks, are not modelled.

use litebox_platform_lvbs::hv::flush::{FlushFlags, FlushHeader};
use litebox_platform_lvbs::hv::{HvStatus, Vtl};

use super::hypercalls::Caller;
use super::partition::{Effect, Partition, State};

/// A flush that has been carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Who asked for it.
    pub vp: u32,
    /// Where.
    pub processors: Vec<u32>,
    /// Of which ranges, as passed; `None` for everything.
    pub ranges: Option<Vec<u64>>,
}

/// What a flush asks, as passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushRequest {
    /// The header.
    pub header: FlushHeader,
    /// The variable header.
    pub banks: Vec<u64>,
    /// The list of ranges; `None` in a flush of whole address spaces.
    pub ranges: Option<Vec<u64>>,
}

impl Partition {
    pub(super) fn flush(&self, state: &mut State, caller: &Caller, request: &FlushRequest) -> Result<(), HvStatus> {
        let FlushHeader { flags, .. } = request.header;
        if caller.vtl == Vtl::Vtl0 {
            state.report(caller.vp, caller.vtl, "a flush of VTL0's translations is not modelled".into());
            return Err(HvStatus::INVALID_HYPERCALL_CODE);
        }
        let flags = FlushFlags::from_bits(flags).ok_or(HvStatus::INVALID_PARAMETER)?;
        let mut processors = set(&request.header, &request.banks)?;
        if flags.contains(FlushFlags::ALL_PROCESSORS) {
            processors = (0..self.config.vps).collect();
        }
        if let Some(missing) = processors.iter().find(|vp| **vp >= self.config.vps) {
            state.report(caller.vp, caller.vtl, format!("a flush on VP {missing}, which there is not"));
            return Err(HvStatus::INVALID_VP_INDEX);
        }
        state.flushes.push(Flush { vp: caller.vp, processors, ranges: request.ranges.clone() });
        state.effect(Effect::Flush);
        Ok(())
    }

    /// The flushes since the last time this was asked.
    pub fn take_flushes(&self) -> Vec<Flush> {
        std::mem::take(&mut self.lock().flushes)
    }
}

/// The processors of an `HV_VP_SET`, ascending.
fn set(header: &FlushHeader, banks: &[u64]) -> Result<Vec<u32>, HvStatus> {
    match header.format {
        // All processors; the flag says so as well.
        FlushHeader::ALL if banks.is_empty() && header.valid_banks == 0 => Ok(Vec::new()),
        FlushHeader::SPARSE if usize::try_from(header.valid_banks.count_ones()) == Ok(banks.len()) => {
            let numbers = (0..64_u32).filter(|bank| header.valid_banks & 1 << bank != 0);
            let members = |(number, bank): (u32, &u64)| {
                let bank = *bank;
                (0..64).filter(move |bit| bank & 1 << bit != 0).map(move |bit| number * 64 + bit)
            };
            Ok(numbers.zip(banks).flat_map(members).collect())
        }
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}
