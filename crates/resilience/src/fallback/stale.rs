//! The last good answers, each with the moment it was one.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use quorate_foundations::time::Mono;

use super::Source;

/// How much is remembered, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For so many keys.
    pub most_keys: NonZeroUsize,
    /// Of so much weight together: bytes, or whatever the caller weighs in.
    pub most_weight: usize,
    /// An answer that is older isn't served.
    pub oldest: Duration,
}

impl Default for Keep {
    /// A thousand keys, 16 MiB, an hour.
    fn default() -> Self {
        let most_keys = const { NonZeroUsize::new(1_000).unwrap() };
        Self { most_keys, most_weight: 16 << 20, oldest: Duration::from_secs(3_600) }
    }
}

/// The last good answer for each key, in bounded memory. The key must hold everything the answer depends on, who asked
/// included: otherwise one user is served another's.
#[derive(Clone, Debug)]
pub struct Stale<K, V> {
    keep: Keep,
    known: BTreeMap<K, Known<V>>,
    /// Keys by when they were last used, counted.
    used: BTreeMap<u64, K>,
    next: u64,
    weight: usize,
}

#[derive(Clone, Debug)]
struct Known<V> {
    value: V,
    weight: usize,
    since: Mono,
    used: u64,
}

impl<K: Ord + Clone, V> Stale<K, V> {
    /// Remembers nothing yet.
    pub fn new(keep: Keep) -> Self {
        Self { keep, known: BTreeMap::new(), used: BTreeMap::new(), next: 0, weight: 0 }
    }

    /// Remembers a good answer in place of an earlier one. One that is too heavy for all of the memory isn't remembered, and
    /// the earlier one is forgotten, since it is known to be out of date.
    pub fn remember(&mut self, now: Mono, key: K, value: V, weight: usize) {
        self.forget(&key);
        if weight > self.keep.most_weight {
            return;
        }
        while self.known.len() >= self.keep.most_keys.get() || self.weight + weight > self.keep.most_weight {
            let Some(longest) = self.used.first_key_value().map(|(_, key)| key.clone()) else { break };
            self.forget(&longest);
        }
        let used = self.next;
        self.next += 1;
        self.used.insert(used, key.clone());
        self.weight += weight;
        self.known.insert(key, Known { value, weight, since: now, used });
    }

    /// The last good answer and its age, unless it is too old, which forgets it.
    pub fn recall(&mut self, now: Mono, key: &K) -> Option<(&V, Duration)> {
        let known = self.known.get_mut(key)?;
        let age = now.saturating_since(known.since);
        if age > self.keep.oldest {
            self.forget(key);
            return None;
        }
        self.used.remove(&known.used);
        known.used = self.next;
        self.next += 1;
        self.used.insert(known.used, key.clone());
        self.known.get(key).map(|known| (&known.value, age))
    }

    /// Forgets an answer, because it is known not to be true any more.
    pub fn forget(&mut self, key: &K) {
        if let Some(known) = self.known.remove(key) {
            self.used.remove(&known.used);
            self.weight -= known.weight;
        }
    }

    /// For how many keys there is an answer.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What all answers weigh together.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

impl<K: Ord + Clone, V: Clone> Stale<K, V> {
    /// The last good answer as one to serve.
    pub fn stale(&mut self, now: Mono, key: &K) -> Option<(V, Source)> {
        self.recall(now, key).map(|(value, age)| (value.clone(), Source::Stale { age }))
    }
}
