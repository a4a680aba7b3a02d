//! A run as a page: what was claimed and whether it holds, who did what when, and what went wrong meanwhile.

use std::{fmt::Write as _, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::fault::{Fault, Planned};
use quorate_sim::check::{
    Finding, Kind, Violation,
    history::Outcome,
    timeline::{Band, Timeline},
};

use crate::{Action, Judgement, Note, Report, Scenario, Told};

/// The height of a client's lane, and the width of the drawing, in pixels.
const LANE: usize = 34;
const WIDTH: f64 = 1_400.0;
/// Where the drawing begins: names stand before it.
const LEFT: f64 = 130.0;

const STYLE: &str = ".verdict{font-weight:600}.refuted{color:#cf2f2f}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}\
svg.others{background:#fff;border:1px solid #dfe2e6;max-width:100%}svg.others text{font-size:11px;fill:#44505f}\
code{font-size:12px}.done{fill:#2f7d4f}.refused{fill:#b98a1c}.unclear{fill:#a3141f}.seen{fill:#4a76a8}.fault{fill:#a3141f;opacity:.12}";

/// The page of `report`, complete in itself and without scripts.
pub(crate) fn render(scenario: &Scenario, report: &Report, again: &str) -> String {
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
        let (rule, what) = (escape(&violation.rule), escape(&violation.what));
        let _ = write!(page, "<p class=refuted><b>{rule}</b>: {what}</p>");
    }
    if let Some(judgement) = &report.judgement {
        claims(&mut page, judgement);
        counter_examples(&mut page, judgement);
        if !judgement.history.operations().is_empty() {
            page.push_str("<h2>Appends and reads</h2>");
            page.push_str(&timeline(report, judgement).to_figure());
        }
    }
    others(&mut page, report);
    faults(&mut page, report);
    let _ = write!(
        page,
        "<p>Trace <code>{}</code>, {} steps. <code>{}</code></p></html>",
        escape(&outcome.trace),
        outcome.steps,
        escape(again)
    );
    page
}

/// Every claim of the checkers, and whether it holds.
fn claims(page: &mut String, judgement: &Judgement) {
    page.push_str("<h2>Claims</h2><table>");
    for verdict in judgement.claims.verdicts() {
        let (word, class) = match &verdict.finding {
            Finding::Holds { examined: 0 } => ("not examined".to_owned(), "verdict"),
            Finding::Holds { examined } => (format!("holds, {examined} examined"), "verdict"),
            Finding::Undecided { why } => (format!("undecided: {why}"), "verdict"),
            Finding::Violated { .. } => ("VIOLATED".to_owned(), "verdict refuted"),
        };
        let _ = write!(page, "<tr><td class='{class}'>{}<td>{}", escape(&word), escape(&verdict.claim));
    }
    page.push_str("</table>");
}

/// The fewest operations whose answers contradict each other, whatever the others did.
fn counter_examples(page: &mut String, judgement: &Judgement) {
    let of_a_stream = |violation: &&Violation| violation.kind == Kind::NotLinearizable;
    for violation in judgement.claims.violations().filter(of_a_stream) {
        let _ = write!(page, "<h2>Counter-example</h2><p>{}</p><table>", escape(&violation.sentence));
        page.push_str("<tr><th>Operation<th>Client<th>Asked<th>Was told");
        for operation in violation.operations.iter().filter_map(|id| judgement.history.get(*id)) {
            let told = match &operation.outcome {
                Outcome::Ok { value, .. } => value.to_string(),
                Outcome::Failed { reason, .. } => reason.clone(),
                Outcome::Unknown { .. } | Outcome::Pending => "nothing".to_owned(),
            };
            let client = usize::try_from(operation.client.0).ok().and_then(|nth| judgement.clients.get(nth));
            let _ = write!(
                page,
                "<tr><td>{}<td>{}<td>{}<td>{}",
                operation.id,
                escape(client.map_or("", String::as_str)),
                escape(&operation.op.to_string()),
                escape(&told)
            );
        }
        page.push_str("</table>");
    }
}

fn timeline<'r>(
    report: &Report,
    judgement: &'r Judgement,
) -> Timeline<'r, quorate_sim::check::api::Call, quorate_sim::check::api::Reply> {
    let timeline = Timeline::of(&judgement.history).naming(judgement.clients.clone());
    let timeline = timeline.marking(judgement.claims.violations());
    report.outcome.faults().fold(timeline, |timeline, (_, planned)| timeline.with_band(band(planned)))
}

fn band(planned: &Planned) -> Band {
    let text = serde_json::to_value(&planned.fault).unwrap_or_default();
    let label = |key: &str| text[key].as_str().unwrap_or_default().to_owned();
    let at = |span: Duration| Mono::from_nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    Band::new(label("kind"), at(planned.at()), at(planned.end()))
}

/// Lanes of clients, a bar for each thing they did that is in no history, bands for what went wrong.
fn others(page: &mut String, report: &Report) {
    let judged = report.judgement.is_some();
    let in_history = |note: &&Note| judged && matches!(note.what, Action::Append { .. } | Action::Read { .. });
    let notes: Vec<&Note> = report.notes.iter().filter(|note| !in_history(note)).collect();
    if notes.is_empty() {
        return;
    }
    page.push_str("<h2>What else they did</h2>");
    drawing(page, report, &notes);
    page.push_str("<p>Green: done. Yellow: refused. Red: nobody knows. Blue: seen. Bands: what went wrong. Point at anything to read it.</p>");
}

fn drawing(page: &mut String, report: &Report, notes: &[&Note]) {
    let end = notes.iter().map(|note| note.completed).max().unwrap_or(1).max(1);
    let x = |at: u64| LEFT + (WIDTH - LEFT) * (at.min(end) as f64 / end as f64);
    let mut clients: Vec<&str> = notes.iter().map(|note| note.client.as_str()).collect();
    clients.sort_unstable();
    clients.dedup();
    let height = clients.len() * LANE + 30;
    let _ = write!(
        page,
        "<svg class=others viewBox='0 0 {WIDTH} {height}' width={WIDTH} height={height} role=img aria-label='Timeline of all clients'>"
    );
    for (_, planned) in report.outcome.faults() {
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
        for note in notes.iter().filter(|note| note.client == *client) {
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
}

fn faults(page: &mut String, report: &Report) {
    page.push_str("<h2>Faults</h2><table><tr><th>Fault<th>At<th>What");
    for (n, planned) in report.outcome.faults() {
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
        Action::Append { told, .. } | Action::Truncate { told, .. } | Action::SetRule { told, .. } => match told {
            Told::Done { .. } => "done",
            Told::Refused(_) => "refused",
            Told::Unknown => "unclear",
        },
        Action::Scavenged { done } => {
            if *done {
                "done"
            } else {
                "unclear"
            }
        }
        _ => "seen",
    }
}

/// What a note says, in a line.
fn what(note: &Note) -> String {
    match &note.what {
        Action::Read { read, events, .. } => {
            format!("read {}: {} events", read.stream.as_deref().unwrap_or("the log"), events.len())
        }
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// `text` as it may stand in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_runtime::fault::FaultPlan;
    use quorate_sim::{
        Outcome, Swarm,
        check::api::{Append, Expected, Read, SentEvent},
    };

    use super::*;
    use crate::{Seen, judge::Contract};

    fn note(client: &str, invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: client.into(), invoked, completed, what }
    }

    fn append(id: &str, version: u64) -> Action {
        let append = Append::to("order-1", Expected::NoStream, vec![SentEvent::new(id, 1)]);
        Action::Append { append, told: Told::Done { version, token: None } }
    }

    /// A run of `notes` in which nothing went wrong but what judges find.
    fn report(notes: Vec<Note>) -> Report {
        let judgement = Judgement::by(Contract::Whole, &notes);
        let outcome = Outcome {
            seed: 7,
            swarm: Swarm::calm(),
            clients: Vec::new(),
            plan: FaultPlan::default(),
            without: Vec::new(),
            violations: judgement.found.clone(),
            trace: "00".into(),
            steps: 1,
            simulated_millis: 1,
            injected: BTreeMap::new(),
            reached: BTreeMap::new(),
        };
        Report { outcome, notes, rounds: 0, judgement: Some(judgement) }
    }

    #[test]
    fn a_page_tells_the_claims_the_counter_example_and_who_did_what() {
        let seen = |position, id: &str| Seen {
            position,
            stream: "order-1".into(),
            version: position,
            id: id.into(),
            kind: String::new(),
            tags: vec![],
            content: Some(1),
        };
        let read = Action::read(Read::log(0, u64::MAX), vec![seen(1, "<a>"), seen(2, "b")]);
        // Both were told that theirs was the first.
        let notes = vec![
            note("ada", 1, 5, append("<a>", 1)),
            note("bob", 2, 6, append("b", 1)),
            note("eve", 7, 8, Action::Connected { subscription: "eve".into(), after: 2 }),
            note("last reader", 9, 10, read),
        ];
        let page = report(notes).page(&crate::all()[0], "quorate sim replay appends --seed 7 --rounds 3");
        assert!(page.contains("<h2>Counter-example</h2><p>order-1: version 1 is event &lt;a&gt; to op 0"), "{page}");
        assert!(page.contains("<td class='verdict refuted'>VIOLATED<td>every stream is linearizable"), "{page}");
        assert!(page.contains(" examined<td>positions and versions are dense"), "{page}");
        assert!(page.contains("<td class='verdict'>not examined<td>a read with a token sees"), "{page}");
        assert!(page.contains("<code>quorate sim replay appends --seed 7 --rounds 3</code>"), "{page}");
        assert!(page.contains(">bob</text>") && page.contains(">eve</text>"), "{page}");
        assert_eq!(page.matches("class=\"bar bad\"").count(), 2, "both to blame are marked: {page}");
        assert!(!page.contains("<a>"), "{page}");
    }
    #[test]
    fn what_a_scenario_promises_beside_its_log_is_a_claim_as_well() {
        let stamp = Action::Stamp { stamp: "01".into() };
        let notes = vec![note("client-0", 1, 2, stamp)];
        let Report { outcome, notes, .. } = report(notes);
        let outcome = Outcome { violations: Vec::new(), ..outcome };
        let rules = |_: &[Note]| {
            vec![crate::rule::verdict("stamps grow", 1, None), crate::rule::verdict("none is <two>", 0, None)]
        };
        let page = Report::judged(outcome, notes, 0, rules).page(&crate::all()[0], "again");
        assert!(page.contains("<td class='verdict'>holds, 1 examined<td>stamps grow"), "{page}");
        assert!(page.contains("<td class='verdict'>not examined<td>none is &lt;two&gt;"), "{page}");
        assert!(page.contains(">client-0</text>") && !page.contains("<h2>Appends and reads</h2>"), "{page}");
    }
}
