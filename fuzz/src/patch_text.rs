//! Target: text patches. A kernel and two modules with sites of every kind, anywhere in their text; requests honest, spoilt or
//! made up, on two processors, with accesses that fault, and modules that go in between.
//!
//! The model knows nothing of steps and shapes: it lists the instructions that may stand at a site, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use litebox_platform_lvbs::address::{FrameRange, PhysAddr};
use litebox_platform_lvbs::frames::Permission;
use litebox_platform_lvbs::owner::{ModuleMemoryKind as Kind, Owner};
use litebox_platform_lvbs::phase::Phase;
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::VsmFunction;
use litebox_platform_lvbs::vtl0::{
    KernelData, KernelFunctions, MemoryContainer, ModuleFunctions, ModuleMemory, PatchData, PatchDataMap, SymbolTable,
    SymbolTableBuilder,
};
use litebox_platform_lvbs::{Errno, Platform};
use vsm_integrity::keys::KeyStore;
use vsm_integrity::module::Shape;
use vsm_sim::hosted::HostedMachine;
use vsm_sim::hv::GuestMemory;

use crate::input::Input;
use crate::machine::{self, BUFFERS, VTL1};
use crate::vsm_call::start_second_processor;

/// Sites and steps of one input.
const MAX_SITES: u64 = 12;
const MAX_STEPS: usize = 60;
const ENOENT: i64 = Errno::ENOENT.to_result();
const EACCES: i64 = Errno::EACCES.to_result();
const EFAULT: i64 = Errno::EFAULT.to_result();
const EINVAL: i64 = Errno::EINVAL.to_result();
const INT3: u8 = 0xcc;

/// Functions of the kernel, where its read-only data begin with something else that it exports, and its return thunk.
const KERNEL: [u64; 3] = [0xffff_ffff_8100_0000, 0xffff_ffff_8100_0010, 0xffff_ffff_8123_4567];
const RODATA: u64 = 0xffff_ffff_8200_0000;
const THUNK: u64 = 0xffff_ffff_8190_0000;

/// A piece of text: whose, where in virtual memory, its frames in that order, and the functions in it.
struct Text {
    owner: Owner,
    va: u64,
    frames: &'static [u64],
    functions: &'static [u32],
}

const fn module(token: u64, kind: Kind) -> Owner {
    Owner::Module { token: Token::new(token).expect("a token"), kind }
}

const TEXTS: [Text; 4] = [
    Text { owner: Owner::KernelText, va: KERNEL[0], frames: &[0x100, 0x101, 0x104], functions: &[] },
    Text {
        owner: module(1, Kind::Text),
        va: 0xffff_ffff_c000_0000,
        frames: &[0x110, 0x113],
        functions: &[0x10, 0x800, 0x1ffe],
    },
    Text { owner: module(1, Kind::InitText), va: 0xffff_ffff_c001_0000, frames: &[0x118], functions: &[0x20] },
    Text { owner: module(2, Kind::Text), va: 0xffff_ffff_c010_0000, frames: &[0x121, 0x120], functions: &[0, 0x40] },
];
/// Data of the first module, and an unowned frame.
const DATA: u64 = 0x119;
const UNOWNED: u64 = 0x130;

/// A site as the model has it.
struct Site {
    text: usize,
    va: u64,
    bytes: Vec<u64>,
    compiled: Vec<u8>,
    is_call: bool,
}

struct Model {
    sites: Vec<Site>,
    /// The pages of all texts, and some others, by frame.
    memory: BTreeMap<u64, [u8; 4096]>,
    /// The owners that are still there.
    live: BTreeSet<usize>,
}

/// # Panics
/// When a rule is broken: a request is answered as the model answers it, and every byte of text is the model's afterwards.
pub fn run(data: &[u8]) {
    play(data);
}

/// Plays the input; how many patches succeeded.
fn play(data: &[u8]) -> usize {
    let machine = machine::new();
    start_second_processor(&machine);
    let mut input = Input::new(data);
    let mut model = Model::new(&mut input);
    machine.in_vtl1(0, |platform| set_up(platform, &model));
    for (gfn, page) in &model.memory {
        machine.memory().write(gfn << 12, page).expect("RAM");
    }
    assert_eq!(machine.vtl_call(0, VsmFunction::SignalEndOfBoot.id(), 0, 0, 0), 0);
    let mut done = 0;
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.byte() {
            0xff => model.unload(2, &[3], &machine),
            0xfe => model.unload(1, &[1, 2], &machine),
            0xfd => model.initialise(&machine),
            how => done += usize::from(model.patch(how, &mut input, &machine)),
        }
        model.check(&machine);
    }
    done
}

/// Lets VTL1 have accepted the kernel and both modules.
fn set_up(platform: &Platform, model: &Model) {
    let mut registry = platform.frames().lock();
    let mut transaction = registry.begin(platform.hardware(), Phase::Boot).expect("memory");
    let frame = |gfn| FrameRange::from_gfns(gfn, gfn + 1).expect("a frame");
    let texts = TEXTS.iter().flat_map(|text| text.frames.iter().map(|gfn| (*gfn, text.owner, Permission::RX)));
    for (gfn, owner, permission) in texts.chain([(DATA, module(1, Kind::Data), Permission::RW)]) {
        transaction.stage(frame(gfn), owner, owner, permission).expect("free frames");
    }
    transaction.commit().expect("nothing fails");
    let mut symbols = SymbolTableBuilder::new(4).expect("memory");
    for value in KERNEL.into_iter().chain([RODATA + 8]) {
        symbols.push(b"name", value, false).expect("memory");
    }
    let symbols = symbols.finish();
    let data = KernelData {
        functions: KernelFunctions::new(&symbols, RODATA).expect("memory"),
        symbols,
        arch: vec![1, 2, 3, 4, THUNK],
        patches: model.map(&[0]),
        ..KernelData::default()
    };
    platform.vtl0().set_kernel_data(&registry, data, KeyStore::default()).expect("the first time");
    let mut modules = platform.vtl0().modules().lock();
    for (raw, texts) in [(1, &[1, 2][..]), (2, &[3])] {
        let token = modules.prepare().expect("room");
        assert_eq!(token.get(), raw);
        let part = |index: &usize| {
            let Text { owner, va, frames, .. } = &TEXTS[*index];
            let Owner::Module { kind, .. } = *owner else { unreachable!("a module's text") };
            MemoryContainer { kind, va: *va, frames: frames.iter().map(|gfn| frame(*gfn)).collect() }
        };
        let functions = |index: usize| texts.get(index).map_or(&[][..], |text| TEXTS[*text].functions).to_vec();
        modules.insert(ModuleMemory {
            thunks: Vec::new(),
            token: Token::new(u64::from(raw)).expect("a token"),
            parts: texts.iter().map(part).collect(),
            exports: SymbolTable::default(),
            uses: Vec::new(),
            patches: model.map(texts),
            functions: ModuleFunctions::new(functions(0), functions(1)),
            initialised: false,
        });
    }
}

impl Model {
    /// Sites at places of the input, those left out that share a byte with one before.
    fn new(input: &mut Input<'_>) -> Self {
        let frames = TEXTS.iter().flat_map(|text| text.frames).chain(&[UNOWNED, DATA]);
        let memory = frames.map(|gfn| (*gfn, [gfn.to_le_bytes()[0] ^ 0x5a; 4096])).collect();
        let mut sites: Vec<Site> = Vec::new();
        for _ in 0..input.below(MAX_SITES + 1) {
            let (number, place, kind) = (input.below(4), input.short(), input.byte());
            let text = usize::try_from(number).unwrap_or_default();
            // Half of them near the end of a page.
            let place = if place & 0x8000 == 0 { place } else { place & 0x1000 | 0xff8 | place & 7 };
            let Some(site) = site(text, place, kind) else { continue };
            let taken = |at: &u64| sites.iter().any(|other| other.bytes.contains(at));
            if !site.bytes.iter().any(taken) {
                sites.push(site);
            }
        }
        let mut model = Self { sites: Vec::new(), memory, live: (0..TEXTS.len()).collect() };
        for site in &sites {
            model.write(&site.bytes, &site.compiled);
        }
        Self { sites, ..model }
    }

    /// The sites of some texts as VTL1 has recorded them.
    fn map(&self, texts: &[usize]) -> PatchDataMap {
        let pa = |at| PhysAddr::new(at).expect("a physical address");
        let data = |site: &Site| {
            let next = site.next_page();
            let next = (next != 0).then(|| pa(next));
            if site.is_call {
                let shape = Shape::of_code(&site.compiled).unwrap_or(Shape::Jump);
                PatchData::static_call(pa(site.bytes[0]), next, shape, site.va, &site.compiled)
            } else {
                PatchData::new(pa(site.bytes[0]), next, &site.compiled)
            }
        };
        let sites = self.sites.iter().filter(|site| texts.contains(&site.text));
        PatchDataMap::new(sites.map(|site| data(site).expect("a site")).collect()).expect("no byte twice")
    }

    /// Every instruction that may stand at the site now.
    fn instructions(&self, site: &Site) -> Vec<Vec<u8>> {
        let mut all = vec![site.compiled.clone()];
        if !site.is_call {
            all.push(if site.compiled.len() == 2 { vec![0x66, 0x90] } else { vec![0x0f, 0x1f, 0x44, 0, 0] });
            return all;
        }
        let mut targets = KERNEL.to_vec();
        for (number, text) in TEXTS.iter().enumerate().filter(|(number, _)| self.live.contains(number)) {
            // What goes after initialisation is called by what goes with it.
            if number != 2 || site.text == 2 {
                targets.extend(text.functions.iter().map(|offset| text.va + u64::from(*offset)));
            }
        }
        match site.compiled[0] {
            0xe8 => all.extend([vec![0x0f, 0x1f, 0x44, 0, 0], vec![0x2e, 0x2e, 0x2e, 0x31, 0xc0]]),
            0xe9 => {
                all.push(vec![0xc3, INT3, INT3, INT3, INT3]);
                targets.push(THUNK);
            }
            _ => targets.push(THUNK),
        }
        targets.retain(|target| *target != site.va);
        all.extend(targets.into_iter().map(|target| site.branch(target)));
        all
    }

    fn bytes(&self, site: &Site) -> Vec<u8> {
        site.bytes.iter().map(|at| self.memory[&(at >> 12)][offset(*at)]).collect()
    }

    fn write(&mut self, places: &[u64], bytes: &[u8]) {
        for (at, byte) in places.iter().zip(bytes) {
            self.memory.get_mut(&(at >> 12)).expect("a page of a text")[offset(*at)] = *byte;
        }
    }

    fn owner(&self, at: u64) -> Owner {
        let gfn = at >> 12;
        if VTL1.contains(&gfn) {
            return Owner::Vtl1;
        }
        if gfn == DATA && self.live.contains(&1) {
            return module(1, Kind::Data);
        }
        let text =
            TEXTS.iter().enumerate().find(|(number, text)| self.live.contains(number) && text.frames.contains(&gfn));
        text.map_or(Owner::Nobody, |(_, text)| text.owner)
    }

    /// What must come of a request; where it succeeds, which site it is about and the byte of it that it starts with.
    fn answer(&self, pa: [u64; 2], code: &[u8]) -> Result<(&Site, usize), i64> {
        if pa[0] >> 52 != 0 {
            return Err(EFAULT);
        }
        let crosses = pa[0] % 4096 + code.len() as u64 > 4096;
        if !(1..=5).contains(&code.len()) || crosses && pa[1] == 0 {
            return Err(EINVAL);
        }
        let owner = self.owner(pa[0]);
        match owner {
            Owner::Nobody if crosses && pa[1] >> 52 != 0 => return Err(EFAULT),
            Owner::Nobody if crosses && self.owner(pa[1]) != Owner::Nobody => return Err(EACCES),
            Owner::Nobody => return Err(ENOENT),
            Owner::KernelText | Owner::Module { kind: Kind::Text | Kind::InitText, .. } => {}
            _ => return Err(EACCES),
        }
        // A site is its owner's, which a kernel's second page need not be.
        let mine = |site: &&Site| match (TEXTS[site.text].owner, owner) {
            (Owner::Module { token, .. }, Owner::Module { token: other, .. }) => token == other,
            (one, other) => one == other,
        };
        let mut sites = self.sites.iter().filter(mine);
        let found = sites.find_map(|site| Some((site, site.bytes[..2].iter().position(|at| *at == pa[0])?)));
        let (site, byte) = found.ok_or(EINVAL)?;
        if pa[1] != 0 && pa[1] != site.next_page() {
            return Err(EINVAL);
        }
        if code.len() != [1, site.compiled.len() - 1][byte] {
            return Err(EINVAL);
        }
        if site.bytes.iter().any(|at| self.owner(*at) != owner) {
            return Err(EACCES);
        }
        let (now, all) = (self.bytes(site), self.instructions(site));
        let allowed = match byte {
            0 if *code == [INT3] => now[0] != INT3,
            0 => now[0] == INT3 && all.contains(&[code, &now[1..]].concat()),
            _ => now[0] == INT3 && all.iter().any(|form| form[1..] == *code),
        };
        if allowed { Ok((site, byte)) } else { Err(EINVAL) }
    }

    /// Makes a request; whether it succeeded.
    fn patch(&mut self, how: u8, input: &mut Input<'_>, machine: &HostedMachine) -> bool {
        let (number, form, step) = (usize::from(input.byte()), usize::from(input.byte()), usize::from(how >> 1) % 3);
        let mut request = [0_u8; 24];
        if let Some(site) = self.sites.get(number % self.sites.len().max(1)) {
            let all = self.instructions(site);
            let code = &all[form % all.len()];
            let (start, bytes) = [(0, &[INT3][..]), (1, &code[1..]), (0, &code[..1])][step];
            let pa = site.bytes[start];
            let crosses = pa % 4096 + bytes.len() as u64 > 4096;
            request[..8].copy_from_slice(&pa.to_le_bytes());
            request[8..16].copy_from_slice(&if crosses { site.next_page() } else { 0 }.to_le_bytes());
            request[16] = u8::try_from(bytes.len()).unwrap_or_default();
            request[17..17 + bytes.len()].copy_from_slice(bytes);
        }
        // One in four is spoilt.
        if how & 0xc0 == 0xc0 {
            let (at, change) = (usize::from(input.byte()) % 22, input.byte());
            request[at] ^= change;
        }
        let word = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap_or_default());
        let size = usize::from(request[16]);
        let code = request[17..22].iter().copied().cycle().take(size).collect::<Vec<u8>>();
        let pa = [word(0), word(8)];
        let expected = self.answer(pa, &code).map(|(site, byte)| site.bytes[byte..byte + size].to_vec());
        let (at, second) = put_request(input, machine, &request);
        let fault = (how & 0x30 == 0x30).then(|| u32::from(input.byte() % 6));
        machine.memory().fail_access_after(fault);
        let result = machine.vtl_call(u32::from(how & 1), VsmFunction::PatchText.id(), at, second, 0);
        let faulted = fault.is_some() && !machine.memory().is_failure_pending();
        machine.memory().fail_access_after(None);
        if faulted {
            assert_eq!(result, EFAULT, "an access has faulted");
            return false;
        }
        let what = || format!("{pa:x?}, {size} bytes of {:x?}", &request[17..22]);
        match expected {
            Err(errno) => assert_eq!(result, errno, "{}", what()),
            Ok(places) => {
                assert_eq!(result, 0, "{}", what());
                self.write(&places, &code);
                return true;
            }
        }
        false
    }

    fn unload(&mut self, token: u64, texts: &[usize], machine: &HostedMachine) {
        let there = self.live.contains(&texts[0]);
        let result = machine.vtl_call(0, VsmFunction::UnloadModule.id(), token, 0, 0);
        assert_eq!(result, if there { 0 } else { EINVAL });
        self.live.retain(|text| !texts.contains(text));
    }

    fn initialise(&mut self, machine: &HostedMachine) {
        let expected = match (self.live.contains(&1), self.live.contains(&2)) {
            (true, true) => 0,
            (true, false) => -16,
            _ => EINVAL,
        };
        assert_eq!(machine.vtl_call(1, VsmFunction::FreeModuleInit.id(), 1, 0, 0), expected);
        self.live.remove(&2);
    }

    /// Every byte of text is as the model has it.
    fn check(&self, machine: &HostedMachine) {
        for (gfn, expected) in &self.memory {
            let mut page = [0; 4096];
            machine.memory().read(gfn << 12, &mut page).expect("RAM");
            let differs = page.iter().zip(expected).position(|(one, other)| one != other);
            assert!(differs.is_none(), "frame {gfn:#x} differs at {differs:x?}");
        }
    }
}

fn offset(at: u64) -> usize {
    usize::try_from(at % 4096).unwrap_or_default()
}

impl Site {
    fn next_page(&self) -> u64 {
        let other = self.bytes.iter().find(|at| **at >> 12 != self.bytes[0] >> 12);
        other.map_or(0, |at| at & !0xfff)
    }

    /// The instruction that goes to `target`.
    fn branch(&self, target: u64) -> Vec<u8> {
        let (opcode, _) = self.compiled.split_at(self.compiled.len() - 4);
        let distance = target.wrapping_sub(self.va + self.compiled.len() as u64).to_le_bytes();
        [opcode, &distance[..4]].concat()
    }
}

/// A site of a kind at a place of a text; none when it does not fit.
fn site(text: usize, place: u64, kind: u8) -> Option<Site> {
    let Text { va, frames, .. } = &TEXTS[text];
    let place = place % (frames.len() as u64 * 4096);
    let is_call = text != 0 && kind & 3 != 0;
    let code: &[u8] = match (is_call, kind & 3) {
        (true, 1) => &[0xe8, 0, 1, 0, 0],
        (true, 2) => &[0xe9, 0, 1, 0, 0],
        (true, _) => &[0x0f, 0x84, 0, 1, 0, 0],
        (false, _) if kind & 4 == 0 => &[0xeb, kind],
        _ => &[0xe9, kind, 0xcc, 0x44, 0],
    };
    let bytes: Option<Vec<u64>> = (place..place + code.len() as u64)
        .map(|at| {
            let index = usize::try_from(at / 4096).ok()?;
            // What a kernel says of the second page need not be so.
            let wrong = at / 4096 != place / 4096 && text == 0 && kind & 0x38 == 0;
            let frame = if wrong { Some(&UNOWNED) } else { frames.get(index) };
            Some((frame? << 12) + at % 4096)
        })
        .collect();
    Some(Site { text, va: va + place, bytes: bytes?, compiled: code.to_vec(), is_call })
}

/// Puts the request into VTL0's buffers, on one page or two; the two registers that name it.
fn put_request(input: &mut Input<'_>, machine: &HostedMachine, request: &[u8; 24]) -> (u64, u64) {
    let offset = 4096 - 48 + u64::from(input.byte()) % 48;
    let (first, second) = (BUFFERS << 12, (BUFFERS + 2) << 12);
    let on_first = usize::try_from(4096 - offset).unwrap_or_default().min(request.len());
    machine.memory().write(first + offset, &request[..on_first]).expect("RAM");
    if on_first == request.len() {
        return (first + offset, 0);
    }
    machine.memory().write(second, &request[on_first..]).expect("RAM");
    (first + offset, second)
}

/// Sites of every kind that are switched, the modules gone in between; spoilt requests; faults.
pub fn seeds() -> Vec<Vec<u8>> {
    // How many sites, then for each one which text, where, and what.
    let site = |text: u8, place: u16, kind: u8| [vec![text], place.to_le_bytes().to_vec(), vec![kind]].concat();
    let places = [
        site(0, 0x100, 4),
        site(0, 0x8003, 4),
        site(0, 0x9006, 4),
        site(1, 0x300, 1),
        site(1, 0x8005, 2),
        site(1, 0x500, 3),
        site(2, 0x100, 1),
        site(2, 0x200, 2),
        site(3, 0x8007, 1),
        site(3, 0x700, 0),
    ];
    let count = u8::try_from(places.len()).unwrap_or_default();
    let all = [vec![count], places.concat()].concat();
    // Which step on which processor, which site, to which form, where the request lies.
    let step = |step: u8, number: u8, form: u8| vec![step * 2 + number % 2, number, form, number * 5];
    let poke = |number, form| (0..3).flat_map(|index| step(index, number, form)).collect::<Vec<u8>>();
    let pokes = |form| (0..count).flat_map(|number| poke(number, form)).collect::<Vec<u8>>();
    let spoilt = |at: u8, change: u8| vec![0xc0, 3, 1, at, change, 0];
    let faults = |access: u8| vec![0x30, 0, 1, 0, access];
    vec![
        [all.clone(), pokes(1), vec![0xff], pokes(0), vec![0xfd]].concat(),
        [all.clone(), pokes(2), vec![0xfd], pokes(3), vec![0xfe], pokes(1), vec![0xff, 0xff, 0xfe, 0xfd]].concat(),
        [all.clone(), (4..12).flat_map(|form| poke(3, form)).collect(), poke(4, 5), poke(5, 6)].concat(),
        [all.clone(), (0..20).flat_map(|at| spoilt(at, 1 << (at % 8))).collect()].concat(),
        [all.clone(), (0..6).flat_map(faults).collect(), pokes(1)].concat(),
        [all, poke(6, 8), poke(6, 9), vec![0xff], poke(8, 1), poke(3, 7)].concat(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_switch_sites() {
        let done: Vec<usize> = seeds().iter().map(|seed| play(seed)).collect();
        println!("{done:?} patches succeed");
        assert!(done[..3].iter().all(|done| *done >= 20), "{done:?}");
    }
}
