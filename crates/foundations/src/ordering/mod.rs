//! Time and ordering: which event came first, when no two machines agree on what time it is.
//!
//! # Intuition
//! Two people who never meet cannot say whose breakfast came first, and it does not matter. It matters once one writes
//! to the other: whatever comes before the sending comes before the reading. That relation, *happened before*, is all
//! the order a distributed system has by itself. Every clock here writes it down; they differ in how much it costs and
//! in what can be read back.
//!
//! | clock | a stamp costs | stamps of `a` → `b` | can show *concurrent* | near wall time |
//! |---|---|---|---|---|
//! | [`lamport`] | 16 bytes | `a < b` | no | no |
//! | [`hlc`] | 12 bytes | `a < b` | no | yes |
//! | [`version_vector`] | 16 bytes per writer | `a < b` | **yes** | no |
//!
//! # Which, and when not
//! * **Lamport clock**: a total order that everybody computes alike (a queue for a lock, a tie-break). Not to find
//!   conflicts: from `a < b` nobody can tell *before* from *concurrent*, so last-writer-wins on it drops a write silently.
//! * **Hybrid logical clock**: the same, and the stamp also says roughly when: versions read "as of", log lines of
//!   several machines in one timeline. Not to find conflicts either, not for expiry (leases count on
//!   [`Boot`](crate::time::Boot)), and not where a few hundred milliseconds decide who is right.
//! * **Version vector**: replicas that accept writes while parted and must know afterwards whether one state includes
//!   the other. Not for per-client counting: it grows with the number of writers, so let replicas write, not clients.
//! * **None of them** where a log orders everything already: a position in it says more and costs eight bytes.
//!
//! # What holds when the network splits
//! All three work on both sides without waiting, since no clock ever asks another one anything. Stamps from the two
//! sides have no meaningful order until a message crosses again; only the version vector says so.
//!
//! # Example
//! ```
//! use quorate_foundations::ordering::{Causality, LamportClock, ReplicaId, VersionVector};
//!
//! let (paris, tokyo) = (ReplicaId::new(1), ReplicaId::new(2));
//!
//! // Two writes, neither aware of the other.
//! let (mut in_paris, mut in_tokyo) = (VersionVector::new(), VersionVector::new());
//! in_paris.increment(paris)?;
//! in_tokyo.increment(tokyo)?;
//! assert_eq!(in_paris.compare(&in_tokyo), Causality::Concurrent);
//!
//! // Tokyo reads what Paris wrote, then writes: now one state includes the other.
//! in_tokyo.merge(&in_paris)?;
//! in_tokyo.increment(tokyo)?;
//! assert_eq!(in_paris.compare(&in_tokyo), Causality::Before);
//!
//! // Lamport stamps agree with every causal order, and invent one where there is none.
//! let (mut paris, mut tokyo) = (LamportClock::new(paris), LamportClock::new(tokyo));
//! let sent = paris.tick()?;
//! assert!(sent < tokyo.observe(sent)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! Sources: L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System" (1978); S. Kulkarni et al.,
//! "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases" (2014); D. S. Parker et al.,
//! "Detection of Mutual Inconsistency in Distributed Systems" (1983).

pub mod hlc;
pub mod lamport;
mod replica_id;
pub mod version_vector;

#[cfg(test)]
mod history;

pub use hlc::{Hlc, Stamp};
pub use lamport::{LamportClock, LamportStamp};
pub use replica_id::{ReplicaId, ReplicaIdError};
pub use version_vector::{Causality, Dot, VersionVector};
