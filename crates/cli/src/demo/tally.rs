//! What happened so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use quorate_foundations::time::Mono;
use serde_json::Value;

use super::plan::Kind;

/// The most violations that are kept: what is wrong is plain long before.
const MOST: usize = 100;

/// What happened so far.
pub(super) struct Tally {
    pub(super) begun: Mono,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    placed: u64,
    acknowledged: BTreeSet<String>,
    faults: BTreeMap<Kind, u64>,
    log: Vec<String>,
    checks: BTreeMap<String, u64>,
    states: BTreeMap<String, Value>,
    violations: Vec<String>,
}

impl Tally {
    pub(super) fn new(begun: Mono) -> Self {
        Self { begun, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An order is on its way.
    pub(super) fn placed(&self) {
        self.kept().placed += 1;
    }

    /// An order was taken, and its customer was told so.
    pub(super) fn taken(&self, id: String) {
        self.kept().acknowledged.insert(id);
    }

    /// Orders whose customers know that they were taken.
    pub(super) fn acknowledged(&self) -> BTreeSet<String> {
        self.kept().acknowledged.clone()
    }

    /// How many orders were placed, and how many of them are answered.
    pub(super) fn orders(&self) -> (u64, u64) {
        let kept = self.kept();
        (kept.placed, kept.acknowledged.len() as u64)
    }

    /// Something began to go wrong.
    pub(super) fn tell(&self, fault: String) {
        self.kept().log.push(fault);
    }

    /// A fault changed something for somebody.
    pub(super) fn struck(&self, kind: Kind) {
        *self.kept().faults.entry(kind).or_default() += 1;
    }

    /// How often each kind of fault struck.
    pub(super) fn faults(&self) -> BTreeMap<Kind, u64> {
        self.kept().faults.clone()
    }

    /// The last few faults, in words.
    pub(super) fn last_faults(&self, count: usize) -> Vec<String> {
        let kept = self.kept();
        kept.log[kept.log.len().saturating_sub(count)..].to_vec()
    }

    /// A service said how it stands.
    pub(super) fn state(&self, service: &str, state: Value) {
        let mut kept = self.kept();
        *kept.checks.entry(service.to_owned()).or_default() += 1;
        kept.states.insert(service.to_owned(), state);
    }

    /// How often each service's sums were looked at.
    pub(super) fn checks(&self) -> BTreeMap<String, u64> {
        self.kept().checks.clone()
    }

    /// How a service stood when it last said so.
    pub(super) fn standing(&self, service: &str) -> Value {
        self.kept().states.get(service).cloned().unwrap_or_default()
    }

    /// Something does not hold.
    pub(super) fn violated(&self, what: String) {
        let mut kept = self.kept();
        if kept.violations.len() < MOST && !kept.violations.contains(&what) {
            kept.violations.push(what);
        }
    }

    /// All that does not hold.
    pub(super) fn violations(&self) -> Vec<String> {
        self.kept().violations.clone()
    }
}
