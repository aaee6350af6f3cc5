//! The extensions of a certificate that decide what it is good for (RFC 5280 §4.2).

use super::reader::{self, Element, Reader, tag};
use super::span::Span;
use crate::error::ParseError;
use der::asn1::ObjectIdentifier;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

/// RFC 5280 §4.2.1.2.
const SUBJECT_KEY_ID: ObjectIdentifier = oid("2.5.29.14");
/// RFC 5280 §4.2.1.3.
const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
/// RFC 5280 §4.2.1.9.
const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
/// RFC 5280 §4.2.1.1.
const AUTHORITY_KEY_ID: ObjectIdentifier = oid("2.5.29.35");
/// RFC 5280 §4.2.1.12.
const EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
/// RFC 5280 §4.2.1.12.
const ANY_USAGE: ObjectIdentifier = oid("2.5.29.37.0");
/// RFC 5280 §4.2.1.12.
const CODE_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.3");
/// Kernel modules only: keys with it must not sign what the firmware or kexec starts (shim `OID_EKU_MODSIGN`).
const MODULE_SIGNING_ONLY: ObjectIdentifier = oid("1.3.6.1.4.1.2312.16.1.2");

/// The most extensions of a certificate; a dozen is usual. Keeps the search for duplicates short.
const MAX_EXTENSIONS: usize = 64;

/// What a certificate's key may be used for; a certificate without the extension leaves its part at the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) key_id: Option<Span>,
    pub(crate) issuer_key_id: Option<Span>,
    pub(crate) authority: Option<Authority>,
    pub(crate) usage: Option<KeyUsage>,
    pub(crate) extended: Option<ExtendedUsage>,
    /// There is a critical extension that is none of these.
    pub(crate) unknown_critical: bool,
}

/// BasicConstraints of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// How many intermediate certificates may follow.
    pub(crate) path_length: Option<u8>,
}

/// KeyUsage, as far as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyUsage {
    pub(crate) digital_signature: bool,
    pub(crate) certificate_signing: bool,
}

/// ExtendedKeyUsage, as far as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtendedUsage {
    pub(crate) any: bool,
    pub(crate) code_signing: bool,
    pub(crate) modules_only: bool,
}

impl Extensions {
    /// Parses the `[3]` that holds a certificate's extensions.
    pub(crate) fn parse(explicit: &Element<'_>) -> Result<Self, ParseError> {
        let mut outer = explicit.reader()?;
        let list = outer.require(tag::SEQUENCE, "extensions are a SEQUENCE")?;
        outer.finish("extensions are one SEQUENCE")?;
        let mut all = list.reader()?;
        let mut found = Self::default();
        let mut count = 0;
        while !all.is_empty() {
            let before = list.content.get(..all.offset().saturating_sub(list.content_offset())).unwrap_or_default();
            let extension = all.require(tag::SEQUENCE, "an extension is a SEQUENCE")?;
            count += 1;
            if count > MAX_EXTENSIONS {
                return Err(extension.refuse("a certificate has 64 extensions at most"));
            }
            found.take(&extension, before)?;
        }
        if count == 0 {
            return Err(list.refuse("there is no extension"));
        }
        Ok(found)
    }

    /// Takes in one extension, which those in `before` come before.
    fn take(&mut self, extension: &Element<'_>, before: &[u8]) -> Result<(), ParseError> {
        let mut fields = extension.reader()?;
        let id = fields.require(tag::OID, "an extension has an OBJECT IDENTIFIER")?;
        let critical = match fields.optional(tag::BOOLEAN)? {
            None => false,
            Some(flag) if flag.boolean()? => true,
            Some(flag) => return Err(flag.refuse("DER leaves out a default")),
        };
        let value = fields.require(tag::OCTET_STRING, "an extension's value is an OCTET STRING")?;
        fields.finish("an extension has three elements at most")?;
        if has(before, id.content)? {
            return Err(extension.refuse("an extension comes twice"));
        }
        let is = |known: ObjectIdentifier| known.as_bytes() == id.content;
        if is(SUBJECT_KEY_ID) {
            self.key_id = Some(Span::content(&inside(&value, tag::OCTET_STRING)?)?);
        } else if is(AUTHORITY_KEY_ID) {
            let id = inside(&value, tag::SEQUENCE)?.reader()?.optional(tag::context_primitive(0))?;
            self.issuer_key_id = id.map(|id| Span::content(&id)).transpose()?;
        } else if is(BASIC_CONSTRAINTS) {
            self.authority = basic_constraints(&inside(&value, tag::SEQUENCE)?)?;
        } else if is(KEY_USAGE) {
            let bits = inside(&value, tag::BIT_STRING)?.bits()?;
            let first = bits.raw_bytes().first().copied().unwrap_or_default();
            // Bits 0 and 5, counted from the most significant.
            self.usage =
                Some(KeyUsage { digital_signature: first & 0x80 != 0, certificate_signing: first & 0x04 != 0 });
        } else if is(EXTENDED_KEY_USAGE) {
            self.extended = Some(extended_usage(&inside(&value, tag::SEQUENCE)?)?);
        } else {
            self.unknown_critical |= critical;
        }
        Ok(())
    }
}

/// The one element in an extension's value.
fn inside<'a>(value: &Element<'a>, tag: u8) -> Result<Element<'a>, ParseError> {
    reader::only_at(value.content, value.content_offset(), tag, "an extension's value has another type")
}

/// Whether one of the extensions in `list` has this id.
fn has(list: &[u8], id: &[u8]) -> Result<bool, ParseError> {
    let mut all = Reader::new(list)?;
    while !all.is_empty() {
        if all.any()?.reader()?.any()?.content == id {
            return Ok(true);
        }
    }
    Ok(false)
}

fn basic_constraints(element: &Element<'_>) -> Result<Option<Authority>, ParseError> {
    let mut fields = element.reader()?;
    let authority = match fields.optional(tag::BOOLEAN)? {
        None => false,
        Some(flag) if flag.boolean()? => true,
        Some(flag) => return Err(flag.refuse("DER leaves out a default")),
    };
    let path_length = fields.optional(tag::INTEGER)?.map(|length| length.small()).transpose()?;
    fields.finish("basic constraints have two elements at most")?;
    if path_length.is_some() && !authority {
        return Err(element.refuse("a path length is for authorities"));
    }
    Ok(authority.then_some(Authority { path_length }))
}

fn extended_usage(element: &Element<'_>) -> Result<ExtendedUsage, ParseError> {
    let mut purposes = element.reader()?;
    let mut usage = ExtendedUsage::default();
    while !purposes.is_empty() {
        let purpose = purposes.require(tag::OID, "a purpose is an OBJECT IDENTIFIER")?.content;
        usage.any |= purpose == ANY_USAGE.as_bytes();
        usage.code_signing |= purpose == CODE_SIGNING.as_bytes();
        usage.modules_only |= purpose == MODULE_SIGNING_ONLY.as_bytes();
    }
    Ok(usage)
}
