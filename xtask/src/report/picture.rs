//! The frame map over time: one strip of RAM for each change, from the top down.
//!
//! A strip is cut into columns of equal size. A column is filled from the bottom in the proportions of what VTL0 may do
//! with its frames, and each right that occurs gets at least a line, so that one page in a gigabyte is seen too.

use std::fmt::Write;

use super::{Map, Rights};

/// Pixels.
const COLUMNS: u64 = 720;
const LEFT: u64 = 250;
const HEIGHT: u64 = 22;
const ROW: u64 = 30;
const HEAD: u64 = 24;
/// Strips at most: those that changed most are taken.
const MOST: usize = 24;

/// Rights with name and colour, from the bottom of a column up.
pub const RIGHTS: [(Rights, &str, &str); 5] = [
    (Rights::None, "no access", "#2b3440"),
    (Rights::Read, "read", "#f6c177"),
    (Rights::ReadExecute, "read, execute", "#e0705a"),
    (Rights::ReadWrite, "read, write", "#9cc4f2"),
    (Rights::All, "read, write, execute", "#e4eaf0"),
];

/// Frames of each kind of [`RIGHTS`] in a column.
type Share = [u64; RIGHTS.len()];

fn kind(rights: Rights) -> usize {
    RIGHTS.iter().position(|(which, ..)| *which == rights).unwrap_or_default()
}

/// The columns of a strip, `frames` in each.
fn columns(map: &Map, frames: u64) -> Vec<Share> {
    let mut columns = vec![Share::default(); usize::try_from(COLUMNS).unwrap_or_default()];
    for &(start, end, rights) in &map.frames {
        let mut at = start;
        while at < end {
            let column = at / frames;
            let next = end.min((column + 1) * frames);
            if let Some(share) = usize::try_from(column).ok().and_then(|column| columns.get_mut(column)) {
                share[kind(rights)] += next - at;
            }
            at = next;
        }
    }
    columns
}

/// Heights of the pieces of a column, in pixels; those that occur have at least one.
fn heights(share: &Share) -> Share {
    let total: u64 = share.iter().sum();
    let mut heights = share.map(|frames| if frames == 0 { 0 } else { (HEIGHT * frames / total.max(1)).max(1) });
    // The largest gives or takes what is over.
    if let Some(largest) = (0..RIGHTS.len()).max_by_key(|kind| share[*kind]).filter(|_| total > 0) {
        let others: u64 = heights.iter().sum::<u64>() - heights[largest];
        heights[largest] = HEIGHT.saturating_sub(others);
    }
    heights
}

/// The frames whose rights differ.
fn changed(before: &Map, after: &Map) -> u64 {
    let (mut left, mut right) = (before.frames.iter().peekable(), after.frames.iter().peekable());
    let (mut at, mut sum) = (0, 0);
    while let (Some(&&(from, to, rights)), Some(&&(start, end, others))) = (left.peek(), right.peek()) {
        let next = to.min(end);
        at = from.max(start).max(at);
        if rights != others {
            sum += next.saturating_sub(at);
        }
        at = next;
        if to == next {
            left.next();
        }
        if end == next {
            right.next();
        }
    }
    sum
}

/// The maps that are shown: each that differs from the one before, and of too many those that changed most.
fn shown(maps: &[Map]) -> Vec<&Map> {
    let mut changes: Vec<(u64, &Map)> = maps.first().map(|map| (u64::MAX, map)).into_iter().collect();
    changes
        .extend(maps.windows(2).map(|pair| (changed(&pair[0], &pair[1]), &pair[1])).filter(|(frames, _)| *frames > 0));
    let mut sizes: Vec<u64> = changes.iter().map(|(frames, _)| *frames).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = sizes.get(MOST - 1).copied().unwrap_or(0);
    changes.into_iter().filter(|(frames, _)| *frames >= least).map(|(_, map)| map).take(MOST).collect()
}

/// Draws the maps; an empty text where there are none. `time` says a time.
pub fn svg(maps: &[Map], time: impl Fn(f64) -> String, escape: impl Fn(&str) -> String) -> String {
    let maps = shown(maps);
    let Some(end) = maps.iter().filter_map(|map| map.frames.last()).map(|(_, end, _)| *end).max() else {
        return String::new();
    };
    let frames = end.div_ceil(COLUMNS).max(1);
    let height = HEAD + ROW * maps.len() as u64;
    let mut out = format!(
        "<svg class=\"map\" role=\"img\" aria-label=\"The frame map over time\" viewBox=\"0 0 {} {height}\">",
        LEFT + COLUMNS
    );
    let _ = write!(
        out,
        "<text x=\"{LEFT}\" y=\"14\">0</text><text x=\"{}\" y=\"14\" text-anchor=\"end\">{:#x}</text>",
        LEFT + COLUMNS,
        end << 12
    );
    for (row, map) in maps.iter().enumerate() {
        let top = HEAD + ROW * row as u64;
        let label: String = map.what.chars().take(30).collect();
        let _ = write!(
            out,
            "<g><title>{}</title><text x=\"0\" y=\"{}\">{} {}</text>",
            escape(&map.what),
            top + 15,
            escape(&time(map.at)),
            escape(&label)
        );
        strip(&mut out, &columns(map, frames), top);
        out.push_str("</g>");
    }
    out.push_str("</svg>");
    out
}

/// One strip; columns that are alike are drawn at once.
fn strip(out: &mut String, columns: &[Share], top: u64) {
    let heights: Vec<Share> = columns.iter().map(heights).collect();
    let mut x = LEFT;
    for run in heights.chunk_by(|left, right| left == right) {
        let mut bottom = top + HEIGHT;
        for ((_, _, colour), height) in RIGHTS.iter().zip(run[0]).filter(|(_, height)| *height > 0) {
            bottom -= height;
            let width = run.len();
            let _ =
                write!(out, "<rect x=\"{x}\" y=\"{bottom}\" width=\"{width}\" height=\"{height}\" fill=\"{colour}\"/>");
        }
        x += run.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(what: &str, frames: &[(u64, u64, Rights)]) -> Map {
        Map { at: 1.0, what: what.to_owned(), frames: frames.to_vec() }
    }

    #[test]
    fn one_page_in_many_is_seen() {
        let share = heights(&[1, 0, 0, 0, 10_000]);
        assert_eq!(share, [1, 0, 0, 0, HEIGHT - 1]);
        assert_eq!(heights(&Share::default()), Share::default(), "a hole in memory");
        let columns = columns(&map("", &[(0, 10, Rights::All), (10, 11, Rights::Read), (11, 20, Rights::All)]), 8);
        assert_eq!(columns[0], [0, 0, 0, 0, 8]);
        assert_eq!(columns[1], [0, 1, 0, 0, 7]);
        assert_eq!(columns[2], [0, 0, 0, 0, 4]);
    }

    #[test]
    fn only_changes_are_shown_and_the_largest_of_many() {
        let all = map("start", &[(0, 1000, Rights::All)]);
        let same = map("nothing", &[(0, 500, Rights::All), (500, 1000, Rights::All)]);
        let small = |page: u64| {
            map("small", &[(0, page, Rights::All), (page, page + 1, Rights::Read), (page + 1, 1000, Rights::All)])
        };
        let large = map("large", &[(0, 900, Rights::None), (900, 1000, Rights::All)]);
        assert_eq!([changed(&all, &same), changed(&all, &large), changed(&small(3), &small(7))], [0, 900, 2]);
        let names = |maps: &[Map]| shown(maps).iter().map(|map| map.what.clone()).collect::<Vec<_>>();
        assert_eq!(names(&[all.clone(), same, large.clone()]), ["start", "large"]);
        let mut many = vec![all];
        many.extend((0..200).map(|page| small(page * 3)));
        many.push(large);
        let names = names(&many);
        assert_eq!(names.len(), MOST);
        assert_eq!(names[0], "start");
    }
}
