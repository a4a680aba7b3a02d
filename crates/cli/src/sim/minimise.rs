//! Less of a world that still fails: whoever reads a failure should not have to think about what does not matter.

mod search;

use quorate_runtime::Env;
use quorate_scenarios::Scenario;
use serde_json::{Value, json};
use tokio::process::Command;

use self::search::Kept;
use super::{
    LeftOut, World,
    process::{self, Ended},
    replay,
};
use crate::{
    exit::{Exit, Failure},
    output::{Format, Out, note},
};

/// A failing seed, whole.
struct Failing<'w> {
    env: &'w Env,
    scenario: &'static Scenario,
    seed: u64,
    world: &'w World,
    /// What it violates first.
    rule: String,
    /// How many faults it has.
    faults: usize,
    clients: Vec<String>,
}

/// Leaves out as many clients, rounds of their work and faults of a failing seed as it can.
pub(super) async fn run(
    env: &Env,
    scenario: &'static Scenario,
    seed: u64,
    world: &World,
    format: Format,
) -> Result<(), Failure> {
    world.check()?;
    let whole = attempt(env, scenario, seed, world, &LeftOut::default()).await?;
    if whole["verdict"] == "hung" {
        let why = whole["stderr"].as_str().unwrap_or_default();
        let what = format!("seed {seed} of {} cannot be made smaller: {why}", scenario.name);
        return Err(Failure::new(Exit::Refused, what));
    }
    let Some(rule) = rule_of(&whole) else {
        return Err(Failure::new(Exit::Refused, format!("seed {seed} of {} does not fail", scenario.name)));
    };
    let faults = whole["plan"].as_array().map_or(0, Vec::len);
    let clients = whole["clients"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let failing = Failing { env, scenario, seed, world, rule, faults, clients: clients.collect() };
    let all = Kept { faults: (0..faults).collect(), clients: failing.clients.clone(), rounds: None };
    let most_rounds = whole["rounds"].as_u64().unwrap_or(0);
    let kept = search::least(all, most_rounds, async |kept: &Kept| failing.still_fails(kept).await).await?;
    failing.tell(&whole, &kept, format)
}

impl Failing<'_> {
    async fn still_fails(&self, kept: &Kept) -> Result<bool, Failure> {
        let told = attempt(self.env, self.scenario, self.seed, self.world, &self.without(kept)).await?;
        let fails = rule_of(&told).as_ref() == Some(&self.rule);
        if fails {
            let rounds = kept.rounds.map_or("all".to_owned(), |rounds| rounds.to_string());
            let (faults, clients) = (kept.faults.len(), kept.clients.len());
            note(&format!("{faults} faults, {clients} clients and {rounds} rounds of work still fail"));
        }
        Ok(fails)
    }

    fn without(&self, kept: &Kept) -> LeftOut {
        LeftOut {
            without: (0..self.faults).filter(|place| !kept.faults.contains(place)).collect(),
            without_client: self.clients.iter().filter(|name| !kept.clients.contains(name)).cloned().collect(),
            rounds: kept.rounds,
        }
    }

    fn tell(&self, whole: &Value, kept: &Kept, format: Format) -> Result<(), Failure> {
        let without = self.without(kept);
        let again = replay(self.scenario, self.seed, &without, self.world);
        let mut out = Out::new();
        match format {
            Format::Json => out.json(&json!({
                "seed": self.seed,
                "rule": self.rule,
                "kept": kept.faults,
                "without": without.without,
                "clients": kept.clients,
                "rounds": kept.rounds,
                "replay": again,
            }))?,
            Format::Table => {
                for place in &kept.faults {
                    out.line(&format!("fault {place:<4} {}", whole["plan"][place]))?;
                }
                kept.clients.iter().try_for_each(|name| out.line(&format!("client     {name}")))?;
                if let Some(rounds) = kept.rounds {
                    out.line(&format!("rounds     {rounds}"))?;
                }
                out.line(&format!("violated   {}", self.rule))?;
                out.line(&again)?;
            }
        }
        out.flush()
    }
}

/// The rule that the run violated first.
fn rule_of(told: &Value) -> Option<String> {
    told["violations"][0]["rule"].as_str().map(str::to_owned)
}

async fn attempt(
    env: &Env,
    scenario: &Scenario,
    seed: u64,
    world: &World,
    without: &LeftOut,
) -> Result<Value, Failure> {
    let own = std::env::current_exe().map_err(|cause| Failure::io("this executable", &cause))?;
    let mut command = Command::new(own);
    command.args(["sim", "replay", scenario.name, "--seed", &seed.to_string(), "--output", "json"]);
    command.args(world.arguments()).args(without.arguments());
    let output = match process::run(env, &mut command, world).await? {
        Ended::Alone(output) => output,
        Ended::Hung(told) => return Ok(told),
    };
    serde_json::from_slice(&output.stdout)
        .map_err(|_| Failure::new(Exit::Failed, String::from_utf8_lossy(&output.stderr).into_owned()))
}
