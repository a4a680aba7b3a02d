//! What is said at the end.

use serde_json::{Value, json};

use super::{Options, desk::Desk, judge::Books, plan::Kind, tally::Tally};
use crate::{
    exit::Failure,
    output::{Column, Format, Out, Table, note},
};

/// Says what happened, and what does not hold.
pub(super) fn show(tally: &Tally, books: &Books, seed: u64, options: &Options, output: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if output == Format::Json {
        out.line(&document(tally, books, seed, options).to_string())?;
        return out.flush();
    }
    let (placed, answered) = tally.orders();
    let mut table = Table::new([Column::Left("WHAT"), Column::Right("COUNT")]);
    let cents = books.at_the_bank();
    let counts = [
        ("orders placed", placed.to_string()),
        ("  taken", answered.to_string()),
        ("  completed", books.count("completed").to_string()),
        ("  cancelled, and all of it undone", books.count("cancelled").to_string()),
        ("  under way", books.count("open").to_string()),
        ("mails sent", books.mails_sent().to_string()),
        ("  to addresses that do not exist: dead letters", books.dead().to_string()),
        ("moved to the merchant's bank", format!("{}.{:02}", cents / 100, cents % 100)),
    ];
    counts.into_iter().for_each(|(what, count)| table.row([what.to_owned(), count]));
    let faults = tally.faults();
    table.row([
        "sums of a service that were looked at meanwhile".to_owned(),
        tally.checks().values().sum::<u64>().to_string(),
    ]);
    for kind in Kind::ALL {
        table.row([said(kind).to_owned(), faults.get(&kind).copied().unwrap_or(0).to_string()]);
    }
    table.print(&mut out)?;
    out.line("")?;
    let violations = tally.violations();
    if violations.is_empty() {
        out.line("Nothing was lost, doubled or left half done.")?;
    } else {
        out.line(&format!("{} violations:", violations.len()))?;
        for what in &violations {
            out.line(&format!("  {what}"))?;
        }
    }
    let span = options.duration.as_secs_f64();
    out.line(&format!("The same plan again: quorate demo --seed {seed} --duration {span}s --rate {}", options.rate))?;
    out.flush()
}

fn said(kind: Kind) -> &'static str {
    match kind {
        Kind::Kill => "processes killed",
        Kind::Pause => "processes suspended",
        Kind::Slow => "slow connections",
        Kind::Partition => "services cut off",
        Kind::Flaky => "outages of the payment provider",
    }
}

fn document(tally: &Tally, books: &Books, seed: u64, options: &Options) -> Value {
    let (placed, answered) = tally.orders();
    let faults = tally.faults();
    let faults: serde_json::Map<_, _> =
        Kind::ALL.iter().map(|kind| (kind.word().to_owned(), faults.get(kind).copied().unwrap_or(0).into())).collect();
    json!({
        "seed": seed,
        "duration": options.duration.as_secs_f64(),
        "orders": placed,
        "taken": answered,
        "completed": books.count("completed"),
        "cancelled": books.count("cancelled"),
        "open": books.count("open"),
        "mails": { "sent": books.mails_sent(), "dead": books.dead() },
        "settled-cents": books.at_the_bank(),
        "faults": faults,
        "checks": tally.checks().values().sum::<u64>(),
        "violations": tally.violations(),
    })
}

/// Where everything is, for whoever wants to look at it.
pub(super) fn places(desk: &Desk) {
    note(
        "Everything goes on running until Ctrl-C. The services' nodes, each with a log, views, queues, webhooks and sagas:",
    );
    for member in &desk.members {
        if let Some(place) = member.place() {
            note(&format!("  {:<14} quorate --server {} log read", member.name(), place.node));
        }
    }
}
