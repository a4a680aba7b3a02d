//! A scenario of the log in a simulated world: one node, and a host for each client.

use std::collections::BTreeMap;

use quorate_runtime::Env;
use quorate_sim::{OutOfContract, Sim};

use crate::{
    Report,
    cast::Cast,
    hand::{Busy, Pace, Shared},
    judge::Contract,
    node,
    notes::Notes,
};

/// Runs `cast` in `sim` and judges what they wrote down.
pub(crate) fn run(mut sim: Sim, cast: &Cast) -> Report {
    let (node, to) = node::add(&mut sim, "node");
    let pace = Pace { work_for: sim.faults_for(), rounds: sim.rounds_or(usize::MAX), ..Pace::SIMULATED };
    let verifies = cast.heals() && sim.out_of_contract().is_none();
    let shared = Shared { notes: Notes::of_world(&sim), phase: sim.phase(), busy: Busy::default(), pace, verifies };
    let mut clients = BTreeMap::new();
    for member in cast.members(&shared.busy) {
        let (shared, name, is_witness) = (shared.clone(), member.name.clone(), member.is_witness);
        let work = move |env: Env| {
            let rng = env.random("hand");
            member.work(shared.hand(&member.name, env, rng, to))
        };
        let host = if is_witness { sim.witness(&name, work) } else { sim.client(&name, work) };
        clients.insert(name, host);
    }
    cast.set(&mut sim, node, &clients);
    let is_waited_for = |name: &str, host| !sim.is_absent(name) && !sim.is_cut_off_for_good(host);
    clients.iter().filter(|(name, host)| !is_waited_for(name, **host)).for_each(|(name, _)| shared.busy.end(name));
    let contract = match sim.out_of_contract() {
        Some(OutOfContract::LyingSync) => Contract::Lying,
        None if sim.swarm().rot => Contract::Rotten,
        None => Contract::Whole,
    };
    let mut outcome = sim.run();
    let (rounds, notes) = (shared.notes.rounds(), shared.notes.take());
    // Where the run did not come to its end, the notes are incomplete.
    let judgement = outcome.passed().then(|| cast.judge(&notes, pace, contract));
    if let Some(judgement) = &judgement {
        outcome.find(judgement.found.iter().cloned());
        for (claim, _) in judgement.undecided() {
            outcome.reach(&format!("undecided: {claim}"));
        }
    }
    Report { outcome, notes, rounds, judgement }
}
