//! Fewer faults that still fail: whoever reads a failure should not have to think about the ones that do not matter.

use std::process::Stdio;

use quorate_scenarios::Scenario;
use serde_json::{Value, json};
use tokio::process;

use super::World;
use crate::{
    exit::{Exit, Failure},
    output::{Format, Out, note},
};

/// Leaves out as many faults of a failing seed as it can, halves first, then smaller pieces (delta debugging).
///
/// Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input" (2002).
pub(super) async fn run(scenario: &'static Scenario, seed: u64, world: &World, format: Format) -> Result<(), Failure> {
    world.check()?;
    let whole = attempt(scenario, seed, world, &[]).await?;
    let Some(rule) = rule_of(&whole) else {
        return Err(Failure::new(Exit::Refused, format!("seed {seed} of {} does not fail", scenario.name)));
    };
    let count = whole["plan"].as_array().map_or(0, Vec::len);
    let (mut kept, mut piece) = ((0..count).collect::<Vec<_>>(), count.div_ceil(2).max(1));
    loop {
        let mut smaller = false;
        let mut at = 0;
        while at < kept.len() {
            let end = (at + piece).min(kept.len());
            let candidate: Vec<usize> = [&kept[..at], &kept[end..]].concat();
            if rule_of(&attempt(scenario, seed, world, &left_out(count, &candidate)).await?).as_ref() == Some(&rule) {
                note(&format!("{} of {count} faults still fail", candidate.len()));
                (kept, smaller) = (candidate, true);
            } else {
                at = end;
            }
        }
        if piece == 1 && !smaller {
            break;
        }
        piece = piece.div_ceil(2).max(1);
    }
    let without = left_out(count, &kept);
    let list = without.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let world: String = world.arguments().iter().map(|argument| format!(" {argument}")).collect();
    let again = format!("quorate sim replay {} --seed {seed}{world}", scenario.name);
    let again = if list.is_empty() { again } else { format!("{again} --without {list}") };
    let mut out = Out::new();
    match format {
        Format::Json => {
            out.json(&json!({ "seed": seed, "kept": kept, "without": without, "rule": rule, "replay": again }))?
        }
        Format::Table => {
            for n in &kept {
                out.line(&format!("fault {n:<4} {}", whole["plan"][n]))?;
            }
            out.line(&again)?;
        }
    }
    out.flush()
}

fn left_out(count: usize, kept: &[usize]) -> Vec<usize> {
    (0..count).filter(|n| !kept.contains(n)).collect()
}

/// The rule that the run violated first.
fn rule_of(told: &Value) -> Option<String> {
    told["violations"][0]["rule"].as_str().map(str::to_owned)
}

async fn attempt(scenario: &Scenario, seed: u64, world: &World, without: &[usize]) -> Result<Value, Failure> {
    let own = std::env::current_exe().map_err(|cause| Failure::io("this executable", &cause))?;
    let mut command = process::Command::new(own);
    command.args(["sim", "replay", scenario.name, "--seed", &seed.to_string(), "--output", "json"]);
    command.args(world.arguments());
    if !without.is_empty() {
        command.args(["--without", &without.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")]);
    }
    let output = command.stdin(Stdio::null()).output().await;
    let output = output.map_err(|cause| Failure::io("a process for a seed", &cause))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| Failure::new(Exit::Failed, String::from_utf8_lossy(&output.stderr).into_owned()))
}
