//! `quorate sim saga FILE`: a document's saga, through every course that it can take.

use std::collections::BTreeMap;

use clap::Args;
use quorate_consistency::saga::{
    Failure as Failed, Output,
    courses::{Course, Fault, Participants, courses},
    declared::{Caller, Document, Hands, Request},
};
use quorate_runtime::{BoxFuture, Env};
use serde_json::{Value, json};

use crate::{
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table},
    saga::{document, value},
};

/// What is tried, and with whom.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The saga's document, `*.yaml`, `*.toml` or `*.json`; `-` is YAML on standard input
    file: String,
    /// Participants turn away what was compensated before it came
    #[arg(long)]
    barrier: bool,
    /// What the saga is started with
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = value)]
    input: Value,
    /// What a step answers, as `reserve={"id":7}`; null if nothing is said
    #[arg(long, value_name = "STEP=JSON", value_parser = named)]
    answer: Vec<(String, Value)>,
    /// What the saga is told when it waits, in order, as `approval=true`
    #[arg(long, value_name = "SIGNAL=JSON", value_parser = named)]
    signal: Vec<(String, Value)>,
    /// Print every course, and not a line for each call and fault
    #[arg(long)]
    all: bool,
}

fn named(text: &str) -> Result<(String, Value), String> {
    let (name, json) = text.split_once('=').ok_or("a name, `=` and JSON stand here")?;
    Ok((name.to_owned(), value(json)?))
}

/// Nobody is called in a simulation.
struct Nobody;

impl Caller for Nobody {
    fn call(&self, _: Request) -> BoxFuture<'static, Result<Output, Failed>> {
        Box::pin(std::future::ready(Err(Failed::refused("nobody is called in a simulation"))))
    }
}

/// Runs every course and prints the table; fails where something is not as it should be.
pub(super) async fn run(options: Options, env: &Env, format: Format) -> Result<(), Failure> {
    let document: Document = document(&options.file, env).await?;
    let definition = document.definition(&Hands { caller: std::sync::Arc::new(Nobody), queues: None });
    let Options { barrier, input, answer, signal, .. } = options;
    let answers = answer.into_iter().collect::<BTreeMap<_, _>>();
    let participants = Participants { barrier, input, answers, signals: signal };
    let all = courses(&definition, &participants);
    let wrong = all.iter().filter(|course| !course.wrong.is_empty()).count();
    let mut out = Out::new();
    match format {
        Format::Json => {
            let shown: Vec<Value> = all.iter().map(shown).collect();
            out.json(&json!({ "saga": document.name().as_str(), "version": document.version(), "courses": shown, "wrong": wrong }))?;
            out.flush()?;
        }
        _ if options.all => every(&all).print(&mut out)?,
        _ => by_call(&all).print(&mut out)?,
    }
    if wrong > 0 {
        let what = format!("{wrong} of {} courses do not end as they should", all.len());
        return Err(Failure::new(Exit::Damaged, what).advise("`--all` shows each of them"));
    }
    crate::output::note(&format!("{} courses, and each ends as it should", all.len()));
    Ok(())
}

fn call_of(course: &Course) -> String {
    course.fault.as_ref().map_or_else(String::new, |(leg, _)| format!("{} {}", leg.step, leg.direction.word()))
}

fn fault_of(course: &Course) -> &'static str {
    course.fault.as_ref().map_or("nothing", |(_, fault)| fault.word())
}

fn shown(course: &Course) -> Value {
    json!({
        "refused": course.refused.as_deref(),
        "call": course.fault.as_ref().map(|(leg, _)| json!({ "step": &*leg.step, "direction": leg.direction.word() })),
        "fault": course.fault.as_ref().map(|(_, fault)| fault.word()),
        "status": course.status.word(),
        "calls": course.calls,
        "wrong": course.wrong,
    })
}

fn every(all: &[Course]) -> Table {
    let columns = ["REFUSED", "CALL", "FAULT", "ENDS", "WRONG"].map(Column::Left);
    let mut table = Table::new(columns);
    for course in all {
        let refused = course.refused.as_deref().unwrap_or_default();
        table.row([refused, &call_of(course), fault_of(course), course.status.word(), &course.wrong.join("; ")]);
    }
    table
}

/// A line for each call, a column for each fault: how the courses end, and `!` where one does not as it should.
fn by_call(all: &[Course]) -> Table {
    let mut columns = vec![Column::Left("CALL")];
    columns.extend(Fault::ALL.iter().map(|fault| Column::Left(heading(*fault))));
    let mut table = Table::new(columns);
    let mut calls: Vec<String> = Vec::new();
    for call in all.iter().filter(|course| course.fault.is_some()).map(call_of) {
        if !calls.contains(&call) {
            calls.push(call);
        }
    }
    for call in calls {
        let cell = |fault: Fault| {
            let here = all.iter().filter(|course| {
                call_of(course) == call && course.fault.as_ref().is_some_and(|(_, known)| *known == fault)
            });
            let mut ends: Vec<&str> = Vec::new();
            let mut is_wrong = false;
            for course in here {
                is_wrong |= !course.wrong.is_empty();
                if !ends.contains(&course.status.word()) {
                    ends.push(course.status.word());
                }
            }
            format!("{}{}", if is_wrong { "! " } else { "" }, ends.join(", "))
        };
        let mut row = vec![call.clone()];
        row.extend(Fault::ALL.map(cell));
        table.row(row);
    }
    table
}

fn heading(fault: Fault) -> &'static str {
    match fault {
        Fault::CrashBeforeCall => "CRASH BEFORE",
        Fault::CrashAfterEffect => "CRASH AFTER",
        Fault::CrashAfterRecord => "CRASH RECORDED",
        Fault::LostRequest => "REQUEST LOST",
        Fault::LostAnswer => "ANSWER LOST",
        Fault::Duplicate => "TWICE",
        Fault::LateArrival => "LATE",
    }
}
