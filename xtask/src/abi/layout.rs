//! What VTL0 writes into memory for VTL1 to read, and what VTL1 writes: structures and numbers, for the C header and the page.
//!
//! Offsets and sizes are the compiler's for the types that the image reads them with. Where the image reads fields one by
//! one, and has no such type, they are written down here and a test writes a record by them and has it read. Numbers are those
//! that the simulator's VTL0 sends, and the image takes.

use std::mem::{offset_of, size_of};

use litebox_platform_lvbs::frames::MemAttr;
use litebox_platform_lvbs::heki::{HekiPage, HekiPatch, HekiRange};
use litebox_platform_lvbs::optee::SmcRegisters;
use litebox_platform_lvbs::owner::ModuleMemoryKind;
use litebox_platform_lvbs::vsm::query::QueryAnswer;
use vsm_integrity::patch_info;
use vsm_sim::vtl0::kdata::kind;
use vsm_sim::vtl0::{kexec, modules};

/// A structure.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// Its tag in C.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Bytes.
    pub size: usize,
    /// Whether VTL0 may have more after it.
    pub open_ended: bool,
    /// All of them, padding included.
    pub fields: &'static [Field],
}

impl Structure {
    /// Whether it is one of Linux's, which a driver has already.
    #[must_use]
    pub fn is_linux(&self) -> bool {
        self.name.starts_with("heki_")
    }
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in C.
    pub name: &'static str,
    /// Its element's type in C.
    pub ty: &'static str,
    /// How many elements; 0 for a field that is no array.
    pub count: usize,
    /// Bytes from the start.
    pub offset: usize,
    /// What it is.
    pub doc: &'static str,
}

/// Numbers that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// What they are and where they stand.
    pub doc: &'static str,
    /// What every name begins with.
    pub prefix: &'static str,
    /// Name, value, meaning.
    pub values: &'static [(&'static str, u64, &'static str)],
}

const fn field(name: &'static str, ty: &'static str, count: usize, offset: usize, doc: &'static str) -> Field {
    Field { name, ty, count, offset, doc }
}

/// The structures, each after those it contains.
pub const STRUCTURES: &[Structure] = &[
    Structure {
        name: "heki_range",
        doc: "A range of VTL0 memory. First and last may lie within a page.",
        size: size_of::<HekiRange>(),
        open_ended: false,
        fields: &[
            field("va", "__u64", 0, offset_of!(HekiRange, va), "virtual address of the first byte"),
            field("pa", "__u64", 0, offset_of!(HekiRange, pa), "physical address of the first byte"),
            field("epa", "__u64", 0, offset_of!(HekiRange, epa), "physical address after the last byte"),
            field("attributes", "__u64", 0, offset_of!(HekiRange, attributes), "what it is; depends on the call"),
        ],
    },
    Structure {
        name: "heki_page",
        doc: "A page of a list, page-aligned.",
        size: size_of::<HekiPage>(),
        open_ended: false,
        fields: &[
            field("next", "__u64", 0, offset_of!(HekiPage, next), "virtual address of the next page; not read"),
            field(
                "next_pa",
                "__u64",
                0,
                offset_of!(HekiPage, next_pa),
                "physical address of the next page, 0 in the last",
            ),
            field("nranges", "__u64", 0, offset_of!(HekiPage, nranges), "how many ranges are used, at least 1"),
            field(
                "ranges",
                "struct heki_range",
                litebox_platform_lvbs::heki::RANGES_PER_PAGE,
                offset_of!(HekiPage, ranges),
                "the ranges",
            ),
            field("pad", "__u64", 0, offset_of!(HekiPage, pad), "not read"),
        ],
    },
    Structure {
        name: "heki_patch",
        doc: "Bytes to write into text (PatchText), or a site: the jump of a jump label, the call or jump of a static call.",
        size: size_of::<HekiPatch>(),
        open_ended: false,
        fields: &[
            field(
                "pa",
                "__u64",
                2,
                offset_of!(HekiPatch, pa),
                "physical address of the first byte; of the page it goes on in, or 0",
            ),
            field("size", "__u8", 0, offset_of!(HekiPatch, size), "how many bytes: 1 to 5; a site's 2 or 5"),
            field("code", "__u8", 5, offset_of!(HekiPatch, code), "the bytes"),
            field("pad", "__u8", 2, offset_of!(HekiPatch, pad), "not read"),
        ],
    },
    Structure {
        name: "heki_patch_info",
        doc: "The head of a record of sites of one type; `patch_idx` of `struct heki_patch` follow it.",
        size: patch_info::HEADER_BYTES,
        open_ended: false,
        fields: &[
            field("type", "__u32", 0, 0, "HEKI_JUMP_LABEL or HEKI_STATIC_CALL"),
            field("pad", "__u32", 0, 4, "not read"),
            field("list", "__u64", 2, 8, "not read"),
            field("mod", "__u64", 0, 24, "not read"),
            field("patch_idx", "__u64", 0, 32, "how many sites follow"),
            field("max_patch_count", "__u64", 0, 40, "for how many there is room, at least as many"),
        ],
    },
    Structure {
        name: "heki_kinfo",
        doc: "What every kernel's information begins with; the rest depends on its configuration.",
        size: 32,
        open_ended: true,
        fields: &[
            field("ksymtab_start", "__u64", 0, 0, "virtual address of __start___ksymtab"),
            field("ksymtab_end", "__u64", 0, 8, "virtual address of __stop___ksymtab"),
            field("ksymtab_gpl_start", "__u64", 0, 16, "virtual address of __start___ksymtab_gpl"),
            field("ksymtab_gpl_end", "__u64", 0, 24, "virtual address of __stop___ksymtab_gpl"),
        ],
    },
    Structure {
        name: "vsm_optee_registers",
        doc: "What an OP-TEE message is, at the start of its page: the registers of a secure monitor call, and of its answer.",
        size: size_of::<SmcRegisters>(),
        open_ended: true,
        fields: &[field("args", "__u64", 9, offset_of!(SmcRegisters, 0), "a0 to a8; the answer from a0 on")],
    },
    Structure {
        name: "vsm_query",
        doc: "What Query writes. Bit n of a mask is for the call with id base + n.",
        size: size_of::<QueryAnswer>(),
        open_ended: true,
        fields: &[
            field("size", "__u32", 0, offset_of!(QueryAnswer, size), "bytes of this structure"),
            field("version", "__u32", 0, offset_of!(QueryAnswer, version), "VSM_ABI_VERSION of VTL1"),
            field("hash", "__u64", 0, offset_of!(QueryAnswer, hash), "VSM_ABI_HASH of VTL1"),
            field("base", "__u64", 0, offset_of!(QueryAnswer, base), "id of the first call"),
            field("supported", "__u64", 0, offset_of!(QueryAnswer, supported), "calls that VTL1 implements"),
            field("boot", "__u64", 0, offset_of!(QueryAnswer, boot), "calls that may be made before the end of boot"),
            field("runtime", "__u64", 0, offset_of!(QueryAnswer, runtime), "calls that may be made after it"),
            field("phase", "__u32", 0, offset_of!(QueryAnswer, phase), "0 before the end of boot, 1 after it"),
            field("pad", "__u32", 0, offset_of!(QueryAnswer, pad), "0"),
        ],
    },
];

/// The numbers.
pub const NUMBERS: &[Numbers] = &[
    Numbers {
        doc: "heki_range.attributes of ProtectMemory: bits",
        prefix: "VSM_MEM_ATTR_",
        values: &[
            ("READ", MemAttr::READ.bits(), "required with the others"),
            ("WRITE", MemAttr::WRITE.bits(), "VTL0 may write"),
            ("EXEC", MemAttr::EXEC.bits(), "VTL0 may execute"),
            ("IMMUTABLE", MemAttr::IMMUTABLE.bits(), "a wish, not a permission"),
        ],
    },
    Numbers {
        doc: "heki_range.attributes of LoadKData: one of",
        prefix: "VSM_KDATA_",
        values: &[
            ("SYSTEM_CERTS", kind::SYSTEM_CERTS, "DER certificates in a row; required"),
            ("REVOCATION_CERTS", kind::REVOCATION_CERTS, "the same, of what must not be trusted"),
            (
                "BLACKLIST_HASHES",
                kind::BLACKLIST_HASHES,
                "records of 133 bytes: \"tbs:\" or \"bin:\" and a hash in hexadecimal",
            ),
            ("KERNEL_INFO", kind::KERNEL_INFO, "struct heki_kinfo"),
            ("KERNEL_DATA", kind::KERNEL_DATA, "the kernel's read-only data"),
            ("PATCH_INFO", kind::PATCH_INFO, "struct heki_patch_info and its sites"),
            ("KEXEC_TRAMPOLINE", kind::KEXEC_TRAMPOLINE, "whole pages; read-only from then on"),
        ],
    },
    Numbers {
        doc: "heki_range.attributes of ValidateModule: one of (Linux enum mod_mem_type, then the file, its sites and its thunks)",
        prefix: "VSM_MOD_",
        values: &[
            ("TEXT", ModuleMemoryKind::Text as u64, "readable and executable"),
            ("DATA", ModuleMemoryKind::Data as u64, "readable and writable"),
            ("RODATA", ModuleMemoryKind::RoData as u64, "readable"),
            ("RO_AFTER_INIT", ModuleMemoryKind::RoAfterInit as u64, "writable until FreeModuleInit"),
            ("INIT_TEXT", ModuleMemoryKind::InitText as u64, "executable until FreeModuleInit"),
            ("INIT_DATA", ModuleMemoryKind::InitData as u64, "readable and writable"),
            ("INIT_RODATA", ModuleMemoryKind::InitRoData as u64, "readable until FreeModuleInit"),
            ("ELF", modules::FILE, "the file with its signature"),
            ("PATCH", modules::PATCHES, "struct heki_patch_info and its sites"),
            (
                "THUNKS",
                modules::THUNKS,
                "the pages of thunks against ITS that Linux allocated for the module, each with its address",
            ),
        ],
    },
    Numbers {
        doc: "heki_range.attributes of KexecValidate: one of",
        prefix: "VSM_KEXEC_",
        values: &[
            ("IMAGE", kexec::DESCRIPTION, "struct kimage, in a page of its own"),
            ("KERNEL_BLOB", kexec::FILE, "the kernel's file with its signature"),
            ("PAGES", kexec::PAGES, "the pages that it is loaded in, and those of the page list"),
        ],
    },
    Numbers {
        doc: "flags of ValidateModule: bits (Linux MODULE_INIT_*)",
        prefix: "VSM_MODULE_INIT_",
        values: &[
            ("IGNORE_MODVERSIONS", 1, "changes nothing for VTL1"),
            ("IGNORE_VERMAGIC", 2, "changes nothing for VTL1"),
            ("COMPRESSED_FILE", 4, "changes nothing for VTL1"),
        ],
    },
    Numbers {
        doc: "heki_patch_info.type",
        prefix: "VSM_",
        values: &[
            ("HEKI_JUMP_LABEL", patch_info::JUMP_LABEL as u64, "jumps that may become NOPs and back"),
            (
                "HEKI_STATIC_CALL",
                patch_info::STATIC_CALL as u64,
                "the kernel's own static calls and their trampolines: the call or jump that was compiled, in LoadKData only",
            ),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use litebox_platform_lvbs::vsm::VsmFunction;

    /// Bytes of a field's element.
    fn element_size(field: &Field) -> usize {
        match field.ty {
            "__u64" => 8,
            "__u32" => 4,
            "__u8" => 1,
            other => STRUCTURES.iter().find(|structure| other.ends_with(structure.name)).unwrap().size,
        }
    }

    #[test]
    fn fields_follow_each_other_without_gaps() {
        for structure in STRUCTURES {
            let mut at = 0;
            for field in structure.fields {
                assert_eq!(field.offset, at, "{}.{}", structure.name, field.name);
                at += element_size(field) * field.count.max(1);
            }
            assert_eq!(at, structure.size, "{}", structure.name);
        }
    }

    /// The offset of `structure.field`.
    fn offset(structure: &str, field: &str) -> usize {
        let structure = STRUCTURES.iter().find(|other| other.name == structure).unwrap();
        structure.fields.iter().find(|other| other.name == field).unwrap().offset
    }

    #[test]
    fn a_record_written_by_these_offsets_is_read_as_it_was_meant() {
        let head = patch_info::HEADER_BYTES;
        let mut record = vec![0xff; head + size_of::<HekiPatch>()];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(offset("heki_patch_info", "type"), &0u32.to_le_bytes());
        put(offset("heki_patch_info", "patch_idx"), &1u64.to_le_bytes());
        put(offset("heki_patch_info", "max_patch_count"), &1u64.to_le_bytes());
        put(head + offset("heki_patch", "pa"), &[0x1234u64.to_le_bytes(), 0u64.to_le_bytes()].concat());
        put(head + offset("heki_patch", "size"), &[2]);
        put(head + offset("heki_patch", "code"), &[0xeb, 5, 0, 0, 0]);
        let sites: Vec<_> = patch_info::sites(&record).collect::<Result<_, _>>().unwrap();
        let [site] = sites.as_slice() else { panic!("{sites:?}") };
        assert_eq!((site.pa, site.next_page, site.jump()), (0x1234, 0, [0xeb, 5].as_slice()));
    }

    #[test]
    fn kernel_information_written_by_these_offsets_is_read_as_it_was_meant() {
        let mut info = vec![0u8; 32 + 8 * 8];
        let start = 0xffff_ffff_8200_0000u64;
        for (at, field) in ["ksymtab_start", "ksymtab_end", "ksymtab_gpl_start", "ksymtab_gpl_end"].iter().enumerate() {
            let offset = offset("heki_kinfo", field);
            info[offset..offset + 8].copy_from_slice(&(start + 12 * at as u64).to_le_bytes());
        }
        let info = vsm_integrity::kernel_info::KernelInfo::parse(&info).unwrap();
        assert_eq!((info.ksymtab.count(), info.ksymtab_gpl.count()), (1, 1));
    }

    #[test]
    fn the_flags_of_a_module_are_those_that_may_be_set() {
        let validate = &vsm_handlers::ROWS[VsmFunction::ValidateModule.index()];
        let init = NUMBERS.iter().find(|numbers| numbers.prefix == "VSM_MODULE_INIT_").unwrap();
        assert_eq!(validate.meta.params[1].bits, init.values.iter().map(|value| value.1).sum::<u64>());
    }
}
