//! Steps that are sagas of their own.

use std::sync::Arc;

use quorate_foundations::name::Name;

use super::{Answer, Call};
use crate::saga::{Config, journal::Journal};

type Input = dyn Fn(&Call) -> Answer + Send + Sync;

/// A saga that a step starts, in the same store and in the transaction of the step's record: there is no crash between the two.
///
/// * It **completes**: the step is done, with its output. It is **compensated**: the step was refused. It was **forced**: nobody knows what the
///   step came to, so it is not tried again.
/// * While it is **stuck** the step waits, and says for whom. A deadline or an abort of the saga above reaches it: it turns back, unless its pivot is
///   done or may be; then the saga above waits for it.
/// * **Undoing** the step has the saga that completed make up for all its steps, the last one first, unless the step has a compensation of its own.
///   One whose [pivot](super::Kind::Pivot) is done refuses that, and so does one that was forced: the compensation is stuck, and somebody decides.
/// * Its id is made of the key of the step, and of the attempt. A saga of that id which the step did not start has the step refused.
/// * Its business key is what its document finds in its input, or the key of the saga above.
///
/// ```
/// use quorate_consistency::saga::{Action, Child, Step};
/// use serde_json::json;
///
/// let pay = Child::of("payment".parse()?).input(|call| Ok(json!({ "cents": call.input::<u64>()? })));
/// let step = Step::new("pay", Action::child(pay));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Child {
    pub(in crate::saga) name: Name,
    pub(in crate::saga) version: Option<u32>,
    input: Option<Arc<Input>>,
}

impl Child {
    /// The most sagas that may be above one: what starts itself without end is refused there, and all that it began is made up for.
    pub const MAX_DEPTH: u32 = 8;

    /// The most sagas of a family: of one that no step started, and all below it, those that have ended as well. One more is refused to its step.
    /// Where several of them begin others at the same moment there may be a few more.
    pub const MAX_FAMILY: usize = 10_000;

    /// A saga of that name, of the newest version that is defined here when it starts, with what the plan gave the step, or else with what the saga
    /// above was started with.
    pub fn of(name: Name) -> Self {
        Self { name, version: None, input: None }
    }

    /// Of this version, whichever is the newest.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Started with what `input` says. It is asked inside a transaction: it does nothing else.
    #[must_use]
    pub fn input(mut self, input: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        self.input = Some(Arc::new(input));
        self
    }

    /// What a child is started with by `call`.
    pub(in crate::saga) fn input_for(&self, call: &Call) -> Answer {
        match &self.input {
            Some(input) => input(call),
            None if call.given.is_null() => Ok(call.journal.input.clone()),
            None => Ok(call.given.clone()),
        }
    }

    /// How many sagas are above one that `journal` starts.
    pub(in crate::saga) fn depth_below(journal: &Journal) -> u32 {
        journal.parent.as_ref().map_or(0, |parent| parent.depth).saturating_add(1)
    }

    /// The id of the child that `call` starts: the same for the same attempt, and one that people know again. An attempt is begun only behind the end
    /// of the child before, so that each has one of its own.
    pub(in crate::saga) fn id_for(call: &Call) -> Arc<str> {
        let hash = blake3::hash(format!("{}/{}", call.key(), call.attempt).as_bytes()).to_hex();
        let known = format!("{}.{}.{}", call.id, call.step, &hash[..12]);
        if known.len() <= Config::MAX_ID_BYTES { known.into() } else { hash.as_str().into() }
    }
}
