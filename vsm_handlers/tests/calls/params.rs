//! The parameter types: what each refuses, at the borders.

use crate::common::{Machine, VTL1_END, VTL1_START, kernel};
use litebox_platform_lvbs::address::PhysAddr;
use litebox_platform_lvbs::heki::HekiList;
use litebox_platform_lvbs::token::Token;
use litebox_platform_lvbs::vsm::{ByteCount, Flags, PageAddr, Param, Refusal, Registers, VsmParam, Vtl0Page};
use litebox_platform_lvbs::{Errno, Platform, VsmError};
use proptest::prelude::*;

/// Reads one register as `T`, as a handler's entry does.
fn read<T: VsmParam>(platform: &Platform, register: u64) -> Result<T, Refusal> {
    Registers::new(&[register, 0, 0]).take(&Param::<T>::new("parameter"), platform)
}

/// The errno with which `register` is refused as `T`.
fn errno<T: VsmParam>(platform: &Platform, register: u64) -> Option<Errno> {
    read::<T>(platform, register).err().map(|refusal| refusal.error().errno())
}

#[test]
fn addresses_in_vtl1_are_refused_and_their_neighbours_are_not() {
    let platform = kernel(&Machine::default());
    let (first, after) = (VTL1_START << 12, VTL1_END << 12);
    for address in [first, first + 0x1000, after - 0x1000] {
        assert_eq!(errno::<PhysAddr>(&platform, address), Some(Errno::Eacces));
        assert_eq!(errno::<PhysAddr>(&platform, address + 0xfff), Some(Errno::Eacces));
        assert_eq!(errno::<PageAddr>(&platform, address), Some(Errno::Eacces));
        assert_eq!(errno::<Option<PageAddr>>(&platform, address), Some(Errno::Eacces));
        assert_eq!(errno::<Vtl0Page>(&platform, address >> 12), Some(Errno::Eacces));
    }
    assert_eq!(read::<PhysAddr>(&platform, first - 1).unwrap().as_u64(), first - 1);
    assert_eq!(read::<PhysAddr>(&platform, after).unwrap().as_u64(), after);
    assert_eq!(read::<PageAddr>(&platform, first - 0x1000).unwrap().start().as_u64(), first - 0x1000);
    assert_eq!(read::<Vtl0Page>(&platform, VTL1_END).unwrap().start().as_u64(), after);
}

#[test]
fn addresses_end_at_2_to_52_and_pages_are_aligned() {
    let platform = kernel(&Machine::default());
    for address in [1 << 52, u64::MAX, 0xffff_8000_0000_0000] {
        assert_eq!(errno::<PhysAddr>(&platform, address), Some(Errno::Efault));
        assert_eq!(errno::<PageAddr>(&platform, address), Some(Errno::Efault));
        assert_eq!(errno::<Vtl0Page>(&platform, address), Some(Errno::Efault));
    }
    assert_eq!(errno::<Vtl0Page>(&platform, 1 << 40), Some(Errno::Efault));
    assert_eq!(errno::<PageAddr>(&platform, 0x1001), Some(Errno::Einval));
    assert_eq!(errno::<Option<PageAddr>>(&platform, 1), Some(Errno::Einval));
    assert_eq!(read::<Option<PageAddr>>(&platform, 0), Ok(None));
    assert!(read::<Option<PageAddr>>(&platform, 0x1000).unwrap().is_some());
}

#[test]
fn a_list_that_need_not_be_there_is_all_there_or_not_at_all() {
    let platform = kernel(&Machine::default());
    let list = |first, ranges| {
        let parameter = Param::<Option<HekiList>>::new("list");
        Registers::new(&[first, ranges, 0]).take(&parameter, &platform).map_err(|refusal| refusal.error().errno())
    };
    assert_eq!(list(0, 0), Ok(None));
    assert_eq!(list(0x1000, 3).unwrap().unwrap().range_count(), 3);
    assert_eq!(list(0, 1), Err(Errno::Einval));
    assert_eq!(list(0x1000, 0), Err(Errno::Efault));
    assert_eq!(list(0x1008, 1), Err(Errno::Einval));
    assert_eq!(list(VTL1_START << 12, 1), Err(Errno::Eacces));
}

#[test]
fn tokens_are_positive_signed_32_bit_numbers() {
    let platform = kernel(&Machine::default());
    for bad in [0, 0x8000_0000, 0xffff_ffff, 1 << 32, (1 << 32) | 1, u64::MAX] {
        assert_eq!(
            read::<Token>(&platform, bad),
            Err(Refusal::Before(VsmError::InvalidParameter { name: "parameter", value: bad })),
            "an error names the handler's parameter"
        );
    }
    assert_eq!(read::<Token>(&platform, 1).unwrap().get(), 1);
    assert_eq!(read::<Token>(&platform, 0x7fff_ffff).unwrap().get(), 0x7fff_ffff);
}

#[test]
fn byte_counts_are_positive_and_fit_physical_memory() {
    let platform = kernel(&Machine::default());
    for bad in [0, (1 << 52) + 1, u64::MAX] {
        assert_eq!(errno::<ByteCount>(&platform, bad), Some(Errno::Einval));
    }
    assert_eq!(read::<ByteCount>(&platform, 1 << 52).unwrap().get(), 1 << 52);
}

#[test]
fn registers_are_taken_in_order_and_run_out() {
    let platform = kernel(&Machine::default());
    let token = Param::<Token>::new("token");
    let mut registers = Registers::new(&[1, 2, 3]);
    for expected in 1..=3 {
        assert_eq!(registers.take(&token, &platform).unwrap().get(), expected);
    }
    assert!(registers.take(&token, &platform).is_err());
}

proptest! {
    #[test]
    fn flags_have_defined_bits_only(value: u64) {
        let platform = kernel(&Machine::default());
        for value in [value, value & 0x15, value & 0x1f] {
            match read::<Flags<0x15>>(&platform, value) {
                Ok(flags) => {
                    prop_assert_eq!(value & !0x15, 0);
                    prop_assert_eq!(flags.bits(), value);
                    prop_assert_eq!(flags.contains(0x11), value & 0x11 == 0x11);
                }
                Err(refusal) => {
                    prop_assert_ne!(value & !0x15, 0);
                    prop_assert_eq!(refusal.error().errno(), Errno::Einval);
                }
            }
        }
    }
}
