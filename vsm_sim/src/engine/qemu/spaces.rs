//! The address spaces: nested page tables of each context, and for context 0 a second tree for its user code.
//!
//! SVM has no mode-based execute control. Both trees of context 0 have the same data rights; one lets execute what kernel
//! code may, the other what user code may and kernel code may not. The stub changes from one to the other.

use core::ops::Range;
use std::sync::Arc;

use super::npt::{AddressSpace, Pool};
use crate::engine::CONTEXTS;
use crate::engine::error::Result;
use crate::engine::exit::Access;
use crate::engine::ram::{Mapping, Placed};

/// The number of trees.
pub const TREES: u64 = CONTEXTS as u64 + 1;

/// The spaces, and the pool their tables come from.
pub struct Spaces {
    pool: Pool,
    spaces: [AddressSpace; CONTEXTS],
    /// Context 0's, for user code.
    user: AddressSpace,
}

/// The rights in the tree for user code.
fn of_user(access: Access) -> Access {
    Access { execute: access.user_execute && !access.execute, ..access }
}

impl Spaces {
    /// Spaces with all rights to all of RAM.
    pub fn new(memory: &Arc<Mapping>, mut pool: Pool, placed: &[Placed]) -> Result<Self> {
        let mut space = || AddressSpace::new(Arc::clone(memory), &mut pool);
        let (spaces, user) = ([space()?, space()?], space()?);
        for slot in placed {
            for space in &spaces {
                space.map_slot(&mut pool, slot, Access::ALL)?;
            }
            user.map_slot(&mut pool, slot, of_user(Access::ALL))?;
        }
        Ok(Self { pool, spaces, user })
    }

    /// A zeroed page of engine memory.
    pub fn page(&mut self) -> Result<u64> {
        self.pool.page()
    }

    /// A space with one page of engine memory at 0, and the page.
    pub fn with_one_page(&mut self, memory: &Arc<Mapping>) -> Result<(AddressSpace, u64)> {
        let page = self.pool.page()?;
        let space = AddressSpace::new(Arc::clone(memory), &mut self.pool)?;
        let slot = crate::engine::ram::Slot { gpa: 0, size: 0x1000 };
        space.map_slot(&mut self.pool, &Placed { slot, offset: page }, Access::ALL)?;
        Ok((space, page))
    }

    /// Sets the rights of pages that are all known to be RAM.
    pub fn protect(&mut self, space: usize, first: u64, count: u64, access: Access) -> Result<()> {
        self.spaces[space].protect(&mut self.pool, first, count, access)?;
        if space == 0 { self.user.protect(&mut self.pool, first, count, of_user(access)) } else { Ok(()) }
    }

    /// Lets context 0 have frames that are not RAM.
    pub fn map_devices(&mut self, frames: Range<u64>, access: Access) -> Result<()> {
        self.spaces[0].map_devices(&mut self.pool, frames.clone(), access)?;
        self.user.map_devices(&mut self.pool, frames, of_user(access))
    }

    /// Rights of a page, `None` if it is not RAM.
    pub fn access(&self, space: usize, gfn: u64) -> Option<Access> {
        let kernel = self.spaces[space].access(gfn)?;
        let user = space == 0 && self.user.access(gfn).is_some_and(|user| user.execute);
        Some(Access { user_execute: kernel.execute || user, ..kernel })
    }

    /// Address of the root table of a space.
    pub fn root(&self, space: usize) -> u64 {
        self.spaces[space].root
    }

    /// Address of the root table of context 0's tree for user code.
    pub fn root_of_user(&self) -> u64 {
        self.user.root
    }
}
