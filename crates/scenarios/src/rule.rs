//! Rules of a scenario's own, told as the claims of the checkers are: what was promised, how much it was held against, and what broke it.

use quorate_sim::{
    Outcome, Violation,
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

/// What is broken where a server ended itself more often than a sync failed: a node does that since nobody knows then what is
/// durable, and for nothing else, and whoever starts it again would hide it.
pub(crate) fn ended_for_nothing(outcome: &Outcome) -> Option<Violation> {
    let ended = outcome.reached.get("a server ended itself").copied().unwrap_or(0);
    let failed = outcome.injected.get("disk: sync failed").copied().unwrap_or(0);
    (ended > failed)
        .then(|| Violation::new("server", format!("servers ended themselves {ended} times, for {failed} failed syncs")))
}

/// The names of the claims that are broken, once for each time.
#[cfg(test)]
pub(crate) fn names(verdicts: &[Verdict]) -> Vec<String> {
    verdicts.iter().flat_map(broken).map(|found| found.rule).collect()
}

#[cfg(test)]
mod tests {
    use quorate_sim::{Settings, Sim, Swarm};

    use super::*;

    #[test]
    fn whoever_ends_itself_although_no_sync_failed_is_told() {
        let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), ..Settings::default() });
        sim.client("nobody", |_| async { Ok(()) });
        let mut outcome = sim.run();
        assert_eq!(ended_for_nothing(&outcome), None);
        outcome.reach("a server ended itself");
        assert_eq!(ended_for_nothing(&outcome).map(|found| found.rule), Some("server".to_owned()));
        outcome.injected.insert("disk: sync failed".to_owned(), 1);
        assert_eq!(ended_for_nothing(&outcome), None);
    }
}
