//! The register context with which a virtual processor first enters a VTL (TLFS `HV_INITIAL_VP_CONTEXT`).

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A segment register (TLFS `HV_X64_SEGMENT_REGISTER`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SegmentRegister {
    /// Linear address of the segment's first byte.
    pub base: u64,
    /// Offset of the segment's last byte, in bytes (not in granules).
    pub limit: u32,
    /// Selector.
    pub selector: u16,
    /// Descriptor bits 40..=47 and 52..=55: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15.
    pub attributes: u16,
}

/// A descriptor table register (TLFS `HV_X64_TABLE_REGISTER`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TableRegister {
    /// Unused.
    pub pad: [u16; 3],
    /// Offset of the table's last byte.
    pub limit: u16,
    /// Linear address of the table's first byte.
    pub base: u64,
}

/// What HvCallEnableVpVtl starts the processor with, 224 bytes. General-purpose registers are not part of it: they
/// are shared between VTLs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitialVpContext {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// Code segment.
    pub cs: SegmentRegister,
    /// Data segment.
    pub ds: SegmentRegister,
    /// Extra segment.
    pub es: SegmentRegister,
    /// FS segment.
    pub fs: SegmentRegister,
    /// GS segment.
    pub gs: SegmentRegister,
    /// Stack segment.
    pub ss: SegmentRegister,
    /// Task register.
    pub tr: SegmentRegister,
    /// Local descriptor table register.
    pub ldtr: SegmentRegister,
    /// Interrupt descriptor table register.
    pub idtr: TableRegister,
    /// Global descriptor table register.
    pub gdtr: TableRegister,
    /// Extended features.
    pub efer: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// The PAT MSR (`IA32_PAT`).
    pub pat: u64,
}

const _: () = assert!(size_of::<SegmentRegister>() == 16);
const _: () = assert!(size_of::<TableRegister>() == 16);
const _: () = assert!(offset_of!(TableRegister, limit) == 6 && offset_of!(TableRegister, base) == 8);
const _: () = assert!(size_of::<InitialVpContext>() == 224);
const _: () = assert!(offset_of!(InitialVpContext, cs) == 24);
const _: () = assert!(offset_of!(InitialVpContext, ldtr) == 136);
const _: () = assert!(offset_of!(InitialVpContext, idtr) == 152);
const _: () = assert!(offset_of!(InitialVpContext, gdtr) == 168);
const _: () = assert!(offset_of!(InitialVpContext, efer) == 184);
const _: () = assert!(offset_of!(InitialVpContext, pat) == 216);
