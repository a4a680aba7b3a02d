//! What an object would do if it did one thing after the other.

use crate::check::history::OpId;

/// One operation on one object, as a checker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed<O, R> {
    /// Its name in the history.
    pub id: OpId,
    /// What was asked.
    pub op: O,
    /// When, by order of recording.
    pub invoked: u64,
    /// The answer, and when it came; `None` if the outcome is unknown: the operation may have taken effect at any time
    /// since, or never.
    pub answer: Option<(R, u64)>,
}

/// Answers that can't all be true in whatever order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// Whose answers.
    pub operations: Vec<OpId>,
    /// What they claim, as a sentence without full stop.
    pub sentence: String,
}

/// The sequential specification of one object.
pub trait Model {
    /// The object's state. Small and cheap to clone: the search keeps one for each point that it has visited.
    type State: Clone + Ord;
    /// What can be asked of it.
    type Op: Clone;
    /// What it can answer.
    type Ret: Clone;
    /// What is known of every explanation before the search begins; `()` if the model learns nothing.
    type Facts: Default;

    /// Whether an operation that took effect with unknown outcome would change nothing if it did so once more, then or
    /// later. If so, a state tells which unknown operations are left, and the search need not distinguish ways to it.
    const REPEATS_CHANGE_NOTHING: bool = false;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `op` on `state`, if `ret` is what it would answer there.
    ///
    /// With `ret` unknown (`None`) whatever the object would do; `None` if no explanation of the whole history has `op`
    /// take effect here, which only `facts` can tell.
    fn step(
        &self,
        facts: &Self::Facts,
        state: &Self::State,
        op: &Self::Op,
        ret: Option<&Self::Ret>,
    ) -> Option<Self::State>;

    /// What `op` and its answer look like to people.
    fn describe(&self, op: &Self::Op, ret: Option<&Self::Ret>) -> String;

    /// What the answers tell about every order that explains them.
    ///
    /// # Errors
    /// Answers that contradict each other in every order. Name as few operations as possible.
    fn learn(&self, operations: &[Observed<Self::Op, Self::Ret>]) -> Result<Self::Facts, Contradiction> {
        let _ = operations;
        Ok(Self::Facts::default())
    }

    /// Whether from `state` on, whatever happens, `op` can never again be answered with `ret`.
    fn never_again(&self, facts: &Self::Facts, state: &Self::State, op: &Self::Op, ret: &Self::Ret) -> bool {
        let _ = (facts, state, op, ret);
        false
    }

    /// Whether `op`, which answers `ret` at `state` and leaves it as it is, does so in every later state in which it gives
    /// that answer: a read does, a write of the value that is there already does not.
    fn only_looks(&self, state: &Self::State, op: &Self::Op, ret: &Self::Ret) -> bool {
        let _ = (state, op, ret);
        false
    }

    /// The memory that `state` takes, for the budget.
    fn bytes(&self, state: &Self::State) -> usize {
        size_of_val(state)
    }
}
