//! A limit for each of many: clients, tenants, addresses. As many as there may be, and no more.

use std::{
    hash::{BuildHasher, Hash},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::quality::FixedState;
use hashbrown::{HashTable, hash_table::Entry};
use quorate_foundations::time::Mono;

use super::{
    Limiter, Rejected, Taken,
    config::{ConfigError, Rate},
    machine::Gcra,
};

/// The same rate for each key, in bounded memory.
///
/// A key whose bucket is full again is forgotten, which changes nothing: a key that isn't known has a full bucket. While as
/// many keys as there may be have something to remember, all others share one bucket of that rate: nobody ever gets more
/// than the rate by coming under many names, and those who are known keep theirs.
pub struct Keyed<K> {
    rule: Gcra,
    hasher: FixedState,
    shards: Box<[Mutex<Shard<K>>]>,
    most_per_shard: usize,
    /// For those that don't fit.
    others: Limiter,
    shared: AtomicU64,
}

struct Shard<K> {
    /// Each key, and when its next unit is due.
    known: HashTable<(K, u64)>,
    /// Forgetting is not tried again before.
    swept_again_at: u64,
}

/// Locks, so that threads that ask for different keys rarely meet.
const SHARDS: usize = 16;

impl<K: Hash + Eq + Clone> Keyed<K> {
    /// A limit of `rate` for each key, for up to `most_keys` of them, rounded up to a multiple of 16. `seed` must be one that
    /// callers can't guess, or they could choose keys that collide.
    ///
    /// # Errors
    /// [`ConfigError`]: the rate can't be.
    pub fn new(rate: Rate, most_keys: NonZeroUsize, seed: u64) -> Result<Self, ConfigError> {
        let rule = Gcra::new(rate)?;
        let shard = || Mutex::new(Shard { known: HashTable::new(), swept_again_at: 0 });
        Ok(Self {
            rule,
            hasher: FixedState::with_seed(seed),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            most_per_shard: most_keys.get().div_ceil(SHARDS),
            others: Limiter::of(rule),
            shared: AtomicU64::new(0),
        })
    }

    /// Takes `cost` units at `now` from what `key` has: all of them or none.
    ///
    /// # Errors
    /// [`Rejected`], with the time until they could be had.
    pub fn take(&self, now: Mono, key: &K, cost: u32) -> Result<Taken, Rejected> {
        let hash = self.hasher.hash_one(key);
        // The table uses the lower bits and the topmost seven.
        let shard = &self.shards[(hash >> 40) as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, due)) = shard.known.find_mut(hash, |(known, _)| known == key) {
            let after = self.rule.take(*due, now, cost).map_err(|wait| self.rule.refusal(*due, now, wait))?;
            *due = after;
            return Ok(Taken::of(self.rule, after, now));
        }
        if shard.known.len() >= self.most_per_shard && !shard.sweep(now, self.rule) {
            drop(shard);
            self.shared.fetch_add(1, Ordering::Relaxed);
            return self.others.take(now, cost);
        }
        let after = self.rule.take(0, now, cost).map_err(|wait| self.rule.refusal(0, now, wait))?;
        let entry = shard.known.entry(hash, |(known, _)| known == key, |(known, _)| self.hasher.hash_one(known));
        if let Entry::Vacant(place) = entry {
            place.insert((key.clone(), after));
        }
        Ok(Taken::of(self.rule, after, now))
    }

    /// Forgets what was taken, by all keys.
    pub fn reset(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).known.clear();
        }
        self.others.reset();
    }

    /// How many keys are remembered.
    pub fn known(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).known.len()).sum()
    }

    /// How often a key had to share because it didn't fit. If this grows, `most_keys` is too small, or somebody comes under
    /// many names.
    pub fn shared(&self) -> u64 {
        self.shared.load(Ordering::Relaxed)
    }
}

impl<K> Shard<K> {
    /// Forgets keys whose bucket is full again, and says whether there is room. Looks through all of them at most sixteen times
    /// in the time that a bucket takes to fill, so that a flood of keys costs no more than that.
    fn sweep(&mut self, now: Mono, rule: Gcra) -> bool {
        if now.as_nanos() < self.swept_again_at {
            return false;
        }
        let before = self.known.len();
        self.known.retain(|(_, due)| *due > now.as_nanos());
        self.swept_again_at = now.as_nanos().saturating_add(rule.tolerance / 16);
        self.known.len() < before
    }
}

impl<K> std::fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyed").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// What to limit a client by that is only known by its address: one IPv4 address, or the /64 that a provider gives to one
/// customer, who could otherwise come from 2⁶⁴ addresses. An IPv4 address written as IPv6 is the same client.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
