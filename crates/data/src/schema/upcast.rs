//! Reading old events as if they had been written today.
//!
//! An upcaster turns the data of one version of an event type into those of a later one. Chained, they bring every
//! stored event to the latest version before anyone sees it, so that a decider or a projection knows one shape only and
//! history is never rewritten. [`UpcastersBuilder::build`] refuses chains with gaps, circles, duplicates, backward or
//! useless steps, so that none of these waits in an old event to be found in production.
//!
//! An upcaster is pure: same data in, same data out, no clock, no look-up. What it can't derive it must mark as unknown.
//! It sees one event at a time: several events are not merged into one here, that is a copying migration.

mod build;
pub mod golden;
pub mod tolerant;

pub use build::{BrokenChain, BrokenChains, UpcastersBuilder};

use super::version::SchemaVersion;
use quorate_foundations::name::Name;
use serde_json::Value;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Any error of a user's function.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An event's data, and what they are the data of.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// The event type.
    pub event_type: Name,
    /// The version of the type's schema that the data follow.
    pub version: SchemaVersion,
    /// The data.
    pub data: Value,
}

/// A type and a version of it, for error messages and paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeVersion {
    /// The event type.
    pub event_type: Name,
    /// The version.
    pub version: SchemaVersion,
}

impl fmt::Display for TypeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.event_type, self.version)
    }
}

impl Versioned {
    /// Which type and version this is.
    pub fn type_version(&self) -> TypeVersion {
        TypeVersion { event_type: self.event_type.clone(), version: self.version }
    }
}

/// What is done with an event newer than the latest version known here, written by a process already upgraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Newer {
    /// It is refused with [`UpcastError::Newer`]: whoever reads in order stops before it. The default.
    #[default]
    Refuse,
    /// It passes as it is, for tolerant readers of backward compatible types.
    Pass,
}

/// Why an event could not be brought to another version. The event is unchanged; the same will happen again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpcastError {
    /// An upcaster refused the data, or panicked on it.
    #[error("{event}: the step {step} failed")]
    Failed {
        /// The event as stored.
        event: TypeVersion,
        /// The step that failed: from where to where.
        step: String,
        /// What it said.
        #[source]
        source: BoxError,
    },
    /// A splitting upcaster yielded something that it had not declared.
    #[error("{event}: the step {step} yielded {found}, which it had not declared")]
    Undeclared {
        /// The event as stored.
        event: TypeVersion,
        /// The step.
        step: String,
        /// What it yielded.
        found: TypeVersion,
    },
    /// One event became more than [`Upcasters::MAX_EVENTS`].
    #[error("{event}: the event splits into more than {max} events", max = Upcasters::MAX_EVENTS)]
    TooMany {
        /// The event as stored.
        event: TypeVersion,
    },
    /// The event is newer than anything known here.
    #[error("{event} is newer than version {latest}, the latest known here")]
    Newer {
        /// The event as stored.
        event: TypeVersion,
        /// The latest version known.
        latest: SchemaVersion,
    },
    /// No downcasters lead to the version asked for.
    #[error("{path}: nothing leads further down")]
    NoWayDown {
        /// The way as far as it goes, then what was asked for.
        path: String,
    },
}

type Split = Arc<dyn Fn(Value) -> Result<Vec<Versioned>, BoxError> + Send + Sync>;

/// From one type and version to others.
#[derive(Clone)]
struct Step {
    to: Vec<TypeVersion>,
    run: Split,
}

impl Step {
    fn name(&self, from: &TypeVersion) -> String {
        let to: Vec<_> = self.to.iter().map(|to| shown_after(from, to)).collect();
        format!("{} -> {}", from.version, to.join(" + "))
    }
}

/// A version within the type of `from`; with the type's name elsewhere.
fn shown_after(from: &TypeVersion, to: &TypeVersion) -> String {
    if from.event_type == to.event_type { to.version.to_string() } else { to.to_string() }
}

type Steps = BTreeMap<Name, BTreeMap<SchemaVersion, Step>>;

/// Checked chains of upcasters, and of downcasters for consumers that lag behind. Cheap to clone.
///
/// # Example
/// ```
/// use quorate_data::schema::upcast::{Upcasters, Versioned};
/// use quorate_data::schema::SchemaVersion;
/// use serde_json::json;
///
/// let upcasters = Upcasters::builder()
///     .latest("payment.captured", 2)
///     .step("payment.captured", 1, 2, |mut data| {
///         let pounds = data["pounds"].take().as_i64().ok_or("pounds is not a whole number")?;
///         Ok(json!({"pence": pounds * 100}))
///     })
///     .build()?;
/// let stored = Versioned {
///     event_type: "payment.captured".parse()?,
///     version: SchemaVersion::FIRST,
///     data: json!({"pounds": 3}),
/// };
/// assert_eq!(upcasters.upcast(stored)?[0].data, json!({"pence": 300}));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Upcasters {
    chains: Arc<Chains>,
}

#[derive(Default)]
struct Chains {
    latest: BTreeMap<Name, SchemaVersion>,
    up: Steps,
    down: Steps,
    newer: Newer,
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.chains.latest).finish()
    }
}

impl Upcasters {
    /// Most events that one stored event may become.
    pub const MAX_EVENTS: usize = 1_000;

    /// Starts declaring chains.
    pub fn builder() -> UpcastersBuilder {
        UpcastersBuilder::default()
    }

    /// The latest version of a type; `None` for types without chains, whose events pass as they are.
    pub fn latest(&self, event_type: &str) -> Option<SchemaVersion> {
        self.chains.latest.get(event_type).copied()
    }

    /// Every type and version that has been written, or may have been, and can be read.
    pub fn known(&self) -> impl Iterator<Item = TypeVersion> {
        let current = self.chains.latest.iter().map(|(name, version)| (name, *version));
        let earlier = self.chains.up.iter().flat_map(|(name, steps)| steps.keys().map(move |version| (name, *version)));
        let all: BTreeSet<_> = current.chain(earlier).collect();
        all.into_iter().map(|(event_type, version)| TypeVersion { event_type: event_type.clone(), version })
    }

    /// The other types whose stored events may become events of `event_type`, over any number of steps.
    pub fn origins(&self, event_type: &str) -> BTreeSet<Name> {
        let mut origins = BTreeSet::new();
        let mut open = vec![event_type];
        while let Some(wanted) = open.pop() {
            for (from, steps) in &self.chains.up {
                let leads = steps.values().flat_map(|step| &step.to).any(|to| to.event_type.as_str() == wanted);
                if leads && from.as_str() != event_type && origins.insert(from.clone()) {
                    open.push(from.as_str());
                }
            }
        }
        origins
    }

    /// Brings a stored event to the latest version: one event as a rule, none or several where a step splits it.
    ///
    /// Events of types without chains pass as they are.
    ///
    /// # Errors
    /// [`UpcastError`]: which step failed and why, or that the event is newer than what is known here.
    pub fn upcast(&self, stored: Versioned) -> Result<Vec<Versioned>, UpcastError> {
        let origin = stored.type_version();
        let mut current = vec![];
        // A stack, filled in reverse, so that the parts of a split keep their order.
        let mut open = vec![stored];
        while let Some(event) = open.pop() {
            match self.step_from(&event) {
                Some(step) => open.extend(apply(step, event, &origin)?.into_iter().rev()),
                None => current.push(self.arrived(event, &origin)?),
            }
            if open.len() + current.len() > Self::MAX_EVENTS {
                return Err(UpcastError::TooMany { event: origin });
            }
        }
        Ok(current)
    }

    fn step_from(&self, event: &Versioned) -> Option<&Step> {
        self.chains.up.get(&event.event_type)?.get(&event.version)
    }

    fn arrived(&self, event: Versioned, origin: &TypeVersion) -> Result<Versioned, UpcastError> {
        match self.latest(event.event_type.as_str()) {
            Some(latest) if event.version > latest && self.chains.newer == Newer::Refuse => {
                Err(UpcastError::Newer { event: origin.clone(), latest })
            }
            _ => Ok(event),
        }
    }

    /// Takes an event down to `target`, for a consumer that knows no later version. An event that is not newer passes
    /// as it is.
    ///
    /// # Errors
    /// [`UpcastError::NoWayDown`] where downcasters are missing, [`UpcastError::Failed`] where one refused the data.
    pub fn downcast(&self, event: Versioned, target: SchemaVersion) -> Result<Versioned, UpcastError> {
        let origin = event.type_version();
        let mut event = event;
        let mut path = format!("{}: {}", event.event_type, event.version);
        while event.version > target {
            let steps = self.chains.down.get(&event.event_type);
            let step = steps.and_then(|steps| steps.get(&event.version)).filter(|step| step.to[0].version >= target);
            let Some(step) = step else {
                return Err(UpcastError::NoWayDown { path: format!("{path} -> ? -> {target}") });
            };
            path = format!("{path} -> {}", step.to[0].version);
            event = apply(step, event, &origin)?.swap_remove(0);
        }
        Ok(event)
    }
}

fn apply(step: &Step, event: Versioned, origin: &TypeVersion) -> Result<Vec<Versioned>, UpcastError> {
    let from = event.type_version();
    let name = || step.name(&from);
    // A step is a user's: one that panics has failed on this event, and takes nobody with it who reads others.
    let ran = catch_unwind(AssertUnwindSafe(|| (step.run)(event.data)));
    let results = ran.unwrap_or_else(|panic| Err(said(&*panic).into())).map_err(|source| UpcastError::Failed {
        event: origin.clone(),
        step: name(),
        source,
    })?;
    match results.iter().map(Versioned::type_version).find(|found| !step.to.contains(found)) {
        Some(found) => Err(UpcastError::Undeclared { event: origin.clone(), step: name(), found }),
        None => Ok(results),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "it panicked".to_owned(), |text| format!("it panicked: {text}"))
}

#[cfg(test)]
mod tests;
