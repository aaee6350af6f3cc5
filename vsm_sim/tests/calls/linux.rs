//! A hosted machine whose VTL0 loads modules as Linux does, and what must be so at each point of a module's life.

use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::hv::MapFlags;
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::vtl0::SiteKind;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::vtl0::captures::Capture;
use vsm_sim::vtl0::kdata::KernelData;
use vsm_sim::vtl0::lists::Range;
use vsm_sim::vtl0::memory_map::SCRATCH_END;
use vsm_sim::vtl0::modules::{FILE, Frames, Module, PATCHES, Placed};
use vsm_sim::vtl0::ranges::READ_WRITE;

use crate::setup::{self, call_with_list, end_boot, rights_and_owners};

/// Frames of RAM.
pub const RAM: u64 = 0x1_0000;
/// VTL1's frames.
pub const VTL1: std::ops::Range<u64> = 0x6000..0x7000;
/// Where modules and kernel data lie.
const FREE: (u64, u64) = (0x701_0000, RAM << 12);

/// Where the text of a captured kernel lies.
pub const TEXT: u64 = SCRATCH_END;

/// A machine and its VTL0.
pub struct Linux {
    pub machine: HostedMachine,
    pub frames: Frames,
}

/// Everything that a call could leave behind: rights at the hypervisor, the registry, modules, kexec images, keys.
#[derive(PartialEq)]
pub struct Snapshot {
    pub rights: Vec<MapFlags>,
    pub states: Vec<FrameState>,
    pub modules: String,
    pub kexec: String,
    pub keys: (usize, usize),
}

impl Linux {
    /// A booted machine on which VTL0 has sealed nothing and loaded nothing. Pages are neighbours, or are scattered as
    /// `seed` says.
    pub fn new(seed: Option<u64>) -> Self {
        let machine = setup::machine(RAM, VTL1);
        let (start, end) = FREE;
        let frames = seed.map_or_else(|| Frames::consecutive(start, end), |seed| Frames::scattered(start, end, seed));
        Self { machine, frames }
    }

    /// As [`Self::new`], with its kernel's data loaded, all of its memory sealed as data, and the boot at its end.
    pub fn booted(seed: Option<u64>, kernel: &KernelData) -> Self {
        let mut linux = Self::new(seed);
        assert_eq!(linux.load_kdata(kernel), 0);
        let all = [Range::direct(0, RAM << 12, READ_WRITE)];
        assert_eq!(linux.call(VsmFunction::ProtectMemory, &all), 0);
        assert_eq!(end_boot(&linux.machine), 0);
        linux
    }

    /// As [`Self::booted`], with a captured kernel, whose text and read-only data lie in one piece and are sealed.
    pub fn captured(seed: Option<u64>, capture: &Capture) -> Self {
        Self::captured_with(seed, capture, true)
    }

    /// The same, with its text left writable where it is not `sealed`.
    pub fn captured_with(seed: Option<u64>, capture: &Capture, sealed: bool) -> Self {
        let linux = Self::captured_in_boot(seed, capture, sealed);
        assert_eq!(end_boot(&linux.machine), 0);
        linux
    }

    /// The same before the end of its boot.
    pub fn captured_in_boot(seed: Option<u64>, capture: &Capture, sealed: bool) -> Self {
        let mut linux = Self::new(seed);
        let kernel = capture.place(linux.machine.memory(), TEXT).unwrap();
        assert_eq!(linux.load_kdata(&kernel.data), 0);
        let [mut text, rodata] = kernel.ranges;
        if !sealed {
            text.attributes = READ_WRITE;
        }
        let before = Range::direct(0, text.pa, READ_WRITE);
        let behind = Range::direct(rodata.epa, RAM << 12, READ_WRITE);
        let list = [before, text, rodata, behind];
        assert_eq!(linux.call(VsmFunction::ProtectMemory, &list), 0);
        linux
    }

    /// Makes a call with a list of `ranges`.
    pub fn call(&self, call: VsmFunction, ranges: &[Range]) -> i64 {
        call_with_list(&self.machine, call, ranges, 0)
    }

    pub fn load_kdata(&mut self, kernel: &KernelData) -> i64 {
        let ranges = kernel.write(self.machine.memory(), || self.frames.take()).unwrap();
        self.call(VsmFunction::LoadKData, &ranges)
    }

    /// Puts a module into memory.
    pub fn place(&mut self, module: &Module, file_start: u64) -> Placed {
        module.place(self.machine.memory(), &mut self.frames, file_start).unwrap()
    }

    /// The token, or the error.
    pub fn validate(&self, placed: &Placed) -> i64 {
        self.call(VsmFunction::ValidateModule, &placed.ranges)
    }

    pub fn free_init(&self, token: i64) -> i64 {
        self.machine.vtl_call(0, VsmFunction::FreeModuleInit.id(), token.cast_unsigned(), 0, 0)
    }

    pub fn unload(&self, token: i64) -> i64 {
        self.machine.vtl_call(0, VsmFunction::UnloadModule.id(), token.cast_unsigned(), 0, 0)
    }

    /// Hands over a certificate for the secondary keys.
    pub fn copy_key(&mut self, certificate: &[u8]) -> i64 {
        let mut placed = Placed::default();
        let va = 0xffff_c900_3000_0ff0;
        placed.put(self.machine.memory(), &mut self.frames, 0, va, certificate).unwrap();
        self.call(VsmFunction::CopySecondaryKey, &placed.ranges)
    }

    pub fn snapshot(&self) -> Snapshot {
        let (rights, states) = rights_and_owners(&self.machine, RAM);
        let vtl0 = self.machine.platform().vtl0();
        Snapshot {
            rights,
            states,
            modules: format!("{:?}", vtl0.modules().lock()),
            kexec: format!("{:?}", vtl0.kexec().lock()),
            keys: vtl0.keys().lock().counts(),
        }
    }

    /// Owner and rights of the page at `pa`, which the hypervisor and the registry must agree on.
    pub fn page(&self, pa: u64) -> (Owner, Permission) {
        let state = self.machine.platform().frames().lock().get(pa >> 12).unwrap();
        assert_eq!(self.machine.partition().protection(pa >> 12), state.1.map_flags(), "page {pa:#x}");
        state
    }

    /// Checks that each page of the module has the owner and the rights of the contract: as after ValidateModule, or as
    /// after FreeModuleInit.
    pub fn assert_loaded(&self, placed: &Placed, token: i64, initialised: bool) {
        let token = Token::new(token.cast_unsigned()).unwrap();
        for (kind, page) in placed.memory() {
            let expected = if initialised && kind.is_init() {
                (Owner::Nobody, Permission::RW)
            } else {
                (Owner::Module { token, kind }, permission(kind, initialised))
            };
            assert_eq!(self.page(page), expected, "{kind:?} at {page:#x}");
        }
        for page in placed.thunks() {
            let kind = ModuleMemoryKind::Text;
            assert_eq!(self.page(page), (Owner::Module { token, kind }, Permission::RX), "thunks at {page:#x}");
        }
        self.assert_free(placed.pages(FILE));
        self.assert_free(placed.pages(PATCHES));
    }

    /// Checks that pages are VTL0's own, to write and not to execute.
    pub fn assert_free(&self, pages: &[u64]) {
        for page in pages {
            assert_eq!(self.page(*page), (Owner::Nobody, Permission::RW), "page {page:#x}");
        }
    }

    /// How many jump labels VTL1 knows of the module.
    pub fn sites(&self, token: i64) -> usize {
        self.patches(token, |kind| kind == SiteKind::JumpLabel)
    }

    /// How many static calls and trampolines.
    pub fn calls(&self, token: i64) -> usize {
        self.patches(token, |kind| kind != SiteKind::JumpLabel)
    }

    fn patches(&self, token: i64, which: impl Fn(SiteKind) -> bool) -> usize {
        let modules = self.machine.platform().vtl0().modules().lock();
        let module = modules.get(Token::new(token.cast_unsigned()).unwrap()).unwrap();
        module.patches.iter().filter(|site| which(site.kind())).count()
    }

    /// The tokens of the modules that the module uses.
    pub fn uses(&self, token: i64) -> Vec<i64> {
        let modules = self.machine.platform().vtl0().modules().lock();
        let module = modules.get(Token::new(token.cast_unsigned()).unwrap()).unwrap();
        module.uses.iter().map(|token| i64::from(token.get())).collect()
    }
}

/// What VTL0 may do with a part (LVBS contract §5.7).
pub fn permission(kind: ModuleMemoryKind, initialised: bool) -> Permission {
    match kind {
        ModuleMemoryKind::Text | ModuleMemoryKind::InitText => Permission::RX,
        ModuleMemoryKind::RoData | ModuleMemoryKind::InitRoData => Permission::R,
        ModuleMemoryKind::RoAfterInit if initialised => Permission::R,
        _ => Permission::RW,
    }
}
