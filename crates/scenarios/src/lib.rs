//! Whole-product simulations by name and seed.
//!
//! A scenario is a world with nodes in it (`node::serve` itself), clients that use them over HTTP and write down what they asked
//! and what they were told, and judges who read the notes once everything has come to rest. One seed is one world: the
//! same number gives the same faults at the same moments and the same answers.

mod asked;
mod cast;
mod client;
mod commands;
mod forgotten;
mod hand;
pub mod hands;
mod judge;
mod list;
mod log;
mod machines;
#[cfg(feature = "museum")]
pub mod museum;
mod node;
mod notes;
mod page;
mod queues;
mod resilience;
mod rule;
mod views;
mod world;

use std::time::Duration;

use quorate_sim::{Outcome, Sim, check::Verdict};

use self::{cast::Cast, hands::Hands};

pub use commands::{Answer, Dealing, Entry, Held, Ledger};
pub use judge::Judgement;
pub use list::all;
pub use log::import::bring_in_instead;
pub use notes::{Action, Handling, Note, Refusal, Seen, Told};

/// One of so many seeds knows every family of faults: there are six, and each is known to half of the seeds.
const EVERY_FAMILY: u64 = 1 << 6;

/// A simulation with a name.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens in it, in a line.
    pub about: &'static str,
    /// Rare states that many seeds together must reach.
    pub sometimes: &'static [&'static str],
    /// Claims that it is about: many seeds together must have held something against each.
    pub claims: &'static [&'static str],
    play: Play,
}

/// How a scenario is run.
enum Play {
    /// One node and clients of its log.
    Log(fn() -> Cast),
    /// A world of its own.
    Own(fn(Sim) -> Report),
    /// Machines alone.
    Machines(machines::Play),
}

/// What became of a run, and what its clients wrote down.
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// What clients wrote down, in the order in which it was over.
    pub notes: Vec<Note>,
    /// The most rounds of work that a client did, where the scenario counts them: to allow no more changes nothing.
    pub rounds: u64,
    /// What checkers say of it; `None` where they had nothing to look at, or the run did not come to its end.
    pub judgement: Option<Judgement>,
}

impl Report {
    /// The run as a page with a timeline, complete in itself; `again` is the command that runs it again.
    pub fn page(&self, scenario: &Scenario, again: &str) -> String {
        page::render(scenario, self, again)
    }

    /// The run with what a scenario's own rules say of its notes, if it came to its end.
    fn judged(
        mut outcome: Outcome,
        notes: Vec<Note>,
        rounds: u64,
        judge: impl FnOnce(&[Note]) -> Vec<Verdict>,
    ) -> Self {
        let judgement = outcome.passed().then(|| Judgement::of_rules(judge(&notes)));
        if let Some(judgement) = &judgement {
            outcome.find(judgement.found.iter().cloned());
        }
        Self { outcome, notes, rounds, judgement }
    }

    /// What was judged, and how much each claim was held against; those that are broken or undecided are left out.
    pub fn examined(&self) -> impl Iterator<Item = (&str, u64)> {
        let verdicts = self.judgement.iter().flat_map(|judgement| judgement.claims.verdicts());
        verdicts.filter_map(|verdict| Some((verdict.claim.as_str(), verdict.examined()?)))
    }
}

impl Scenario {
    /// Runs the scenario in `sim`.
    pub fn run(&self, sim: Sim) -> Report {
        let mut report = match self.play {
            Play::Log(cast) => world::run(sim, &cast()),
            Play::Own(run) => run(sim),
            Play::Machines(play) => machines::run(play, sim.seed(), sim.faults_for(), sim.rounds_or(usize::MAX) as u64),
        };
        let ended = rule::ended_for_nothing(&report.outcome);
        report.outcome.find(ended);
        report
    }

    /// Whether it is of machines alone.
    pub fn is_of_machines(&self) -> bool {
        matches!(self.play, Play::Machines(_))
    }

    /// Whether it has servers with disks, to which everything happens that a seed can know.
    pub fn meets_faults(&self) -> bool {
        !self.is_of_machines() && !matches!(self.name, "outage" | "retry-storm")
    }

    /// Runs `seed` for `span` of its own time in this process, whatever else ran in it before; `None` where the scenario has
    /// worlds, of which a process can hold one.
    pub fn run_machines(&self, seed: u64, span: Option<Duration>) -> Option<Report> {
        match self.play {
            Play::Machines(play) => Some(machines::run(play, seed, span, u64::MAX)),
            Play::Log(_) | Play::Own(_) => None,
        }
    }

    /// Rare states that seeds together had to reach, and did not: what they prove then is less than it seems.
    pub fn unreached(&self, reached: impl Fn(&str) -> bool) -> Vec<&'static str> {
        self.sometimes.iter().copied().filter(|state| !reached(state)).collect()
    }

    /// Claims that it is about and that seeds together held against nothing: they prove nothing of them.
    pub fn unexamined(&self, examined: impl Fn(&str) -> u64) -> Vec<&'static str> {
        self.claims.iter().copied().filter(|claim| examined(claim) == 0).collect()
    }

    /// Claims that it is about and that were left undecided in so many of `seeds` that all of those in which everything goes wrong at
    /// once may be among them; `undecided` says in how many. They prove less than it seems, too: it is not by chance which worlds
    /// take a checker's whole budget, but those in which most is under way at once, where a bug is likeliest.
    pub fn seldom_decided(&self, seeds: u64, undecided: impl Fn(&str) -> u64) -> Vec<&'static str> {
        self.claims.iter().copied().filter(|claim| undecided(claim).saturating_mul(EVERY_FAMILY) > seeds).collect()
    }

    /// Its clients, for a node that really runs; `None` where there is none to run.
    pub fn hands(&self) -> Option<Hands> {
        match self.play {
            Play::Log(cast) => Some(cast()).filter(|cast| !cast.needs_a_world()).map(Hands::new),
            Play::Own(_) | Play::Machines(_) => None,
        }
    }
}

/// The scenario called `name`.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}
