//! HvCallGetVpRegisters and HvCallSetVpRegisters (TLFS "Virtual Processors", "Virtual Secure Mode").
//!
//! A VTL reads its own registers and those of lower VTLs, and writes those of lower VTLs; what VTL1 writes to VTL0's
//! registers is not intercepted. A processor's architectural registers are reached from that processor only: while it
//! runs elsewhere their values are in flight.

use litebox_platform_lvbs::address::is_canonical;
use litebox_platform_lvbs::hv::cpuid::Privileges;
use litebox_platform_lvbs::hv::{
    CrInterceptControl, HvRegisterName, HvRegisterValue, HvStatus, InputVtl, PendingEvent, VsmPartitionConfig,
    VsmPartitionStatus, VsmVpSecureConfig, VsmVpStatus, Vtl,
};
use zerocopy::IntoBytes;

use super::hypercalls::{Answer, Caller};
use super::memory::GuestMemory;
use super::partition::{Effect, Partition, State};
use super::registers::{Kind, holds_linear_address, is_wide, kind};
use super::trace::TraceEvent;

/// Which processor's and VTL's registers a hypercall is about.
#[derive(Clone, Copy)]
struct Target {
    vp: u32,
    vtl: Vtl,
}

impl Partition {
    fn target(&self, state: &mut State, caller: &Caller, vp: u32, vtl: InputVtl) -> Result<Target, HvStatus> {
        if !self.config.privileges.contains(Privileges::ACCESS_VP_REGISTERS) {
            return Err(HvStatus::ACCESS_DENIED);
        }
        let target = Target { vp: self.resolve_vp(caller, vp)?, vtl: caller.resolve(vtl)? };
        if target.vtl == Vtl::Vtl1 && !state.vp(target.vp).vtl1_enabled {
            return Err(HvStatus::INVALID_VTL_STATE);
        }
        Ok(target)
    }

    pub(super) fn get_vp_registers(
        &self,
        state: &mut State,
        caller: &Caller,
        vp: u32,
        vtl: InputVtl,
        names: &[HvRegisterName],
        (output_gpa, memory): (u64, &dyn GuestMemory),
    ) -> Answer {
        let target = match self.target(state, caller, vp, vtl) {
            Ok(target) => target,
            Err(status) => return (status, caller.start),
        };
        let mut done = caller.start;
        for name in names.iter().skip(usize::from(caller.start)) {
            let value = caller.struck(done).and_then(|()| self.get_register(state, caller, target, *name));
            let value = match value {
                Ok(value) => value,
                Err(status) => return (status, done),
            };
            if memory.write(output_gpa + 16 * u64::from(done), value.as_bytes()).is_err() {
                return (HvStatus::INVALID_ALIGNMENT, done);
            }
            done += 1;
        }
        (HvStatus::SUCCESS, done)
    }

    pub(super) fn set_vp_registers(
        &self,
        state: &mut State,
        caller: &Caller,
        vp: u32,
        vtl: InputVtl,
        values: &[(HvRegisterName, HvRegisterValue)],
    ) -> Answer {
        let target = match self.target(state, caller, vp, vtl) {
            Ok(target) => target,
            Err(status) => return (status, caller.start),
        };
        let mut done = caller.start;
        for (name, value) in values.iter().skip(usize::from(caller.start)) {
            let result = caller.struck(done).and_then(|()| Self::set_register(state, caller, target, *name, *value));
            if let Err(status) = result {
                return (status, done);
            }
            done += 1;
        }
        (HvStatus::SUCCESS, done)
    }

    fn get_register(
        &self,
        state: &mut State,
        caller: &Caller,
        target: Target,
        name: HvRegisterName,
    ) -> Result<HvRegisterValue, HvStatus> {
        use HvRegisterName as N;
        if kind(name) != Kind::Synthetic {
            require_own_vp(state, caller, target, name)?;
            let vp = state.vp(target.vp);
            return Ok(match kind(name) {
                Kind::Shared => vp.shared.get(name),
                _ => vp.vtls[target.vtl.index()].registers.get(name),
            });
        }
        let vtl1_only = |value: u64| if caller.vtl == Vtl::Vtl1 { Ok(value) } else { Err(HvStatus::ACCESS_DENIED) };
        let enabled = |vtl1: bool| if vtl1 { 0b11 } else { 0b01 };
        let value = match name {
            N::VSM_CODE_PAGE_OFFSETS => self.config.code_page_offsets.0,
            N::VSM_VP_STATUS => {
                let vp = state.vp(target.vp);
                // MBEC restricts VTL0 only; nothing is above VTL1 to restrict it.
                let mbec = vp.active == Vtl::Vtl0 && vp.secure_config.is_mbec_enabled();
                VsmVpStatus::new(vp.active, mbec, enabled(vp.vtl1_enabled)).0
            }
            N::VSM_PARTITION_STATUS => {
                let mbec = if state.mbec_enabled { 0b10 } else { 0 };
                VsmPartitionStatus::new(enabled(state.vtl1_enabled), self.config.maximum_vtl, mbec).0
            }
            // Bit 46 DenyLowerVtlStartup is known, bits 62:47 the VTLs that can have MBEC; DR6 is private (bit 63).
            N::VSM_CAPABILITIES => {
                u64::from(state.abilities.deny_startup) << 46 | if self.config.mbec_available { 0b10 << 47 } else { 0 }
            }
            N::VSM_PARTITION_CONFIG => vtl1_only(state.partition_config.0)?,
            N::VSM_VP_SECURE_CONFIG_VTL0 => vtl1_only(state.vp(target.vp).secure_config.0)?,
            N::CR_INTERCEPT_CONTROL => vtl1_only(state.vp(target.vp).cr_intercept_control)?,
            N::CR_INTERCEPT_CR0_MASK => vtl1_only(state.vp(target.vp).cr_intercept_masks[0])?,
            N::CR_INTERCEPT_CR4_MASK => vtl1_only(state.vp(target.vp).cr_intercept_masks[1])?,
            N::CR_INTERCEPT_IA32_MISC_ENABLE_MASK => vtl1_only(state.vp(target.vp).cr_intercept_masks[2])?,
            N::HYPERCALL => state.vtls[target.vtl.index()].hypercall_page,
            N::PENDING_EVENT0 => state.vtl(target.vp, target.vtl).pending_event.0,
            _ => {
                state.report(caller.vp, caller.vtl, format!("reading {name}, which the model does not have"));
                return Err(HvStatus::INVALID_PARAMETER);
            }
        };
        Ok(value.into())
    }

    fn set_register(
        state: &mut State,
        caller: &Caller,
        target: Target,
        name: HvRegisterName,
        value: HvRegisterValue,
    ) -> Result<(), HvStatus> {
        use HvRegisterName as N;
        let invalid = Err(HvStatus::INVALID_REGISTER_VALUE);
        if !is_wide(name) && name != N::PENDING_EVENT0 && value.high != 0 {
            return invalid;
        }
        if kind(name) != Kind::Synthetic {
            return set_architectural(state, caller, target, name, value);
        }
        if matches!(name, N::VSM_CODE_PAGE_OFFSETS | N::VSM_VP_STATUS | N::VSM_PARTITION_STATUS | N::VSM_CAPABILITIES) {
            state.report(caller.vp, caller.vtl, format!("writing {name}, which is read-only"));
            return Err(HvStatus::INVALID_PARAMETER);
        }
        let known = matches!(
            name,
            N::VSM_PARTITION_CONFIG
                | N::VSM_VP_SECURE_CONFIG_VTL0
                | N::CR_INTERCEPT_CONTROL
                | N::CR_INTERCEPT_CR0_MASK
                | N::CR_INTERCEPT_CR4_MASK
                | N::CR_INTERCEPT_IA32_MISC_ENABLE_MASK
                | N::PENDING_EVENT0
        );
        if !known {
            state.report(caller.vp, caller.vtl, format!("writing {name}, which the model does not have"));
            return Err(HvStatus::INVALID_PARAMETER);
        }
        // These configure what is below VTL1; VTL0 has no instance of them.
        if caller.vtl == Vtl::Vtl0 {
            return Err(HvStatus::ACCESS_DENIED);
        }
        let low = value.low;
        match name {
            N::VSM_PARTITION_CONFIG => return set_partition_config(state, caller, VsmPartitionConfig(low)),
            N::VSM_VP_SECURE_CONFIG_VTL0 => {
                let config = VsmVpSecureConfig(low);
                if low & VsmVpSecureConfig::RESERVED != 0 || config.is_mbec_enabled() && !state.mbec_enabled {
                    return invalid;
                }
                state.vp(target.vp).secure_config = config;
            }
            N::CR_INTERCEPT_CONTROL => {
                if low & !CrInterceptControl::all().bits() != 0 {
                    return invalid;
                }
                // TLFS: a bit for something the processor or the hypervisor does not have is an invalid value.
                if low & !state.abilities.cr_intercepts.bits() != 0 {
                    return invalid;
                }
                state.vp(target.vp).cr_intercept_control = low;
            }
            N::CR_INTERCEPT_CR0_MASK => state.vp(target.vp).cr_intercept_masks[0] = low,
            N::CR_INTERCEPT_CR4_MASK => state.vp(target.vp).cr_intercept_masks[1] = low,
            N::CR_INTERCEPT_IA32_MISC_ENABLE_MASK => state.vp(target.vp).cr_intercept_masks[2] = low,
            _ => return set_pending_event(state, caller, target, PendingEvent(low)),
        }
        Ok(())
    }
}

/// Architectural registers of another processor are in flight.
fn require_own_vp(state: &mut State, caller: &Caller, target: Target, name: HvRegisterName) -> Result<(), HvStatus> {
    if target.vp == caller.vp {
        return Ok(());
    }
    state.report(caller.vp, caller.vtl, format!("{name} of VP {} while that may be running", target.vp));
    Err(HvStatus::INVALID_VP_STATE)
}

fn set_architectural(
    state: &mut State,
    caller: &Caller,
    target: Target,
    name: HvRegisterName,
    value: HvRegisterValue,
) -> Result<(), HvStatus> {
    require_own_vp(state, caller, target, name)?;
    if target.vtl == caller.vtl || kind(name) == Kind::Shared {
        // Undefined for a VTL that is running; and from VTL0 it would be a way around the register intercepts.
        state.report(caller.vp, caller.vtl, format!("writing {name} of the VTL that is running"));
        return Err(HvStatus::INVALID_VP_STATE);
    }
    if holds_linear_address(name) && !is_canonical(value.low) {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    state.vtl(target.vp, target.vtl).registers.write(name, value);
    Ok(())
}

fn set_partition_config(state: &mut State, caller: &Caller, new: VsmPartitionConfig) -> Result<(), HvStatus> {
    const MASK: u64 = VsmPartitionConfig::DEFAULT_PROTECTION_MASK;
    let old = state.partition_config;
    if new.0 & VsmPartitionConfig::RESERVED != 0 {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    // Write-once, and the mask is fixed with it or as soon as it is not zero.
    let mask_is_fixed = old.is_protection_enabled() || old.0 & MASK != 0;
    if old.is_protection_enabled() && !new.is_protection_enabled() || mask_is_fixed && (old.0 ^ new.0) & MASK != 0 {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    if new.0 & VsmPartitionConfig::DENY_LOWER_VTL_STARTUP != 0 && !state.abilities.deny_startup {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    let modelled = VsmPartitionConfig::ENABLE_VTL_PROTECTION
        | MASK
        | VsmPartitionConfig::ZERO_MEMORY_ON_RESET
        | VsmPartitionConfig::DENY_LOWER_VTL_STARTUP
        | VsmPartitionConfig::INTERCEPT_VP_STARTUP;
    if new.0 & !modelled != 0 {
        state.report(caller.vp, caller.vtl, format!("partition configuration {:#x} is beyond the model", new.0));
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    let default = new.default_protection();
    if new.is_protection_enabled() && !default.is_defined() {
        state.report(caller.vp, caller.vtl, format!("default protection {default} is not one the TLFS lists"));
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    state.partition_config = new;
    if new.is_protection_enabled() && !old.is_protection_enabled() {
        state.protections.set_default(default);
        state.effect(Effect::DefaultProtection(default));
    }
    Ok(())
}

fn set_pending_event(state: &mut State, caller: &Caller, target: Target, event: PendingEvent) -> Result<(), HvStatus> {
    require_own_vp(state, caller, target, HvRegisterName::PENDING_EVENT0)?;
    if event.0 & PendingEvent::RESERVED != 0 {
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    if event.is_pending() && (event.event_type() != 0 || event.vector() >= 32) {
        state.report(caller.vp, caller.vtl, format!("{event:?} is not an exception"));
        return Err(HvStatus::INVALID_REGISTER_VALUE);
    }
    if target.vtl == caller.vtl {
        state.report(caller.vp, caller.vtl, "an event for the VTL that is running".into());
        return Err(HvStatus::INVALID_VP_STATE);
    }
    state.vtl(target.vp, target.vtl).pending_event = event;
    state.event(&TraceEvent::PendingEvent { vp: target.vp, vtl: target.vtl, event });
    Ok(())
}
