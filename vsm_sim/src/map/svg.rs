//! The picture: one strip of the physical address space for each step, owner as colour, permission as letters and pattern.
//!
//! The space is cut at every border that anything ever has. A piece's width grows with the logarithm of its size, so that
//! one page and gigabytes are both seen; order and addresses are true, sizes are not. Integers only, so that every machine
//! draws the same.

use std::fmt::Write;

use litebox_platform_lvbs::frames::{FrameState, Permission};
use litebox_platform_lvbs::owner::{ModuleMemoryKind, Owner};
use litebox_platform_lvbs::token::Token;

use super::scene::{Place, Scene, Snapshot};

const PAGE_SHIFT: u32 = 12;
/// Pixels.
const WIDTH: u64 = 1280;
const LEFT: u64 = 232;
const RIGHT: u64 = 84;
const HEAD: u64 = 152;
const STRIP: u64 = 44;
const ROW: u64 = 66;
const QUIET_ROW: u64 = 26;
const FOOT: u64 = 168;
/// What a page's width counts before its size does, in units of a doubling.
const BASE_WEIGHT: u64 = 13;

/// Every owner there is, as the legend has them.
const OWNERS: [(Owner, &str); 8] = [
    (Owner::Nobody, "nobody: up for a claim"),
    (Owner::Vtl1, "VTL1"),
    (Owner::BootProtected, "boot-protected kernel"),
    (Owner::KernelText, "kernel text"),
    (Owner::Trampoline, "kexec trampoline"),
    (Owner::RingBuffer, "log ring"),
    (Owner::Module { token: Token::new(1).unwrap(), kind: ModuleMemoryKind::Text }, "a module"),
    (Owner::Kexec { crash: false }, "a kexec image"),
];
const PERMISSIONS: [(Permission, &str); 5] = [
    (Permission::ALL, "read, write, execute"),
    (Permission::RW, "read, write"),
    (Permission::RX, "read, execute"),
    (Permission::R, "read"),
    (Permission::NONE, "no access"),
];

/// Background and text.
fn colours(owner: Owner) -> (&'static str, &'static str) {
    match owner {
        Owner::Nobody => ("#eef2f6", "#24323f"),
        Owner::Vtl1 => ("#3b4a5a", "#ffffff"),
        Owner::BootProtected => ("#f6c177", "#3a2600"),
        Owner::KernelText => ("#ec9f7e", "#4a1500"),
        Owner::Trampoline => ("#d3a8e8", "#35104a"),
        Owner::RingBuffer => ("#9bd8a5", "#0c3a17"),
        Owner::Module { .. } => ("#9cc4f2", "#0b2a4d"),
        Owner::Kexec { .. } => ("#8fd6d2", "#063b38"),
    }
}

/// The overlay that shows the permission without letters.
fn pattern(permission: Permission) -> Option<&'static str> {
    match (permission.contains(Permission::WRITE), permission.contains(Permission::EXEC)) {
        _ if permission.is_empty() => Some("none"),
        (true, true) => Some("rwx"),
        (true, false) => None,
        (false, true) => Some("rx"),
        (false, false) => Some("r"),
    }
}

/// The pieces the space is cut into, with their places on paper.
struct Scale {
    /// Borders in bytes, ascending; one more than there are pieces.
    borders: Vec<u64>,
    /// Their places, in pixels.
    places: Vec<u64>,
}

impl Scale {
    fn new(scene: &Scene) -> Self {
        let end = scene.places.last().map_or(0, |place| place.bytes.end);
        let of_frames = |state: &FrameState| [state.frames.start() << PAGE_SHIFT, state.frames.end() << PAGE_SHIFT];
        let mut borders: Vec<u64> =
            scene.snapshots.iter().flat_map(|step| step.frames.iter().flat_map(of_frames)).collect();
        borders.extend(scene.places.iter().flat_map(|place| [place.bytes.start, place.bytes.end]));
        borders.retain(|border| *border <= end);
        borders.sort_unstable();
        borders.dedup();
        let weight = |pair: &[u64]| BASE_WEIGHT + u64::from(((pair[1] - pair[0]) >> PAGE_SHIFT).max(1).ilog2());
        let total: u64 = borders.windows(2).map(weight).sum();
        let mut sum = 0;
        let mut places = vec![LEFT];
        for pair in borders.windows(2) {
            sum += weight(pair);
            places.push(LEFT + (WIDTH - LEFT - RIGHT) * sum / total.max(1));
        }
        Self { borders, places }
    }

    /// Where the border nearest to `byte` from below is.
    fn x(&self, byte: u64) -> u64 {
        let index = self.borders.partition_point(|border| *border <= byte).saturating_sub(1);
        self.places[index]
    }

    fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.borders.windows(2).map(|pair| (pair[0], pair[1]))
    }
}

fn state_at(snapshot: &Snapshot, byte: u64) -> Option<(Owner, Permission)> {
    let gfn = byte >> PAGE_SHIFT;
    let index = snapshot.frames.partition_point(|state| state.frames.end() <= gfn);
    snapshot.frames.get(index).map(|state| (state.owner, state.permission))
}

/// Runs of pieces for which `key` is the same: first byte, last byte and one, key.
fn runs<K: PartialEq>(scale: &Scale, key: impl Fn(u64) -> K) -> Vec<(u64, u64, K)> {
    let mut runs: Vec<(u64, u64, K)> = Vec::new();
    for (start, end) in scale.pieces() {
        let key = key(start);
        match runs.last_mut() {
            Some((_, last, same)) if *same == key => *last = end,
            _ => runs.push((start, end, key)),
        }
    }
    runs
}

/// Draws the scene.
#[must_use]
pub fn picture(scene: &Scene) -> String {
    let scale = Scale::new(scene);
    let is_quiet = |index: usize| {
        index > 0 && {
            let same = |(start, _): (u64, u64)| {
                state_at(&scene.snapshots[index], start) == state_at(&scene.snapshots[index - 1], start)
            };
            scale.pieces().all(same)
        }
    };
    let heights = (0..scene.snapshots.len()).map(|index| if is_quiet(index) { QUIET_ROW } else { ROW });
    let bottom = HEAD + heights.clone().sum::<u64>();
    let mut out = String::new();
    head(&mut out, bottom + FOOT);
    guides(&mut out, &scale, &scene.places, bottom);
    let mut y = HEAD;
    for ((index, snapshot), height) in scene.snapshots.iter().enumerate().zip(heights) {
        let before = index.checked_sub(1).map(|before| &scene.snapshots[before]);
        title(&mut out, snapshot, y, height);
        if height == QUIET_ROW {
            let detail = if snapshot.detail.is_empty() { String::new() } else { format!(" ({})", snapshot.detail) };
            text(&mut out, LEFT + 6, y + 17, "quiet", &format!("no frame changes{detail}"));
        } else {
            strip(&mut out, &scale, scene, snapshot, y + 6);
            changes(&mut out, &scale, snapshot, before, y + 6 + STRIP);
        }
        y += height;
    }
    addresses(&mut out, &scale, bottom);
    legend(&mut out, bottom + 104);
    out.push_str("</svg>\n");
    out
}

/// Writing to a string cannot fail; its result is dropped here once.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

fn text(out: &mut String, x: u64, y: u64, class: &str, words: &str) {
    put(out, format_args!("<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{words}</text>"));
}

fn head(out: &mut String, height: u64) {
    put(
        out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"DejaVu Sans, Verdana, Arial, sans-serif\" role=\"img\">"
        ),
    );
    out.push_str(
        "<title>The frame registry during a boot</title>\n\
         <style>\n\
         text{font-size:12px;fill:#24323f}\n\
         .title{font-size:18px;font-weight:bold}.sub,.quiet{fill:#5b6b7a}.what{font-weight:bold}\n\
         .detail{font-size:11px;fill:#5b6b7a}.result{font-family:DejaVu Sans Mono,monospace;text-anchor:end}\n\
         .perm{font-family:DejaVu Sans Mono,monospace;font-weight:bold;text-anchor:middle;paint-order:stroke;stroke-width:3px}\n\
         .addr{font-family:DejaVu Sans Mono,monospace;font-size:10.5px;fill:#5b6b7a}\n\
         </style>\n<defs>\n\
         <pattern id=\"rx\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><path d=\"M-2 6l4 4M-1 -1l10 10M6 -2l4 4\" stroke=\"#000\" stroke-opacity=\".26\" stroke-width=\"1.4\"/></pattern>\n\
         <pattern id=\"rwx\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><path d=\"M-2 6l4 4M-1 -1l10 10M6 -2l4 4\" stroke=\"#c62828\" stroke-opacity=\".34\" stroke-width=\"1.4\"/></pattern>\n\
         <pattern id=\"r\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><circle cx=\"2\" cy=\"2\" r=\"1.1\" fill-opacity=\".34\"/><circle cx=\"6\" cy=\"6\" r=\"1.1\" fill-opacity=\".34\"/></pattern>\n\
         <pattern id=\"none\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\"><path d=\"M0 0l8 8M8 0l-8 8\" stroke=\"#fff\" stroke-opacity=\".3\" stroke-width=\"1.2\"/></pattern>\n\
         <pattern id=\"hole\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><path d=\"M0 3h6\" stroke=\"#9aa7b3\" stroke-width=\"1\"/></pattern>\n\
         </defs>\n",
    );
    put(out, format_args!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>"));
    text(out, 20, 30, "title", "The frame registry during a boot");
    text(
        out,
        20,
        50,
        "sub",
        "physical memory from left to right; the width of a piece grows with the logarithm of its size",
    );
}

/// What lies where, and a line down at each border of it.
fn guides(out: &mut String, scale: &Scale, places: &[Place], bottom: u64) {
    for place in places {
        let (from, to) = (scale.x(place.bytes.start), scale.x(place.bytes.end));
        put(
            out,
            format_args!("<path d=\"M{from} {}V{bottom}\" stroke=\"#c3ccd5\" stroke-dasharray=\"2 3\"/>", HEAD - 4),
        );
        let (x, y) = (u64::midpoint(from, to), HEAD - 6);
        let size = size(place.bytes.end - place.bytes.start);
        put(
            out,
            format_args!(
                "<text transform=\"translate({x} {y}) rotate(-38)\">{}<tspan class=\"detail\" dx=\"5\">{size}</tspan></text>",
                place.name
            ),
        );
    }
}

fn title(out: &mut String, snapshot: &Snapshot, y: u64, height: u64) {
    put(out, format_args!("<path d=\"M20 {y}H{}\" stroke=\"#e3e8ed\"/>", WIDTH - RIGHT));
    let (first, last) = if height == QUIET_ROW { (y + 17, y + 17) } else { (y + 25, y + 42) };
    text(out, 20, first, "what", &snapshot.what);
    if first != last {
        text(out, 20, last, "detail", &snapshot.detail);
    }
    text(out, LEFT - 10, last, "result", &snapshot.result);
}

/// The registry after a step.
fn strip(out: &mut String, scale: &Scale, scene: &Scene, snapshot: &Snapshot, y: u64) {
    let is_ram = |byte| scene.places.iter().any(|place| place.is_ram && place.bytes.contains(&byte));
    for (start, end, state) in runs(scale, |byte| state_at(snapshot, byte).filter(|_| is_ram(byte))) {
        let Some((owner, permission)) = state else { continue };
        let (x, width) = (scale.x(start), scale.x(end) - scale.x(start));
        let (fill, ink) = colours(owner);
        let shape = format!("x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{STRIP}\"");
        put(out, format_args!("<rect {shape} fill=\"{fill}\"/>"));
        if let Some(pattern) = pattern(permission) {
            put(out, format_args!("<rect {shape} fill=\"url(#{pattern})\"/>"));
        }
        put(
            out,
            format_args!(
                "<rect {shape} fill=\"none\" stroke=\"#5b6b7a\"><title>{} .. {}: {owner}, {permission}</title></rect>",
                address(start),
                address(end)
            ),
        );
        let (centre, line) = (x + width / 2, y + STRIP / 2 + 4);
        put(
            out,
            format_args!(
                "<text x=\"{centre}\" y=\"{line}\" class=\"perm\" style=\"fill:{ink};stroke:{fill}\">{permission}</text>"
            ),
        );
    }
    for place in scene.places.iter().filter(|place| !place.is_ram) {
        let (x, end) = (scale.x(place.bytes.start), scale.x(place.bytes.end));
        let shape = format!("x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{STRIP}\"", end - x);
        put(out, format_args!("<rect {shape} fill=\"url(#hole)\" stroke=\"#9aa7b3\"/>"));
    }
}

/// A bar under what the step has changed.
fn changes(out: &mut String, scale: &Scale, snapshot: &Snapshot, before: Option<&Snapshot>, y: u64) {
    let Some(before) = before else { return };
    let changed = runs(scale, |byte| state_at(snapshot, byte) != state_at(before, byte));
    for (start, end, _) in changed.into_iter().filter(|(.., changed)| *changed) {
        let (x, end) = (scale.x(start), scale.x(end));
        put(
            out,
            format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"4\" fill=\"#1565c0\"/>",
                x + 1,
                y + 3,
                end - x - 2
            ),
        );
    }
}

fn addresses(out: &mut String, scale: &Scale, y: u64) {
    for (border, x) in scale.borders.iter().zip(&scale.places) {
        let words = address(*border);
        put(
            out,
            format_args!(
                "<text transform=\"translate({} {}) rotate(50)\" class=\"addr\">{words}</text>",
                x - 3,
                y + 12
            ),
        );
    }
}

fn legend(out: &mut String, y: u64) {
    text(out, 20, y + 13, "what", "owner");
    let mut x = 110;
    for (owner, words) in OWNERS {
        let shape = format!("x=\"{x}\" y=\"{y}\" width=\"26\" height=\"16\"");
        put(out, format_args!("<rect {shape} fill=\"{}\" stroke=\"#5b6b7a\"/>", colours(owner).0));
        text(out, x + 32, y + 13, "", words);
        x += 52 + 7 * words.len() as u64;
    }
    let y = y + 28;
    text(out, 20, y + 13, "what", "VTL0 may");
    let mut x = 110;
    for (permission, words) in PERMISSIONS {
        let owner = if permission.is_empty() { Owner::Vtl1 } else { Owner::Nobody };
        let shape = format!("x=\"{x}\" y=\"{y}\" width=\"26\" height=\"16\"");
        put(out, format_args!("<rect {shape} fill=\"{}\" stroke=\"#5b6b7a\"/>", colours(owner).0));
        if let Some(pattern) = pattern(permission) {
            put(out, format_args!("<rect {shape} fill=\"url(#{pattern})\"/>"));
        }
        let words = format!("{permission}  {words}");
        text(out, x + 32, y + 13, "", &words);
        x += 52 + 7 * words.len() as u64;
    }
    put(out, format_args!("<rect x=\"{x}\" y=\"{}\" width=\"26\" height=\"4\" fill=\"#1565c0\"/>", y + 6));
    text(out, x + 32, y + 13, "", "changed by the step");
}

/// An address in the form `0x1_2345_6789`.
fn address(byte: u64) -> String {
    match (byte >> 32, byte >> 16 & 0xffff, byte & 0xffff) {
        (0, 0, low) => format!("0x{low:x}"),
        (0, middle, low) => format!("0x{middle:x}_{low:04x}"),
        (high, middle, low) => format!("0x{high:x}_{middle:04x}_{low:04x}"),
    }
}

/// Formats a size in the largest unit that fits, to one decimal.
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        _ if bytes >> 30 != 0 => (1 << 30, "GiB"),
        _ if bytes >> 20 != 0 => (1 << 20, "MiB"),
        _ => (1 << 10, "KiB"),
    };
    // Rounded to the nearest tenth.
    let tenths = (bytes * 10 + unit / 2) / unit;
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}
