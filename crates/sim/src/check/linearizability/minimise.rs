//! From a history that can't be explained to the few operations that are to blame.

use super::{
    Budget, CounterExample, Judged, Linearizability,
    model::{Contradiction, Model, Observed},
    plan::Plan,
    search::{self, Found},
};
use crate::check::history::OpId;

/// One attempt may take this share of the budget's steps. It need not succeed: what can't be told quickly stays in.
const SHARE: u64 = 64;

/// Looks for the smallest part of `operations` that no order explains.
///
/// `operations` as a whole were found impossible, at the cost of `steps`.
pub(super) fn counter_example<M: Model>(
    model: &M,
    operations: &[Observed<M::Op, M::Ret>],
    budget: Budget,
    steps: u64,
) -> Judged {
    let budget = Budget { steps: budget.steps / SHARE, ..budget };
    let mut minimiser = Minimiser { model, operations, budget, steps };
    let returns = minimiser.smallest_prefix();
    let counter_example = minimiser.explain(&returns);
    Judged { verdict: Linearizability::Violated(counter_example), steps: minimiser.steps }
}

struct Minimiser<'m, M: Model> {
    model: &'m M,
    operations: &'m [Observed<M::Op, M::Ret>],
    budget: Budget,
    steps: u64,
}

impl<M: Model> Minimiser<'_, M> {
    /// The answers of the smallest beginning that can't be explained, in the order in which they came.
    ///
    /// Every beginning of what can be explained can be, too, so halving finds it.
    fn smallest_prefix(&mut self) -> Vec<usize> {
        let mut returns: Vec<usize> =
            (0..self.operations.len()).filter(|index| self.operations[*index].answer.is_some()).collect();
        returns.sort_by_key(|index| self.returned(*index));
        // Invariant: the first `impossible` answers can't be explained, the first `possible` can, as far as is known.
        let (mut possible, mut impossible) = (0, returns.len());
        while possible + 1 < impossible {
            let middle = usize::midpoint(possible, impossible);
            let beginning = self.beginning(&returns[..middle]);
            let found = match self.model.learn(&beginning) {
                Err(_) => true,
                Ok(facts) => self.is_impossible(&facts, &beginning, |_| true),
            };
            *(if found { &mut impossible } else { &mut possible }) = middle;
        }
        returns.truncate(impossible);
        returns
    }

    /// What had been recorded when the last of `returns` came: later answers are unknown, later invocations not there.
    fn beginning(&self, returns: &[usize]) -> Vec<Observed<M::Op, M::Ret>> {
        let end = returns.last().map_or(0, |last| self.returned(*last));
        let known = self.operations.iter().filter(|operation| operation.invoked < end);
        let mut beginning: Vec<_> = known.cloned().collect();
        for operation in &mut beginning {
            operation.answer.take_if(|(_, at)| *at > end);
        }
        beginning
    }

    fn returned(&self, index: usize) -> u64 {
        self.operations[index].answer.as_ref().map_or(u64::MAX, |(_, at)| *at)
    }

    fn explain(&mut self, returns: &[usize]) -> CounterExample {
        let beginning = self.beginning(returns);
        let last = returns.last().map_or(OpId(0), |last| self.operations[*last].id);
        let prefix = beginning.len();
        let (operations, sentence) = match self.model.learn(&beginning) {
            Err(Contradiction { operations, sentence }) => (operations, sentence),
            Ok(facts) => {
                let blamed = self.smallest_subset(&facts, &beginning);
                (blamed.iter().map(|index| beginning[*index].id).collect(), self.sentence(&beginning, &blamed))
            }
        };
        CounterExample { operations, sentence, last, prefix }
    }

    /// The fewest operations that can't be explained if the others may have happened in any way that the facts allow.
    ///
    /// Leaving fewer operations with their answers only allows more, so each need be tried once: first in large groups,
    /// then alone.
    fn smallest_subset(&mut self, facts: &M::Facts, beginning: &[Observed<M::Op, M::Ret>]) -> Vec<usize> {
        let mut kept: Vec<usize> = (0..beginning.len()).filter(|index| beginning[*index].answer.is_some()).collect();
        let mut size = kept.len().div_ceil(2);
        loop {
            let mut begin = 0;
            while begin < kept.len() {
                let end = kept.len().min(begin + size);
                let fewer: Vec<usize> = [&kept[..begin], &kept[end..]].concat();
                if self.is_impossible(facts, beginning, |index| fewer.binary_search(&index).is_ok()) {
                    kept = fewer;
                } else {
                    begin = end;
                }
            }
            if size <= 1 {
                return kept;
            }
            size = size.div_ceil(2);
        }
    }

    fn is_impossible(
        &mut self,
        facts: &M::Facts,
        operations: &[Observed<M::Op, M::Ret>],
        keeps_answer: impl Fn(usize) -> bool,
    ) -> bool {
        let plan = Plan::of(operations, keeps_answer);
        let (found, steps) = search::search(self.model, facts, &plan, self.budget);
        self.steps += steps;
        matches!(found, Found::Nothing)
    }

    fn sentence(&self, beginning: &[Observed<M::Op, M::Ret>], blamed: &[usize]) -> String {
        let told: Vec<String> = blamed
            .iter()
            .map(|index| {
                let Observed { id, op, answer, .. } = &beginning[*index];
                format!("{id} ({})", self.model.describe(op, answer.as_ref().map(|(ret, _)| ret)))
            })
            .collect();
        format!("no order of the operations explains what these were told: {}", told.join("; "))
    }
}
