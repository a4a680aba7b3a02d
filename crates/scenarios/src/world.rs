//! A scenario of the log in a simulated world: one node, and a host for each client.

use quorate_sim::Sim;

use crate::{
    Report,
    cast::Cast,
    hand::{Busy, Pace, Shared},
    node,
    notes::Notes,
};

/// Runs `cast` in `sim` and judges what they wrote down.
pub(crate) fn run(mut sim: Sim, cast: &Cast) -> Report {
    let (_, to) = node::add(&mut sim, "node");
    let pace = Pace { work_for: sim.faults_for(), ..Pace::SIMULATED };
    let shared = Shared { notes: Notes::of_world(&sim), phase: sim.phase(), busy: Busy::default(), pace };
    for member in cast.members(&shared.busy) {
        let shared = shared.clone();
        sim.client(&member.name.clone(), move |env| {
            let rng = env.random("hand");
            member.work(shared.hand(&member.name, env, rng, to))
        });
    }
    let mut outcome = sim.run();
    let notes = shared.notes.take();
    // Where the run did not come to its end, the notes are incomplete.
    let judgement = outcome.passed().then(|| cast.judge(&notes, pace));
    if let Some(judgement) = &judgement {
        outcome.find(judgement.found.iter().cloned());
        for (claim, _) in judgement.undecided() {
            outcome.reach(&format!("undecided: {claim}"));
        }
    }
    Report { outcome, notes, judgement }
}
