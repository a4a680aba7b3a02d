//! Version vectors: what a state has seen, one counter per writer.
//!
//! A state that has seen Paris's first three writes and Tokyo's first one is `{paris: 3, tokyo: 1}`. If one vector is at
//! least the other everywhere, its state includes the other; if each is ahead somewhere, the two are concurrent and both
//! must be kept or merged. This is the whole truth about causality, and it costs 16 bytes per writer.
//!
//! Counters name single writes too: a [`Dot`] is "the n-th write of that replica". Dotted version vectors, which tell
//! which of several siblings a client had seen, are built from dots and vectors and change neither.
//!
//! # Limits
//! A vector names at most [`VersionVector::MAX_REPLICAS`] replicas; one more is refused, never dropped, because a
//! forgotten entry makes old writes look new. Retiring replicas needs agreement and is not decided here.
//!
//! Source: D. S. Parker et al., "Detection of Mutual Inconsistency in Distributed Systems" (1983); N. Preguiça et al.,
//! "Dotted Version Vectors" (2010). Ours differs in keeping no zero entries, so that equal vectors are equal bytes.

use std::{cmp::Ordering, collections::BTreeMap};

use super::ReplicaId;

/// Per replica, how many of its writes have been seen, without gaps.
///
/// # Example
/// ```
/// use quorate_foundations::ordering::{Causality, ReplicaId, VersionVector};
/// let mut old = VersionVector::new();
/// old.increment(ReplicaId::new(1))?;
/// let mut new = old.clone();
/// new.increment(ReplicaId::new(1))?;
/// assert_eq!(old.compare(&new), Causality::Before);
/// # Ok::<(), quorate_foundations::ordering::version_vector::VersionVectorError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VersionVector {
    // Invariant: no counter is zero, and there are at most MAX_REPLICAS of them.
    counters: BTreeMap<ReplicaId, u64>,
}

/// One write: the `counter`-th of `replica`, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who wrote.
    pub replica: ReplicaId,
    /// Its how-manieth write, from 1.
    pub counter: u64,
}

/// How two states relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causality {
    /// Both have seen the same.
    Equal,
    /// The second has seen all that the first has, and more.
    Before,
    /// The first has seen all that the second has, and more.
    After,
    /// Each has seen something that the other has not: a conflict, if both wrote the same thing.
    Concurrent,
}

/// Why a vector could not change. It is as it was; repeating does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionVectorError {
    /// It would name more replicas than fit.
    #[error("a version vector names at most {max} replicas, this one would name {replicas}", max = VersionVector::MAX_REPLICAS)]
    TooManyReplicas {
        /// How many it would name.
        replicas: usize,
    },
    /// A replica's counter is used up, which counting alone never achieves.
    #[error("the counter of replica {replica} is used up")]
    CounterExhausted {
        /// Whose counter.
        replica: ReplicaId,
    },
    /// An entry read from outside has counter 0, which "never seen" is written without.
    #[error("replica {replica} has counter 0; what was never seen has no entry")]
    ZeroCounter {
        /// Whose counter.
        replica: ReplicaId,
    },
    /// A replica appears twice in what was read from outside.
    #[error("replica {replica} appears twice")]
    RepeatedReplica {
        /// Which replica.
        replica: ReplicaId,
    },
}

impl VersionVector {
    /// The most replicas a vector can name.
    pub const MAX_REPLICAS: usize = 1024;

    /// The vector of a state that has seen nothing.
    pub const fn new() -> Self {
        Self { counters: BTreeMap::new() }
    }

    /// The vector with these entries, as read from outside, in any order.
    ///
    /// # Errors
    /// Any [`VersionVectorError`] but `CounterExhausted`. Reading stops at the first entry too many.
    pub fn from_dots(dots: impl IntoIterator<Item = Dot>) -> Result<Self, VersionVectorError> {
        dots.into_iter().try_fold(Self::new(), |mut vector, Dot { replica, counter }| {
            match counter {
                0 => return Err(VersionVectorError::ZeroCounter { replica }),
                _ if vector.counters.contains_key(&replica) => {
                    return Err(VersionVectorError::RepeatedReplica { replica });
                }
                _ => vector.check_room(1)?,
            }
            vector.counters.insert(replica, counter);
            Ok(vector)
        })
    }

    /// Per replica its latest seen write, by replica id.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.counters.iter().map(|(&replica, &counter)| Dot { replica, counter })
    }

    /// How many of `replica`'s writes have been seen; 0 for none.
    pub fn get(&self, replica: ReplicaId) -> u64 {
        self.counters.get(&replica).copied().unwrap_or(0)
    }

    /// Whether this write has been seen.
    pub fn contains(&self, dot: Dot) -> bool {
        (1..=self.get(dot.replica)).contains(&dot.counter)
    }

    /// How many replicas it names.
    pub fn len(&self) -> usize {
        self.counters.len()
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// Counts one more write of `replica` and returns its name. Only `replica` itself may do this, once per write.
    ///
    /// # Errors
    /// `TooManyReplicas`, `CounterExhausted`; the vector is as it was.
    pub fn increment(&mut self, replica: ReplicaId) -> Result<Dot, VersionVectorError> {
        let seen = self.get(replica);
        let counter = seen.checked_add(1).ok_or(VersionVectorError::CounterExhausted { replica })?;
        self.check_room(usize::from(seen == 0))?;
        self.counters.insert(replica, counter);
        Ok(Dot { replica, counter })
    }

    /// Sees everything that `other` has seen: the least upper bound of the two.
    ///
    /// Commutative, associative and idempotent: repeats and reordering of merges do not matter.
    ///
    /// # Errors
    /// `TooManyReplicas`; the vector is as it was.
    pub fn merge(&mut self, other: &Self) -> Result<(), VersionVectorError> {
        self.check_room(other.counters.keys().filter(|replica| !self.counters.contains_key(replica)).count())?;
        for Dot { replica, counter } in other.iter() {
            let seen = self.counters.entry(replica).or_default();
            *seen = counter.max(*seen);
        }
        Ok(())
    }

    /// How this state relates to `other`: `Before` if `other` includes it, and so on.
    pub fn compare(&self, other: &Self) -> Causality {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Causality::Equal,
            (false, true) => Causality::Before,
            (true, false) => Causality::After,
            (false, false) => Causality::Concurrent,
        }
    }

    /// Whether everything that `other` has seen has been seen here.
    pub fn includes(&self, other: &Self) -> bool {
        other.iter().all(|dot| self.contains(dot))
    }

    fn check_room(&self, newcomers: usize) -> Result<(), VersionVectorError> {
        match self.counters.len() + newcomers {
            replicas if replicas > Self::MAX_REPLICAS => Err(VersionVectorError::TooManyReplicas { replicas }),
            _ => Ok(()),
        }
    }
}

/// `None` for concurrent states; otherwise as [`VersionVector::compare`].
impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.compare(other) {
            Causality::Equal => Some(Ordering::Equal),
            Causality::Before => Some(Ordering::Less),
            Causality::After => Some(Ordering::Greater),
            Causality::Concurrent => None,
        }
    }
}

impl Causality {
    /// The same relation, seen from the other side.
    pub const fn reverse(self) -> Self {
        match self {
            Self::Before => Self::After,
            Self::After => Self::Before,
            same => same,
        }
    }
}

#[cfg(test)]
mod tests;
