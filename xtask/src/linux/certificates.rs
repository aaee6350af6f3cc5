//! The certificates that a kernel is built with: whom it trusts to sign modules.
//!
//! VTL0's driver hands them to VTL1 (LoadKData), but a running kernel no longer has them: they are data of its
//! initialisation. So they are cut out of the kernel's file, where Linux's `certs/system_certificates.S` lays them down: the
//! list in DER, and behind it, aligned to 8 bytes, the list's size and the size of the build's own certificate in it.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSection};
use vsm_integrity::der;
use vsm_integrity::signature::Certificate;

/// Where the list lies.
const SECTION: &str = ".init.data";
/// How a certificate of at least 256 bytes begins: a SEQUENCE whose length takes two bytes.
const BEGIN: [u8; 2] = [0x30, 0x82];

/// The list of a kernel, as it lies there, and who the certificates are of.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// Concatenated certificates, DER.
    pub der: Vec<u8>,
    /// The common name of each.
    pub names: Vec<String>,
}

/// Cuts the list out of a `vmlinux`, and reads every certificate in it.
///
/// # Errors
/// There is none, there are several that could be it, or a certificate in it is none.
pub fn cut(vmlinux: &[u8]) -> Result<List> {
    let file = object::File::parse(vmlinux)?;
    let section = file.section_by_name(SECTION).with_context(|| format!("the kernel has no section {SECTION}"))?;
    let data = section.data()?;
    let found = lists(data);
    ensure!(found.len() == 1, "{} places of the kernel's {SECTION} may be its list of certificates", found.len());
    let der = data[found[0].clone()].to_vec();
    let names = der::sequences(&der).map(|certificate| Ok(name(certificate?))).collect::<Result<Vec<_>>>()?;
    Ok(List { der, names })
}

fn name(der: &[u8]) -> String {
    let certificate = Certificate::parse(der);
    certificate.ok().and_then(|it| it.common_name().map(str::to_owned)).unwrap_or_else(|| "without a name".to_owned())
}

/// The places where certificates lie and behind them their size, then the first one's or 0.
///
/// The list of revoked certificates has no second size behind it.
fn lists(data: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = data[at..].windows(2).position(|bytes| bytes == BEGIN).map(|offset| at + offset) {
        at = start + 1;
        let certificates = der::sequences(&data[start..]).map_while(Result::ok);
        let sizes: Vec<usize> =
            certificates.take_while(|der| Certificate::parse(*der).is_ok()).map(<[u8]>::len).collect();
        let size: usize = sizes.iter().sum();
        let word = |at: usize| data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let behind = (start + size).next_multiple_of(8);
        let own = |word: u64| word == 0 || Some(&word) == sizes.first().map(|size| *size as u64).as_ref();
        if size > 0 && word(behind) == Some(size as u64) && word(behind + 8).is_some_and(own) {
            found.push(start..start + size);
            at = start + size;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use vsm_sim::vtl0::signer::Signer;

    use super::*;

    /// A kernel's initial data with these certificates in it; `own` is the size of the build's own.
    fn data(certificates: &[&[u8]], own: Option<usize>) -> Vec<u8> {
        let mut data = b"text before it\x30\x82".repeat(5);
        let size: usize = certificates.iter().map(|der| der.len()).sum();
        data.extend(certificates.concat());
        data.resize(data.len().next_multiple_of(8), 0);
        data.extend((size as u64).to_le_bytes());
        data.extend(own.map_or(u64::MAX, |size| size as u64).to_le_bytes());
        data
    }

    #[test]
    fn the_list_is_what_its_own_sizes_say() {
        let [one, two] = ["one", "two"].map(|name| Signer::rsa_authority(name).unwrap().certificate().to_owned());
        let both = [one.as_slice(), &two].concat();
        for own in [0, one.len()] {
            let data = data(&[&one, &two], Some(own));
            let found = lists(&data);
            assert_eq!(found.len(), 1);
            assert!(data[found[0].clone()] == both);
        }
        assert_eq!(name(&one), "one");
        assert_eq!(lists(&data(&[&one, &two], None)), [], "the list of revoked certificates");
        let mut longer = data(&[&one], Some(0));
        let at = longer.len() - 16;
        longer[at] ^= 1;
        assert_eq!(lists(&longer), [], "another size");
        assert_eq!(lists(&[]), []);
    }
}
