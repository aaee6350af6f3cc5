//! What a part of a module's memory is for.

/// What a part of a module's memory is for: Linux' `enum mod_mem_type` (LVBS contract §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Code.
    Text,
    /// Writable data.
    Data,
    /// Read-only data.
    RoData,
    /// Data that is read-only once the module has been initialised.
    RoAfterInit,
    /// Code that is needed during initialisation only.
    InitText,
    /// Writable data that is needed during initialisation only.
    InitData,
    /// Read-only data that is needed during initialisation only.
    InitRoData,
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 7;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Text, Self::Data, Self::RoData, Self::RoAfterInit, Self::InitText, Self::InitData, Self::InitRoData];

    /// The kind of that number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Its number.
    pub const fn number(self) -> usize {
        self as usize
    }

    /// Its name in Linux.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Data => "DATA",
            Self::RoData => "RODATA",
            Self::RoAfterInit => "RO_AFTER_INIT",
            Self::InitText => "INIT_TEXT",
            Self::InitData => "INIT_DATA",
            Self::InitRoData => "INIT_RODATA",
        }
    }

    /// Whether every byte of it must be explained. The others stay writable for VTL0, at least until the module has
    /// been initialised, so that what they hold now says nothing about later.
    pub const fn is_explained(self) -> bool {
        matches!(self, Self::Text | Self::RoData | Self::InitText | Self::InitRoData)
    }

    /// Whether it holds code.
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::InitText)
    }

    /// Whether it goes once the module has been initialised.
    pub const fn is_init(self) -> bool {
        matches!(self, Self::InitText | Self::InitData | Self::InitRoData)
    }
}
