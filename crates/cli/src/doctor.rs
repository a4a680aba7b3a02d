//! `quorate doctor`: what ails the database that holds the store, and what to do about it.

use std::time::Duration;

use clap::Args;
use quorate_data::store::{
    StoreError,
    postgres::doctor::{self, Finding, Severity, Thresholds},
};
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    configuration::Configuration,
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table, note},
};

/// Which database, and from when on something counts.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long a transaction may be open or prepared
    #[arg(long, value_name = "SPAN", default_value = "1m", value_parser = crate::span)]
    older_than: Duration,
    /// How far the server's clock may be from this machine's
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = crate::span)]
    clock: Duration,
    #[command(flatten)]
    configuration: Configuration,
}

/// Looks, prints what was found, and fails if that is more than notes.
pub(crate) async fn run(env: &Env, options: &Options, format: Format) -> Result<(), Failure> {
    let config = options.configuration.load(env).await?;
    let Some(database) = config.postgres() else {
        let what = "no database is named: the doctor looks at the PostgreSQL that holds a store";
        let advice = "name it with --store postgres://…; the embedded store is checked with `quorate store verify`";
        return Err(Failure::new(Exit::Usage, what).advise(advice));
    };
    let thresholds = Thresholds { old: options.older_than, clock: options.clock, ..Thresholds::default() };
    let found = doctor::examine(env, &database, thresholds).await.map_err(|cause| failed(&cause))?;
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&json!({
            "database": database.address.to_string(),
            "schema": database.schema,
            "findings": found.iter().map(document).collect::<Vec<Value>>(),
        }))?,
        Format::Table => table(&found).print(&mut out)?,
    }
    out.flush()?;
    let bad = found.iter().filter(|finding| finding.severity > Severity::Note).count();
    if bad == 0 {
        note(&format!("nothing ails {}", database.address));
        return Ok(());
    }
    let things = if bad == 1 { "thing" } else { "things" };
    Err(Failure::new(Exit::Ailing, format!("{bad} {things} to mend in {}", database.address)))
}

fn table(found: &[Finding]) -> Table {
    let mut table = Table::new(["SEVERITY", "ABOUT", "WHAT IS SO", "WHAT TO DO"].map(Column::Left));
    for finding in found {
        table.row([finding.severity.word(), finding.about, &finding.what, &finding.advice]);
    }
    table
}

fn document(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.word(),
        "about": finding.about,
        "what": finding.what,
        "advice": finding.advice,
    })
}

fn failed(cause: &StoreError) -> Failure {
    match cause {
        StoreError::Unreachable { .. } => {
            Failure::of(Exit::Unavailable, cause).advise("see whether the database runs and the address names it")
        }
        StoreError::TimedOut { .. } | StoreError::Busy => {
            Failure::of(Exit::Unavailable, cause).advise("try again when it has less to do")
        }
        _ => Failure::of(Exit::Failed, cause),
    }
}
