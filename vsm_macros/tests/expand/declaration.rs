/// A VSM call that VTL0 may make; the discriminant is the id it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
pub enum VsmFunction {
    /// The first.
    First = 0x10,
    /// The second.
    Second = 0x11,
    /// The last, after a hole.
    Last = 0x13,
}
impl VsmFunction {
    /// How many calls are declared.
    pub const COUNT: usize = 3usize;
    /// All calls, by ascending id.
    pub const ALL: [Self; Self::COUNT] = [Self::First, Self::Second, Self::Last];
    /// The id VTL0 passes.
    #[must_use]
    pub const fn id(self) -> u64 {
        self as u64
    }
    /// The call's place in the jump table.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0usize,
            Self::Second => 1usize,
            Self::Last => 3usize,
        }
    }
    /// The name as declared.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "First",
            Self::Second => "Second",
            Self::Last => "Last",
        }
    }
    /// The declaration's documentation, line by line.
    #[must_use]
    pub const fn doc(self) -> &'static str {
        match self {
            Self::First => "The first.",
            Self::Second => "The second.",
            Self::Last => "The last, after a hole.",
        }
    }
    /// The call whose id is `id`, all 64 bits compared.
    #[must_use]
    pub const fn from_id(id: u64) -> Option<Self> {
        match id {
            0x10 => Some(Self::First),
            0x11 => Some(Self::Second),
            0x13 => Some(Self::Last),
            _ => None,
        }
    }
}
/// The first id, which has index 0 in the jump table.
pub const VSM_BASE: u64 = 0x10;
/// Places in the jump table, reserved ones included.
pub const VSM_TABLE_LEN: usize = 4usize;
/// Places that a jump table may have at most: the gate keeps one bit for each in a `u64`.
pub const VSM_MAX_TABLE_LEN: usize = 64usize;
/// Ids within the table's range that no call has.
pub const VSM_RESERVED: [u64; 1usize] = [0x12];
/// One type per VSM call, to stand for it where the type system decides.
pub mod calls {
    /// The first.
    #[derive(Clone, Copy, Debug)]
    pub struct First;
    impl super::VsmCall for First {
        const FUNCTION: super::VsmFunction = super::VsmFunction::First;
    }
    /// The second.
    #[derive(Clone, Copy, Debug)]
    pub struct Second;
    impl super::VsmCall for Second {
        const FUNCTION: super::VsmFunction = super::VsmFunction::Second;
    }
    /// The last, after a hole.
    #[derive(Clone, Copy, Debug)]
    pub struct Last;
    impl super::VsmCall for Last {
        const FUNCTION: super::VsmFunction = super::VsmFunction::Last;
    }
}
/// `[CallRow; VsmFunction::COUNT]` of the table that the type `$table` stands for, by ascending id.
///
/// Does not compile unless the type has a handler for every declared call.
#[macro_export]
macro_rules! vsm_rows {
    ($table:ty) => {
        [$crate::vsm::CallRow::of:: < $table, $crate::vsm::calls::First > (),
        $crate::vsm::CallRow::of:: < $table, $crate::vsm::calls::Second > (),
        $crate::vsm::CallRow::of:: < $table, $crate::vsm::calls::Last > ()]
    };
}
