//! All breakers of a process by name, so that their memory outlives configurations and handles.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, family::Family, gauge::ConstGauge},
};
use quorate_foundations::name::Name;
use quorate_runtime::Env;

use super::{Breaker, Change, Config, ConfigError, Listener, Mode, Snapshot, State};
use crate::dice::Dice;

/// Hears of every change of every breaker, under the conditions of a [`Listener`].
pub type NamedListener = Arc<dyn Fn(&Name, &Change) + Send + Sync>;

/// All breakers by name: those of dependencies, and [one per endpoint and operation](super::Each) where that is asked for, say
/// `payments/10.0.0.7:443/charge`. Cheap to clone; clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    most: usize,
    breakers: Mutex<BTreeMap<Name, Arc<Breaker>>>,
    /// Of those that are of a dependency's endpoints or operations, which dependency.
    // Lock order: behind `breakers`.
    dependencies: Mutex<BTreeMap<Name, Name>>,
    transitions: Family<Vec<(&'static str, String)>, prometheus_client::metrics::counter::Counter>,
    listener: Option<NamedListener>,
}

/// Why a breaker was not made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Full {
    /// There are as many as there may be, and each of them is in use or has something to remember.
    #[error("there are {most} circuit breakers already, each in use, open or operated")]
    Full {
        /// How many there may be.
        most: usize,
    },
    /// The configuration can't be.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Registry {
    /// How many breakers there may be unless told otherwise.
    pub const MOST: usize = 10_000;

    /// An empty registry whose metrics `env` serves.
    pub fn new(env: &Env) -> Self {
        Self::with(env, Self::MOST, None)
    }

    /// An empty registry for at most `most` breakers, with somebody who hears of every change of state.
    pub fn with(env: &Env, most: usize, listener: Option<NamedListener>) -> Self {
        let (breakers, dependencies, transitions) = (Mutex::default(), Mutex::default(), Family::default());
        let inner = Inner { env: env.clone(), most, breakers, dependencies, transitions, listener };
        let registry = Self { inner: Arc::new(inner) };
        let mut metrics = env.metrics();
        metrics.register(
            "quorate_breaker_transitions",
            "Changes of state of circuit breakers",
            registry.inner.transitions.clone(),
        );
        metrics.register_collector(Box::new(Scrape(Arc::downgrade(&registry.inner))));
        drop(metrics);
        registry
    }

    /// The breaker called `name`, made if there is none. One that exists gets `config` and keeps its state.
    ///
    /// # Errors
    /// [`Full`]: nothing changed.
    pub fn breaker(&self, name: &Name, config: &Config) -> Result<Arc<Breaker>, Full> {
        let now = self.inner.env.mono();
        let known = self.lock().get(name).cloned();
        if let Some(known) = known {
            known.configure(config.clone(), now)?;
            return Ok(known);
        }
        self.made(name, config)
    }

    /// The breaker called `name`, made if there is none. One that exists stays as it is, so that nobody hears of it: it may be asked
    /// for while locks are held.
    ///
    /// # Errors
    /// [`Full`]: nothing changed.
    pub(crate) fn made(&self, name: &Name, config: &Config) -> Result<Arc<Breaker>, Full> {
        self.made_for(None, name, config)
    }

    /// The same for a circuit of one of `dependency`'s endpoints or operations.
    pub(crate) fn made_of(&self, dependency: &Name, name: &Name, config: &Config) -> Result<Arc<Breaker>, Full> {
        self.made_for(Some(dependency), name, config)
    }

    fn made_for(&self, dependency: Option<&Name>, name: &Name, config: &Config) -> Result<Arc<Breaker>, Full> {
        let now = self.inner.env.mono();
        let dice = Dice::from_rng(&mut self.inner.env.random("circuit breaker"));
        let made = Arc::new(Breaker::new(config.clone(), dice, now)?.with_listener(self.listener(name)));
        let mut breakers = self.lock();
        if breakers.len() >= self.inner.most && !breakers.contains_key(name) {
            let idle = breakers.iter().find(|(_, breaker)| is_idle(breaker, now));
            let idle = idle.map(|(name, _)| name.clone()).ok_or(Full::Full { most: self.inner.most })?;
            breakers.remove(&idle);
            self.inner.forget_rest(&idle);
        }
        // Whoever was first while the lock was free has made the one that counts.
        let made = breakers.entry(name.clone()).or_insert(made).clone();
        // With the breaker, so that both are forgotten or neither.
        if let Some(dependency) = dependency {
            self.inner.dependencies().insert(name.clone(), dependency.clone());
        }
        Ok(made)
    }

    /// Closes the breaker called `name` and forgets what was counted, also of the circuits of its [endpoints and
    /// operations](super::Each); the mode of each stays. Returns how it stands, if there is one.
    pub fn reset(&self, name: &Name) -> Option<Snapshot> {
        let now = self.inner.env.mono();
        let breakers = self.lock();
        let own = breakers.get(name).cloned()?;
        let of = self.inner.dependencies();
        let theirs = of.iter().filter(|(_, dependency)| *dependency == name);
        let theirs: Vec<_> = theirs.filter_map(|(one, _)| breakers.get(one).cloned()).collect();
        // Whoever hears of a change may ask for any of them: no lock is held.
        drop((of, breakers));
        own.reset(now);
        theirs.iter().for_each(|one| one.reset(now));
        Some(own.snapshot(now))
    }

    /// The breaker called `name`, if there is one.
    pub fn get(&self, name: &Name) -> Option<Arc<Breaker>> {
        self.lock().get(name).cloned()
    }

    /// Forgets the breaker called `name` if nobody holds it and it has nothing to remember: it isn't open, or could be tried, and no
    /// operator has asked anything of it.
    pub fn forget_idle(&self, name: &Name) {
        let now = self.inner.env.mono();
        let mut breakers = self.lock();
        if breakers.get(name).is_some_and(|breaker| is_idle(breaker, now)) {
            breakers.remove(name);
            self.inner.forget_rest(name);
        }
    }

    /// Forgets the breaker called `name` if nobody holds it but the caller, who does `times`, and neither is it open nor has an operator
    /// asked anything of it.
    pub(crate) fn forget_held(&self, name: &Name, times: usize) {
        let now = self.inner.env.mono();
        let mut breakers = self.lock();
        if breakers.get(name).is_some_and(|breaker| Arc::strong_count(breaker) <= 1 + times && breaker.rests(now)) {
            breakers.remove(name);
            self.inner.forget_rest(name);
        }
    }

    /// The world it lives in.
    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Every breaker as it stands, in order of names.
    pub fn snapshots(&self) -> Vec<(Name, Snapshot)> {
        let now = self.inner.env.mono();
        let breakers = self.lock().clone();
        breakers.into_iter().map(|(name, breaker)| (name, breaker.snapshot(now))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Breaker>>> {
        self.inner.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener(&self, name: &Name) -> Listener {
        let (name, listener, transitions) = (name.clone(), self.inner.listener.clone(), self.inner.transitions.clone());
        Arc::new(move |change: &Change| {
            let Change { from, to, why, generation, enforced } = *change;
            let why = why.word();
            tracing::warn!(
                breaker = name.as_str(),
                from = word(from),
                to = word(to),
                why,
                generation,
                enforced,
                "circuit changed"
            );
            transitions.get_or_create(&labels(&name, to)).inc();
            if let Some(listener) = &listener {
                listener(&name, change);
            }
        })
    }
}

fn labels(name: &Name, to: State) -> Vec<(&'static str, String)> {
    vec![("breaker", name.as_str().to_owned()), ("to", word(to).to_owned())]
}

impl Inner {
    fn dependencies(&self) -> MutexGuard<'_, BTreeMap<Name, Name>> {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A breaker is forgotten, and with it what it counted: names that come and go would otherwise stay for ever.
    fn forget_rest(&self, name: &Name) {
        self.dependencies().remove(name);
        for to in [State::Closed, State::Open, State::HalfOpen] {
            self.transitions.remove(&labels(name, to));
        }
    }
}

/// A breaker that nobody holds and that isn't open has nothing to remember but the current window. Nobody will try one that was open
/// and whose time is up: whoever comes back may begin with a new one.
fn is_idle(breaker: &Arc<Breaker>, now: quorate_foundations::time::Mono) -> bool {
    Arc::strong_count(breaker) == 1 && breaker.rests(now)
}

/// The word for a state.
pub(crate) const fn word(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
    }
}

/// Writes every breaker's state when metrics are asked for.
#[derive(Debug)]
struct Scrape(std::sync::Weak<Inner>);

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("most", &self.most).finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let snapshots = Registry { inner }.snapshots();
        let state = ConstGauge::new(0_i64);
        let help = "Where each circuit stands: 0 closed, 1 half open, 2 open";
        let mut states = encoder.encode_descriptor("quorate_breaker_state", help, None, state.metric_type())?;
        for (name, snapshot) in &snapshots {
            let value = match snapshot.state {
                State::Closed => 0_i64,
                State::HalfOpen => 1,
                State::Open => 2,
            };
            ConstGauge::new(value).encode(states.encode_family(&[("breaker", name.as_str())])?)?;
        }
        let none = ConstCounter::new(0_u64);
        let help = "Calls refused by each circuit";
        let mut modes = encoder.encode_descriptor(
            "quorate_breaker_mode",
            "What an operator asked of each circuit: 0 automatic, 1 forced open, 2 disabled, 3 metrics only",
            None,
            state.metric_type(),
        )?;
        for (name, snapshot) in &snapshots {
            let value = match snapshot.mode {
                Mode::Automatic => 0_i64,
                Mode::ForcedOpen => 1,
                Mode::Disabled => 2,
                Mode::MetricsOnly => 3,
            };
            ConstGauge::new(value).encode(modes.encode_family(&[("breaker", name.as_str())])?)?;
        }
        let mut refused = encoder.encode_descriptor("quorate_breaker_refused", help, None, none.metric_type())?;
        for (name, snapshot) in &snapshots {
            ConstCounter::new(snapshot.refused).encode(refused.encode_family(&[("breaker", name.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;
    use crate::outcome::{Class, Outcome};

    fn fragile(consecutive: u32) -> Config {
        Config { consecutive: NonZeroU32::new(consecutive), ..Config::default() }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_stays_open_when_its_configuration_is_loaded_again() {
        let env = Env::real();
        let registry = Registry::new(&env);
        let breaker = registry.breaker(&name("a"), &fragile(1)).unwrap();
        breaker.permit(env.mono()).unwrap().settle(env.mono(), Outcome::Upstream(Class::Fault), None);
        drop(breaker);
        let again = registry.breaker(&name("a"), &fragile(9)).unwrap();
        assert!(again.permit(env.mono()).is_err());
        env.sleep(Duration::from_secs(2)).await;
        assert!(again.permit(env.mono()).unwrap().is_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_registry_forgets_only_breakers_without_a_memory() {
        let env = Env::real();
        let registry = Registry::with(&env, 2, None);
        let open = registry.breaker(&name("open"), &fragile(1)).unwrap();
        open.permit(env.mono()).unwrap().settle(env.mono(), Outcome::Upstream(Class::Fault), None);
        drop(open);
        drop(registry.breaker(&name("idle"), &fragile(1)).unwrap());
        let held = registry.breaker(&name("held"), &fragile(1)).unwrap();
        assert!(registry.get(&name("idle")).is_none(), "the idle one made room");
        let refused = registry.breaker(&name("more"), &fragile(1));
        assert_eq!(refused.err(), Some(Full::Full { most: 2 }));
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn states_transitions_and_refusals_are_metrics() {
        let env = Env::real();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = heard.clone();
        let listener = move |name: &Name, change: &Change| ears.lock().unwrap().push((name.clone(), change.to));
        let registry = Registry::with(&env, 10, Some(Arc::new(listener)));
        let breaker = registry.breaker(&name("a/b"), &fragile(1)).unwrap();
        breaker.permit(env.mono()).unwrap().settle(env.mono(), Outcome::Upstream(Class::Fault), None);
        assert!(breaker.permit(env.mono()).is_err());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &env.metrics()).unwrap();
        assert!(text.contains(r#"quorate_breaker_state{breaker="a/b"} 2"#), "{text}");
        assert!(text.contains(r#"quorate_breaker_refused_total{breaker="a/b"} 1"#), "{text}");
        assert!(text.contains(r#"quorate_breaker_transitions_total{breaker="a/b",to="open"} 1"#), "{text}");
        assert!(text.contains(r#"quorate_breaker_mode{breaker="a/b"} 0"#), "{text}");
        assert_eq!(*heard.lock().unwrap(), [(name("a/b"), State::Open)]);
        breaker.operate(Mode::ForcedOpen, env.mono());
        text.clear();
        prometheus_client::encoding::text::encode(&mut text, &env.metrics()).unwrap();
        assert!(text.contains(r#"quorate_breaker_mode{breaker="a/b"} 1"#), "{text}");
    }

    #[tokio::test]
    async fn what_is_forgotten_leaves_no_metric() {
        let env = Env::real();
        let registry = Registry::with(&env, 10, None);
        for nth in 0..100 {
            let breaker = registry.breaker(&name(&format!("a/{nth}")), &fragile(1)).unwrap();
            breaker.permit(env.mono()).unwrap().settle(env.mono(), Outcome::Upstream(Class::Fault), None);
            breaker.reset(env.mono());
        }
        registry.forget_idle(&name("a/99"));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &env.metrics()).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("quorate_breaker_transitions_total{"));
        assert_eq!(lines.count(), 2 * 9, "{text}");
    }
}
