//! Rules of a scenario's own, told as the claims of the checkers are: what was promised, how much it was held against, and what broke it.

use quorate_sim::{
    Violation,
    check::{self, Finding, Kind, VIOLATIONS_TOLD, Verdict},
};

/// The verdict on `claim`, which was held against `examined` things.
pub(crate) fn verdict(claim: &str, examined: usize, broken: impl IntoIterator<Item = String>) -> Verdict {
    let mut broken = broken.into_iter();
    let told = broken.by_ref().take(VIOLATIONS_TOLD);
    let violations: Vec<_> = told.map(|sentence| check::Violation::new(Kind::Rule, sentence)).collect();
    let finding = if violations.is_empty() {
        Finding::Holds { examined: examined as u64 }
    } else {
        Finding::Violated { violations, more: broken.count() as u64 }
    };
    Verdict { claim: claim.to_owned(), finding }
}

/// What is broken of a claim.
pub(crate) fn broken(verdict: &Verdict) -> impl Iterator<Item = Violation> {
    verdict.violations().iter().map(|violation| Violation::new(verdict.claim.as_str(), violation.sentence.as_str()))
}

/// The names of the claims that are broken, once for each time.
#[cfg(test)]
pub(crate) fn names(verdicts: &[Verdict]) -> Vec<String> {
    verdicts.iter().flat_map(broken).map(|found| found.rule).collect()
}
