//! Does any value at all satisfy several schemas at once?

use super::{
    conjunction::Conjunction,
    kinds::Kinds,
    numbers::{End, crossed},
    prover::Prover,
};

/// How far into a document, or into alternatives, a contradiction is looked for.
const DEPTH: usize = 4;

impl<'a> Prover<'a> {
    /// Whether it is certain that no value satisfies all of `all`. "No" may mean "not found".
    pub(super) fn is_vacuous(&mut self, all: &Conjunction<'a>, depth: usize) -> bool {
        if all.has_false() || all.kinds.is_empty() {
            return true;
        }
        if depth > 0 && !self.spend(1 + all.nodes.len()) {
            return false;
        }
        contradicts_itself(all)
            || self.lists_nothing(all)
            || self.lacks_a_part(all, depth)
            || self.has_no_alternative(all, depth)
    }

    fn lists_nothing(&mut self, all: &Conjunction<'a>) -> bool {
        all.listed().is_some_and(|values| !values.iter().any(|value| self.may_hold(all, value)))
    }

    fn lacks_a_part(&mut self, all: &Conjunction<'a>, depth: usize) -> bool {
        let eligible = depth < DEPTH && all.kinds.within(Kinds::OBJECT);
        eligible
            && all.required().into_iter().any(|name| {
                let part = self.property(all, name);
                self.is_vacuous(&part, depth + 1)
            })
    }

    fn has_no_alternative(&mut self, all: &Conjunction<'a>, depth: usize) -> bool {
        let Some(cases) = (depth < DEPTH).then(|| self.alternatives(all)).flatten() else { return false };
        cases.iter().all(|case| self.is_vacuous(case, depth + 1))
    }
}

fn contradicts_itself(all: &Conjunction<'_>) -> bool {
    let counts = |lower, upper| all.at_most(upper).is_some_and(|most| all.at_least(lower) > most);
    match all.kinds {
        kinds if kinds.within(Kinds::NUMBER) => match (all.bound(End::Lower), all.bound(End::Upper)) {
            (Some(lower), Some(upper)) => crossed(&lower, &upper),
            _ => false,
        },
        Kinds::STRING => counts("minLength", "maxLength"),
        Kinds::ARRAY => counts("minItems", "maxItems"),
        Kinds::OBJECT => counts("minProperties", "maxProperties"),
        _ => false,
    }
}
