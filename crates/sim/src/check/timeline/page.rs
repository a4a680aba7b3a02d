//! The page as text.

use std::fmt::{self, Write};

use quorate_foundations::time::Mono;

use super::{
    Band, Timeline,
    layout::{AXIS, Bar, Layout, ROW},
};
use crate::check::history::{Operation, Outcome, Tally};

/// About how wide a letter of a bar's text is.
const LETTER: f64 = 7.0;

/// How figures look.
pub const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d2530; --soft: #667281; --line: #dde3ea; --paper: #fff; --lane: #f5f7f9;
  --ok: #cfeadb; --ok-edge: #3f9c6c; --failed: #e3e7eb; --failed-edge: #93a0ad; --unknown: #fbe6c2; --unknown-edge: #c98a1b;
  --bad: #fbd3d0; --bad-edge: #cf2f2f; --band: #6b5bd6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #97a3b0; --line: #323b46; --paper: #14181d;
  --lane: #1b2027; --ok: #1f4534; --ok-edge: #57b98a; --failed: #2b323a; --failed-edge: #7b8794; --unknown: #4d3a16;
  --unknown-edge: #e0a63d; --bad: #5c2023; --bad-edge: #ff6b63; --band: #9c8ff5; } }
body { margin: 2rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; } p { margin: .25rem 0; color: var(--soft); }
.wrong { margin: 1rem 0; padding: .6rem .9rem .6rem 2rem; border-left: 4px solid var(--bad-edge); background: var(--bad); }
.legend span { display: inline-block; margin: .5rem 1.25rem .5rem 0; }
.legend i { display: inline-block; width: 1.6em; height: .85em; margin-right: .45em; border: 1.5px solid; border-radius: 3px;
  vertical-align: -.05em; }
.chart { display: flex; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.names { flex: none; border-right: 1px solid var(--line); } .scroll { overflow-x: auto; }
svg { display: block; font: 11.5px ui-monospace, monospace; } text { fill: var(--ink); }
.soft { fill: var(--soft); } .grid { stroke: var(--line); } .lane { fill: var(--lane); }
.ok { fill: var(--ok); stroke: var(--ok-edge); } .failed { fill: var(--failed); stroke: var(--failed-edge); }
.unknown { fill: var(--unknown); stroke: var(--unknown-edge); stroke-dasharray: 4 2; }
i.ok { background: var(--ok); border-color: var(--ok-edge); }
i.failed { background: var(--failed); border-color: var(--failed-edge); }
i.unknown { background: var(--unknown); border-color: var(--unknown-edge); border-style: dashed; }
i.bad { background: var(--bad); border-color: var(--bad-edge); } i.band { background: var(--band); opacity: .35; }
.bar { stroke-width: 1.2; } .bad { fill: var(--bad); stroke: var(--bad-edge); stroke-width: 2.4; }
.band { fill: var(--band); fill-opacity: .14; } .band-name { fill: var(--band); font-weight: 600; }
table { border-collapse: collapse; margin-top: 1.25rem; } td, th { padding: .25rem .9rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--line); }";

/// Text that means itself in HTML, within elements and attributes.
pub(super) struct Escaped<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'f, 'b>(&'f mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|letter| match letter {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            control if control.is_control() && control != '\n' => self.0.write_char('\u{fffd}'),
            letter => self.0.write_char(letter),
        })
    }
}

/// A time for people, from the start of the world.
struct Time(Mono);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", std::time::Duration::from_nanos(self.0.as_nanos()))
    }
}

pub(super) fn render<O: fmt::Display, R: fmt::Display>(
    timeline: &Timeline<'_, O, R>,
    layout: &Layout<'_, O, R>,
) -> String {
    let mut page = String::new();
    write(&mut page, timeline, layout).expect("a string takes whatever is written to it");
    page
}

fn write<O: fmt::Display, R: fmt::Display>(
    page: &mut String,
    timeline: &Timeline<'_, O, R>,
    layout: &Layout<'_, O, R>,
) -> fmt::Result {
    let title = Escaped(&timeline.title);
    writeln!(page, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    writeln!(page, "<title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>")?;
    write_figure(page, timeline, layout)?;
    writeln!(page, "</body></html>")
}

pub(super) fn figure<O: fmt::Display, R: fmt::Display>(
    timeline: &Timeline<'_, O, R>,
    layout: &Layout<'_, O, R>,
) -> String {
    let mut figure = String::new();
    write_figure(&mut figure, timeline, layout).expect("a string takes whatever is written to it");
    figure
}

fn write_figure<O: fmt::Display, R: fmt::Display>(
    page: &mut String,
    timeline: &Timeline<'_, O, R>,
    layout: &Layout<'_, O, R>,
) -> fmt::Result {
    summary(page, timeline, layout)?;
    if !timeline.sentences.is_empty() {
        writeln!(page, "<ul class=\"wrong\">")?;
        for sentence in &timeline.sentences {
            writeln!(page, "<li>{}</li>", Escaped(sentence))?;
        }
        writeln!(page, "</ul>")?;
    }
    writeln!(page, "<div class=\"legend\">")?;
    let legend = [("ok", "answered"), ("failed", "failed, no effect"), ("unknown", "outcome unknown")];
    for (class, name) in legend.into_iter().chain([("bad", "part of a violation"), ("band", "fault")]) {
        write!(page, "<span><i class=\"{class}\"></i>{name}</span>")?;
    }
    writeln!(page, "</div>\n<div class=\"chart\">")?;
    names(page, timeline, layout)?;
    chart(page, timeline, layout)?;
    writeln!(page, "</div>")?;
    marked(page, timeline)
}

fn summary<O, R>(page: &mut String, timeline: &Timeline<'_, O, R>, layout: &Layout<'_, O, R>) -> fmt::Result {
    let Tally { ok, failed, unknown } = timeline.history.tally();
    write!(page, "<p>{ok} operations answered, {failed} failed, {unknown} unknown")?;
    if layout.left_out > 0 {
        write!(page, "; {} further away are not shown", layout.left_out)?;
    }
    writeln!(page, "</p>")
}

fn names<O: fmt::Display, R: fmt::Display>(
    page: &mut String,
    timeline: &Timeline<'_, O, R>,
    layout: &Layout<'_, O, R>,
) -> fmt::Result {
    let height = layout.height;
    writeln!(page, "<svg class=\"names\" width=\"96\" height=\"{height:.0}\" role=\"presentation\">")?;
    for lane in &layout.lanes {
        let y = lane.y + lane.height / 2.0 + 4.0;
        writeln!(page, "<text x=\"12\" y=\"{y:.1}\">{}</text>", Escaped(timeline.name(lane.client)))?;
    }
    writeln!(page, "</svg>")
}

fn chart<O: fmt::Display, R: fmt::Display>(
    page: &mut String,
    timeline: &Timeline<'_, O, R>,
    layout: &Layout<'_, O, R>,
) -> fmt::Result {
    let (width, height) = (layout.width, layout.height);
    writeln!(page, "<div class=\"scroll\"><svg width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">")?;
    for lane in &layout.lanes {
        let (y, height) = (lane.y - 4.0, lane.height + 6.0);
        writeln!(page, "<rect class=\"lane\" x=\"0\" y=\"{y:.1}\" width=\"{width:.0}\" height=\"{height:.1}\"/>")?;
    }
    for at in layout.ticks() {
        let x = layout.x(at);
        writeln!(page, "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{AXIS}\" y2=\"{height:.0}\"/>")?;
        writeln!(page, "<text class=\"soft\" x=\"{x:.1}\" y=\"{:.0}\">{}</text>", AXIS - 6.0, Time(at))?;
    }
    // Where names would cover each other, only the first is written; whoever points at a band is told.
    let mut free_from = 0.0;
    for band in timeline.bands.iter().filter(|band| layout.covers(band.from, band.until)) {
        draw_band(page, band, layout)?;
        let x = layout.x(band.from) + 4.0;
        if x >= free_from {
            writeln!(page, "<text class=\"band-name\" x=\"{x:.1}\" y=\"16\">{}</text>", Escaped(&band.label))?;
            free_from = x + (band.label.chars().count() + 1) as f64 * LETTER;
        }
    }
    for bar in &layout.bars {
        draw_bar(page, timeline, bar)?;
    }
    writeln!(page, "</svg></div>")
}

fn draw_band<O, R>(page: &mut String, band: &Band, layout: &Layout<'_, O, R>) -> fmt::Result {
    let (x, height) = (layout.x(band.from), layout.height);
    let story = if band.story.is_empty() { &band.label } else { &band.story };
    let width = (layout.x(band.until) - x).max(2.0);
    let (from, until) = (Time(band.from), Time(band.until));
    writeln!(page, "<rect class=\"band\" x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height:.0}\">")?;
    writeln!(page, "<title>{}\n{from} to {until}</title></rect>", Escaped(story))
}

fn draw_bar<O: fmt::Display, R: fmt::Display>(
    page: &mut String,
    timeline: &Timeline<'_, O, R>,
    bar: &Bar<'_, O, R>,
) -> fmt::Result {
    let Bar { operation, x, y, width } = bar;
    let class = if timeline.marked.contains(&operation.id) { "bad" } else { class(operation) };
    let (height, story) = (ROW - 5.0, story(operation, &timeline.name(operation.client)));
    writeln!(page, "<g><title>{}</title>", Escaped(&story))?;
    write!(page, "<rect class=\"bar {class}\" x=\"{x:.1}\" y=\"{y:.1}\" rx=\"3\" ")?;
    writeln!(page, "width=\"{width:.1}\" height=\"{height:.1}\"/>")?;
    let letters = ((width - 8.0) / LETTER).max(0.0) as usize;
    if letters >= 3 {
        let text = shortened(&operation.op.to_string(), letters);
        writeln!(page, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 4.0, y + 14.5, Escaped(text))?;
    }
    writeln!(page, "</g>")
}

fn class<O, R>(operation: &Operation<O, R>) -> &'static str {
    match operation.outcome {
        Outcome::Ok { .. } => "ok",
        Outcome::Failed { .. } => "failed",
        Outcome::Unknown { .. } | Outcome::Pending => "unknown",
    }
}

fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}

/// An operation in a few lines.
fn story<O: fmt::Display, R: fmt::Display>(operation: &Operation<O, R>, client: &str) -> String {
    let Operation { id, op, invoked, outcome, .. } = operation;
    let became = became(outcome);
    match outcome.ended() {
        Some(ended) => format!("{id}, {client}: {op}\n{became}\n{} to {}", Time(invoked.at), Time(ended.at)),
        None => format!("{id}, {client}: {op}\n{became}\nfrom {}", Time(invoked.at)),
    }
}

fn became<R: fmt::Display>(outcome: &Outcome<R>) -> String {
    match outcome {
        Outcome::Pending => "not answered".to_owned(),
        Outcome::Ok { value, .. } => format!("answered: {value}"),
        Outcome::Failed { reason, .. } => format!("failed: {reason}"),
        Outcome::Unknown { reason, .. } => format!("unknown: {reason}"),
    }
}

/// The marked operations as a table, for those who can't point at bars.
fn marked<O: fmt::Display, R: fmt::Display>(page: &mut String, timeline: &Timeline<'_, O, R>) -> fmt::Result {
    if timeline.marked.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "<table><tr><th>operation</th><th>client</th><th>asked</th><th>became</th><th>from</th><th>to</th></tr>"
    )?;
    for operation in timeline.marked.iter().filter_map(|id| timeline.history.get(*id)) {
        let Operation { id, client, op, invoked, outcome } = operation;
        let client = Escaped(timeline.name(*client));
        write!(page, "<tr><td>{id}</td><td>{client}</td><td>{}</td>", Escaped(op))?;
        write!(page, "<td>{}</td><td>{}</td>", Escaped(became(outcome)), Time(invoked.at))?;
        let ended = outcome.ended().map_or_else(|| "–".to_owned(), |ended| Time(ended.at).to_string());
        writeln!(page, "<td>{ended}</td></tr>")?;
    }
    writeln!(page, "</table>")
}
