//! A small, bounded set of frame spans: what a transaction has touched.
//!
//! It may name more than was touched (spans are joined when there is no room for another), never less.

/// How many spans are told apart.
const MAX: usize = 16;

/// A half-open span of frame numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub from: u64,
    pub to: u64,
}

/// Disjoint spans in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans {
    spans: [Span; MAX],
    used: usize,
}

impl Spans {
    /// The spans, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().take(self.used).copied()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Adds `from..to`.
    pub fn add(&mut self, from: u64, to: u64) {
        if !self.extend(from, to) {
            self.insert(from, to);
        }
    }

    /// The short way: makes the span longer that `from..to` touches, if there is one and it then touches no other.
    fn extend(&mut self, from: u64, to: u64) -> bool {
        let used = self.spans.get_mut(..self.used).unwrap_or_default();
        let mut near = used.iter_mut().skip_while(|span| span.to < from);
        let Some(span) = near.next().filter(|span| span.from <= to) else { return false };
        if near.next().is_some_and(|next| next.from <= to) {
            return false;
        }
        *span = Span { from: span.from.min(from), to: span.to.max(to) };
        true
    }

    fn insert(&mut self, from: u64, to: u64) {
        let mut new = Span { from, to };
        // One place more than there is room for; whatever touches the new span becomes part of it.
        let mut all = [Span::default(); MAX + 1];
        let mut count = 0;
        let mut placed = false;
        for span in self.iter() {
            if span.to < new.from || span.from > new.to {
                if span.from > new.to && !placed {
                    push(&mut all, &mut count, new);
                    placed = true;
                }
                push(&mut all, &mut count, span);
            } else {
                new = Span { from: span.from.min(new.from), to: span.to.max(new.to) };
            }
        }
        if !placed {
            push(&mut all, &mut count, new);
        }
        if count > MAX {
            join_nearest(&mut all, &mut count);
        }
        self.used = count.min(MAX);
        for (kept, span) in self.spans.iter_mut().zip(all) {
            *kept = span;
        }
    }
}

fn push(all: &mut [Span; MAX + 1], count: &mut usize, span: Span) {
    if let Some(place) = all.get_mut(*count) {
        *place = span;
        *count += 1;
    }
}

/// Joins the two neighbours with the smallest gap between them.
fn join_nearest(all: &mut [Span; MAX + 1], count: &mut usize) {
    let gap = |pair: &[Span]| match pair {
        [left, right] => right.from.saturating_sub(left.to),
        _ => u64::MAX,
    };
    let nearest = all.windows(2).take(count.saturating_sub(1)).enumerate().min_by_key(|(_, pair)| gap(pair));
    if let Some((index, &[left, right])) = nearest {
        if let Some(place) = all.get_mut(index) {
            *place = Span { from: left.from, to: right.to };
        }
        if let Some(tail) = all.get_mut(index + 1..*count) {
            tail.rotate_left(1);
        }
        *count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_whatever_was_added_and_stay_bounded_and_sorted() {
        let mut seed = 1_u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let mut spans = Spans::default();
            let mut added = [false; 1000];
            for _ in 0..60 {
                let from = random(990);
                let to = from + 1 + random(10);
                spans.add(from, to);
                added[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()].fill(true);
                let kept: Vec<Span> = spans.iter().collect();
                assert!(kept.len() <= MAX);
                assert!(kept.windows(2).all(|pair| pair[0].to < pair[1].from));
                for (gfn, _) in added.iter().enumerate().filter(|(_, added)| **added) {
                    let gfn = u64::try_from(gfn).unwrap();
                    assert!(kept.iter().any(|span| span.from <= gfn && gfn < span.to), "{gfn} lost from {kept:?}");
                }
            }
        }
    }
}
