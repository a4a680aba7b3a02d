//! A circuit for each endpoint of a dependency, each operation, or both: made when it is first asked for, and never more
//! than there may be.
//!
//! One circuit for a whole service opens for all of it when one replica is bad, or one operation. Where calls say whom they
//! ask, and for what, each of these has a circuit of its own, with the same rules.

use std::{
    borrow::Cow,
    hash::BuildHasher as _,
    num::NonZeroUsize,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::Env;

use super::{Breaker, Config, ConfigError, Full, Registry, Snapshot};
use crate::dice::Dice;

/// Whom an attempt asks, and for what. An empty text is one that isn't known.
///
/// Both have to be few: not an address with numbers of orders in it, but the operation that it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Who is asked, such as `10.0.0.7:443`: a replica where the caller knows which, and else the name it goes by.
    pub endpoint: &'a str,
    /// What it is asked to do, such as `charge`.
    pub operation: &'a str,
}

/// What has a circuit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Each endpoint.
    Endpoint,
    /// Each operation, whoever is asked for it.
    Operation,
    /// Each operation of each endpoint.
    EndpointAndOperation,
}

/// What has a circuit of its own, and how many may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// What.
    pub per: Per,
    /// How many circuits there may be beside the dependency's own.
    pub most: NonZeroUsize,
}

impl Split {
    /// How many circuits there may be unless told otherwise.
    pub const MOST: NonZeroUsize = const { NonZeroUsize::new(256).unwrap() };
    /// How many may be asked for: each takes three kilobytes.
    pub const LIMIT: NonZeroUsize = const { NonZeroUsize::new(4_096).unwrap() };

    /// Circuits for each `per`.
    pub const fn per(per: Per) -> Self {
        Self { per, most: Self::MOST }
    }
}

/// The circuits of one dependency: its own, and one for each endpoint or operation. Share it by [`Arc`].
///
/// They are called `{dependency}/{endpoint}/{operation}`, without what is not told apart. What is told apart and not known is `-`, and
/// in what is known `/` is `%2F` and `%` is `%25`, so that no two share a name. An attempt passes the dependency's own circuit where it says nothing of what is told apart, where as many circuits as there may be are in use, and for
/// as long as an operator has asked anything of that one: forcing it open refuses all calls.
///
/// A circuit that no attempt has passed for half a minute makes room for another one, unless it is open or an operator has
/// asked something of it. So endpoints that are gone for good are forgotten, and a flood of names takes nothing from those in use.
pub struct Each {
    name: Name,
    home: Home,
    per: Per,
    own: Arc<Breaker>,
    hasher: FixedState,
    known: RwLock<Known>,
    /// How often an attempt passed the dependency's own circuit since there was no room: also by those that were in its place before.
    crowded: Arc<AtomicU64>,
}

/// Where circuits are made.
enum Home {
    /// Among others, who list and operate them.
    Listed(Registry),
    Alone(Env),
}

struct Known {
    config: Config,
    most: usize,
    circuits: HashTable<One>,
    /// Making room is not tried again before, so that a flood of names costs no more than that.
    swept_again_at: Mono,
}

struct One {
    endpoint: Box<str>,
    operation: Box<str>,
    name: Name,
    breaker: Arc<Breaker>,
    /// When an attempt last passed it, within a second: in nanoseconds.
    used: AtomicU64,
}

/// How exactly it is known when a circuit was used.
const TICK_NANOS: u64 = 1_000_000_000;
/// What has not been used for so long makes room for another.
const UNUSED: Duration = Duration::from_secs(30);
/// How long nothing is forgotten after somebody tried to make room.
const SWEPT: Duration = Duration::from_millis(100);

impl Each {
    /// Circuits for the dependency called `name` that `registry` lists.
    ///
    /// # Errors
    /// [`Full`]: the registry has no room for the dependency's own, or the configuration can't be.
    pub fn new(registry: &Registry, name: Name, config: Config, split: Split) -> Result<Self, Full> {
        let each = Self::prepared(registry, name, config.clone(), split)?;
        each.configure(&config, split.most, registry.env().mono())?;
        Ok(each)
    }

    /// The same, with the dependency's own circuit as it is configured already, if there is one.
    pub(crate) fn prepared(registry: &Registry, name: Name, config: Config, split: Split) -> Result<Self, Full> {
        config.check()?;
        let seed = registry.env().random("circuit breakers").u64();
        let own = registry.get(&name).map_or_else(|| registry.breaker(&name, &config), Ok)?;
        Ok(Self::of_home(Home::Listed(registry.clone()), (name, own), config, split, seed))
    }

    /// The same, counting on from `crowded`.
    pub(crate) fn counting_on(mut self, crowded: &Arc<AtomicU64>) -> Self {
        self.crowded = crowded.clone();
        self
    }

    /// Circuits that nobody lists.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration can't be.
    pub fn alone(env: &Env, name: Name, config: Config, split: Split) -> Result<Self, ConfigError> {
        let seed = env.random("circuit breakers").u64();
        let own = alone(env, &config)?;
        Ok(Self::of_home(Home::Alone(env.clone()), (name, own), config, split, seed))
    }

    fn of_home(home: Home, (name, own): (Name, Arc<Breaker>), config: Config, split: Split, seed: u64) -> Self {
        let known = Known { config, most: split.most.get(), circuits: HashTable::new(), swept_again_at: Mono::ZERO };
        Self {
            name,
            home,
            per: split.per,
            own,
            hasher: FixedState::with_seed(seed),
            known: RwLock::new(known),
            crowded: Arc::default(),
        }
    }

    /// What has a circuit of its own.
    pub fn per(&self) -> Per {
        self.per
    }

    /// The dependency's own circuit.
    pub fn own(&self) -> &Arc<Breaker> {
        &self.own
    }

    /// The circuit that an attempt passes which asks for this at `now`. Takes a lock that readers share; makes a circuit where there
    /// is none yet.
    pub fn of(&self, asked: Asked<'_>, now: Mono) -> Arc<Breaker> {
        let asked = self.per.told_apart(asked);
        if asked == Asked::default() || self.own.is_operated() {
            return self.own.clone();
        }
        let hash = self.hasher.hash_one((asked.endpoint, asked.operation));
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = known.circuits.find(hash, |one| one.is(asked)) {
            return one.passed(now);
        }
        drop(known);
        self.make(asked, hash, now).unwrap_or_else(|| {
            self.crowded.fetch_add(1, Ordering::Relaxed);
            self.own.clone()
        })
    }

    /// Makes the circuit for what is asked, if there is room.
    #[cold]
    fn make(&self, asked: Asked<'_>, hash: u64, now: Mono) -> Option<Arc<Breaker>> {
        let name = self.per.name(&self.name, asked)?;
        let mut agreed = None;
        let (mut known, config) = loop {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            // Whoever was first while the lock was free has made it.
            if let Some(one) = known.circuits.find(hash, |one| one.is(asked)) {
                return Some(one.passed(now));
            }
            if known.circuits.len() >= known.most && !self.sweep(&mut known, now) {
                return None;
            }
            let config = known.config.clone();
            let (false, Some(there)) = (agreed.as_ref() == Some(&config), self.home.remembers(&name)) else {
                break (known, config);
            };
            // One that was there before gets the rules that hold now. Whoever hears of a change may ask for any of them: no lock is held.
            drop(known);
            there.configure(config.clone(), now).ok()?;
            agreed = Some(config);
        };
        // Made under the lock: whoever lets other rules hold finds it.
        let breaker = match self.home.make(&self.name, &name, &config) {
            Err(Full::Full { .. }) if self.sweep(&mut known, now) => self.home.make(&self.name, &name, &config).ok()?,
            made => made.ok()?,
        };
        let Asked { endpoint, operation } = asked;
        let (endpoint, operation) = (endpoint.into(), operation.into());
        let one = One { endpoint, operation, name, breaker: breaker.clone(), used: AtomicU64::new(now.as_nanos()) };
        known.circuits.insert_unique(hash, one, |one| self.hasher.hash_one((&*one.endpoint, &*one.operation)));
        Some(breaker)
    }

    /// Forgets circuits that nobody needs, those first that were used longest ago, and says whether there is room.
    fn sweep(&self, known: &mut Known, now: Mono) -> bool {
        if now < known.swept_again_at {
            return false;
        }
        known.swept_again_at = now + SWEPT;
        let idle = known.circuits.iter().filter(|one| one.is_idle(now, self.home.holders()));
        let mut used: Vec<u64> = idle.map(|one| one.used.load(Ordering::Relaxed)).collect();
        used.sort_unstable();
        // An eighth at once, and at least what is too much: there may be fewer since a moment ago.
        let wanted = (known.most / 8).max((known.circuits.len() + 1).saturating_sub(known.most)).max(1);
        if let Some(newest) = used.get(wanted.min(used.len()).wrapping_sub(1)).copied() {
            let gone = known
                .circuits
                .extract_if(|one| one.used.load(Ordering::Relaxed) <= newest && one.is_idle(now, self.home.holders()));
            gone.for_each(|one| self.home.forget(one));
        }
        known.circuits.len() < known.most
    }

    /// Lets other rules hold for all of them, those to come included, and another number. State, generation and counts stay.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration can't be, and the old one stays.
    pub fn configure(&self, config: &Config, most: NonZeroUsize, now: Mono) -> Result<(), ConfigError> {
        config.check()?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        (known.config, known.most) = (config.clone(), most.get());
        drop(known);
        // What is made from here on has them already. Whoever hears of changes may ask for any of them.
        let mut all = self.all().into_iter().map(|(_, breaker)| breaker).chain([self.own.clone()]);
        all.try_for_each(|breaker| breaker.configure(config.clone(), now))
    }

    /// How each of them stands but the dependency's own, in order of names.
    pub fn snapshots(&self, now: Mono) -> Vec<(Name, Snapshot)> {
        let mut all: Vec<_> = self.all().into_iter().map(|(name, one)| (name, one.snapshot(now))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// What each of them is called but the dependency's own.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<Name> {
        self.all().into_iter().map(|(name, _)| name).collect()
    }

    fn all(&self) -> Vec<(Name, Arc<Breaker>)> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.circuits.iter().map(|one| (one.name.clone(), one.breaker.clone())).collect()
    }

    /// How often an attempt passed the dependency's own circuit since there was no room for another. If this grows, there may be too
    /// few, or what is told apart isn't few.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Ordering::Relaxed)
    }
}

impl Per {
    /// What of `asked` is told apart.
    const fn told_apart(self, asked: Asked<'_>) -> Asked<'_> {
        match self {
            Self::Endpoint => Asked { operation: "", ..asked },
            Self::Operation => Asked { endpoint: "", ..asked },
            Self::EndpointAndOperation => asked,
        }
    }

    /// What the circuit of `dependency` for `asked` is called, if that can be a name.
    fn name(self, dependency: &Name, asked: Asked<'_>) -> Option<Name> {
        let (endpoint, operation) = (part(asked.endpoint), part(asked.operation));
        let text = match self {
            Self::Endpoint => format!("{dependency}/{endpoint}"),
            Self::Operation => format!("{dependency}/{operation}"),
            Self::EndpointAndOperation => format!("{dependency}/{endpoint}/{operation}"),
        };
        Name::new(text).ok()
    }
}

/// A part of a name: no two texts are the same one.
fn part(text: &str) -> Cow<'_, str> {
    match text {
        "" => "-".into(),
        "-" => "%2D".into(),
        _ if text.contains(['/', '%']) => text.replace('%', "%25").replace('/', "%2F").into(),
        _ => text.into(),
    }
}

impl One {
    fn is(&self, asked: Asked<'_>) -> bool {
        *self.endpoint == *asked.endpoint && *self.operation == *asked.operation
    }

    fn passed(&self, now: Mono) -> Arc<Breaker> {
        // Storing it each time would take the line from everybody who only reads.
        let now = now.as_nanos();
        if now.saturating_sub(self.used.load(Ordering::Relaxed)) >= TICK_NANOS {
            self.used.store(now, Ordering::Relaxed);
        }
        self.breaker.clone()
    }

    /// Whether nobody would miss it. A circuit whose time is up and that nobody tried since is one of them: an endpoint that is gone
    /// leaves its circuit open.
    fn is_idle(&self, now: Mono, holders: usize) -> bool {
        let used = Mono::from_nanos(self.used.load(Ordering::Relaxed));
        if now.saturating_since(used) < UNUSED {
            return false;
        }
        // By more than those while attempts are under way.
        Arc::strong_count(&self.breaker) <= holders && self.breaker.rests(now)
    }
}

impl Home {
    fn make(&self, dependency: &Name, name: &Name, config: &Config) -> Result<Arc<Breaker>, Full> {
        match self {
            Self::Listed(registry) => registry.made_of(dependency, name, config),
            Self::Alone(env) => Ok(alone(env, config)?),
        }
    }

    /// The circuit called `name` that is there already: of somebody who has left it open, or operated.
    fn remembers(&self, name: &Name) -> Option<Arc<Breaker>> {
        match self {
            Self::Listed(registry) => registry.get(name),
            Self::Alone(_) => None,
        }
    }

    /// How many hold a circuit that no attempt passes.
    const fn holders(&self) -> usize {
        match self {
            Self::Listed(_) => 2,
            Self::Alone(_) => 1,
        }
    }

    fn forget(&self, one: One) {
        let One { name, breaker, .. } = one;
        drop(breaker);
        if let Self::Listed(registry) = self {
            registry.forget_held(&name, 0);
        }
    }
}

impl Drop for Each {
    /// Those that are closed, or could be tried, are listed no more; what is open or operated is, for whoever comes back.
    fn drop(&mut self) {
        let known = self.known.get_mut().unwrap_or_else(PoisonError::into_inner);
        for one in known.circuits.drain() {
            self.home.forget(one);
        }
        if let Home::Listed(registry) = &self.home {
            registry.forget_held(&self.name, 1);
        }
    }
}

/// A circuit that nobody lists.
fn alone(env: &Env, config: &Config) -> Result<Arc<Breaker>, ConfigError> {
    let dice = Dice::from_rng(&mut env.random("circuit breaker"));
    Breaker::new(config.clone(), dice, env.mono()).map(Arc::new)
}

impl std::fmt::Debug for Each {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Each").field("name", &self.name).field("per", &self.per).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
