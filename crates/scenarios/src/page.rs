//! A run as a page: who did what when, and what went wrong meanwhile.

use std::fmt::Write as _;

use quorate_runtime::fault::Fault;

use crate::{Action, Note, Report, Scenario, Told};

/// The height of a client's lane, and the width of the drawing, in pixels.
const LANE: usize = 34;
const WIDTH: f64 = 1_400.0;
/// Where the drawing begins: names stand before it.
const LEFT: f64 = 130.0;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2rem;color:#1d2430;background:#fbfbfa}\
h1{font-size:1.3rem}.bad{color:#a3141f}svg{background:#fff;border:1px solid #dfe2e6;max-width:100%}\
text{font-size:11px;fill:#44505f}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}\
code{font-size:12px}.done{fill:#2f7d4f}.refused{fill:#b98a1c}.unknown{fill:#a3141f}.read{fill:#4a76a8}.fault{fill:#a3141f;opacity:.12}";

/// The page of `report`, complete in itself and without scripts.
pub(crate) fn render(scenario: &Scenario, report: &Report) -> String {
    let outcome = &report.outcome;
    let mut page = String::new();
    let title = format!("{}, seed {}", scenario.name, outcome.seed);
    let verdict = if outcome.passed() { "passed" } else { "failed" };
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><title>{0}</title><style>{STYLE}</style><h1>{0}: {verdict}</h1><p>{1}</p>",
        escape(&title),
        escape(scenario.about),
    );
    for violation in &outcome.violations {
        let _ = write!(page, "<p class=bad><b>{}</b>: {}</p>", escape(&violation.rule), escape(&violation.what));
    }
    drawing(&mut page, report);
    faults(&mut page, report);
    let _ = write!(
        page,
        "<p>Trace <code>{}</code>, {} steps. <code>quorate sim replay {} --seed {}</code></p></html>",
        escape(&outcome.trace),
        outcome.steps,
        escape(scenario.name),
        outcome.seed
    );
    page
}

/// Lanes of clients, a bar for each thing they did, bands for what went wrong.
fn drawing(page: &mut String, report: &Report) {
    let end = report.notes.iter().map(|note| note.completed).max().unwrap_or(1).max(1);
    let x = |at: u64| LEFT + (WIDTH - LEFT) * (at.min(end) as f64 / end as f64);
    let mut clients: Vec<&str> = report.notes.iter().map(|note| note.client.as_str()).collect();
    clients.sort_unstable();
    clients.dedup();
    let height = clients.len() * LANE + 30;
    let _ = write!(
        page,
        "<svg viewBox='0 0 {WIDTH} {height}' width={WIDTH} height={height} role=img aria-label='Timeline of all clients'>"
    );
    for planned in &report.outcome.plan.faults {
        let at = u64::try_from(planned.at().as_nanos()).unwrap_or(u64::MAX);
        let until = u64::try_from(planned.end().as_nanos()).unwrap_or(u64::MAX);
        let (from, to) = (x(at), x(until));
        let _ = write!(
            page,
            "<rect class=fault x={from:.1} y=0 width={:.1} height={height}><title>{}</title></rect>",
            (to - from).max(1.5),
            escape(&text_of(&planned.fault))
        );
    }
    for (n, client) in clients.iter().enumerate() {
        let y = n * LANE + 20;
        let _ = write!(page, "<text x=4 y={}>{}</text>", y + 12, escape(client));
        for note in report.notes.iter().filter(|note| note.client == *client) {
            let (from, to) = (x(note.invoked), x(note.completed));
            let _ = write!(
                page,
                "<rect class={} x={from:.1} y={y} width={:.1} height=16 rx=2><title>{}</title></rect>",
                class(note),
                (to - from).max(2.0),
                escape(&what(note))
            );
        }
    }
    let seconds = end as f64 / 1e9;
    let _ = write!(
        page,
        "<text x={LEFT} y={0}>0 s</text><text x={1:.0} y={0}>{seconds:.1} s</text></svg>",
        height - 4,
        WIDTH - 50.0
    );
    page.push_str("<p>Green: done. Yellow: refused. Red: nobody knows. Blue: read. Bands: what went wrong. Point at anything to read it.</p>");
}

fn faults(page: &mut String, report: &Report) {
    page.push_str("<table><tr><th>Fault<th>At<th>What");
    for (n, planned) in report.outcome.plan.faults.iter().enumerate() {
        let _ = write!(
            page,
            "<tr><td>{n}<td>{:.3} s<td><code>{}</code>",
            planned.at().as_secs_f64(),
            escape(&text_of(&planned.fault))
        );
    }
    page.push_str("</table>");
}

fn text_of(fault: &Fault) -> String {
    serde_json::to_string(fault).unwrap_or_default()
}

fn class(note: &Note) -> &'static str {
    match &note.what {
        Action::Append { told, .. }
        | Action::AppendIf { told, .. }
        | Action::Truncate { told, .. }
        | Action::Keyed { told, .. } => match told {
            Told::Done { .. } => "done",
            Told::Refused { .. } => "refused",
            Told::Unknown => "unknown",
        },
        _ => "read",
    }
}

/// What a note says, in a line.
fn what(note: &Note) -> String {
    match &note.what {
        Action::ReadLog { events } => format!("read the log: {} events", events.len()),
        Action::ReadStream { stream, ids } => format!("read {stream}: {} events", ids.len()),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// `text` as it may stand in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
