//! What is next, by a document.

use quorate_foundations::jq::{Limits, Program, Value as Jq};
use serde_json::{Value, json};

use super::{Declared, Document, Stage, Waiting};
use crate::saga::{
    definition::{Definition, Next, Todo},
    journal::{Journal, State},
};

/// What programs of a saga may take: conditions are judged where everybody's writes wait.
const LIMITS: Limits = Limits { steps: 20_000, bytes: 1 << 20, depth: 1_000, outputs: 2 };

/// The one value that `program` makes of `seen`.
pub(super) fn one(program: &Program, seen: &Value) -> Result<Value, String> {
    let failed = |what: String| format!("`{}`: {what}", program.text());
    let input = Jq::read(&seen.to_string()).map_err(|cause| failed(cause.to_string()))?;
    let outputs = program.run(input, LIMITS).map_err(|cause| failed(cause.to_string()))?;
    match &outputs[..] {
        [one] => serde_json::from_str(one).map_err(|cause| failed(cause.to_string())),
        several => Err(failed(format!("it has {} outputs, and one is wanted", several.len()))),
    }
}

/// What programs see.
pub(super) fn seen(document: &str, id: Option<&str>, journal: &Journal) -> Value {
    let mut steps = serde_json::Map::new();
    let mut refused = Vec::new();
    for step in &journal.steps {
        match step.forward.state {
            State::Done | State::Skipped => drop(steps.insert(step.name.to_string(), step.forward.output.clone())),
            State::Refused => refused.push(&*step.name),
            _ => {}
        }
    }
    let mut signals = serde_json::Map::new();
    for signal in &journal.signals {
        signals.entry(signal.name.to_string()).or_insert_with(|| signal.data.clone());
    }
    let mut seen = json!({ "saga": document, "key": journal.key, "input": journal.input, "steps": steps, "refused": refused, "signals": signals });
    // A plan knows nothing but the journal, which does not say whose it is.
    if let Some(id) = id {
        seen["id"] = id.into();
    }
    seen
}

pub(super) fn key_of(document: &Document, input: &Value) -> Result<Option<String>, String> {
    let Some(program) = &document.key else { return Ok(None) };
    match one(program, &json!({ "saga": document.name.as_str(), "input": input }))? {
        Value::String(key) => Ok(Some(key)),
        Value::Null => Ok(None),
        key @ Value::Number(_) => Ok(Some(key.to_string())),
        other => Err(format!("`{}`: a key is a text or a number, not {other}", program.text())),
    }
}

/// What is next.
pub(super) fn next(document: &Document, journal: &Journal) -> Next {
    // What was passed over is not gone back to: the first stage that can be looked at is the last one that was begun.
    let begun = document.stages.iter().rposition(|stage| is_begun(stage, journal)).unwrap_or(0);
    for stage in &document.stages[begun..] {
        let open = match stage {
            Stage::Steps(steps) => of_steps(document, steps, journal),
            Stage::Wait(waiting) => of_waiting(waiting, journal),
        };
        if let Some(open) = open {
            return open;
        }
    }
    let Some(program) = &document.output else { return Next::Done(Value::Null) };
    match one(program, &seen(document.name.as_str(), None, journal)) {
        Ok(output) => Next::Done(output),
        Err(why) => Next::Stuck(why),
    }
}

fn is_begun(stage: &Stage, journal: &Journal) -> bool {
    match stage {
        Stage::Steps(steps) => steps.iter().any(|step| journal.step(&step.name).is_some()),
        Stage::Wait(waiting) => journal.has_timer(&waiting.timer),
    }
}

fn of_steps(document: &Document, steps: &[Declared], journal: &Journal) -> Option<Next> {
    let mut todo = Vec::new();
    for step in steps {
        let is_settled = journal.step(&step.name).map(|known| match known.forward.state {
            State::Done | State::Skipped => true,
            State::Refused => step.may_be_refused,
            _ => false,
        });
        let is_wanted = match (is_settled, &step.when) {
            (Some(is_settled), _) => Ok(!is_settled),
            (None, None) => Ok(true),
            (None, Some(program)) => one(program, &seen(document.name.as_str(), None, journal))
                .map(|value| value != Value::Bool(false) && !value.is_null()),
        };
        match is_wanted {
            Ok(true) => todo.push(Todo::step(step.name.clone())),
            Ok(false) => {}
            Err(why) => return Some(Next::Stuck(why)),
        }
    }
    (!todo.is_empty()).then_some(Next::Do(todo))
}

fn of_waiting(waiting: &Waiting, journal: &Journal) -> Option<Next> {
    let Waiting { signal, at_most, aborts, timer } = waiting;
    if signal.as_ref().is_some_and(|signal| journal.signal(signal).is_some()) {
        return None;
    }
    if journal.has_fired(timer) {
        let missing = signal.as_deref().unwrap_or_default();
        return aborts.then(|| Next::Abort(format!("signal `{missing}` did not come in time")));
    }
    // Also where it may wait for ever: that it waited is what says, later on, that it was here.
    let timer = Some((timer.clone(), at_most.unwrap_or(Definition::MAX_SPAN)));
    Some(match signal {
        Some(signal) => Next::Signal(signal.clone(), timer),
        None => Next::Wait(timer),
    })
}
