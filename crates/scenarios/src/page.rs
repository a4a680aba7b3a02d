//! A run as a page: what was claimed and whether it holds, who did what when, and what went wrong meanwhile.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::fault::{Fault, Planned};
use quorate_sim::check::{
    Finding, Kind, Verdict, Violation,
    api::Call,
    history::{ClientId, History, Outcome},
    timeline::{self, Band, Timeline},
};
use serde_json::Value;

use crate::{Action, Judgement, Note, Report, Scenario, Told};

const STYLE: &str = ".refuted{color:var(--bad-edge);font-weight:600}.held{font-weight:600}.aside{color:var(--soft)}\
h2{font-size:1.1rem;margin:1.6rem 0 .4rem}code{font:12.5px ui-monospace,monospace}";

/// The page of `report`, complete in itself and without scripts.
pub(crate) fn render(scenario: &Scenario, report: &Report, again: &str) -> String {
    let outcome = &report.outcome;
    let mut page = String::new();
    let title = format!("{}, seed {}", scenario.name, outcome.seed);
    let verdict = if outcome.passed() { "passed" } else { "failed" };
    let _ = write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
        <title>{0}</title><style>{1}{STYLE}</style><h1>{0}: {verdict}</h1><p>{2}<p><code>{3}</code>",
        escape(&title),
        timeline::STYLE,
        escape(scenario.about),
        escape(again),
    );
    violations(&mut page, report);
    if let Some(judgement) = &report.judgement {
        claims(&mut page, judgement);
        counter_examples(&mut page, judgement);
        if has_appends(judgement) {
            page.push_str("<h2>Appends and reads</h2>");
            let timeline = Timeline::of(&judgement.history).naming(judgement.clients.clone());
            let to_blame = judgement.claims.violations().flat_map(|violation| violation.operations.iter().copied());
            page.push_str(&with_faults(timeline.marking_operations(to_blame), report).to_figure());
        }
    }
    others(&mut page, report);
    faults(&mut page, report);
    let _ = write!(page, "<p>Trace <code>{}</code>, {} steps.</html>", escape(&outcome.trace), outcome.steps);
    page
}

/// What must not be, each in a line.
fn violations(page: &mut String, report: &Report) {
    let all = &report.outcome.violations;
    if all.is_empty() {
        return;
    }
    page.push_str("<ul class=wrong>");
    for violation in all {
        let _ = write!(page, "<li><b>{}</b>: {}", escape(&violation.rule), escape(&violation.what));
    }
    page.push_str("</ul>");
}

/// Every claim of the checkers, and whether it holds: what is broken first, what was held against nothing last.
fn claims(page: &mut String, judgement: &Judgement) {
    page.push_str("<h2>Claims</h2><table>");
    let mut told: Vec<_> = judgement.claims.verdicts().iter().map(|verdict| (standing(verdict), verdict)).collect();
    told.sort_by_key(|((rank, ..), _)| *rank);
    for ((_, word, class), verdict) in told {
        let _ = write!(page, "<tr><td class='{class}'>{}<td>{}", escape(&word), escape(&verdict.claim));
    }
    page.push_str("</table>");
}

/// How a claim stands: its rank among others, in words, and the class of these.
fn standing(verdict: &Verdict) -> (u8, String, &'static str) {
    match &verdict.finding {
        Finding::Violated { .. } => (0, "VIOLATED".to_owned(), "refuted"),
        Finding::Undecided { why } => (1, format!("undecided: {why}"), "held"),
        Finding::Holds { examined: 0 } => (3, "not examined".to_owned(), "aside"),
        Finding::Holds { examined } => (2, format!("holds, {examined} examined"), "held"),
    }
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

/// Whether there is more to show of appends and reads than that there were none.
fn has_appends(judgement: &Judgement) -> bool {
    judgement.history.operations().iter().any(|operation| matches!(operation.op, Call::Append(_)))
}

/// With bands for what went wrong.
fn with_faults<'h, O: std::fmt::Display, R: std::fmt::Display>(
    timeline: Timeline<'h, O, R>,
    report: &Report,
) -> Timeline<'h, O, R> {
    report.outcome.faults().fold(timeline, |timeline, (place, planned)| timeline.with_band(band(place, planned)))
}

/// The fault at `place` of the plan.
fn band(place: usize, planned: &Planned) -> Band {
    let fault = told(&planned.fault);
    let name = fault["fault"].as_str().or(fault["kind"].as_str()).unwrap_or_default();
    let at = |span: Duration| Mono::from_nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    Band::new(format!("{place} {name}"), at(planned.at()), at(planned.end())).telling(words(&fault))
}

/// What clients did that the other figure does not show.
fn others(page: &mut String, report: &Report) {
    let is_shown = report.judgement.as_ref().is_some_and(has_appends);
    let in_history = |note: &&Note| is_shown && matches!(note.what, Action::Append { .. } | Action::Read { .. });
    let notes: Vec<&Note> = report.notes.iter().filter(|note| !in_history(note)).collect();
    if notes.is_empty() {
        return;
    }
    let heading = if is_shown { "What else they did" } else { "What they did" };
    let (history, clients) = history(&notes);
    let figure = with_faults(Timeline::of(&history).naming(clients), report).to_figure();
    let _ = write!(page, "<h2>{heading}</h2>{figure}");
}

/// Notes as a history, and the names of its clients.
fn history(notes: &[&Note]) -> (History<String, String>, Vec<String>) {
    let mut clients: Vec<String> = notes.iter().map(|note| note.client.clone()).collect();
    clients.sort_unstable();
    clients.dedup();
    let begins = notes.iter().enumerate().map(|(nth, note)| (note.invoked, false, nth));
    let ends = notes.iter().enumerate().map(|(nth, note)| (note.completed, true, nth));
    let mut moments: Vec<(u64, bool, usize)> = begins.chain(ends).collect();
    moments.sort_unstable();
    let (mut history, mut ids) = (History::new(), BTreeMap::new());
    for (at, ends, nth) in moments {
        let (note, at) = (notes[nth], Mono::from_nanos(at));
        if !ends {
            let client = clients.binary_search(&note.client).ok().and_then(|nth| u32::try_from(nth).ok());
            ids.insert(nth, history.invoke(ClientId(client.unwrap_or(u32::MAX)), what(note), at));
        } else if let Some(id) = ids.remove(&nth) {
            match came_to(note) {
                CameTo::Done => history.ok(id, "done".to_owned(), at),
                CameTo::Nothing => history.failed(id, "refused", at),
                CameTo::Unknown => history.unknown(id, "nobody knows", at),
            }
        }
    }
    (history, clients)
}

/// What came of what a client did.
enum CameTo {
    Done,
    Nothing,
    Unknown,
}

fn came_to(note: &Note) -> CameTo {
    match &note.what {
        Action::Append { told, .. } | Action::Truncate { told, .. } | Action::SetRule { told, .. } => match told {
            Told::Done { .. } => CameTo::Done,
            Told::Refused(_) => CameTo::Nothing,
            Told::Unknown => CameTo::Unknown,
        },
        Action::Settled { done, .. } | Action::Handled { done, .. } | Action::Buried { done, .. } => match done {
            Some(true) => CameTo::Done,
            Some(false) => CameTo::Nothing,
            None => CameTo::Unknown,
        },
        Action::Scavenged { done: false } => CameTo::Unknown,
        Action::ReadRefused { .. } | Action::Sent { refused: Some(_), .. } => CameTo::Nothing,
        _ => CameTo::Done,
    }
}

/// What a note says, in a line.
fn what(note: &Note) -> String {
    match &note.what {
        Action::Read { read, events, .. } => {
            format!("read {}: {} events", read.stream.as_deref().unwrap_or("the log"), events.len())
        }
        Action::Append { append, .. } => Call::Append(append.clone()).to_string(),
        Action::Verified(wrong) => format!("verified the store: {}", wrong.as_deref().unwrap_or("sound")),
        other => words(&serde_json::to_value(other).unwrap_or_default()),
    }
}

fn faults(page: &mut String, report: &Report) {
    if report.outcome.faults().next().is_none() {
        return;
    }
    page.push_str("<h2>Faults</h2><table><tr><th>Fault<th>At<th>What");
    for (place, planned) in report.outcome.faults() {
        let (at, what) = (planned.at().as_secs_f64(), words(&told(&planned.fault)));
        let _ = write!(page, "<tr><td>{place}<td>{at:.3} s<td>{}", escape(&what));
    }
    page.push_str("</table>");
}

fn told(fault: &Fault) -> Value {
    serde_json::to_value(fault).unwrap_or_default()
}

/// A value in words: what it is called, and then what it says.
fn words(value: &Value) -> String {
    let Value::Object(members) = value else { return said(value) };
    // A variant of ours is its name with what it has, a fault says what it is in two of its members.
    if let (1, Some((name, inner @ Value::Object(_)))) = (members.len(), members.iter().next()) {
        return format!("{}: {}", spaced(name), listed(inner));
    }
    let names: Vec<&str> = ["kind", "fault"].iter().filter_map(|key| value[key].as_str()).collect();
    if names.is_empty() { listed(value) } else { format!("{}: {}", names.join(" "), listed(value)) }
}

fn listed(value: &Value) -> String {
    let members = value.as_object().into_iter().flatten().filter(|(key, _)| !["kind", "fault"].contains(&key.as_str()));
    // Most of what can go wrong with a disk does not, and says so with nothing or a zero.
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        Value::Object(_) => !listed(value).is_empty(),
        other => other.as_f64() != Some(0.0),
    };
    let mut members: Vec<_> = members.filter(|(_, value)| says(value)).collect();
    members.sort_by_key(|(key, _)| *key != "host");
    let told =
        members.into_iter().map(|(key, value)| match key.strip_suffix("_ms").or_else(|| key.strip_suffix("_millis")) {
            Some(name) => format!("{} {} ms", spaced(name), said(value)),
            None => format!("{} {}", spaced(key), said(value)),
        });
    told.collect::<Vec<_>>().join(", ")
}

/// What a value says within others.
fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(said).collect::<Vec<_>>().join(" "),
        Value::Object(_) => format!("({})", words(value)),
        other => other.to_string(),
    }
}

/// A name of code as people write it: `HeardNothingNew` and `down_ms` in lower-case words.
fn spaced(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        let letter = if ['_', '-'].contains(&letter) { ' ' } else { letter };
        words.extend(letter.to_lowercase());
    }
    words
}

/// `text` as it may stand in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_runtime::fault::{DiskFault, DiskFaults, FaultPlan, ProcessFault};
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
        assert!(page.contains("<td class='refuted'>VIOLATED<td>every stream is linearizable"), "{page}");
        assert!(page.contains(" examined<td>positions and versions are dense"), "{page}");
        assert!(page.contains("<td class='aside'>not examined<td>a read with a token sees"), "{page}");
        assert!(page.contains("<code>quorate sim replay appends --seed 7 --rounds 3</code>"), "{page}");
        assert!(page.contains(">bob</text>") && page.contains(">eve</text>"), "{page}");
        assert_eq!(page.matches("class=\"bar bad\"").count(), 2, "both to blame are marked: {page}");
        assert!(!page.contains("<a>"), "{page}");
    }

    #[test]
    fn faults_and_what_clients_did_are_told_in_words() {
        let kill = ProcessFault::Kill { host: "node".into(), down: Duration::from_millis(589) };
        let read = DiskFault {
            host: "node".into(),
            span: Duration::from_millis(7),
            room_bytes: None,
            faults: DiskFaults { read_errors: 0.5, ..DiskFaults::default() },
        };
        let settled = Action::Settled { lease: "7".into(), acknowledged: true, done: None };
        let mut report = report(vec![note("ada", 1, 1_000_000_000, settled)]);
        let faults = [(3_000_000, Fault::Process(kill)), (9_000_000, Fault::Disk(read))];
        let planned = faults.map(|(at_nanos, fault)| Planned { at_nanos, fault });
        report.outcome.plan = FaultPlan::new(planned.to_vec());
        let page = report.page(&crate::all()[0], "again");
        assert!(page.contains("<td>0<td>0.003 s<td>process kill: host node, down 589 ms"), "{page}");
        assert!(page.contains("<td>1<td>0.009 s<td>disk: host node, faults (read errors 0.5), span 7 ms"), "{page}");
        assert!(
            page.contains(">0 kill</text>") && page.contains("process kill: host node, down 589 ms\n3ms to 592ms"),
            "{page}"
        );
        assert!(page.contains("ada: settled: acknowledged true, lease 7\nunknown: nobody knows"), "{page}");
        assert!(page.contains("<h2>What they did</h2>") && !page.contains("<h2>Appends and reads</h2>"), "{page}");
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
        assert!(page.contains("<td class='held'>holds, 1 examined<td>stamps grow"), "{page}");
        assert!(page.contains("<td class='aside'>not examined<td>none is &lt;two&gt;"), "{page}");
        assert!(page.contains(">client-0</text>") && !page.contains("<h2>Appends and reads</h2>"), "{page}");
    }
}
