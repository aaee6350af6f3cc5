//! Hypercalls, carried out: privileges, VTL rules, and what changes (TLFS "Hypercall Reference").

use litebox_platform_lvbs::address::is_canonical;
use litebox_platform_lvbs::hv::cpuid::Privileges;
use litebox_platform_lvbs::hv::hypercall::EnablePartitionVtl;
use litebox_platform_lvbs::hv::{
    HvStatus, HypercallControl, HypercallResult, InitialVpContext, InputVtl, MapFlags, VP_INDEX_SELF, Vtl, msr,
};

use super::abilities::{Refusal, Reserved};
use super::injection::Strike;
use super::memory::GuestMemory;
use super::partition::{Partition, State};
use super::request::{Request, decode, runs};
use super::trace::TraceEvent;

/// CR0, CR4 and EFER bits an initial context is checked for (Intel SDM vol. 3 §2.5, §2.2.1).
mod bits {
    pub(super) const CR0_PE: u64 = 1;
    pub(super) const CR0_PG: u64 = 1 << 31;
    pub(super) const CR4_PAE: u64 = 1 << 5;
    pub(super) const EFER_LME: u64 = 1 << 8;
    pub(super) const EFER_LMA: u64 = 1 << 10;
    pub(super) const RFLAGS_FIXED: u64 = 1 << 1;
}

/// Who makes a hypercall, and how far it may get.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) vp: u32,
    pub(super) vtl: Vtl,
    /// Index of the first element to do.
    pub(super) start: u16,
    pub(super) strike: Option<Strike>,
}

impl Caller {
    /// The failure that is to strike before element `index`, if any.
    pub(super) fn struck(&self, index: u16) -> Result<(), HvStatus> {
        match self.strike {
            Some(strike) if index >= strike.element => Err(strike.status),
            _ => Ok(()),
        }
    }

    /// The VTL `target` names; it may not be above the caller's.
    pub(super) fn resolve(&self, target: InputVtl) -> Result<Vtl, HvStatus> {
        let vtl = target.resolve(self.vtl).ok_or(HvStatus::INVALID_PARAMETER)?;
        if vtl > self.vtl { Err(HvStatus::ACCESS_DENIED) } else { Ok(vtl) }
    }
}

/// Status, and how many elements are done from the list's first.
pub(super) type Answer = (HvStatus, u16);

impl Partition {
    /// Carries out a hypercall that `vtl` of `vp` makes with these registers (RCX, RDX, R8), and answers with RAX.
    ///
    /// # Panics
    /// When `vtl` is not the one that runs on `vp`: a mistake of the machine.
    pub fn hypercall(
        &self,
        vp: u32,
        vtl: Vtl,
        control: u64,
        input_gpa: u64,
        output_gpa: u64,
        memory: &dyn GuestMemory,
    ) -> HypercallResult {
        let control = HypercallControl::from_raw(control);
        let mut state = self.lock();
        assert_eq!(state.vp(vp).active, vtl, "VP {vp} does not run {vtl}");
        *state.hypercall_counts.entry(control.code()).or_default() += 1;
        let strike = state.injections.strike(control.code());
        let (request, (status, done)) =
            self.answer(&mut state, vp, vtl, control, (input_gpa, output_gpa), strike, memory);
        let result = HypercallResult::new(status, done);
        state.event(&TraceEvent::Hypercall { vp, vtl, control, request: request.as_ref(), result });
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the registers and circumstances of one hypercall")]
    fn answer(
        &self,
        state: &mut State,
        vp: u32,
        vtl: Vtl,
        control: HypercallControl,
        (input_gpa, output_gpa): (u64, u64),
        strike: Option<Strike>,
        memory: &dyn GuestMemory,
    ) -> (Option<Request>, Answer) {
        if state.vtls[vtl.index()].hypercall_page & msr::PAGE_ENABLE == 0 {
            state.report(vp, vtl, "hypercall without an enabled hypercall page".into());
            return (None, (HvStatus::OPERATION_DENIED, 0));
        }
        let decoded = match decode(control, input_gpa, output_gpa, memory) {
            Ok(decoded) => decoded,
            Err((status, report)) => {
                if let Some(what) = report {
                    state.report(vp, vtl, what);
                }
                return (None, (status, 0));
            }
        };
        if decoded.has_reserved {
            // Clients "should zero" these (TLFS "Reserved Values"); that the driver of VTL0 does not is known.
            if vtl == Vtl::Vtl1 {
                state.report(vp, vtl, format!("{}: reserved fields are not zero", control.code()));
            }
            if state.abilities.reserved == Reserved::Checked {
                return (Some(decoded.request), (HvStatus::INVALID_PARAMETER, 0));
            }
        }
        let caller = Caller { vp, vtl, start: control.rep_start(), strike };
        if vtl == Vtl::Vtl0 {
            // TLFS: the caller must have read access to the input and write access to the output.
            let input = state.protections.get(input_gpa >> 12).contains(MapFlags::READ);
            let output = decoded.output_bytes == 0 || state.protections.get(output_gpa >> 12).contains(MapFlags::WRITE);
            if !input || !output {
                state.report(vp, vtl, "hypercall parameters in memory VTL0 may not access".into());
                return (Some(decoded.request), (HvStatus::ACCESS_DENIED, 0));
            }
        }
        let answer = match &decoded.request {
            Request::ModifyVtlProtectionMask { flags, target, gfns } => {
                self.modify_vtl_protection_mask(state, &caller, *flags, *target, gfns)
            }
            Request::EnablePartitionVtl { target, flags } => {
                simple(caller.struck(0).and_then(|()| self.enable_partition_vtl(state, &caller, *target, *flags)))
            }
            Request::EnableVpVtl { vp, target, context } => {
                simple(caller.struck(0).and_then(|()| enable_vp_vtl(state, &caller, *vp, *target, context)))
            }
            Request::Flush(flush) => {
                // All ranges at once, or none.
                let done = if flush.ranges.is_some() { control.reps() } else { 0 };
                match caller.struck(0).and_then(|()| self.flush(state, &caller, flush)) {
                    Ok(()) => (HvStatus::SUCCESS, done),
                    Err(status) => (status, 0),
                }
            }
            Request::StartVirtualProcessor { vp, target } => {
                simple(caller.struck(0).and_then(|()| self.start_virtual_processor(state, &caller, *vp, *target)))
            }
            Request::GetVpRegisters { vp, target, names } => {
                self.get_vp_registers(state, &caller, *vp, *target, names, (output_gpa, memory))
            }
            Request::SetVpRegisters { vp, target, values } => {
                self.set_vp_registers(state, &caller, *vp, *target, values)
            }
        };
        (Some(decoded.request), answer)
    }

    fn modify_vtl_protection_mask(
        &self,
        state: &mut State,
        caller: &Caller,
        flags: u32,
        target: InputVtl,
        gfns: &[u64],
    ) -> Answer {
        let refused = |status| (status, caller.start);
        match caller.resolve(target) {
            // VTL0 has no lower VTL whose memory it could protect.
            Ok(Vtl::Vtl0) if caller.vtl == Vtl::Vtl0 => return refused(HvStatus::ACCESS_DENIED),
            Ok(Vtl::Vtl0) => return refused(HvStatus::INVALID_PARAMETER),
            Ok(Vtl::Vtl1) => {}
            Err(status) => return refused(status),
        }
        if !state.partition_config.is_protection_enabled() {
            return refused(HvStatus::ACCESS_DENIED);
        }
        let Some(flags) = MapFlags::from_bits(flags) else {
            return refused(HvStatus::INVALID_PARAMETER);
        };
        if !flags.is_defined() {
            state.report(caller.vp, caller.vtl, format!("protection {flags} is not one the TLFS lists"));
            return refused(HvStatus::INVALID_PARAMETER);
        }
        let refusal = state.abilities.refusal;
        let is_refused = |gfn: u64| !self.is_ram(gfn) || state.abilities.holds(gfn);
        let list = gfns.get(usize::from(caller.start)..).unwrap_or_default();
        if refusal == Refusal::WholeList && list.iter().any(|gfn| is_refused(*gfn)) {
            return refused(refusal.status());
        }
        let mut done = caller.start;
        let mut status = HvStatus::SUCCESS;
        for gfn in list {
            let allowed = if is_refused(*gfn) { Err(refusal.status()) } else { Ok(()) };
            if let Err(refused) = caller.struck(done).and(allowed) {
                status = refused;
                break;
            }
            done += 1;
        }
        let changed = list.get(..usize::from(done - caller.start)).unwrap_or_default();
        for (start, end) in runs(changed) {
            state.protect(start, end, flags);
        }
        (status, done)
    }

    fn enable_partition_vtl(&self, state: &mut State, caller: &Caller, target: u8, flags: u8) -> Result<(), HvStatus> {
        if !self.config.privileges.contains(Privileges::VSM) {
            return Err(HvStatus::ACCESS_DENIED);
        }
        let target = Vtl::from_number(target).filter(|vtl| *vtl <= self.config.maximum_vtl);
        let target = target.ok_or(HvStatus::INVALID_PARAMETER)?;
        let mbec = flags & EnablePartitionVtl::ENABLE_MBEC != 0;
        if flags & !EnablePartitionVtl::ENABLE_MBEC != 0 || mbec && !self.config.mbec_available {
            return Err(HvStatus::INVALID_PARAMETER);
        }
        if target == Vtl::Vtl0 || state.vtl1_enabled {
            return Err(HvStatus::VTL_ALREADY_ENABLED);
        }
        debug_assert_eq!(caller.vtl, Vtl::Vtl0, "VTL1 cannot run before it is enabled");
        state.vtl1_enabled = true;
        state.mbec_enabled = mbec;
        Ok(())
    }

    /// The machine's processors all run from the start, so that none is ever in the state to be started in; what there is
    /// to see is who may try (TLFS "DenyLowerVtlStartup").
    fn start_virtual_processor(&self, state: &mut State, caller: &Caller, vp: u32, target: u8) -> Result<(), HvStatus> {
        if !self.config.privileges.contains(Privileges::START_VIRTUAL_PROCESSOR) {
            return Err(HvStatus::ACCESS_DENIED);
        }
        let vp = self.resolve_vp(caller, vp)?;
        let target = Vtl::from_number(target).ok_or(HvStatus::INVALID_PARAMETER)?;
        if target > caller.vtl || state.partition_config.denies_startup() && caller.vtl == Vtl::Vtl0 {
            return Err(HvStatus::ACCESS_DENIED);
        }
        if target == Vtl::Vtl1 && !state.vp(vp).vtl1_enabled {
            return Err(HvStatus::INVALID_VTL_STATE);
        }
        Err(HvStatus::INVALID_VP_STATE)
    }

    /// The processor `vp` names, by index.
    pub(super) fn resolve_vp(&self, caller: &Caller, vp: u32) -> Result<u32, HvStatus> {
        match vp {
            VP_INDEX_SELF => Ok(caller.vp),
            index if index < self.config.vps => Ok(index),
            _ => Err(HvStatus::INVALID_VP_INDEX),
        }
    }
}

fn simple(result: Result<(), HvStatus>) -> Answer {
    (result.err().unwrap_or(HvStatus::SUCCESS), 0)
}

fn enable_vp_vtl(
    state: &mut State,
    caller: &Caller,
    vp: u32,
    target: u8,
    context: &InitialVpContext,
) -> Result<(), HvStatus> {
    let vp = if vp == VP_INDEX_SELF { caller.vp } else { vp };
    if usize::try_from(vp).map_or(true, |index| index >= state.vps.len()) {
        return Err(HvStatus::INVALID_VP_INDEX);
    }
    let target = Vtl::from_number(target).ok_or(HvStatus::INVALID_PARAMETER)?;
    if target == Vtl::Vtl0 {
        return Err(HvStatus::VTL_ALREADY_ENABLED);
    }
    if !state.vtl1_enabled {
        return Err(HvStatus::INVALID_VTL_STATE);
    }
    // TLFS HvCallEnableVpVtl: once the VTL is enabled on a processor, only an equal or higher VTL enables it on others.
    if caller.vtl < target && state.vps.iter().any(|vp| vp.vtl1_enabled) {
        return Err(HvStatus::ACCESS_DENIED);
    }
    if state.vp(vp).vtl1_enabled {
        return Err(HvStatus::VTL_ALREADY_ENABLED);
    }
    if let Err(rule) = check_context(context) {
        state.report(caller.vp, caller.vtl, format!("initial context of VP {vp}: {rule}"));
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    let vp = state.vp(vp);
    vp.vtl1_enabled = true;
    vp.vtls[Vtl::Vtl1.index()].registers.load_context(context);
    Ok(())
}

/// Whether a processor could run with `context`; the model knows VTL1 in long mode only.
fn check_context(context: &InitialVpContext) -> Result<(), &'static str> {
    const CODE_LONG: u16 = 1 << 13;
    let (cr0, cr4, efer) = (context.cr0, context.cr4, context.efer);
    let rules = [
        (cr0 & bits::CR0_PE != 0, "real mode is not supported above VTL0"),
        (cr0 & bits::CR0_PG != 0, "paging is off"),
        (cr4 & bits::CR4_PAE != 0, "CR4.PAE is clear with paging on"),
        (efer & bits::EFER_LME != 0 && efer & bits::EFER_LMA != 0, "EFER.LME and EFER.LMA must be set"),
        (context.cs.attributes & CODE_LONG != 0, "CS is not a 64-bit code segment"),
        (context.rflags & bits::RFLAGS_FIXED != 0, "RFLAGS bit 1 must be set"),
        (is_canonical(context.rip), "RIP is not canonical"),
        (context.cr3 >> 52 == 0, "CR3 is not a physical address"),
    ];
    match rules.iter().find(|(kept, _)| !kept) {
        Some((_, rule)) => Err(rule),
        None => Ok(()),
    }
}
