//! Bugs that were planted in the product, each of a kind that somebody once shipped.
//!
//! Whether the simulator finds bugs is only known by planting some. Each must be found within 200 seeds by the promise that it
//! breaks: that anything fails is not enough, for then it would be as good as found by a client that gave up. Seeds in which the node
//! itself notices first, and refuses to go on, do not count either. The seed that finds it must pass without it. Judges know nothing
//! of the bugs. A feature that no release has compiles them in.
//!
//! Source: the etcd robustness tests, which keep a table of past bugs and find each of them again.

/// Each bug is found within so many seeds of its scenario.
pub const SEEDS: u64 = 200;

/// A bug.
pub struct Piece {
    /// Its name: what the product is asked whether it is planted.
    pub name: &'static str,
    /// The scenario that finds it.
    pub scenario: &'static str,
    /// What is wrong, in a line.
    pub about: &'static str,
    /// What it breaks: claims of the scenario. One of these fails first in the seed that finds it.
    pub found_by: &'static [&'static str],
    /// A seed that found it, so that a test need not look for one; any other below [`SEEDS`] will do as well.
    pub seed: u64,
}

impl Piece {
    /// Whether this is what it breaks.
    pub fn is_found_by(&self, rule: &str) -> bool {
        self.found_by.contains(&rule)
    }
}

/// Every piece of the museum.
pub const PIECES: &[Piece] = &[
    Piece {
        name: "ack-before-sync",
        scenario: "appends",
        about: "an append is acknowledged when it is written, not when it is synced",
        found_by: &["nothing acknowledged is lost"],
        seed: 16,
    },
    Piece {
        name: "sync-wrong-file",
        scenario: "appends",
        about: "a sync of the write-ahead log goes to the file beside it",
        found_by: &["nothing acknowledged is lost"],
        seed: 20,
    },
    Piece {
        name: "expected-version-outside",
        scenario: "appends",
        about: "the expected version is checked before the append has its turn",
        found_by: &[
            "appends took effect at the versions they expected",
            "every stream is linearizable, expected versions and repeats included",
        ],
        seed: 6,
    },
    Piece {
        name: "position-reused",
        scenario: "appends",
        about: "readers see events whose commit then fails, and their positions go to others",
        found_by: &["every reader saw a part of one and the same log"],
        seed: 39,
    },
    Piece {
        name: "dedupe-forgotten",
        scenario: "retention",
        about: "an event whose data was forgotten is not known any more when it is sent again",
        found_by: &["no event is in the log twice"],
        seed: 6,
    },
    Piece {
        name: "idempotency-after-effect",
        scenario: "keys",
        about: "the reply to an idempotency key is kept in a transaction after the one of its effect",
        found_by: &["one idempotency key has one answer and one effect"],
        seed: 20,
    },
    Piece {
        name: "lost-wake-up",
        scenario: "followers",
        about: "a follower that looked just before an append does not hear of it until the next one",
        found_by: &["every subscriber sees every event once and in order", "a heartbeat says that everything was told"],
        seed: 8,
    },
    Piece {
        name: "checkpoint-outside",
        scenario: "workers",
        about: "an acknowledgement is answered before it is durable",
        found_by: &["acknowledged for good"],
        seed: 2,
    },
    Piece {
        name: "lease-by-wall-clock",
        scenario: "workers",
        about: "leases expire by the wall clock",
        found_by: &["a lease has at most one live holder"],
        seed: 15,
    },
    Piece {
        name: "hlc-not-persisted",
        scenario: "stamps",
        about: "a hybrid clock hands out stamps beyond the mark that is durable",
        found_by: &["no stamp is given twice", "stamps grow"],
        seed: 15,
    },
    Piece {
        name: "view-checkpoint-first",
        scenario: "views",
        about: "a view's checkpoint commits before its rows",
        found_by: &["a view is the fold of the log", "rows are of the position they say"],
        seed: 0,
    },
    Piece {
        name: "effect-repeated-on-rebuild",
        scenario: "views",
        about: "a rebuild sends again what was sent before",
        found_by: &["a rebuild sends nothing again"],
        seed: 0,
    },
    Piece {
        name: "unfenced-view-owner",
        scenario: "views",
        about: "an owner of a view who comes back late goes on writing",
        found_by: &["a view is the fold of the log", "rows are of the position they say"],
        seed: 0,
    },
    Piece {
        name: "filtered-view-rescans",
        scenario: "views",
        about: "the checkpoint of a view stays at the last event that matters to it, and the rest is read again and again",
        found_by: &["a checkpoint moves over what does not matter"],
        seed: 0,
    },
    Piece {
        name: "rejection-forgotten",
        scenario: "commands",
        about: "the answer to a command is kept where it was carried out, and not where it was rejected",
        found_by: &["an answer stays the answer"],
        seed: 0,
    },
    Piece {
        name: "stale-rejection",
        scenario: "commands",
        about: "the token of a rejection is older than what it was decided on",
        found_by: &["a command is decided on what there is"],
        seed: 0,
    },
    Piece {
        name: "queue-ack-before-write",
        scenario: "queue",
        about: "an acknowledgement is answered when it is decided, not when it is durable",
        found_by: &["done for good"],
        seed: 7,
    },
    Piece {
        name: "queue-lease-in-memory",
        scenario: "queue",
        about: "the first hand-out of a message, and its attempt, are in memory alone",
        found_by: &["attempts are counted", "a lease has at most one live holder"],
        seed: 1,
    },
    Piece {
        name: "queue-groups-forgotten",
        scenario: "queue",
        about: "messages of a group are handed out side by side until the node starts again",
        found_by: &["order of groups"],
        seed: 0,
    },
    Piece {
        name: "queue-dedupe-until-done",
        scenario: "queue",
        about: "a message's id is remembered no longer than the message is in the queue",
        found_by: &["done for good"],
        seed: 3,
    },
    Piece {
        name: "queue-unfenced",
        scenario: "queue",
        about: "whoever once held a message settles it, whoever holds it now",
        found_by: &["a lost lease settles nothing"],
        seed: 2,
    },
    Piece {
        name: "queue-lease-by-wall-clock",
        scenario: "queue",
        about: "leases of messages expire by the wall clock",
        found_by: &["a lease has at most one live holder"],
        seed: 15,
    },
    Piece {
        name: "every-hop-retries",
        scenario: "retry-storm",
        about: "a hop retries although one before it does",
        found_by: &["one hop retries"],
        seed: 0,
    },
    Piece {
        name: "retry-charged-late",
        scenario: "retry-storm",
        about: "the budget is charged when a retry is sent, and does not see those that still wait",
        found_by: &["retries stay within the budget"],
        seed: 0,
    },
];
