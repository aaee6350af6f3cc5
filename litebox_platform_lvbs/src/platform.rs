//! One VTL1 kernel's state: its hardware, what it knows of VTL0, who owns which frame.
//!
//! The image has exactly one, reached through `arch`'s `platform()`; a host test makes its own, so that tests
//! run side by side. Everything here is shared by all virtual processors and locked accordingly.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vsm_integrity::heap::{OutOfMemory, with_room};

use crate::address::FrameRange;
use crate::error::VsmError;
use crate::frames::FrameRegistry;
use crate::hardware::Hardware;
use crate::hv::HvRegisterValue;
use crate::loader::Generation;
use crate::logging::{LogKind, LogLimits, LogRing, Logged};
use crate::secret::Secret;
use crate::sync::Mutex;
use crate::vtl0::{ControlRegMap, Vtl0KernelInfo};

/// What boot found out and the rest of VTL1 relies on.
#[derive(Clone, Copy, Debug)]
pub struct PlatformConfig {
    /// The region VTL0 gave to VTL1; its frames belong to VTL1 for good.
    pub vtl1_region: FrameRange,
    /// How many virtual processors there may ever be; at least 1. Indices are below this.
    pub possible_cpus: u32,
    /// Index of the processor that booted VTL1.
    pub boot_vp: u32,
    /// Who loaded VTL1, and so what the calls of the boot mean.
    pub loader: Generation,
}

/// What VTL1 keeps for one virtual processor of VTL0.
#[derive(Debug, Default)]
pub struct Processor {
    /// The register values LockRegs recorded; `None` until the processor is locked.
    pub locked: Mutex<Option<ControlRegMap>>,
    /// GDTR, IDTR and TR when it was locked.
    pub tables: Mutex<[HvRegisterValue; 3]>,
    /// Set once `locked` is, and as long as nothing is left to do about it: checked at each return to VTL0.
    pub is_locked: AtomicBool,
    /// Whether VTL0 has reset the processor since it was locked, and its registers are being loaded anew.
    pub is_starting: AtomicBool,
    /// Set once the processor has been to VTL1: from then on it can be stopped at its VTL0's violations.
    pub has_entered: AtomicBool,
    /// How much of the log its VTL0 has caused.
    pub log_limits: LogLimits,
}

/// One VTL1 kernel.
pub struct Platform {
    hardware: Box<dyn Hardware>,
    config: PlatformConfig,
    vtl0: Vtl0KernelInfo,
    frames: Mutex<FrameRegistry>,
    log_ring: Mutex<Option<LogRing>>,
    processors: Vec<Processor>,
    lock_attempt: AtomicUsize,
    lock_reference: Mutex<Option<ControlRegMap>>,
    root_key: Mutex<Secret<32>>,
}

impl Platform {
    /// Puts a kernel together. Allocates per-processor state for `config.possible_cpus`.
    ///
    /// # Errors
    /// [`VsmError::OutOfMemory`] when the heap does not hold it, [`VsmError::InvalidParameter`] when there is no
    /// possible processor or the boot processor is not among them.
    pub fn new(hardware: Box<dyn Hardware>, config: PlatformConfig) -> Result<Self, VsmError> {
        if config.boot_vp >= config.possible_cpus {
            return Err(VsmError::InvalidParameter { name: "possible_cpus", value: u64::from(config.possible_cpus) });
        }
        let count = usize::try_from(config.possible_cpus).map_err(|_| OutOfMemory)?;
        let mut processors = with_room(count)?;
        processors.resize_with(count, Processor::default);
        Ok(Self {
            hardware,
            config,
            vtl0: Vtl0KernelInfo::default(),
            frames: Mutex::new(FrameRegistry::new(config.vtl1_region)?),
            log_ring: Mutex::new(None),
            processors,
            lock_attempt: AtomicUsize::new(0),
            lock_reference: Mutex::new(None),
            root_key: Mutex::new(Secret::default()),
        })
    }

    /// The machine under this kernel.
    #[must_use]
    pub fn hardware(&self) -> &dyn Hardware {
        &*self.hardware
    }

    /// What boot found out.
    #[must_use]
    pub fn config(&self) -> &PlatformConfig {
        &self.config
    }

    /// What VTL1 knows of VTL0's kernel.
    #[must_use]
    pub fn vtl0(&self) -> &Vtl0KernelInfo {
        &self.vtl0
    }

    /// The frame registry. Never hold the lock across a VTL return.
    #[must_use]
    pub fn frames(&self) -> &Mutex<FrameRegistry> {
        &self.frames
    }

    /// The log ring, once VTL0 has given memory for it. The log itself takes this lock: log nothing while it is held.
    #[must_use]
    pub fn log_ring(&self) -> &Mutex<Option<LogRing>> {
        &self.log_ring
    }

    /// Which of LockRegs' attempts the hypervisor has accepted on the processors locked so far: the first one to make on
    /// another.
    #[must_use]
    pub fn lock_attempt(&self) -> &AtomicUsize {
        &self.lock_attempt
    }

    /// The values of the first processor that was locked, during boot: what the others must have in common with it.
    #[must_use]
    pub fn lock_reference(&self) -> &Mutex<Option<ControlRegMap>> {
        &self.lock_reference
    }

    /// The platform's root key, once VTL0 has handed it over.
    #[must_use]
    pub fn root_key(&self) -> &Mutex<Secret<32>> {
        &self.root_key
    }

    /// Counts something that VTL0 caused on processor `vp`. `None`: do not log it.
    pub fn count_event(&self, vp: u32, kind: LogKind) -> Option<Logged> {
        self.processor(vp).ok()?.log_limits.count(kind)
    }

    /// Whether processor `vp` has been to VTL1.
    #[must_use]
    pub fn has_entered(&self, vp: u32) -> bool {
        self.processor(vp).is_ok_and(|processor| processor.has_entered.load(Ordering::Acquire))
    }

    /// Records that processor `vp` is in VTL1, set up so that it can be stopped. Called by its first entry.
    pub fn set_entered(&self, vp: u32) {
        if let Ok(processor) = self.processor(vp) {
            processor.has_entered.store(true, Ordering::Release);
        }
    }

    /// VTL1's record of processor `vp`.
    ///
    /// # Errors
    /// [`VsmError::NoSuchProcessor`] when `vp` is not a possible processor.
    pub fn processor(&self, vp: u32) -> Result<&Processor, VsmError> {
        usize::try_from(vp).ok().and_then(|index| self.processors.get(index)).ok_or(VsmError::NoSuchProcessor(vp))
    }
}
