//! What VTL1 knows of VTL0's kernel.
//!
//! All of it was said during boot, follows from signed files, or has been checked. VTL0's memory is reached through
//! `access`, never from here.

pub mod container;
pub mod control_regs;
pub mod functions;
pub mod kdata;
pub mod kernel_text;
pub mod kexec;
pub mod modules;
pub mod patches;
pub mod symbols;

pub use container::MemoryContainer;
pub use control_regs::ControlRegMap;
pub use functions::{KernelFunctions, ModuleFunctions};
pub use kdata::KernelData;
pub use kernel_text::KernelText;
pub use kexec::{KexecImages, KexecMemoryMetadata, KexecSlot};
pub use modules::{ModuleMemory, ModuleMemoryMetadataMap};
pub use patches::{PatchData, PatchDataMap, SiteKind};
pub use symbols::{Symbol, SymbolTable, SymbolTableBuilder};

use spin::once::Once;

use vsm_integrity::keys::KeyStore;

use crate::sync::{Mutex, Wait};

use crate::error::VsmError;
use crate::frames::FrameRegistry;
use crate::hardware::Hardware;
use crate::phase::BootPhase;

/// VTL1's knowledge of VTL0's kernel.
#[derive(Debug, Default)]
pub struct Vtl0KernelInfo {
    /// Where VTL0 stands in its boot.
    pub phase: BootPhase,
    /// What LoadKData brought; set once.
    kernel_data: Once<KernelData, Wait>,
    keys: Mutex<KeyStore>,
    modules: Mutex<ModuleMemoryMetadataMap>,
    kexec: Mutex<KexecImages>,
}

impl Vtl0KernelInfo {
    /// What LoadKData brought; `None` before, and for good when VTL0 booted without it.
    #[must_use]
    pub fn kernel_data(&self) -> Option<&KernelData> {
        self.kernel_data.get()
    }

    /// Checks that LoadKData has brought nothing yet. The registry's lock, which the caller proves to hold, keeps it so.
    ///
    /// # Errors
    /// [`VsmError::AlreadySet`].
    pub fn check_no_kernel_data(&self, _: &FrameRegistry) -> Result<(), VsmError> {
        if self.kernel_data.is_completed() { Err(VsmError::AlreadySet("the system certificates")) } else { Ok(()) }
    }

    /// Runs `check` with the keys and the part of the heap that is kept for the arithmetic of signatures.
    pub fn with_keys<R>(&self, hardware: &dyn Hardware, check: impl FnOnce(&mut KeyStore) -> R) -> R {
        let mut keys = self.keys.lock();
        let _reserve = hardware.heap_reserve();
        check(&mut keys)
    }

    /// The keys that may sign; none before LoadKData. Where the registry's lock is needed too, that one comes first.
    #[must_use]
    pub fn keys(&self) -> &Mutex<KeyStore> {
        &self.keys
    }

    /// The modules that VTL1 has accepted. Where the registry's lock is needed too, that one comes first; the keys' comes
    /// last.
    #[must_use]
    pub fn modules(&self) -> &Mutex<ModuleMemoryMetadataMap> {
        &self.modules
    }

    /// The kexec images that VTL1 has accepted. Where the registry's lock is needed too, that one comes first; the keys'
    /// comes last.
    #[must_use]
    pub fn kexec(&self) -> &Mutex<KexecImages> {
        &self.kexec
    }

    /// Keeps what LoadKData brought. Allocates nothing, and cannot fail once [`Self::check_no_kernel_data`] has succeeded
    /// under the same lock.
    ///
    /// # Errors
    /// [`VsmError::AlreadySet`]; what was kept before stays.
    pub fn set_kernel_data(&self, registry: &FrameRegistry, data: KernelData, keys: KeyStore) -> Result<(), VsmError> {
        self.check_no_kernel_data(registry)?;
        *self.keys.lock() = keys;
        self.kernel_data.call_once(|| data);
        Ok(())
    }
}
