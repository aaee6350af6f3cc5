//! Target: `struct heki_kinfo`.

use vsm_integrity::kernel_info::{KernelInfo, MAX_BYTES, arch_info};
use vsm_integrity::ksymtab::{ENTRY_BYTES, MAX_SYMBOLS};

/// # Panics
/// When a rule is broken: what is taken is what the words say, and only whole tables at canonical addresses are taken.
pub fn run(data: &[u8]) {
    let words: Vec<u64> =
        data.chunks(8).map(|word| word.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))).collect();
    let (info, again) = (KernelInfo::parse(data), KernelInfo::parse(data));
    match (&info, &again) {
        (Ok(info), Ok(again)) => assert_eq!(format!("{info:?}"), format!("{again:?}")),
        (Err(error), Err(again)) => {
            assert_eq!(error, again);
            assert!(error.offset <= data.len().max(32), "{error} of {} bytes", data.len());
        }
        _ => panic!("the same bytes read twice: {info:?} and {again:?}"),
    }
    let canonical = |va: u64| va >> 47 == 0 || va >> 47 == 0x1_ffff;
    let table = |[start, end]: [u64; 2]| {
        let bytes = end.checked_sub(start)?;
        let whole = bytes % ENTRY_BYTES == 0 && bytes / ENTRY_BYTES <= MAX_SYMBOLS;
        (whole && canonical(start) && canonical(end)).then_some(start..end)
    };
    let sound = match words[..] {
        [a, b, c, d, ..] if data.len().is_multiple_of(8) && data.len() <= MAX_BYTES => {
            match (table([a, b]), table([c, d])) {
                (Some(one), Some(other)) => one.end <= other.start || other.end <= one.start,
                _ => false,
            }
        }
        _ => false,
    };
    let Ok(info) = info else {
        assert!(!sound, "refused: {:?}", info.err());
        return;
    };
    assert!(sound, "accepted: {info:?}");
    for (table, bounds) in [(&info.ksymtab, &words[..2]), (&info.ksymtab_gpl, &words[2..4])] {
        assert_eq!([table.start(), table.end()], bounds[..], "{info:?}");
        assert_eq!(table.count() * ENTRY_BYTES, table.end() - table.start());
    }
    let sent: Vec<u64> = info.arch_words().collect();
    assert_eq!(sent, words[4..]);
    let arch = arch_info(&sent);
    assert_eq!(arch.is_some(), sent.len() >= 5);
    if let Some(arch) = arch {
        let tail = [arch.pv_bug, arch.pv_nop, arch.indirect_thunks, arch.return_thunk_init, arch.return_thunk];
        assert_eq!([arch.pv_ops, &tail].concat(), sent);
    }
}

/// What a kernel sends, without and with its paravirt operations, and one with overlapping tables.
pub fn seeds() -> Vec<Vec<u8>> {
    let base = 0xffff_ffff_8200_0000;
    let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let tables = [base, base + 1200, base + 1200, base + 3600];
    let arch: Vec<u64> = (0..20).map(|index| base - 0x100_0000 + index * 16).collect();
    vec![
        bytes(&tables),
        bytes(&[&tables[..], &arch].concat()),
        bytes(&[base, base + 24, base + 12, base + 36]),
        [bytes(&tables), vec![1, 2, 3]].concat(),
    ]
}
