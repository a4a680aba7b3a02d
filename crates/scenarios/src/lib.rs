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
pub use log::import::bring_in_instead;
pub use notes::{Action, Handling, Note, Refusal, Seen, Told};

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
        match self.play {
            Play::Log(cast) => world::run(sim, &cast()),
            Play::Own(run) => run(sim),
            Play::Machines(play) => machines::run(play, sim.seed(), sim.faults_for(), sim.rounds_or(usize::MAX) as u64),
        }
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

    /// Its clients, for a node that really runs; `None` where there is none to run.
    pub fn hands(&self) -> Option<Hands> {
        match self.play {
            Play::Log(cast) => Some(cast()).filter(|cast| !cast.needs_a_world()).map(Hands::new),
            Play::Own(_) | Play::Machines(_) => None,
        }
    }
}

/// Every scenario, in order of names.
pub fn all() -> &'static [Scenario] {
    const ALL: &[Scenario] = &[
        Scenario {
            name: "appends",
            about: "clients append to shared streams on expectations and conditions, repeat what nobody answered, and read",
            sometimes: &[
                "store: a group failed, and its members ran again",
                "store: an append was known already",
                "store: the disk was full",
                "store: the log was written back",
                "store: the tail became index",
                "store: the tail was read back",
            ],
            claims: &[
                "nothing acknowledged is lost",
                "appends took effect at the versions they expected",
                "conditions of appends are honoured",
                "every stream is linearizable, expected versions and repeats included",
                "every reader saw a part of one and the same log",
                "a read with a token sees what the token stands for",
                "order of commits",
            ],
            play: Play::Log(log::appends::cast),
        },
        Scenario {
            name: "bit-rot",
            about: "bits of the log's files flip while clients append and read: whatever is served is what was sent",
            sometimes: &["store: damage was found at opening", "store: damage was found while reading"],
            claims: &["served as sent", "no hole in the log"],
            play: Play::Log(log::broken::bit_rot),
        },
        Scenario {
            name: "commands",
            about: "clients send commands under keys until they are answered, repeat them, and ask a view with the tokens of the answers",
            sometimes: &["command: a kept answer was given"],
            claims: &[
                "a command is decided on what there is",
                "a key has one effect",
                "a question sees the command",
                "an answer stays the answer",
                "the view is the fold of the log",
            ],
            play: Play::Own(commands::run),
        },
        Scenario {
            name: "cut-off",
            about: "half of the clients are cut off for good, and the others are served as ever",
            sometimes: &["store: the tail was read back"],
            claims: &["nothing acknowledged is lost", "a read with a token sees what the token stands for"],
            play: Play::Log(log::broken::cut_off),
        },
        Scenario {
            name: "failed-sync",
            about: "syncs of the disk fail, so that nobody knows what is durable: the node ends itself, starts again, and lacks nothing",
            sometimes: &["a server ended itself", "store: the tail was read back"],
            claims: &[
                "nothing acknowledged is lost",
                "every stream is linearizable, expected versions and repeats included",
            ],
            play: Play::Log(log::broken::failed_sync),
        },
        Scenario {
            name: "followers",
            about: "clients follow the log by server-sent events while others append, and come back whenever the stream breaks",
            sometimes: &[
                "sse: a follower came back",
                "store: the tail was read back",
                "subscription: a follower fell behind",
            ],
            claims: &[
                "every subscriber sees every event once and in order",
                "a heartbeat says that everything was told",
            ],
            play: Play::Log(log::followers::cast),
        },
        Scenario {
            name: "full-disk",
            about: "the disk is full for good, and what was acknowledged can still be read",
            sometimes: &["store: the disk was full"],
            claims: &["nothing acknowledged is lost"],
            play: Play::Log(log::broken::full_disk),
        },
        Scenario {
            name: "import",
            about: "clients bring in the same loan applications under the same keys, from the beginning each, until all are there",
            sometimes: &[
                "idempotency: a kept reply was given",
                "store: an append was known already",
                "store: the tail became index",
            ],
            claims: &[
                "every imported line is in the log once and in order",
                "the log folds as the lines count",
                "whoever brought in an application reads all of it",
            ],
            play: Play::Log(log::import::cast),
        },
        Scenario {
            name: "keys",
            about: "clients repeat requests under their idempotency keys, refused ones too, also much later",
            sometimes: &["idempotency: a kept reply was given", "idempotency: the first request was still being done"],
            claims: &["one idempotency key has one answer and one effect"],
            play: Play::Log(log::keys::cast),
        },
        Scenario {
            name: "machines-hlc",
            about: "hybrid clocks alone stamp, send and receive, while wall clocks jump and nodes crash",
            sometimes: &[
                "hlc: a node crashed while it made its mark durable",
                "hlc: a stamp from the future was refused",
                "hlc: a stamp ran ahead of its wall clock",
            ],
            claims: &[],
            play: Play::Machines(machines::hlc::play),
        },
        Scenario {
            name: "machines-subscription",
            about: "the machine of a durable subscription alone, in three processes with clocks of their own over the same rows",
            sometimes: &[
                "subscription: a lease was taken over",
                "subscription: an event was handed out again",
                "subscription: another process was first",
                "subscription: leases were read back",
            ],
            claims: &[],
            play: Play::Machines(machines::subscription::play),
        },
        Scenario {
            name: "outage",
            about: "an upstream dies and returns under load, behind three hops with a bulkhead and a circuit each, and is left alone while it is ill",
            sometimes: &[
                "breaker: a call was refused",
                "breaker: a circuit closed again",
                "bulkhead: a call found no place",
                "retry: a call was sent again",
            ],
            claims: &[
                "an open circuit lets only probes through",
                "calls succeed again once all is well",
                "no place is kept that nothing is done in",
                "retries stay within the budget",
            ],
            play: Play::Own(resilience::outage::run),
        },
        Scenario {
            name: "queue",
            about: "workers share a message queue, are slow and forget what they hold; some messages become dead letters, and are replayed or given up; others are sent by schedules, while clocks are set",
            sometimes: &[
                "queue: a missed moment was made up for",
                "queue: a schedule found the clock set back",
                "queue: a schedule's message was sent",
                "queue: a dead letter was replayed",
                "queue: a lease ran out and its message was handed out again",
                "queue: a lease was lost",
                "queue: a message became a dead letter",
                "queue: a round was not written",
                "queue: its messages were read",
            ],
            claims: &[
                "a lease has at most one live holder",
                "a lost lease settles nothing",
                "attempts are counted",
                "done for good",
                "handed out as sent",
                "no message is lost",
                "no moment is left out",
                "one message of a key",
                "order of groups",
            ],
            play: Play::Log(queues::cast),
        },
        Scenario {
            name: "retention",
            about: "clients append, forget old events by hand and by rules that come and go, and send old appends once more",
            sometimes: &["store: an append was known already", "store: several blocks were rewritten at once"],
            claims: &["no event is in the log twice", "forgotten for good", "gone for a reason", "rules hide at once"],
            play: Play::Log(log::retention::cast),
        },
        Scenario {
            name: "retry-storm",
            about: "an upstream dies and returns under load, behind three hops that could each retry, and is not kept down by it",
            sometimes: &["retry: a call was sent again", "retry: another hop retries", "retry: the budget was spent"],
            claims: &["calls succeed while all is well", "one hop retries", "retries stay within the budget"],
            play: Play::Own(resilience::storm::run),
        },
        Scenario {
            name: "stamps",
            about: "a service hands out stamps of a hybrid clock whose mark lies in a store, and never repeats one",
            sometimes: &["hybrid clock: the mark was read back"],
            claims: &["no stamp is given twice", "stamps grow"],
            play: Play::Own(log::stamps::run),
        },
        Scenario {
            name: "views",
            about: "views keep up with a log, are fenced, poisoned, parked, rebuilt and switched, and end as the fold of it",
            sometimes: &[
                "view: an event could not be applied",
                "view: an owner was fenced",
                "view: readers were given another build",
                "view: whoever stood by took over",
            ],
            claims: &[
                "a checkpoint moves over what does not matter",
                "a rebuild sends nothing again",
                "a recount of the log agrees",
                "a view is the fold of the log",
                "every letter is sent",
                "readers see no half-built view",
                "rows are of the position they say",
            ],
            play: Play::Own(views::run),
        },
        Scenario {
            name: "workers",
            about: "workers share a durable subscription, are slow, die and come back, while others append",
            sometimes: &[
                "subscription: a lease was taken over",
                "subscription: an event was handed out again",
                "subscription: leases were read back",
            ],
            claims: &[
                "a lease has at most one live holder",
                "acknowledged for good",
                "every event handed out",
                "order of streams",
            ],
            play: Play::Log(log::workers::cast),
        },
    ];
    ALL
}

/// The scenario called `name`.
pub fn find(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}
