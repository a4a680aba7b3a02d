//! Declaring chains, and refusing those that do not hold together.

use super::{BoxError, Chains, Newer, Split, Step, Steps, TypeVersion, Upcasters, Versioned, shown_after};
use crate::schema::version::SchemaVersion;
use quorate_foundations::name::{Name, NameError};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// What is wrong with a chain, with the way that leads there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenChain {
    /// A name is not an event type.
    #[error("`{name}` is not an event type")]
    Name {
        /// The name, cut to 100 bytes.
        name: String,
        /// What is wrong with it.
        #[source]
        error: NameError,
    },
    /// Versions are counted from 1.
    #[error("{event_type}: version 0 does not exist; versions are counted from 1")]
    Zero {
        /// The event type.
        event_type: Name,
    },
    /// Events of a version would be stuck there.
    #[error("{path}: nothing leads from {from} to {next}")]
    Gap {
        /// The way, with `?` for what is missing.
        path: String,
        /// Where events get stuck.
        from: SchemaVersion,
        /// The next version from which there is a way on.
        next: SchemaVersion,
    },
    /// A step leads to a type or version that nothing is declared about.
    #[error("{path}: nothing is declared about {to}")]
    Nowhere {
        /// The step.
        path: String,
        /// Where it leads.
        to: TypeVersion,
    },
    /// Events would go round for ever.
    #[error("{path}: a circle")]
    Cycle {
        /// The circle, its first version repeated at the end.
        path: String,
    },
    /// Two steps start at the same version.
    #[error("{event_type}: two steps start at {from}, one to {first} and one to {second}")]
    Duplicate {
        /// The event type.
        event_type: Name,
        /// Where both start.
        from: SchemaVersion,
        /// Where the one leads.
        first: String,
        /// Where the other leads.
        second: String,
    },
    /// A type was given two latest versions.
    #[error("{event_type}: both {first} and {second} are declared as the latest version")]
    TwoLatest {
        /// The event type.
        event_type: Name,
        /// The one.
        first: SchemaVersion,
        /// The other.
        second: SchemaVersion,
    },
    /// A step leads in the wrong direction, or nowhere.
    #[error("{event_type}: the step {from} -> {to} does not lead {direction}")]
    Downgrade {
        /// The event type.
        event_type: Name,
        /// Where it starts.
        from: SchemaVersion,
        /// Where it leads.
        to: SchemaVersion,
        /// `up` for upcasters, `down` for downcasters.
        direction: &'static str,
    },
    /// A step starts at a version that no event has: the latest, which stays, or one beyond it.
    #[error("{event_type}: the step {step} is never taken, the latest version is {latest}")]
    Unreachable {
        /// The event type.
        event_type: Name,
        /// The step.
        step: String,
        /// The latest version.
        latest: SchemaVersion,
    },
}

/// Everything wrong with a set of chains; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenChains(pub Vec<BrokenChain>);

impl fmt::Display for BrokenChains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(BrokenChain::to_string).collect::<Vec<_>>().join("; "))
    }
}

impl std::error::Error for BrokenChains {}

struct Declared {
    from: (String, u32),
    to: Vec<(String, u32)>,
    run: Split,
    down: bool,
}

/// Declares chains of upcasters; nothing is checked before [`build`](Self::build).
///
/// A type with a [`latest`](Self::latest) version may have events of every version up to it. A type without one is
/// retired: its events, of every version up to the last from which a step starts, must lead to other types.
#[derive(Default)]
#[must_use]
pub struct UpcastersBuilder {
    latest: Vec<(String, u32)>,
    declared: Vec<Declared>,
    newer: Newer,
}

impl UpcastersBuilder {
    /// The version that readers know `event_type` by.
    pub fn latest(mut self, event_type: &str, version: u32) -> Self {
        self.latest.push((event_type.into(), version));
        self
    }

    /// What is done with events newer than the latest version. Default: they are refused.
    pub fn newer(self, newer: Newer) -> Self {
        Self { newer, ..self }
    }

    /// From one version of a type to a later one.
    pub fn step(
        self,
        event_type: &str,
        from: u32,
        to: u32,
        upcast: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.rename((event_type, from), (event_type, to), upcast)
    }

    /// From a version of one type to a version of another, or of the same.
    pub fn rename(
        self,
        from: (&str, u32),
        to: (&str, u32),
        upcast: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let target = to.0.parse::<Name>().ok().zip(SchemaVersion::new(to.1));
        let run = move |data| {
            let data = upcast(data)?;
            // A target that is not one is refused by `build`, so this never runs without.
            let result = target.clone().map(|(event_type, version)| Versioned { event_type, version, data });
            Ok(result.into_iter().collect())
        };
        self.declare(from, &[to], Arc::new(run), false)
    }

    /// From a version of one type to any number of events, each of one of the types and versions `to`, in order.
    pub fn split(
        self,
        from: (&str, u32),
        to: &[(&str, u32)],
        upcast: impl Fn(Value) -> Result<Vec<Versioned>, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.declare(from, to, Arc::new(upcast), false)
    }

    /// From one version of a type to an earlier one, for consumers that lag behind.
    pub fn down(
        self,
        event_type: &str,
        from: u32,
        to: u32,
        downcast: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let mut built = self.rename((event_type, from), (event_type, to), downcast);
        built.declared.iter_mut().last().into_iter().for_each(|declared| declared.down = true);
        built
    }

    fn declare(mut self, from: (&str, u32), to: &[(&str, u32)], run: Split, down: bool) -> Self {
        let owned = |(name, version): &(&str, u32)| ((*name).to_owned(), *version);
        self.declared.push(Declared { from: owned(&from), to: to.iter().map(owned).collect(), run, down });
        self
    }

    /// Checks that every version of every type leads to a latest one, by exactly one way.
    ///
    /// # Errors
    /// [`BrokenChains`]: everything found wrong, each with the way that leads there.
    pub fn build(self) -> Result<Upcasters, BrokenChains> {
        let mut check = Check::default();
        let newer = self.newer;
        self.latest.into_iter().for_each(|latest| check.latest(latest));
        self.declared.into_iter().for_each(|declared| check.step(declared));
        check.whole();
        let Check { broken, latest, up, down } = check;
        let chains = Chains { latest, up, down, newer };
        if broken.is_empty() { Ok(Upcasters { chains: Arc::new(chains) }) } else { Err(BrokenChains(broken)) }
    }
}

#[derive(Default)]
struct Check {
    broken: Vec<BrokenChain>,
    latest: BTreeMap<Name, SchemaVersion>,
    up: Steps,
    down: Steps,
}

impl Check {
    fn named(&mut self, (name, version): (String, u32)) -> Option<TypeVersion> {
        let clipped = || crate::schema::document::clipped(name.clone(), 100);
        let event_type = match Name::new(name.as_str()) {
            Ok(event_type) => event_type,
            Err(error) => {
                self.broken.push(BrokenChain::Name { name: clipped(), error });
                return None;
            }
        };
        let Some(version) = SchemaVersion::new(version) else {
            self.broken.push(BrokenChain::Zero { event_type });
            return None;
        };
        Some(TypeVersion { event_type, version })
    }

    fn latest(&mut self, declared: (String, u32)) {
        let Some(TypeVersion { event_type, version }) = self.named(declared) else { return };
        match self.latest.insert(event_type.clone(), version) {
            Some(first) if first != version => {
                self.broken.push(BrokenChain::TwoLatest { event_type, first, second: version });
            }
            _ => {}
        }
    }

    fn step(&mut self, declared: Declared) {
        let Declared { from, to, run, down } = declared;
        let from = self.named(from);
        let count = to.len();
        let to: Vec<_> = to.into_iter().filter_map(|to| self.named(to)).collect();
        let Some(from) = from.filter(|_| to.len() == count) else { return };
        self.direction(&from, &to, down);
        let step = Step { to, run };
        let name = |step: &Step| step.to.iter().map(|to| shown_after(&from, to)).collect::<Vec<_>>().join(" + ");
        let second = name(&step);
        let steps = if down { &mut self.down } else { &mut self.up };
        let first = steps.entry(from.event_type.clone()).or_default().insert(from.version, step);
        if let Some(first) = first.as_ref().map(name) {
            self.broken.push(BrokenChain::Duplicate { event_type: from.event_type, from: from.version, first, second });
        }
    }

    fn direction(&mut self, from: &TypeVersion, to: &[TypeVersion], down: bool) {
        let direction = if down { "down" } else { "up" };
        let within = to.iter().filter(|to| to.event_type == from.event_type);
        let wrong = within.filter(|to| if down { to.version >= from.version } else { to.version <= from.version });
        let broken = wrong.map(|to| BrokenChain::Downgrade {
            event_type: from.event_type.clone(),
            from: from.version,
            to: to.version,
            direction,
        });
        self.broken.extend(broken);
    }

    fn whole(&mut self) {
        let types: BTreeSet<Name> = self.latest.keys().chain(self.up.keys()).cloned().collect();
        for event_type in &types {
            self.useless(event_type);
            self.gaps(event_type);
        }
        self.targets();
        self.circles();
    }

    /// Steps from the latest version or beyond it.
    fn useless(&mut self, event_type: &Name) {
        let Some((latest, steps)) = self.latest.get(event_type).copied().zip(self.up.get(event_type)) else { return };
        let broken = steps.range(latest..).map(|(from, step)| {
            let from = TypeVersion { event_type: event_type.clone(), version: *from };
            BrokenChain::Unreachable { event_type: event_type.clone(), step: step.name(&from), latest }
        });
        self.broken.extend(broken);
    }

    /// The last version that events of a type may have.
    fn last(&self, event_type: &Name) -> Option<SchemaVersion> {
        let retired = || self.up.get(event_type)?.keys().next_back().copied();
        self.latest.get(event_type).copied().or_else(retired)
    }

    /// Versions before the last one from which no step starts.
    fn gaps(&mut self, event_type: &Name) {
        let Some(last) = self.last(event_type) else { return };
        let none = BTreeMap::new();
        let steps = self.up.get(event_type).unwrap_or(&none);
        let mut next = last;
        let mut gaps = vec![];
        for version in last.and_earlier().rev().skip(1) {
            if steps.contains_key(&version) {
                next = version;
            } else {
                let way = way_to(steps, event_type, version);
                let path = format!("{event_type}: {way} -> ? -> {last}");
                gaps.push(BrokenChain::Gap { path, from: version, next });
            }
        }
        self.broken.extend(gaps.into_iter().rev());
    }

    /// Targets that are beyond what is declared.
    fn targets(&mut self) {
        let mut broken = vec![];
        for (event_type, steps) in &self.up {
            for (version, step) in steps {
                let from = TypeVersion { event_type: event_type.clone(), version: *version };
                let beyond = |to: &&TypeVersion| self.last(&to.event_type).is_none_or(|last| to.version > last);
                broken.extend(step.to.iter().filter(beyond).map(|to| BrokenChain::Nowhere {
                    path: format!("{event_type}: {version} -> {}", shown_after(&from, to)),
                    to: to.clone(),
                }));
            }
        }
        self.broken.extend(broken);
    }

    /// Each circle once, from its smallest member.
    fn circles(&mut self) {
        let starts = self.up.iter().flat_map(|(name, steps)| steps.keys().map(move |version| (name, *version)));
        let starts: Vec<_> = starts.map(|(name, version)| TypeVersion { event_type: name.clone(), version }).collect();
        let circles = starts.iter().filter_map(|start| self.circle(start));
        let broken: Vec<_> = circles.map(|path| BrokenChain::Cycle { path }).collect();
        self.broken.extend(broken);
    }

    /// The shortest way from `start` back to it, if it passes nothing smaller.
    fn circle(&self, start: &TypeVersion) -> Option<String> {
        let mut came_from: BTreeMap<TypeVersion, TypeVersion> = BTreeMap::new();
        let mut open = std::collections::VecDeque::from([start.clone()]);
        while let Some(here) = open.pop_front() {
            let step = self.up.get(&here.event_type).and_then(|steps| steps.get(&here.version));
            for next in step.into_iter().flat_map(|step| &step.to) {
                if next == start {
                    return Some(walk(&came_from, start, &here));
                }
                if next > start && !came_from.contains_key(next) {
                    came_from.insert(next.clone(), here.clone());
                    open.push_back(next.clone());
                }
            }
        }
        None
    }
}

/// `start -> … -> last -> start`, in words.
fn walk(came_from: &BTreeMap<TypeVersion, TypeVersion>, start: &TypeVersion, last: &TypeVersion) -> String {
    let back = std::iter::successors(Some(last), |here| came_from.get(*here));
    let mut names: Vec<_> = back.map(TypeVersion::to_string).collect();
    names.reverse();
    names.push(start.to_string());
    names.join(" -> ")
}

/// The way from the earliest version to `version` within one type: `1 -> 2`.
fn way_to(steps: &BTreeMap<SchemaVersion, Step>, event_type: &Name, version: SchemaVersion) -> String {
    let leads_to = |target: SchemaVersion| {
        let lands = |step: &Step| step.to.iter().any(|to| to.event_type == *event_type && to.version == target);
        steps.range(..target).find(|(_, step)| lands(step)).map(|(from, _)| *from)
    };
    let mut way: Vec<_> = std::iter::successors(Some(version), |version| leads_to(*version)).collect();
    way.reverse();
    way.iter().map(SchemaVersion::to_string).collect::<Vec<_>>().join(" -> ")
}
