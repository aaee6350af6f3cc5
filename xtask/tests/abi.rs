//! The products of the table: the C header against the compilers, and what an image says of itself against a doctored one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::abi::{Options, Table, check, compile, compile_header, dump, execute};
use xtask::verify::Image;
use xtask::{image, workspace};

/// What `abi --check` looks at, in a directory of its own.
fn copy() -> tempfile::TempDir {
    let (root, copy) = (workspace::root(), tempfile::tempdir().unwrap());
    for file in FILES {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root.join(file), to).unwrap();
    }
    copy
}

const FILES: [&str; 6] =
    ["abi/vsm.lock", "abi/vsm.h", "abi/vsm.json", "abi/vsm.md", "README.md", "vsm_handlers/src/table.rs"];

#[test]
fn what_follows_from_the_table_is_not_stale() {
    check(&workspace::root()).unwrap();
    check(copy().path()).unwrap();
}

#[test]
fn each_file_that_is_stale_or_gone_is_named() {
    let changes = [
        ("abi/vsm.h", "#define VSM_CALL_LOCK_REGS 0x1ffe2", "#define VSM_CALL_LOCK_REGS 0x1ffe3"),
        ("abi/vsm.json", "LockRegs", "LockLegs"),
        ("abi/vsm.md", "EPERM", "EPREM"),
        ("README.md", "| LockRegs | boot |", "| LockRegs | any |"),
        ("vsm_handlers/src/table.rs", "pub const ABI_VERSION: u32 = ", "pub const ABI_VERSION: u32 = 9"),
    ];
    for (file, from, to) in changes {
        let copy = copy();
        let path = copy.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = check(copy.path()).expect_err(file).to_string();
        assert_eq!(error, format!("{file} is stale: cargo xtask abi"));
    }
    for file in ["abi/vsm.h", "abi/vsm.json", "abi/vsm.md"] {
        let copy = copy();
        fs::remove_file(copy.path().join(file)).unwrap();
        assert!(check(copy.path()).expect_err(file).to_string().contains(&format!("{file} is stale")));
    }
    let copy = copy();
    fs::remove_file(copy.path().join("abi/vsm.lock")).unwrap();
    assert!(check(copy.path()).unwrap_err().to_string().contains("has no entry in abi/vsm.lock yet"));
}

fn git(copy: &Path, arguments: &[&str]) {
    let who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"];
    let status = Command::new("git").arg("-C").arg(copy).args(who).args(arguments).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

fn commit(copy: &Path) {
    git(copy, &["init", "--quiet"]);
    git(copy, &["add", "."]);
    git(copy, &["commit", "--quiet", "--message", "promised"]);
}

/// A lock that is as the table says, and was rewritten.
#[test]
fn a_lock_that_was_rewritten_is_told_by_what_is_committed() {
    let copy = copy();
    let path = copy.path().join("abi/vsm.lock");
    let now = fs::read_to_string(&path).unwrap();
    let before = now.replacen("0x1ffe2 LockRegs since=1 phase=boot", "0x1ffe2 LockRegs since=1 phase=any", 1);
    assert_ne!(before, now);
    fs::write(&path, before).unwrap();
    commit(copy.path());
    git(copy.path(), &["tag", "v1"]);
    fs::write(&path, now).unwrap();
    let error = check(copy.path()).unwrap_err().to_string();
    assert!(
        error.contains("abi/vsm.lock has lost an entry of HEAD, or moved it: `0x1ffe2 LockRegs since=1 phase=any"),
        "{error}"
    );
    git(copy.path(), &["commit", "--quiet", "--all", "--message", "rewritten"]);
    let error = check(copy.path()).unwrap_err().to_string();
    assert!(error.contains("has lost an entry of v1"), "{error}");
}

/// Nothing was promised by a line that is not committed, so that it is replaced without `--accept`.
#[test]
fn an_entry_that_is_not_committed_is_made_anew() {
    let copy = copy();
    let path = copy.path().join("abi/vsm.lock");
    let committed = fs::read_to_string(&path).unwrap();
    let rewritten = format!("{committed}0x2001f Tried since=99 phase=any caller=any not_implemented |  | EINVAL\n");
    fs::write(&path, &rewritten).unwrap();
    let error = execute(copy.path(), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("Tried (0x2001f) is gone"), "{error}");
    fs::write(&path, &committed).unwrap();
    commit(copy.path());
    fs::write(&path, &rewritten).unwrap();
    execute(copy.path(), &Options::default()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), committed);
}

/// By the command's own way: the lock of the repository against a table that is another.
#[test]
fn a_lock_that_promises_something_else_is_told_with_what_changed() {
    let changes = [
        ("0x1ffe2 LockRegs since=1 phase=boot", "0x1ffe2 LockRegs since=1 phase=any", "the rules of LockRegs changed"),
        ("token: token, 1,", "token: token, 2,", "the parameters of FreeModuleInit changed"),
        ("| ENOENT EIO EACCES", "| EIO EACCES", "the errnos of PatchText changed"),
        ("epa: __u64 @16", "epa: __u32 @16", "the layout of struct heki_range changed"),
        ("KERNEL_INFO=3", "KERNEL_INFO=4", "the values of numbers VSM_KDATA_ changed"),
        ("0x1ffe2 LockRegs", "0x2001f LockRegs", "LockRegs was renumbered from 0x2001f to 0x1ffe2"),
        ("0x1ffe2 LockRegs", "0x1ffe2 LockLegs", "0x1ffe2 belongs to LockLegs"),
    ];
    for (from, to, words) in changes {
        let copy = copy();
        let path = copy.path().join("abi/vsm.lock");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = check(copy.path()).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

fn header() -> PathBuf {
    workspace::root().join("abi/vsm.h")
}

#[test]
fn the_header_compiles_as_c_and_as_cxx_with_every_warning_an_error() {
    let compiled = compile_header(&header()).unwrap();
    assert!(compiled.contains(&"gcc".to_owned()) || compiled.contains(&"clang".to_owned()), "{compiled:?}");
    println!("{compiled:?}");
}

/// The header with one offset or size changed is refused: the assertions are those of the compiler's own layout.
#[test]
fn a_header_with_another_layout_does_not_compile() {
    let text = fs::read_to_string(header()).unwrap();
    let changes = [
        ("__u64 epa;", "__u64 epa[2];", "heki_range"),
        ("__u64 next_pa;", "", "heki_page.nranges"),
        ("__u8 code[5];", "__u8 code[13];", "heki_patch"),
        ("__u64 list[2];", "__u64 list[3];", "heki_patch_info.patch_idx"),
        ("VSM_ASSERT_FIELD(heki_range, epa, 16)", "VSM_ASSERT_FIELD(heki_range, epa, 8)", "heki_range.epa"),
    ];
    for (from, to, about) in changes {
        assert!(text.contains(from), "{from}");
        let doctored = text.replacen(from, to, 1);
        let error = compile(&format!("{doctored}\nint main(void) {{ return 0; }}\n")).expect_err(from).to_string();
        assert!(error.contains(about), "{error}");
    }
}

#[test]
fn a_driver_may_have_the_structures_already_and_has_their_layout_checked() {
    let include = format!("#include \"{}\"\n", header().display());
    let own = |range: &str| {
        format!(
            "#include <linux/types.h>\nstruct heki_range {{ {range} }};\n\
             struct heki_page {{ void *next; __u64 next_pa; unsigned long nranges; struct heki_range ranges[127]; __u64 pad; }};\n\
             struct heki_patch {{ __u64 pa[2]; __u8 size; __u8 code[5]; }};\n\
             struct heki_patch_info {{ __u32 type; void *list[2]; void *mod; __u64 patch_idx; __u64 max_patch_count; }};\n\
             struct heki_kinfo {{ __u64 ksymtab_start, ksymtab_end, ksymtab_gpl_start, ksymtab_gpl_end; __u64 more[20]; }};\n\
             #define VSM_OWN_STRUCTURES\n{include}int main(void) {{ return 0; }}\n"
        )
    };
    compile(&own("unsigned long va; __u64 pa; __u64 epa; __u64 attributes;")).unwrap();
    let error = compile(&own("__u64 va; __u64 pa; __u64 attributes; __u64 epa;")).unwrap_err().to_string();
    assert!(error.contains("heki_range.epa"), "{error}");
}

/// The image as the sources are: an older one has another table.
fn good() -> Vec<u8> {
    let file = std::env::var_os("VTL1_IMAGE").map_or_else(
        || image::build(&workspace::root(), image::Options { debug: false, quiet: true }).unwrap().vmlinux,
        PathBuf::from,
    );
    fs::read(file).unwrap()
}

#[test]
fn the_image_says_what_abi_says() {
    let dump = dump::read(&good()).unwrap();
    dump::compare(&dump).unwrap();
    let json = fs::read_to_string(workspace::root().join("abi/vsm.json")).unwrap();
    dump::compare_written(&dump, &json).unwrap();
    let text = dump.text();
    for call in &Table::built_in().unwrap().calls {
        let line = text.lines().find(|line| line.contains(&format!(" {} ", call.name))).unwrap();
        assert!(line.contains(&format!("{:#x}", call.id)) && line.contains("0x2"), "{line}");
        let (_, source) = line.trim_end().rsplit_once(' ').unwrap();
        assert!(source.starts_with("vsm_handlers/src/") && source.contains(".rs:"), "{line}");
    }
}

#[test]
fn an_edited_description_for_programs_is_told() {
    let (table, entries) = (Table::built_in().unwrap(), BTreeMap::new());
    let dump = dump::Dump { table, entries };
    let json = fs::read_to_string(workspace::root().join("abi/vsm.json")).unwrap();
    dump::compare_written(&dump, &json).unwrap();
    let edits = [
        ("\"bits\":\"0xffffffffff\"", "\"bits\":\"0xfffffffffff\"", "EnableAPsVtl (0x1ffe0) is described otherwise"),
        ("\"name\":\"LockRegs\"", "\"name\":\"LockLegs\"", "LockRegs (0x1ffe2) is described otherwise"),
        ("\"errno\":\"ETIMEDOUT\"", "\"errno\":\"ETIME\"", "BootAPs (0x1ffe1) is described otherwise"),
        ("\"hash\": \"0x", "\"hash\": \"0y", "the hash is"),
        ("\"calls\": [", "\"calls\": [{},", "another number of calls"),
        ("{\"version\"", "{", "is no JSON"),
    ];
    for (from, to, words) in edits {
        assert!(json.contains(from), "{from}");
        let error = dump::compare_written(&dump, &json.replacen(from, to, 1)).expect_err(from).to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Offset in the file of the description, and its bytes.
fn section(bytes: &[u8]) -> (usize, usize) {
    let image = Image::parse(bytes).unwrap();
    let section = image.sections.iter().find(|section| section.name == ".vsm_abi").unwrap();
    (usize::try_from(section.offset).unwrap(), usize::try_from(section.size).unwrap())
}

#[test]
fn a_doctored_image_is_told_apart() {
    let good = good();
    let (start, len) = section(&good);
    let refused = |bytes: &[u8], words: &str| {
        let error = dump::read(bytes).and_then(|dump| dump::compare(&dump)).expect_err(words);
        assert!(format!("{error:#}").contains(words), "{error:#}");
    };
    // A word of the description, at some place where it stands.
    let change = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good[start..start + len].windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[start + at..start + at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    refused(&change("LockRegs", "LockLegs"), "is described otherwise");
    refused(&change("EINVAL", "EINVOL"), "is described otherwise");
    refused(&change("cpu mask", "cpu mark"), "described otherwise");
    let mut hash = good.clone();
    hash[start + 8] ^= 1;
    refused(&hash, "the hash is");
    let mut format = good.clone();
    format[start] ^= 2;
    refused(&format, "has format");
    let mut cut = good.clone();
    cut[start + 16] += 1;
    refused(&cut, "ends within");
    // Two handlers change places in the jump table; the words stay as they are.
    let image = Image::parse(&good).unwrap();
    let table = image.symbols_named("VSM_JUMP_TABLE").next().unwrap().address;
    let slots: Vec<_> = [0u64, 2].iter().map(|slot| table + slot * 8).collect();
    let addends: Vec<i64> = slots
        .iter()
        .map(|slot| image.relocations.iter().find(|relocation| relocation.at == *slot).unwrap().addend)
        .collect();
    let mut swapped = good.clone();
    for (slot, addend) in slots.iter().zip(addends.iter().rev()) {
        // r_offset, then r_info (R_X86_64_RELATIVE), then r_addend.
        let record = [slot.to_le_bytes(), 8u64.to_le_bytes()].concat();
        let at = good.windows(16).position(|window| window == record.as_slice()).unwrap();
        swapped[at + 16..at + 24].copy_from_slice(&addend.to_le_bytes());
    }
    refused(&swapped, "the entry of EnableAPsVtl");
}
