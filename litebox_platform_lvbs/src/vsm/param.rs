//! The parameter types of VSM calls.
//!
//! VTL0 chooses every bit of a register. Undefined bits, misalignment, overflow, and addresses that belong to VTL1
//! are refused here, once, so that a handler cannot forget to. A type of another module (a HEKI list, say) becomes
//! a parameter type by implementing [`VsmParam`].

use super::reply::Refusal;
use super::row::{ErrnoMeta, ParamMeta};
use crate::access::refuse_vtl1;
use crate::address::{Gfn, PAGE_SIZE, PHYS_ADDR_BITS, PhysAddr};
use crate::error::{Errno, VsmError};
use crate::platform::Platform;
use crate::token::Token;

/// A type that a handler can take, made from one or more registers of a call.
#[diagnostic::on_unimplemented(
    message = "VSM051: `{Self}` is not a parameter type of a VSM call",
    label = "not a parameter type",
    note = "accepted are `PhysAddr`, `PageAddr`, `Option<PageAddr>`, `Vtl0Page`, `Token`, `Flags<DEFINED>`, \
            `ByteCount`, `HekiList`, `Option<HekiList>`, and any type that implements `VsmParam`"
)]
pub trait VsmParam: Sized {
    /// How many of the three registers the parameter takes.
    const REGISTERS: usize;
    /// How listings and messages name this kind of parameter.
    const KIND: &'static str;
    /// What the number is: its unit and bounds, register by register where there are several.
    const UNIT: &'static str;
    /// The bits that may be set in each of its registers.
    const BITS: u64;
    /// The errnos with which the type itself refuses, when its registers are read and when what they name is.
    const ERRORS: &'static [ErrnoMeta];

    /// Checks the registers, of which there are [`Self::REGISTERS`].
    ///
    /// # Errors
    /// The rule that VTL0 broke.
    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError>;
}

/// A parameter of a handler, with its type's trait turned into data, so that a type that is no parameter is reported once, where
/// the signature names it.
pub struct Param<T> {
    meta: ParamMeta,
    parse: fn(&Platform, &[u64]) -> Result<T, VsmError>,
}

impl<T> Param<T> {
    /// The parameter `name` of type `T`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self
    where
        T: VsmParam,
    {
        let meta =
            ParamMeta { name, kind: T::KIND, unit: T::UNIT, registers: T::REGISTERS, bits: T::BITS, errors: T::ERRORS };
        Self { meta, parse: T::from_registers }
    }

    /// What is known of it.
    #[must_use]
    pub const fn meta(&self) -> ParamMeta {
        self.meta
    }
}

/// The registers of a call that no parameter has taken yet.
#[derive(Debug)]
pub struct Registers<'a>(&'a [u64]);

impl<'a> Registers<'a> {
    /// How many parameter registers a call has (LVBS contract §3: RSI, RDX, R8).
    pub const COUNT: usize = 3;

    /// All registers of a call.
    #[must_use]
    pub const fn new(registers: &'a [u64; 3]) -> Self {
        Self(registers)
    }

    /// Takes the registers of `param` and checks them.
    ///
    /// # Errors
    /// What [`VsmParam::from_registers`] refuses, with the parameter's own name.
    pub fn take<T>(&mut self, param: &Param<T>, platform: &Platform) -> Result<T, Refusal> {
        let name = param.meta.name;
        let Some((mine, rest)) = self.0.split_at_checked(param.meta.registers) else {
            return Err(Refusal::Before(VsmError::InvalidParameter { name, value: u64::MAX }));
        };
        self.0 = rest;
        (param.parse)(platform, mine).map_err(|error| {
            Refusal::Before(match error {
                VsmError::InvalidParameter { value, .. } => VsmError::InvalidParameter { name, value },
                other => other,
            })
        })
    }

    /// Whether `params` together take no more registers than a call has; for the compile-time check on a handler.
    #[must_use]
    pub const fn are_enough_for(params: &[ParamMeta]) -> bool {
        let (mut sum, mut rest) = (0, params);
        while let [first, tail @ ..] = rest {
            (sum, rest) = (sum + first.registers, tail);
        }
        sum <= Self::COUNT
    }
}

/// The bits of a physical address (Intel SDM vol. 3 §4.1.4), and of a page's.
const ADDRESS_BITS: u64 = (1 << PHYS_ADDR_BITS) - 1;
const PAGE_BITS: u64 = ADDRESS_BITS & !0xfff;

const NO_ADDRESS: ErrnoMeta = ErrnoMeta::new(Errno::Efault, "not a physical address: 2^52 or more");
const NO_FRAME: ErrnoMeta = ErrnoMeta::new(Errno::Efault, "not a frame number: 2^40 or more");
const NOT_ALIGNED: ErrnoMeta = ErrnoMeta::new(Errno::Einval, "not page-aligned");
const OF_VTL1: ErrnoMeta = ErrnoMeta::new(Errno::Eacces, "a frame of VTL1");

/// The register of a parameter that takes exactly one.
fn one(registers: &[u64], name: &'static str) -> Result<u64, VsmError> {
    match registers {
        [register] => Ok(*register),
        _ => Err(VsmError::InvalidParameter { name, value: u64::MAX }),
    }
}

/// Any physical address outside VTL1, with no alignment.
impl VsmParam for PhysAddr {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "physical address";
    const UNIT: &'static str = "bytes from the start of guest-physical memory, any alignment, below 2^52, outside VTL1";
    const BITS: u64 = ADDRESS_BITS;
    const ERRORS: &'static [ErrnoMeta] = &[NO_ADDRESS, OF_VTL1];

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        let at = Self::new(one(registers, Self::KIND)?)?;
        refuse_vtl1(platform, at, 1)?;
        Ok(at)
    }
}

/// The physical address of a page outside VTL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAddr(PhysAddr);

impl PageAddr {
    /// The page's first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.0
    }
}

impl VsmParam for PageAddr {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "page address";
    const UNIT: &'static str =
        "bytes from the start of guest-physical memory, a multiple of 4096, below 2^52, outside VTL1";
    const BITS: u64 = PAGE_BITS;
    const ERRORS: &'static [ErrnoMeta] = &[NO_ADDRESS, NOT_ALIGNED, OF_VTL1];

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        let page = PhysAddr::new_aligned(one(registers, Self::KIND)?)?;
        refuse_vtl1(platform, page, PAGE_SIZE)?;
        Ok(Self(page))
    }
}

/// A page that need not be there; zero says that it is not.
impl VsmParam for Option<PageAddr> {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "page address or 0";
    const UNIT: &'static str = "as a page address; 0 for none";
    const BITS: u64 = PAGE_BITS;
    const ERRORS: &'static [ErrnoMeta] = PageAddr::ERRORS;

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        match one(registers, Self::KIND)? {
            0 => Ok(None),
            _ => PageAddr::from_registers(platform, registers).map(Some),
        }
    }
}

/// A page outside VTL1, given by its frame number (Linux: PFN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtl0Page(Gfn);

impl Vtl0Page {
    /// The frame.
    #[must_use]
    pub const fn gfn(self) -> Gfn {
        self.0
    }

    /// The page's first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.0.start()
    }
}

impl VsmParam for Vtl0Page {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "frame number";
    const UNIT: &'static str =
        "pages of 4096 bytes from the start of guest-physical memory (a PFN), below 2^40, outside VTL1";
    const BITS: u64 = ADDRESS_BITS >> 12;
    const ERRORS: &'static [ErrnoMeta] = &[NO_FRAME, OF_VTL1];

    fn from_registers(platform: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        let gfn = Gfn::new(one(registers, Self::KIND)?)?;
        refuse_vtl1(platform, gfn.start(), PAGE_SIZE)?;
        Ok(Self(gfn))
    }
}

impl VsmParam for Token {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "token";
    const UNIT: &'static str = "what ValidateModule returned: 1 to 0x7fffffff";
    const BITS: u64 = Self::MAX as u64;
    const ERRORS: &'static [ErrnoMeta] = &[ErrnoMeta::new(Errno::Einval, "a token outside 1..=0x7fffffff")];

    fn from_registers(_: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        let raw = one(registers, Self::KIND)?;
        Self::new(raw).ok_or(VsmError::InvalidParameter { name: Self::KIND, value: raw })
    }
}

/// Flags of which only the bits in `DEFINED` may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags<const DEFINED: u64>(u64);

impl<const DEFINED: u64> Flags<DEFINED> {
    /// The bits; a subset of `DEFINED`.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: u64) -> bool {
        self.0 & flags == flags
    }
}

impl<const DEFINED: u64> VsmParam for Flags<DEFINED> {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "flags";
    const UNIT: &'static str = "one bit each";
    const BITS: u64 = DEFINED;
    const ERRORS: &'static [ErrnoMeta] = &[ErrnoMeta::new(Errno::Einval, "a flag that is not defined")];

    fn from_registers(_: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        let value = one(registers, Self::KIND)?;
        if value & !DEFINED != 0 {
            return Err(VsmError::InvalidParameter { name: Self::KIND, value });
        }
        Ok(Self(value))
    }
}

/// A size in bytes: at least 1, at most 2^52, what guest-physical memory can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl VsmParam for ByteCount {
    const REGISTERS: usize = 1;
    const KIND: &'static str = "bytes";
    const UNIT: &'static str = "1 to 2^52 bytes";
    const BITS: u64 = PAGE_BITS | (PAGE_BITS << 1) | 0xfff;
    const ERRORS: &'static [ErrnoMeta] = &[ErrnoMeta::new(Errno::Einval, "no bytes, or more than 2^52")];

    fn from_registers(_: &Platform, registers: &[u64]) -> Result<Self, VsmError> {
        let value = one(registers, Self::KIND)?;
        if value == 0 || value > 1 << PHYS_ADDR_BITS {
            return Err(VsmError::InvalidParameter { name: Self::KIND, value });
        }
        Ok(Self(value))
    }
}
