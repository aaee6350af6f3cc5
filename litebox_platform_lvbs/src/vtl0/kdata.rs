//! What LoadKData leaves behind, but for the keys: what VTL1 must know of VTL0's kernel.
//!
//! All of it is VTL1's own copy, parsed and bounded before it came here. VTL0's kernel said it during boot, when it
//! still was what the firmware measured; nothing changes it afterwards.

use alloc::vec::Vec;
use core::fmt;

use vsm_integrity::generation::KernelGeneration;

use super::functions::KernelFunctions;
use super::kernel_text::KernelText;
use super::patches::PatchDataMap;
use super::symbols::SymbolTable;

/// What VTL0's kernel said about itself, in one LoadKData.
#[derive(Debug, Default)]
pub struct KernelData {
    /// How many certificates are built into the kernel and may sign modules and kexec images.
    pub system_certificates: usize,
    /// How many certificates must not be trusted, regardless of their signatures.
    pub revoked_certificates: usize,
    /// How many hashes of files and certificates must not be trusted.
    pub blocked_hashes: usize,
    /// The symbols that modules may use.
    pub symbols: SymbolTable,
    /// The generation of Linux that they show: asked by whatever differs between versions.
    pub generation: KernelGeneration,
    /// Where its text lies.
    pub text: KernelText,
    /// The functions among them, which static calls of modules may lead to.
    pub functions: KernelFunctions,
    /// The rest of `struct heki_kinfo`, after the export tables: paravirt operations and thunks.
    pub arch: Vec<u64>,
    /// The sites of the kernel's jump labels.
    pub patches: PatchDataMap,
    /// Frames of the kexec trampoline, which VTL0 can only read.
    pub trampoline_frames: u64,
}

/// The generation of Linux, where symbols show it, and counts; fits a log line.
impl fmt::Display for KernelData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.symbols.is_empty() {
            write!(f, "Linux {}, ", self.generation)?;
        }
        write!(
            f,
            "{} certificates, {} revoked, {} blocked hashes, {} symbols ({} GPL), {} patch sites, {} trampoline pages",
            self.system_certificates,
            self.revoked_certificates,
            self.blocked_hashes,
            self.symbols.len(),
            self.symbols.gpl_count(),
            self.patches.len(),
            self.trampoline_frames
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vtl0::SymbolTableBuilder;

    #[test]
    fn the_line_names_the_generation_that_symbols_show() {
        let mut data = KernelData { generation: KernelGeneration::From6_8, ..KernelData::default() };
        assert!(std::format!("{data}").starts_with("0 certificates, "));
        let mut builder = SymbolTableBuilder::new(1).unwrap();
        builder.push(b"pcpu_hot", 1, false).unwrap();
        data.symbols = builder.finish();
        assert!(std::format!("{data}").starts_with("Linux 6.8 to 6.14, 0 certificates, "));
    }
}
