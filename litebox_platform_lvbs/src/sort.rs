//! Sorting on a small stack.
//!
//! The standard library's unstable sort recurses, with frames that hold dozens of elements: what VTL0 sends could drive it
//! through VTL1's small stack, and its stable sort allocates. A heap sort does neither, whatever the order it meets.

/// Sorts `items` so that `less` holds for none of them and one before it. In place, n log n steps, no recursion; the
/// order of equals is not kept.
pub fn heap_sort<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    for root in (0..items.len() / 2).rev() {
        sift_down(items, root, &less);
    }
    for end in (1..items.len()).rev() {
        // The greatest goes behind what is left of the heap.
        items.swap(0, end);
        sift_down(items.split_at_mut_checked(end).map_or(&mut [], |(heap, _)| heap), 0, &less);
    }
}

/// Lets the item at `root` sink to where both items below it are not greater.
fn sift_down<T>(heap: &mut [T], root: usize, less: &impl Fn(&T, &T) -> bool) {
    let mut at = root;
    // No slice is so long that this could overflow: it would have more bytes than there are addresses.
    while let Some(left) = at.checked_mul(2).and_then(|twice| twice.checked_add(1)) {
        let is_less = |one: usize, other: usize| match (heap.get(one), heap.get(other)) {
            (Some(one), Some(other)) => less(one, other),
            _ => false,
        };
        let greater = if is_less(left, left.saturating_add(1)) { left.saturating_add(1) } else { left };
        if !is_less(at, greater) {
            return;
        }
        heap.swap(at, greater);
        at = greater;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_like_the_standard_library(mut items in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut expected = items.clone();
            expected.sort_unstable();
            heap_sort(&mut items, |one, other| one < other);
            prop_assert_eq!(items, expected);
        }
    }

    #[test]
    fn any_order_takes_n_log_n_comparisons() {
        let count = 1u32 << 14;
        let orders: [fn(u32) -> u32; 4] =
            [|index| index, |index| u32::MAX - index, |index| index % 2, |index| index.wrapping_mul(0x9e37_79b9)];
        for order in orders {
            let mut items: Vec<u32> = (0..count).map(order).collect();
            let comparisons = std::cell::Cell::new(0u32);
            heap_sort(&mut items, |one, other| {
                comparisons.set(comparisons.get() + 1);
                one < other
            });
            assert!(items.is_sorted());
            assert!(comparisons.get() <= 2 * 15 * count, "{}", comparisons.get());
        }
    }
}
