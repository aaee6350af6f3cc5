//! What can be read of a certificate whatever its encoding: by what a revoked one is known.
//!
//! A certificate that is to be trusted must be DER to the last byte. One that is revoked must not get away because its maker
//! wrote a length in the long form, or put a NULL into one of two places: here a part that is broken hides no part before
//! it, and lengths may have any definite form. Nothing is decided by what is read but that something is refused. Every byte
//! is looked at a few times at most; nothing recurses, and nothing is allocated.

use core::fmt;

use super::reader::tag;

/// `id-ce-subjectKeyIdentifier`, 2.5.29.14 (RFC 5280 §4.2.1.2).
const SUBJECT_KEY_ID: [u8; 3] = [0x55, 0x1d, 14];

/// The parts of a certificate that say whose it is; what could not be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks<'a> {
    /// The issuer's name, with its tag.
    pub issuer: Option<&'a [u8]>,
    /// The serial number's bytes.
    pub serial: Option<&'a [u8]>,
    /// The subject's name, with its tag.
    pub subject: Option<&'a [u8]>,
    /// The subject's public key, a SubjectPublicKeyInfo with its tag.
    pub key: Option<&'a [u8]>,
    /// The subject key identifier.
    pub key_id: Option<&'a [u8]>,
}

impl<'a> Marks<'a> {
    /// What can be read of `certificate`.
    #[must_use]
    pub fn read(certificate: &'a [u8]) -> Self {
        let mut marks = Self::default();
        // Where it ends, no more can be read.
        let _ = marks.take(certificate);
        marks
    }

    /// RFC 5280 §4.1, as far as it goes.
    fn take(&mut self, certificate: &'a [u8]) -> Option<()> {
        let tbs = Loose(certificate).next()?.inside()?.next()?;
        let mut fields = tbs.inside()?;
        let first = fields.next()?;
        let serial = if first.tag == tag::context(0) { fields.next()? } else { first };
        self.serial = serial.of(tag::INTEGER).map(|serial| serial.content);
        let _algorithm = fields.next()?;
        self.issuer = fields.next()?.of(tag::SEQUENCE).map(|name| name.raw);
        let _validity = fields.next()?;
        self.subject = fields.next()?.of(tag::SEQUENCE).map(|name| name.raw);
        self.key = fields.next()?.of(tag::SEQUENCE).map(|key| key.raw);
        let mut extensions = loop {
            if let Some(explicit) = fields.next()?.of(tag::context(3)) {
                break explicit.inside()?.next()?.inside()?;
            }
        };
        loop {
            let extension = extensions.next()?;
            self.key_id = self.key_id.or_else(|| key_id(&extension));
        }
    }

    /// Whether both are the same key, in whatever form.
    pub(crate) fn has_key(&self, info: &[u8]) -> bool {
        let number = self.key.and_then(number_of_key);
        number.is_some() && number == number_of_key(info)
    }

    /// Whether issuer and serial number are these.
    pub(crate) fn has_number(&self, issuer: &[u8], serial: &[u8]) -> bool {
        self.issuer == Some(issuer) && self.serial.map(significant) == Some(significant(serial))
    }
}

/// What was read, for a log.
impl fmt::Display for Marks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.issuer.is_some() && self.serial.is_some();
        let known = [("issuer and number", number), ("key", self.key.and_then(number_of_key).is_some())];
        let all = known.into_iter().chain([("key id", self.key_id.is_some())]).filter(|(_, known)| *known);
        let mut separator = "";
        for (name, _) in all {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        if separator.is_empty() { write!(f, "its bytes") } else { Ok(()) }
    }
}

fn key_id<'a>(extension: &Part<'a>) -> Option<&'a [u8]> {
    let mut fields = extension.inside()?;
    fields.next()?.of(tag::OID).filter(|id| id.content == SUBJECT_KEY_ID)?;
    // A flag may come first.
    let mut value = fields.next()?;
    while value.tag != tag::OCTET_STRING {
        value = fields.next()?;
    }
    Some(Loose(value.content).next()?.of(tag::OCTET_STRING)?.content)
}

/// The number that makes the key in a SubjectPublicKeyInfo: RSA's modulus, a point's first coordinate in either form of
/// SEC 1 §2.3.3, otherwise the bits.
fn number_of_key(info: &[u8]) -> Option<&[u8]> {
    let mut fields = Loose(info).next()?.inside()?;
    let _algorithm = fields.next()?;
    // Without the byte that says how many bits are unused.
    let (_, bits) = fields.next()?.of(tag::BIT_STRING)?.content.split_first()?;
    let number = match bits {
        [2 | 3, x @ ..] => x,
        [4, both @ ..] => both.get(..both.len() / 2)?,
        [tag::SEQUENCE, ..] => {
            let modulus = Loose(bits).next().and_then(|key| key.inside()?.next()?.of(tag::INTEGER));
            modulus.map_or(bits, |modulus| significant(modulus.content))
        }
        other => other,
    };
    (!number.is_empty()).then_some(number)
}

/// A number without its leading zeros.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// One element.
struct Part<'a> {
    tag: u8,
    content: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Part<'a> {
    fn of(self, tag: u8) -> Option<Self> {
        (self.tag == tag).then_some(self)
    }

    /// The elements in it, if it is made of elements (X.690 §8.1.2.5).
    fn inside(&self) -> Option<Loose<'a>> {
        (self.tag & 0x20 != 0).then_some(Loose(self.content))
    }
}

/// Elements one after the other, of which the lengths are definite. The last one may be cut if it is made of elements.
struct Loose<'a>(&'a [u8]);

impl<'a> Loose<'a> {
    fn next(&mut self) -> Option<Part<'a>> {
        let (tag, after) = self.0.split_first()?;
        let (first, after) = after.split_first()?;
        // X.690 §8.1.3: a short length, or how many bytes of it follow. 0x80 would be an indefinite one.
        let (digits, after) = match first {
            0x80 => return None,
            long if long & 0x80 != 0 => after.split_at_checked(usize::from(long & 0x7f))?,
            _ => (core::slice::from_ref(first), after),
        };
        let digit = |length: usize, digit: &u8| length.checked_mul(0x100)?.checked_add(usize::from(*digit));
        let length = digits.iter().try_fold(0, digit)?;
        let cut = (tag & 0x20 != 0).then_some((after, &[][..]));
        let (content, rest) = after.split_at_checked(length).or(cut)?;
        let (raw, _) = self.0.split_at_checked(self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Part { tag: *tag, content, raw })
    }
}
