//! The keys that were used lately.
//!
//! Two halves: what is used moves to the young one, and when that is full the old one is dropped. Every operation takes
//! constant time, and a subject that is in use stays.

use std::{collections::BTreeMap, sync::Arc};

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use crate::store::erasure::{Erasure, SubjectHash, SubjectKey};

/// The most subjects that are remembered, about 300 bytes each.
const MAX_SUBJECTS: usize = 16_384;

/// What is known of a subject.
#[derive(Clone, Default)]
pub(in crate::store::sqlite) struct Subject {
    /// Keys up to this generation are destroyed.
    pub(in crate::store::sqlite) erased: u32,
    /// The key of today, if there is one.
    pub(in crate::store::sqlite) live: Option<Arc<SubjectKey>>,
}

impl Subject {
    /// The same after everything up to `generation` was erased.
    pub(super) fn without(self, generation: u32) -> Self {
        Self { erased: self.erased.max(generation), live: self.live.filter(|key| key.id().generation > generation) }
    }
}

type Half = HashMap<SubjectHash, Subject, FixedState>;

/// A bounded map of subjects.
pub(super) struct KeyCache {
    young: Half,
    old: Half,
    max: usize,
    /// Erasures whose keys are not destroyed yet: they count as erased all the same. None as a rule.
    doomed: BTreeMap<SubjectHash, Erasure>,
}

impl KeyCache {
    /// An empty one. `seed` keeps hostile names from colliding.
    pub(super) fn new(seed: u64) -> Self {
        Self::with_max(seed, MAX_SUBJECTS)
    }

    fn with_max(seed: u64, max: usize) -> Self {
        let half = || HashMap::with_hasher(FixedState::with_seed(seed));
        Self { young: half(), old: half(), max, doomed: BTreeMap::new() }
    }

    /// What is known of `subject`, if it was used lately.
    pub(super) fn get(&mut self, subject: &SubjectHash) -> Option<Subject> {
        if let Some(found) = self.young.get(subject) {
            return Some(found.clone());
        }
        let found = self.old.remove(subject)?;
        self.put(*subject, found.clone());
        Some(found)
    }

    /// Remembers what the file says of `subject`, and returns what is true of it.
    pub(super) fn put(&mut self, subject: SubjectHash, found: Subject) -> Subject {
        if self.young.len() >= self.max / 2 {
            self.old = std::mem::replace(&mut self.young, HashMap::with_hasher(self.old.hasher().clone()));
        }
        let found = self.doomed.get(&subject).map_or(found.clone(), |erasure| found.without(erasure.generation));
        self.young.insert(subject, found.clone());
        found
    }

    /// Treats the keys that `erasure` names as destroyed.
    pub(super) fn doom(&mut self, erasure: Erasure) {
        self.doomed.insert(erasure.subject, erasure);
        self.young.remove(&erasure.subject);
        self.old.remove(&erasure.subject);
    }

    /// Whether keys of `subject` are to be destroyed yet.
    pub(super) fn is_doomed(&self, subject: &SubjectHash) -> bool {
        self.doomed.contains_key(subject)
    }

    /// What is to be destroyed yet.
    pub(super) fn doomed(&self) -> Vec<Erasure> {
        self.doomed.values().copied().collect()
    }

    /// Takes note that everything doomed is destroyed.
    pub(super) fn destroyed(&mut self) {
        self.doomed.clear();
    }

    /// Forgets every key.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{KeyCache, Subject};
    use crate::store::erasure::{Erasure, SubjectHash, SubjectKey};

    fn subject(generation: u32) -> Subject {
        Subject { erased: 0, live: Some(Arc::new(SubjectKey::new(generation, &[1; 32]))) }
    }

    fn name(n: u32) -> SubjectHash {
        SubjectHash::of(1, &n.to_string())
    }

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let mut cache = KeyCache::with_max(1, 20);
        cache.put(name(0), subject(1));
        for n in 1..1_000 {
            cache.put(name(n), subject(1));
            assert!(cache.get(&name(0)).is_some(), "it is used all the time");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert!(cache.get(&name(1)).is_none());
    }

    #[test]
    fn what_is_doomed_does_not_come_back_from_the_file() {
        let mut cache = KeyCache::new(1);
        cache.put(name(1), subject(3));
        cache.doom(Erasure { subject: name(1), generation: 3, erased_at: Default::default() });
        assert!(cache.get(&name(1)).is_none());
        let found = cache.put(name(1), subject(3));
        assert!(found.live.is_none() && found.erased == 3);
        assert!(cache.put(name(1), subject(4)).live.is_some(), "the next generation lives");
    }
}
