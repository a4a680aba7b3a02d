//! The operations of a search, in the order in which it looks at them.

use super::model::Observed;

/// An operation of the plan.
#[derive(Clone, Copy)]
pub(super) struct Step<'o, O, R> {
    /// Where it stands among the operations that were handed in.
    pub(super) index: usize,
    pub(super) op: &'o O,
    pub(super) invoked: u64,
    /// The answer and when it came. Absent for unknown operations.
    pub(super) answer: Option<(&'o R, u64)>,
}

/// Answered operations and unknown ones, each by invocation.
pub(super) struct Plan<'o, O, R> {
    pub(super) answered: Vec<Step<'o, O, R>>,
    pub(super) unknown: Vec<Step<'o, O, R>>,
}

impl<'o, O, R> Plan<'o, O, R> {
    /// `keeps_answer`: whether an operation is held to its answer; otherwise it counts as unknown.
    pub(super) fn of(operations: &'o [Observed<O, R>], keeps_answer: impl Fn(usize) -> bool) -> Self {
        let mut plan = Self { answered: Vec::new(), unknown: Vec::new() };
        for (index, operation) in operations.iter().enumerate() {
            let answer = operation.answer.as_ref().filter(|_| keeps_answer(index)).map(|(ret, at)| (ret, *at));
            let step = Step { index, op: &operation.op, invoked: operation.invoked, answer };
            let into = if answer.is_some() { &mut plan.answered } else { &mut plan.unknown };
            into.push(step);
        }
        plan.answered.sort_by_key(|step| step.invoked);
        plan.unknown.sort_by_key(|step| step.invoked);
        plan
    }
}
