//! A bzImage in memory, and the state it is entered with (Linux `Documentation/arch/x86/boot.rst`: offsets, "64-bit boot
//! protocol"). What the file says is checked, for it may be any file.

use anyhow::{Context, Result, ensure};

use super::Options;
use crate::engine::qemu::devices;
use crate::engine::{PrivateState, Segment, SharedState, TableRegister};
use crate::hv::GuestMemory;
use crate::vtl0::bytes::{write, write_u64};

const PAGE: u64 = 4096;
/// Where our own things lie in the first 640 KiB: tables for an identity map of 4 GiB, descriptors, parameters, command line.
const TABLES: u64 = 0x1_0000;
const DESCRIPTORS: u64 = 0x1_6000;
const PARAMETERS: u64 = 0x1_7000;
const COMMAND_LINE: u64 = 0x1_8000;
const COMMAND_LINE_ROOM: usize = 0x4000;
const STACK: u64 = 0x9_0000;
/// Selectors that the protocol names, and the descriptors behind them.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Behind the 32-bit entry.
const ENTRY_64: u64 = 0x200;

/// Offsets of fields of the setup header and of the boot parameters.
mod field {
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const SETUP_SECTORS: usize = 0x1f1;
    pub const JUMP: usize = 0x201;
    pub const MAGIC: usize = 0x202;
    pub const LOADER: usize = 0x210;
    pub const LOAD_FLAGS: usize = 0x211;
    pub const INITRD: usize = 0x218;
    pub const INITRD_SIZE: usize = 0x21c;
    pub const COMMAND_LINE: usize = 0x228;
    pub const INITRD_MAX: usize = 0x22c;
    pub const XLOAD_FLAGS: usize = 0x236;
    pub const COMMAND_LINE_SIZE: usize = 0x238;
    pub const PREFERRED: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    pub const E820: usize = 0x2d0;
}
/// XLF_KERNEL_64: there is a 64-bit entry.
const HAS_ENTRY_64: u16 = 1;
/// A loader without a number of its own.
const OTHER_LOADER: u8 = 0xff;
/// E820 types.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;

/// The state of the boot processor.
pub struct Entry {
    /// Private state of VTL0.
    pub state: PrivateState,
    /// General registers.
    pub shared: SharedState,
}

fn number<const N: usize>(image: &[u8], at: usize) -> Result<u64> {
    let bytes = image.get(at..at + N).context("the file is too short for a bzImage")?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// Loads what `options` say.
pub fn load(memory: &dyn GuestMemory, options: &Options) -> Result<Entry> {
    let image = &options.kernel;
    ensure!(image.get(field::MAGIC..field::MAGIC + 4) == Some(b"HdrS"), "this is not a bzImage");
    ensure!(number::<2>(image, field::XLOAD_FLAGS)? & u64::from(HAS_ENTRY_64) != 0, "the kernel has no 64-bit entry");
    let room = number::<4>(image, field::COMMAND_LINE_SIZE)?;
    let length = options.command_line.len();
    ensure!(
        length as u64 <= room && length < COMMAND_LINE_ROOM && !options.command_line.contains('\0'),
        "a command line of {length} bytes; the kernel takes {room}"
    );
    let sectors = match number::<1>(image, field::SETUP_SECTORS)? {
        0 => 4,
        sectors => sectors,
    };
    let code = usize::try_from((sectors + 1) * 512).ok().and_then(|at| image.get(at..));
    let code = code.context("the file ends before its code")?;
    let slots = devices::ram(options.memory);
    let address = number::<8>(image, field::PREFERRED)?;
    let size = number::<4>(image, field::INIT_SIZE)?.max(code.len() as u64);
    let end = address.checked_add(size).context("the kernel's address")?;
    let fits = slots.iter().any(|slot| slot.gpa <= address && end <= slot.gpa + slot.size);
    ensure!(fits, "no RAM for a kernel at {address:#x} to {end:#x}");

    let initrd = place_initrd(options, &slots, end, number::<4>(image, field::INITRD_MAX)?)?;
    write(memory, initrd, &options.initrd)?;
    write(memory, address, code)?;
    write(memory, COMMAND_LINE, format!("{}\0", options.command_line).as_bytes())?;
    write(memory, PARAMETERS, &parameters(options, initrd)?)?;
    write_u64(memory, TABLES, TABLES + PAGE + 3)?;
    for gib in 0..4 {
        let directory = TABLES + (2 + gib) * PAGE;
        write_u64(memory, TABLES + PAGE + gib * 8, directory + 3)?;
        for page in 0..512 {
            write_u64(memory, directory + page * 8, (gib << 30) + (page << 21) + 0x83)?;
        }
    }
    for (index, entry) in GDT.into_iter().enumerate() {
        write_u64(memory, DESCRIPTORS + index as u64 * 8, entry)?;
    }
    let mut state = PrivateState::long_mode(address + ENTRY_64, STACK, TABLES);
    state.cs = Segment::code64(CODE);
    for segment in [&mut state.ds, &mut state.es, &mut state.ss, &mut state.fs, &mut state.gs] {
        *segment = Segment::data(DATA);
    }
    state.gdtr = TableRegister { base: DESCRIPTORS, limit: 31 };
    Ok(Entry { state, shared: SharedState { rsi: PARAMETERS, dr6: 0xffff_0ff0, ..SharedState::default() } })
}

/// As high below 4 GiB as there is room, as boot loaders do; never below the kernel.
fn place_initrd(options: &Options, slots: &[crate::engine::Slot], above: u64, highest: u64) -> Result<u64> {
    let size = options.initrd.len() as u64;
    let places = slots.iter().rev().filter_map(|slot| {
        let end = (slot.gpa + slot.size).min(highest.saturating_add(1));
        let start = end.checked_sub(size)? / PAGE * PAGE;
        (start >= slot.gpa.max(above)).then_some(start)
    });
    places.into_iter().next().with_context(|| format!("no RAM for an initial RAM disk of {size} bytes"))
}

/// The boot parameters.
fn parameters(options: &Options, initrd: u64) -> Result<Vec<u8>> {
    let image = &options.kernel;
    let mut page = vec![0; 4096];
    let header = field::SETUP_SECTORS..field::MAGIC + usize::try_from(number::<1>(image, field::JUMP)?)?;
    page[header.clone()].copy_from_slice(image.get(header).context("the file ends in its header")?);
    page[field::LOADER] = OTHER_LOADER;
    // The code lies at its place above 1 MiB.
    page[field::LOAD_FLAGS] |= 1;
    let words = [
        (field::INITRD, initrd),
        (field::INITRD_SIZE, options.initrd.len() as u64),
        (field::COMMAND_LINE, COMMAND_LINE),
    ];
    for (at, value) in words {
        page[at..at + 4].copy_from_slice(&u32::try_from(value)?.to_le_bytes());
    }
    let ram = devices::ram(options.memory).into_iter().map(|slot| (slot.gpa..slot.gpa + slot.size, USABLE));
    // What is reserved and RAM at once is reserved: Linux sees to that.
    let map: Vec<_> = ram.chain(devices::reserved().into_iter().map(|range| (range, RESERVED))).collect();
    page[field::E820_ENTRIES] = u8::try_from(map.len())?;
    for (index, (range, kind)) in map.into_iter().enumerate() {
        let at = field::E820 + 20 * index;
        page[at..at + 8].copy_from_slice(&range.start.to_le_bytes());
        page[at + 8..at + 16].copy_from_slice(&(range.end - range.start).to_le_bytes());
        page[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
    }
    Ok(page)
}
