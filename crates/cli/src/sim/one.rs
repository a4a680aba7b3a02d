//! One seed, in this process.

use std::path::PathBuf;

use quorate_runtime::Env;
use quorate_scenarios::{Report, Scenario};
use quorate_sim::{Settings, Sim};
use serde_json::{Value, json};

use super::{LeftOut, One, World, how_to_repeat, replay};
use crate::{
    exit::{Exit, Failure},
    output::{Format, Out, note},
};

/// Runs one seed and tells what came of it.
pub(super) async fn run(env: &Env, scenario: &'static Scenario, one: One, format: Format) -> Result<(), Failure> {
    let (world, left_out) = (one.world.clone(), one.left_out.clone());
    let report = simulate(env, scenario, one).await?;
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&document(scenario, &report))?,
        Format::Table => tell(&mut out, scenario, &report)?,
    }
    out.flush()?;
    verdict(scenario, &report, &left_out, &world)
}

/// Runs one seed and writes a page about it.
pub(super) async fn report(env: &Env, scenario: &'static Scenario, one: One, to: PathBuf) -> Result<(), Failure> {
    let (world, left_out) = (one.world.clone(), one.left_out.clone());
    let report = simulate(env, scenario, one).await?;
    let page = report.page(scenario, &replay(scenario, report.outcome.seed, &left_out, &world));
    let (disk, path) = (env.disk().clone(), to.clone());
    let written = env.run_blocking(move || {
        let mut file = disk.create(&path)?;
        file.write_all(page.as_bytes())?;
        file.sync()
    });
    written.await.map_err(|cause| Failure::io(to.display(), &cause))?;
    note(&format!("written to {}", to.display()));
    verdict(scenario, &report, &left_out, &world)
}

async fn simulate(env: &Env, scenario: &'static Scenario, one: One) -> Result<Report, Failure> {
    one.world.check()?;
    let LeftOut { without, without_client: absent, rounds } = one.left_out.clone();
    let settings = Settings { without, absent, rounds, print_trace: one.steps, ..one.world.settings() };
    // A world brings a runtime of its own, which cannot begin inside of this one.
    let report = env.run_blocking(move || scenario.run(Sim::new(one.seed, settings))).await;
    one.left_out.check(&report.outcome)?;
    Ok(report)
}

fn verdict(scenario: &Scenario, report: &Report, left_out: &LeftOut, world: &World) -> Result<(), Failure> {
    if report.outcome.passed() {
        return Ok(());
    }
    how_to_repeat(scenario, report.outcome.seed, left_out, world);
    let first = report.outcome.violations.first().map(ToString::to_string).unwrap_or_default();
    Err(Failure::new(Exit::Damaged, format!("seed {} fails: {first}", report.outcome.seed)))
}

/// What a run came to, for programs.
pub(super) fn document(scenario: &Scenario, report: &Report) -> Value {
    let outcome = &report.outcome;
    json!({
        "scenario": scenario.name,
        "seed": outcome.seed,
        "verdict": if outcome.passed() { "passed" } else { "failed" },
        "trace": outcome.trace,
        "steps": outcome.steps,
        "simulatedMillis": outcome.simulated_millis,
        "violations": outcome.violations,
        "claims": report.judgement.as_ref().map_or(&[][..], |judgement| judgement.claims.verdicts()),
        "rounds": report.rounds,
        "injected": outcome.injected,
        "reached": outcome.reached,
        "swarm": outcome.swarm,
        "clients": outcome.clients,
        "plan": outcome.plan,
        "without": outcome.without,
    })
}

fn tell(out: &mut Out, scenario: &Scenario, report: &Report) -> Result<(), Failure> {
    let outcome = &report.outcome;
    out.line(&format!("scenario   {}", scenario.name))?;
    out.line(&format!("seed       {}", outcome.seed))?;
    out.line(&format!("verdict    {}", if outcome.passed() { "passed" } else { "failed" }))?;
    let seconds = outcome.simulated_millis as f64 / 1_000.0;
    out.line(&format!("world      {seconds:.1} simulated seconds, {} steps", outcome.steps))?;
    out.line(&format!("trace      {}", outcome.trace))?;
    for (n, planned) in outcome.faults() {
        let fault = serde_json::to_string(&planned.fault).unwrap_or_default();
        out.line(&format!("fault {n:<4} {:>8.3} s  {fault}", planned.at().as_secs_f64()))?;
    }
    for (what, count) in outcome.injected.iter().chain(&outcome.reached) {
        out.line(&format!("{count:>9}  {what}"))?;
    }
    for violation in &outcome.violations {
        out.line(&format!("VIOLATED   {violation}"))?;
    }
    Ok(())
}
