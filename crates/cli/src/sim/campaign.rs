//! Many seeds, each in a process of its own, as many at a time as there are cores.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use quorate_scenarios::Scenario;
use quorate_sim::Outcome;
use serde_json::{Value, json};
use tokio::{process::Command, sync::Semaphore, task::JoinSet};

use super::{
    How, LeftOut, World, how_to_repeat,
    one::document,
    process::{self, Ended},
};
use crate::{
    exit::{Exit, Failure},
    output::{Format, Out, note},
};

/// So many seeds are enough to reach every state that a scenario must reach.
const ENOUGH: u64 = 100;

/// Seeds of machines alone that one thread runs in one go.
const STRETCH: u64 = 250;

/// When a campaign is over that was given a time.
#[derive(Clone, Copy)]
struct End {
    at: Mono,
    /// And not before it has come to this seed.
    least: u64,
}

impl End {
    fn has_come(self, env: &Env, next: u64) -> bool {
        next >= self.least && env.mono() >= self.at
    }
}

/// What many seeds came to together.
#[derive(Default)]
struct Totals {
    seeds: u64,
    simulated_millis: u64,
    injected: BTreeMap<String, u64>,
    reached: BTreeMap<String, u64>,
    /// In how many seeds each of these was.
    in_seeds: BTreeMap<String, u64>,
    /// How much each claim was held against.
    examined: BTreeMap<String, u64>,
}

impl Totals {
    fn count(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated_millis += outcome.simulated_millis;
        sum(&mut self.injected, &outcome.injected);
        sum(&mut self.reached, &outcome.reached);
        outcome.injected.keys().chain(outcome.reached.keys()).for_each(|what| self.meet(what));
    }

    /// One more seed had this.
    fn meet(&mut self, what: &str) {
        match self.in_seeds.get_mut(what) {
            Some(seeds) => *seeds += 1,
            None => drop(self.in_seeds.insert(what.to_owned(), 1)),
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated_millis += other.simulated_millis;
        sum(&mut self.injected, &other.injected);
        sum(&mut self.reached, &other.reached);
        sum(&mut self.in_seeds, &other.in_seeds);
        sum(&mut self.examined, &other.examined);
    }

    fn add(&mut self, told: &Value) {
        self.seeds += 1;
        self.simulated_millis += told["simulatedMillis"].as_u64().unwrap_or(0);
        for key in ["injected", "reached"] {
            for (what, count) in told[key].as_object().into_iter().flatten() {
                let into = if key == "injected" { &mut self.injected } else { &mut self.reached };
                *into.entry(what.clone()).or_default() += count.as_u64().unwrap_or(0);
                self.meet(what);
            }
        }
        for verdict in told["claims"].as_array().into_iter().flatten() {
            let claim = verdict["claim"].as_str().unwrap_or_default().to_owned();
            *self.examined.entry(claim).or_default() += verdict["examined"].as_u64().unwrap_or(0);
        }
    }
}

fn sum(into: &mut BTreeMap<String, u64>, counts: &BTreeMap<String, u64>) {
    for (what, count) in counts {
        match into.get_mut(what) {
            Some(known) => *known += count,
            None => drop(into.insert(what.clone(), *count)),
        }
    }
}

/// Runs seeds until all have passed, the time is over, or one fails.
pub(super) async fn run(env: &Env, scenario: &'static Scenario, how: &How, format: Format) -> Result<(), Failure> {
    how.world.check()?;
    let begun = env.mono();
    let last = if how.run_for.is_some() { u64::MAX } else { how.first.saturating_add(how.seeds) };
    let bar = bar(how);
    let least = how.first.saturating_add(how.at_least.unwrap_or(0));
    let end = how.run_for.map(|span| End { at: begun + span, least });
    let range = how.first..last;
    let (totals, failed) = match scenario.is_of_machines() {
        true => stretches(env, scenario, &how.world, range, end, &bar).await,
        false => seeds(env, scenario, &how.world, range, end, &bar).await?,
    };
    bar.finish_and_clear();
    if totals.seeds == 0 && failed.is_none() {
        return Err(Failure::new(Exit::Usage, "no seed was run: there was no time for one, or none is left"));
    }
    let took = env.mono().saturating_since(begun);
    tell(scenario, &totals, took, failed.as_ref(), format)?;
    let Some((seed, told)) = failed else {
        return all_reached(scenario, how, &totals);
    };
    how_to_repeat(scenario, seed, &LeftOut::default(), &how.world);
    Err(failure(seed, &told))
}

/// What is wrong first with a seed that failed, crashed or had no end.
fn failure(seed: u64, told: &Value) -> Failure {
    let first = told["violations"][0]["what"].as_str().or(told["stderr"].as_str()).unwrap_or("it said nothing");
    Failure::new(Exit::Damaged, format!("seed {seed} fails: {first}"))
}

/// Whether seeds that were enough reached what they must. What they prove is less than it seems where they did not.
fn all_reached(scenario: &Scenario, how: &How, totals: &Totals) -> Result<(), Failure> {
    let unreached = scenario.unreached(|state| totals.reached.contains_key(state));
    unreached.iter().for_each(|state| note(&format!("never reached: {state}")));
    let unexamined = scenario.unexamined(|claim| totals.examined.get(claim).copied().unwrap_or(0));
    unexamined.iter().for_each(|claim| note(&format!("never examined: {claim}")));
    let seldom = seldom_decided(scenario, totals);
    seldom.iter().for_each(|claim| note(&format!("often left undecided: {claim}")));
    // Of a hundred, two may be chance.
    if totals.seeds >= 10 * ENOUGH && !seldom.is_empty() {
        let what = format!("too many of {} seeds left undecided: {}", totals.seeds, seldom.join("; "));
        return Err(Failure::new(Exit::Damaged, what));
    }
    // In longer or other worlds, other states may be the rare ones.
    let usual = how.world.time.is_none() && how.world.out_of_contract.is_none();
    let missing = match (unreached.as_slice(), unexamined.as_slice()) {
        ([], []) => return Ok(()),
        ([], unexamined) => format!("examined: {}", unexamined.join("; ")),
        (unreached, _) => format!("reached: {}", unreached.join("; ")),
    };
    if totals.seeds < ENOUGH || !usual {
        return Ok(());
    }
    Err(Failure::new(Exit::Damaged, format!("{} seeds never {missing}", totals.seeds)))
}

fn seldom_decided(scenario: &Scenario, totals: &Totals) -> Vec<&'static str> {
    let undecided = |claim: &str| totals.reached.get(&format!("undecided: {claim}")).copied().unwrap_or(0);
    scenario.seldom_decided(totals.seeds, undecided)
}

/// Runs `range`, as many seeds at a time as there are cores, until one fails or `end` has come.
async fn seeds(
    env: &Env,
    scenario: &'static Scenario,
    world: &World,
    range: Range<u64>,
    end: Option<End>,
    bar: &ProgressBar,
) -> Result<(Totals, Option<(u64, Value)>), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (slots, mut running, mut totals) = (Arc::new(Semaphore::new(cores)), JoinSet::new(), Totals::default());
    let (mut next, mut failed) = (range.start, None);
    loop {
        let over = next >= range.end || failed.is_some() || end.is_some_and(|end| end.has_come(env, next));
        if over && running.is_empty() {
            return Ok((totals, failed));
        }
        if !over && let Ok(slot) = slots.clone().try_acquire_owned() {
            let (env, seed, world) = (env.clone(), next, world.clone());
            next += 1;
            running.spawn(async move {
                let told = in_a_process(&env, scenario, seed, &world).await;
                drop(slot);
                (seed, told)
            });
            continue;
        }
        let Some(Ok((seed, told))) = running.join_next().await else { continue };
        let told = told?;
        bar.inc(1);
        if told["verdict"] == "passed" {
            totals.add(&told);
        } else if failed.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
            failed = Some((seed, told));
        }
    }
}

/// Runs `range` in this process, a stretch at a time on every core, until one fails or `end` has come: machines alone share
/// nothing.
async fn stretches(
    env: &Env,
    scenario: &'static Scenario,
    world: &World,
    range: Range<u64>,
    end: Option<End>,
    bar: &ProgressBar,
) -> (Totals, Option<(u64, Value)>) {
    let (mut totals, mut failed, mut next) = (Totals::default(), None::<(u64, Value)>, range.start);
    let (cores, mut running) = (std::thread::available_parallelism().map_or(1, usize::from), JoinSet::new());
    loop {
        let over = next >= range.end || failed.is_some() || end.is_some_and(|end| end.has_come(env, next));
        if !over && running.len() < cores {
            let seeds = next..next.saturating_add(STRETCH).min(range.end);
            let (env, span) = (env.clone(), world.time);
            next = seeds.end;
            running.spawn(async move { env.run_blocking(move || stretch(scenario, seeds, span)).await });
            continue;
        }
        let Some(Ok((passed, first))) = running.join_next().await else { return (totals, failed) };
        bar.inc(passed.seeds);
        totals.merge(passed);
        failed = failed.into_iter().chain(first).min_by_key(|(seed, _)| *seed);
    }
}

fn stretch(scenario: &'static Scenario, seeds: Range<u64>, span: Option<Duration>) -> (Totals, Option<(u64, Value)>) {
    let mut totals = Totals::default();
    for seed in seeds {
        let Some(report) = scenario.run_machines(seed, span) else { break };
        if !report.outcome.passed() {
            return (totals, Some((seed, document(scenario, &report))));
        }
        totals.count(&report.outcome);
    }
    (totals, None)
}

/// Runs one seed in a process of its own and returns what it told.
async fn in_a_process(env: &Env, scenario: &Scenario, seed: u64, world: &World) -> Result<Value, Failure> {
    let own = std::env::current_exe().map_err(|cause| Failure::io("this executable", &cause))?;
    let mut command = Command::new(own);
    command.args(["sim", "run", scenario.name, "--seed", &seed.to_string(), "--output", "json"]);
    command.args(world.arguments());
    let output = match process::run(env, &mut command, world).await? {
        Ended::Alone(output) => output,
        Ended::Hung(told) => return Ok(told),
    };
    let told = serde_json::from_slice(&output.stdout);
    Ok(told.unwrap_or_else(|_| json!({ "verdict": "crashed", "stderr": String::from_utf8_lossy(&output.stderr) })))
}

fn bar(how: &How) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(how.seeds);
    if how.run_for.is_some() {
        bar.unset_length();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos} seeds, {per_sec}, {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn tell(
    scenario: &Scenario,
    totals: &Totals,
    took: Duration,
    failed: Option<&(u64, Value)>,
    format: Format,
) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let per_hour = totals.seeds as f64 / took.as_secs_f64().max(1e-9) * 3_600.0 / cores as f64;
    let mut out = Out::new();
    if format == Format::Json {
        out.json(&json!({
            "scenario": scenario.name,
            "verdict": if failed.is_some() { "failed" } else { "passed" },
            "passed": totals.seeds,
            "failed": failed.map(|(_, told)| told),
            "seconds": took.as_secs_f64(),
            "seedsPerHourAndCore": per_hour,
            "simulatedMillis": totals.simulated_millis,
            "injected": totals.injected,
            "reached": totals.reached,
            "inSeeds": totals.in_seeds,
            "unreached": scenario.unreached(|state| totals.reached.contains_key(state)),
            "examined": totals.examined,
            "seldomDecided": seldom_decided(scenario, totals),
            "unexamined": scenario.unexamined(|claim| totals.examined.get(claim).copied().unwrap_or(0)),
        }))?;
        return out.flush();
    }
    let hours = totals.simulated_millis as f64 / 3_600_000.0;
    out.line(&format!(
        "{}: {} seeds passed in {:.1} s, {per_hour:.0} an hour on each core, {hours:.2} simulated hours",
        scenario.name,
        totals.seeds,
        took.as_secs_f64(),
    ))?;
    for (what, count) in totals.injected.iter().chain(&totals.reached) {
        out.line(&format!("{count:>9}  {what}"))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_has_no_end_is_named_as_one_that_fails_is() {
        let hung = json!({ "verdict": "hung", "stderr": "it had not ended after 300 s" });
        assert!(failure(7, &hung).to_string().contains("seed 7 fails: it had not ended after 300 s"));
        let failed = json!({ "violations": [{ "rule": "a rule", "what": "something was lost" }] });
        assert!(failure(8, &failed).to_string().contains("seed 8 fails: something was lost"));
    }

    #[test]
    fn claims_that_were_left_undecided_fail_a_campaign_of_enough_seeds() {
        let scenario = quorate_scenarios::find("appends").unwrap();
        let judged = |seeds: u64, undecided: u64| {
            let sometimes = scenario.sometimes.iter().map(|state| ((*state).to_owned(), 1));
            let left = (format!("undecided: {}", scenario.claims[0]), undecided);
            let examined = scenario.claims.iter().map(|claim| ((*claim).to_owned(), 1)).collect();
            let totals = Totals { seeds, reached: sometimes.chain([left]).collect(), examined, ..Totals::default() };
            let how = How { seeds, first: 0, seed: None, run_for: None, at_least: None, world: World::default() };
            all_reached(scenario, &how, &totals)
        };
        assert!(judged(1_000, 15).is_ok());
        let told = judged(1_000, 16).unwrap_err().to_string();
        assert!(told.contains(scenario.claims[0]), "{told}");
        assert!(judged(10, 9).is_ok(), "ten seeds say little either way");
    }
}
