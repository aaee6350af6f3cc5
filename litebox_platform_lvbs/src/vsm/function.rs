//! The one declaration of the VSM calls.
//!
//! From this list come the enum, the marker types, the table's base and length, the reserved holes, and
//! `vsm_rows!`, which makes a table name every call. Ids are ABI (LVBS contract §3, Linux `hv_vsm.h`): never
//! renumber one, never give a retired one to another call.

/// A marker type that stands for one VSM call in the type system.
///
/// The markers are in [`calls`]; nothing else implements this trait.
pub trait VsmCall {
    /// The call.
    const FUNCTION: VsmFunction;
    /// Its place in the jump table.
    const INDEX: usize = Self::FUNCTION.index();
}

vsm_macros::vsm_functions! {
    /// Enables VTL1 on the processors of a cpu mask, before Linux starts them.
    EnableAPsVtl = 0x1_ffe0,
    /// Brings every online processor into VTL1 for the first time.
    BootAPs = 0x1_ffe1,
    /// Locks the control registers and MSRs of the calling processor.
    LockRegs = 0x1_ffe2,
    /// Ends the boot phase, for good.
    SignalEndOfBoot = 0x1_ffe3,
    /// Gives ranges of VTL0 memory their permissions.
    ProtectMemory = 0x1_ffe4,
    /// Hands over certificates and kernel data.
    LoadKData = 0x1_ffe5,
    /// Verifies a kernel module and makes it executable.
    ValidateModule = 0x1_ffe6,
    /// Releases the init sections of a module.
    FreeModuleInit = 0x1_ffe7,
    /// Releases all memory of a module.
    UnloadModule = 0x1_ffe8,
    /// Adds a certificate to the secondary trusted keys.
    CopySecondaryKey = 0x1_ffe9,
    /// Verifies a kexec image, or forgets one.
    KexecValidate = 0x1_ffea,
    /// Writes a jump-label patch into protected text.
    PatchText = 0x1_ffeb,
    /// Gives VTL1 memory for its log.
    AllocateRingbufferMemory = 0x1_ffec,
    /// Hands over the platform's root key.
    SetPlatformRootKey = 0x1_ffed,
    /// Passes an OP-TEE message.
    OpteeMessage = 0x1_fff0,
    /// Says which version of this table VTL1 has, and which calls there are.
    Query = 0x1_fff1,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract's part of the ABI, written down a second time by hand (LVBS contract §3).
    const CONTRACT: [(u64, &str); 14] = [
        (0x1_ffe0, "EnableAPsVtl"),
        (0x1_ffe1, "BootAPs"),
        (0x1_ffe2, "LockRegs"),
        (0x1_ffe3, "SignalEndOfBoot"),
        (0x1_ffe4, "ProtectMemory"),
        (0x1_ffe5, "LoadKData"),
        (0x1_ffe6, "ValidateModule"),
        (0x1_ffe7, "FreeModuleInit"),
        (0x1_ffe8, "UnloadModule"),
        (0x1_ffe9, "CopySecondaryKey"),
        (0x1_ffea, "KexecValidate"),
        (0x1_ffeb, "PatchText"),
        (0x1_ffec, "AllocateRingbufferMemory"),
        (0x1_fff0, "OpteeMessage"),
    ];

    #[test]
    fn ids_and_names_are_those_of_the_contract() {
        for (id, name) in CONTRACT {
            assert_eq!(VsmFunction::from_id(id).map(VsmFunction::name), Some(name), "{id:#x}");
        }
        // What comes after these is held by `abi/vsm.lock`.
        assert_eq!(VSM_BASE, 0x1_ffe0);
        assert!(VsmFunction::ALL.is_sorted() && VsmFunction::ALL.len() + VSM_RESERVED.len() == VSM_TABLE_LEN);
    }

    #[test]
    fn from_id_and_index_agree() {
        for function in VsmFunction::ALL {
            assert_eq!(VsmFunction::from_id(function.id()), Some(function));
            assert_eq!(u64::try_from(function.index()).unwrap() + VSM_BASE, function.id());
            assert_eq!(VsmFunction::from_id(function.id() | 1 << 32), None);
        }
        assert_eq!(calls::OpteeMessage::INDEX, 16);
    }
}
