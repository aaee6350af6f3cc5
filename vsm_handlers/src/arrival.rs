//! How BootAPs calls the other processors, and waits for them.
//!
//! The loaders before the third generation keep a thread on each processor that looks at a byte of the boot-signal page
//! and makes its first VTL call when VTL1 has written there; after BootAPs they end the threads, those that have not
//! started yet as well (LVBS contract §4). So VTL1 waits for each processor. VTL0 may keep one back for as long as it likes:
//! the wait has a limit, by a clock that is not VTL0's.

use litebox_platform_lvbs::access::PhysMutPtr;
use litebox_platform_lvbs::address::PAGE_SIZE;
use litebox_platform_lvbs::hardware::Hardware;
use litebox_platform_lvbs::loader::{Generation, MAX_POSSIBLE_CPUS};
use litebox_platform_lvbs::owner::Owner;
use litebox_platform_lvbs::sync::wait;
use litebox_platform_lvbs::vsm::{ErrnoMeta, VsmParam, Vtl0Page};
use litebox_platform_lvbs::{Platform, VsmError};

/// What a processor's thread waits for in its byte of the page (LVBS contract §4).
const SIGNAL: u8 = 0xdc;

// Each possible processor has a byte of the page.
const _: () = assert!(MAX_POSSIBLE_CPUS <= PAGE_SIZE);

/// The boot-signal page, where the loader has one: the third generation passes nothing that means anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootSignal(Option<Vtl0Page>);

impl VsmParam for BootSignal {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "frame number or 0";
    const UNIT: &'static str = "as a frame number, or 0; a loader of the third generation may pass anything";
    const BITS: u64 = u64::MAX;
    const ERRORS: &'static [ErrnoMeta] = Vtl0Page::ERRORS;

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        match (platform.config().loader, registers) {
            (Generation::G3, _) | (_, [0]) => Ok(Self(None)),
            _ => Vtl0Page::from_registers(platform, registers).map(|page| Self(Some(page))),
        }
    }
}

impl BootSignal {
    /// Refuses a page that has an owner.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`].
    pub(crate) fn check(self, platform: &Platform) -> Result<(), VsmError> {
        let Some(page) = self.0 else { return Ok(()) };
        PhysMutPtr::<u8>::new(&platform.frames().lock(), Owner::Nobody, page.start()).map(|_| ())
    }

    /// Calls `processors` and returns when all of them have been to VTL1. Does nothing where there is no page: they come
    /// when VTL0 sends them.
    ///
    /// # Errors
    /// [`VsmError::FrameOwned`], [`VsmError::Vtl0MemoryFault`] for the page; [`VsmError::ProcessorMissing`] when the time
    /// is over.
    pub(crate) fn call(
        self,
        platform: &Platform,
        processors: impl Iterator<Item = u32> + Clone,
    ) -> Result<(), VsmError> {
        let Some(page) = self.0 else { return Ok(()) };
        // All at once: in which order their threads run is VTL0's business.
        for vp in processors.clone() {
            let at = page.start().checked_add(vp.into())?;
            // Not kept over the wait: processors that arrive may want the registry.
            let registry = platform.frames().lock();
            PhysMutPtr::<u8>::new(&registry, Owner::Nobody, at)?.write(platform.hardware(), &SIGNAL)?;
        }
        let number = u64::try_from(processors.clone().count()).unwrap_or(u64::MAX);
        let mut patience = Patience::new(platform.hardware(), number);
        for vp in processors {
            while !platform.has_entered(vp) {
                if patience.is_over() {
                    return Err(VsmError::ProcessorMissing(vp));
                }
                wait();
            }
        }
        Ok(())
    }
}

/// Time that BootAPs takes at the most, in units of 100 ns: 10 s, and 0.1 s for each processor, which come one after the
/// other and print a line each.
const LIMIT: u64 = 100_000_000;
const LIMIT_PER_PROCESSOR: u64 = 1_000_000;
/// Turns of the wait between two looks at the clock, which is an exit to the hypervisor: some 10 us.
const TURNS: u32 = 1024;
/// What the turns count for where there is no clock.
const TIME_OF_TURNS: u64 = 100;

/// How much longer to wait.
struct Patience<'a> {
    hardware: &'a dyn Hardware,
    turns: u32,
    /// When it ends, on the clock, or without one in time that is left.
    end: u64,
}

impl<'a> Patience<'a> {
    fn new(hardware: &'a dyn Hardware, processors: u64) -> Self {
        let limit = LIMIT.saturating_add(LIMIT_PER_PROCESSOR.saturating_mul(processors));
        let end = hardware.reference_time().unwrap_or_default().saturating_add(limit);
        Self { hardware, turns: 0, end }
    }

    /// Called once a turn.
    fn is_over(&mut self) -> bool {
        self.turns += 1;
        if self.turns < TURNS {
            return false;
        }
        self.turns = 0;
        if let Some(now) = self.hardware.reference_time() {
            now >= self.end
        } else {
            self.end = self.end.saturating_sub(TIME_OF_TURNS);
            self.end == 0
        }
    }
}
