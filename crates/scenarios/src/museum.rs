//! Bugs that were planted in the product, each of a kind that somebody once shipped.
//!
//! Whether the simulator finds bugs is only known by planting some. Every piece must be noticed within 200 seeds, by judges
//! who do not know it or by the product, which then refuses to go on, and the seed that finds it must pass without it. A feature that no release has compiles them in.
//!
//! Source: the etcd robustness tests, which keep a table of past bugs and find each of them again.

/// A bug.
pub struct Piece {
    /// Its name: what the product is asked whether it is planted.
    pub name: &'static str,
    /// The scenario that finds it.
    pub scenario: &'static str,
    /// What is wrong, in a line.
    pub about: &'static str,
}

/// Every piece of the museum.
pub const PIECES: &[Piece] = &[
    Piece {
        name: "ack-before-sync",
        scenario: "appends",
        about: "an append is acknowledged when it is written, not when it is synced",
    },
    Piece {
        name: "sync-wrong-file",
        scenario: "appends",
        about: "a sync of the write-ahead log goes to the file beside it",
    },
    Piece {
        name: "expected-version-outside",
        scenario: "appends",
        about: "the expected version is checked before the append has its turn",
    },
    Piece {
        name: "position-reused",
        scenario: "appends",
        about: "readers see events whose commit then fails, and their positions go to others",
    },
    Piece {
        name: "dedupe-forgotten",
        scenario: "retention",
        about: "an event whose data was forgotten is not known any more when it is sent again",
    },
    Piece {
        name: "idempotency-after-effect",
        scenario: "keys",
        about: "the reply to an idempotency key is kept in a transaction after the one of its effect",
    },
    Piece {
        name: "lost-wake-up",
        scenario: "followers",
        about: "a follower that looked just before an append does not hear of it until the next one",
    },
    Piece {
        name: "checkpoint-outside",
        scenario: "workers",
        about: "an acknowledgement is answered before it is durable",
    },
    Piece { name: "lease-by-wall-clock", scenario: "workers", about: "leases expire by the wall clock" },
    Piece {
        name: "hlc-not-persisted",
        scenario: "stamps",
        about: "a hybrid clock hands out stamps beyond the mark that is durable",
    },
    Piece { name: "view-checkpoint-first", scenario: "views", about: "a view's checkpoint commits before its rows" },
    Piece {
        name: "effect-repeated-on-rebuild",
        scenario: "views",
        about: "a rebuild sends again what was sent before",
    },
    Piece {
        name: "unfenced-view-owner",
        scenario: "views",
        about: "an owner of a view who comes back late goes on writing",
    },
    Piece {
        name: "filtered-view-rescans",
        scenario: "views",
        about: "the checkpoint of a view stays at the last event that matters to it, and the rest is read again and again",
    },
    Piece {
        name: "queue-ack-before-write",
        scenario: "queue",
        about: "an acknowledgement is answered when it is decided, not when it is durable",
    },
    Piece {
        name: "queue-lease-in-memory",
        scenario: "queue",
        about: "the first hand-out of a message, and its attempt, are in memory alone",
    },
    Piece {
        name: "queue-groups-forgotten",
        scenario: "queue",
        about: "messages of a group are handed out side by side until the node starts again",
    },
    Piece {
        name: "queue-dedupe-until-done",
        scenario: "queue",
        about: "a message's id is remembered no longer than the message is in the queue",
    },
    Piece {
        name: "queue-unfenced",
        scenario: "queue",
        about: "whoever once held a message settles it, whoever holds it now",
    },
    Piece {
        name: "queue-lease-by-wall-clock",
        scenario: "queue",
        about: "leases of messages expire by the wall clock",
    },
    Piece { name: "every-hop-retries", scenario: "retry-storm", about: "a hop retries although one before it does" },
    Piece {
        name: "retry-charged-late",
        scenario: "retry-storm",
        about: "the budget is charged when a retry is sent, and does not see those that still wait",
    },
];
