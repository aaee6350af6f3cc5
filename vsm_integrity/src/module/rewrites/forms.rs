//! What a site may look like: the bytes of each form, and the options that make it look so.

use crate::module::error::ShortBytes;
use crate::module::habits::{Choice, Habits};
use crate::module::sites::Site;

/// The most bytes at a site, an alternative excepted.
pub const MAX_SITE: usize = 16;
/// The most forms at a site.
const MAX_FORMS: usize = 8;

/// Bytes that a site may have.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The options of the choice that make the site look like this, one bit each.
    pub options: u8,
    /// The bytes.
    pub bytes: ShortBytes<MAX_SITE>,
}

/// All that a site may look like.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// What decides between them.
    pub choice: Choice,
    list: [Form; MAX_FORMS],
    count: usize,
}

impl Forms {
    /// No forms, until there are some.
    pub fn new(choice: Choice) -> Self {
        Self { choice, list: [Form { options: 0, bytes: ShortBytes::new(&[]) }; MAX_FORMS], count: 0 }
    }

    /// Adds a form that those options make.
    pub fn push(&mut self, options: u8, bytes: &[u8]) {
        if let Some(slot) = self.list.get_mut(self.count) {
            *slot = Form { options, bytes: ShortBytes::new(bytes) };
            self.count += 1;
        }
    }

    /// With another form.
    pub fn with(mut self, options: u8, bytes: &[u8]) -> Self {
        self.push(options, bytes);
        self
    }

    /// Without the forms that other sites have ruled out.
    pub fn allowed(&self, habits: &Habits) -> Self {
        let options = habits.options(self.choice);
        let mut allowed = Self::new(self.choice);
        for form in self.iter() {
            if form.options & options != 0 {
                allowed.push(form.options & options, form.bytes.as_slice());
            }
        }
        allowed
    }

    /// All forms.
    pub fn iter(&self) -> impl Iterator<Item = &Form> {
        self.list.iter().take(self.count)
    }

    /// The options with which the site looks like `found`.
    pub fn options(&self, found: &[u8]) -> u8 {
        self.iter().filter(|form| form.bytes.as_slice() == found).fold(0, |options, form| options | form.options)
    }
}

/// A site that is looked at.
#[derive(Clone, Copy)]
pub struct Spot<'s> {
    /// The site.
    pub site: Site,
    /// Its address.
    pub va: u64,
    /// The file's bytes, relocated, from the site on; at least those of the site.
    pub original: &'s [u8],
    /// What memory holds there.
    pub found: &'s [u8],
}

impl<'s> Spot<'s> {
    /// The first `N` original bytes.
    pub fn first<const N: usize>(&self) -> Option<&'s [u8; N]> {
        self.original.first_chunk()
    }
}
