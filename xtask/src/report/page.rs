//! The page itself. Its script only counts and hides rows: without it everything is shown.

use std::fmt::Write;

use super::picture::{self, RIGHTS};
use super::{Line, Report, Step, Switch};

/// How it looks.
const STYLE: &str = include_str!("page.css");
/// What it does.
const SCRIPT: &str = include_str!("page.js");
/// Lines of the consoles that are shown at most, of both together: the last ones.
const MOST_LINES: usize = 20_000;
/// Switches that are shown at most: the costliest, and all that are no plain call.
const MOST_SWITCHES: usize = 5_000;
/// Pixels of the timeline.
const WIDTH: f64 = 960.0;
const LANE: u32 = 26;

/// A text for HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What a terminal would take for a command.
            c if c.is_control() && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
pub fn html(report: &Report) -> String {
    let verdict = if report.is_good {
        ("good", "Everything ended as it must.")
    } else {
        ("bad", "Not everything ended as it must.")
    };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1><p class=\"{}\" id=\"verdict\">{}</p>\n<table class=\"facts\">",
        verdict.0,
        verdict.1,
        title = escape(&report.title)
    );
    for (name, value) in &report.facts {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(name), escape(value));
    }
    out.push_str("</table>\n");
    steps(&mut out, report);
    maps(&mut out, report);
    timeline(&mut out, report);
    consoles(&mut out, report);
    let _ = writeln!(out, "<script>{SCRIPT}</script></body></html>");
    out
}

/// A time or cost with its unit.
fn amount(report: &Report, value: f64) -> String {
    if report.unit == "ms" { format!("{value:.1} ms") } else { format!("{value:.0}") }
}

fn steps(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<h2>Steps</h2><label><input type=\"checkbox\" id=\"only\"> only those that are not ok</label>\n\
         <table id=\"steps\"><thead><tr><th>at</th><th>step</th><th>verdict</th><th>what came of it</th></tr></thead><tbody>"
    );
    for Step { at, name, text, verdict } in &report.steps {
        let at = amount(report, *at);
        let _ = writeln!(
            out,
            "<tr class=\"{verdict}\"><td>{at}</td><td>{}</td><td>{verdict}</td><td>{}</td></tr>",
            escape(name),
            escape(text)
        );
    }
    out.push_str("</tbody></table>\n");
}

fn maps(out: &mut String, report: &Report) {
    let picture = picture::svg(&report.maps, |at| amount(report, at), escape);
    if picture.is_empty() {
        return;
    }
    out.push_str("<h2>What VTL0 may do with its memory</h2><p class=\"legend\">");
    for (_, name, colour) in RIGHTS {
        let _ = write!(out, "<span><i style=\"background:{colour}\"></i>{name}</span>");
    }
    let _ = writeln!(out, "</p>{picture}");
}

/// The switches that are shown.
fn shown(report: &Report) -> Vec<&Switch> {
    let mut costs: Vec<f64> = report.switches.iter().map(|switch| switch.cost).collect();
    costs.sort_by(|a, b| b.total_cmp(a));
    let least = costs.get(MOST_SWITCHES).copied().unwrap_or(f64::NEG_INFINITY);
    let taken = report.switches.iter().filter(|switch| switch.kind != "call" || switch.cost > least);
    taken.take(2 * MOST_SWITCHES).collect()
}

fn timeline(out: &mut String, report: &Report) {
    let switches = shown(report);
    let Some(vps) = switches.iter().map(|switch| switch.vp + 1).max() else { return };
    let end = switches.iter().map(|switch| switch.at).fold(f64::MIN_POSITIVE, f64::max);
    let (height, lane) = (vps * LANE + 18, f64::from(LANE));
    let _ = write!(
        out,
        "<h2>Switches to VTL1</h2><p>{} of {} are shown; each bar is one, from the entry to the return. Unit: {}.</p>\n\
         <svg id=\"timeline\" role=\"img\" aria-label=\"Switches to VTL1 over time\" viewBox=\"0 0 {} {height}\">",
        switches.len(),
        report.switches.len(),
        report.unit,
        WIDTH + 60.0
    );
    for vp in 0..vps {
        let _ = write!(out, "<text x=\"0\" y=\"{}\">VP {vp}</text>", vp * LANE + 16);
    }
    for switch in &switches {
        let start = (switch.at - switch.cost).max(0.0);
        let (x, width) = (60.0 + WIDTH * start / end, (WIDTH * switch.cost / end).max(0.8));
        let _ = write!(
            out,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\"><title>{} at {}, {}: {}</title></rect>",
            switch.kind,
            f64::from(switch.vp) * lane + 2.0,
            lane - 6.0,
            escape(&switch.name),
            amount(report, switch.at),
            amount(report, switch.cost),
            escape(&switch.text)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"60\" y=\"{y}\">0</text><text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text></svg>",
        WIDTH + 60.0,
        amount(report, end),
        y = height - 4
    );
    costs(out, report);
}

/// What each kind of switch costs.
fn costs(out: &mut String, report: &Report) {
    let mut kinds: std::collections::BTreeMap<&str, (u64, u64, f64, f64)> = std::collections::BTreeMap::new();
    for switch in &report.switches {
        let (count, refused, sum, most) = kinds.entry(switch.name.as_str()).or_default();
        *count += 1;
        *refused += u64::from(switch.kind == "refused");
        *sum += switch.cost;
        *most = most.max(switch.cost);
    }
    out.push_str("<table id=\"costs\"><thead><tr><th>what</th><th>times</th><th>refused</th><th>together</th><th>most</th></tr></thead><tbody>");
    for (name, (count, refused, sum, most)) in kinds {
        let (sum, most) = (amount(report, sum), amount(report, most));
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{count}</td><td>{refused}</td><td>{sum}</td><td>{most}</td></tr>",
            escape(name)
        );
    }
    out.push_str("</tbody></table>\n");
}

/// Both consoles in the order of time, VTL0's to the left.
fn consoles(out: &mut String, report: &Report) {
    let side = |which: usize| report.consoles[which].iter().map(move |line| (which, line));
    let mut lines: Vec<(usize, &Line)> = side(0).chain(side(1)).collect();
    lines.sort_by(|(_, left), (_, right)| left.at.total_cmp(&right.at));
    let left_out = lines.len().saturating_sub(MOST_LINES);
    out.push_str("<h2>Consoles</h2>");
    if left_out > 0 {
        let _ = write!(out, "<p>The first {left_out} lines are left out.</p>");
    }
    out.push_str(
        "<table id=\"consoles\"><thead><tr><th>at</th><th>VTL0 (COM1)</th><th>VTL1 (COM2)</th></tr></thead><tbody>",
    );
    for (which, line) in lines.into_iter().skip(left_out) {
        let (at, text) = (amount(report, line.at), escape(&line.text));
        let cells = if which == 0 { [text.as_str(), ""] } else { ["", text.as_str()] };
        let _ = writeln!(out, "<tr><td>{at}</td><td>{}</td><td>{}</td></tr>", cells[0], cells[1]);
    }
    out.push_str("</tbody></table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_writes_stays_text() {
        let line = Line { at: 1.0, text: "<script>alert(\"1\")</script>\u{1b}[2J & 'more'".to_owned() };
        let page = html(&Report { unit: "ms", consoles: [vec![line], Vec::new()], ..Report::default() });
        assert_eq!(page.matches("<script>").count(), 1, "the page's own");
        assert!(
            page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;\u{fffd}[2J &amp; &#39;more&#39;"),
            "{page}"
        );
    }

    #[test]
    fn a_long_run_gives_a_page_of_bounded_size() {
        let switch = |at: u32| Switch {
            at: f64::from(at),
            cost: f64::from(at % 97),
            vp: at % 4,
            name: "PatchText".to_owned(),
            text: String::new(),
            kind: if at.is_multiple_of(1000) { "refused" } else { "call" },
        };
        let line = |at: u32| Line { at: f64::from(at), text: "x".to_owned() };
        let report = Report {
            unit: "ms",
            switches: (0..50_000).map(switch).collect(),
            consoles: [(0..30_000).map(line).collect(), (0..10_000).map(line).collect()],
            ..Report::default()
        };
        let page = html(&report);
        assert_eq!(page.matches("class=\"refused\"").count(), 50, "all that were refused");
        assert!(page.matches("<rect class=").count() <= 2 * MOST_SWITCHES);
        assert!(page.contains("The first 20000 lines are left out."));
        assert!(page.contains("<td>PatchText</td><td>50000</td><td>50</td>"), "the costs are of all");
    }
}
