//! Does a lease have one holder, and does what it protects accept only the newest?
//!
//! A holder may believe in its lease longer than it lasts: it was suspended, or its clock is slow. That is why every grant
//! carries a *fencing token* that only grows, and the protected resource refuses whoever comes with a smaller one than it
//! has seen.
//!
//! Source: C. Gray, D. Cheriton, "Leases" (1989); M. Kleppmann, "How to do distributed locking" (2016).

use std::collections::BTreeMap;

use quorate_foundations::time::Mono;
use serde::{Deserialize, Serialize};

use super::verdict::{Gathering, Kind, Verdict, Violation};

/// What happened to a lease or to what it protects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The lease was granted.
    Granted {
        /// Of what.
        resource: String,
        /// To whom.
        holder: String,
        /// With which fencing token.
        fence: u64,
    },
    /// Somebody used the resource, with the token of its lease.
    Used {
        /// The resource.
        resource: String,
        /// By whom.
        holder: String,
        /// With which fencing token.
        fence: u64,
        /// Whether the resource accepted it.
        accepted: bool,
    },
}

/// Every grant has a larger token than the one before; a resource accepts only tokens that were granted to whoever uses
/// them, and never a smaller one than before.
///
/// `steps`: those of each resource in the order in which they happened.
pub fn fences_hold(steps: &[Step]) -> Verdict {
    let mut gathering = Gathering::on("fencing tokens only grow, and what they protect refuses old ones");
    let mut granted: BTreeMap<&str, BTreeMap<u64, &str>> = BTreeMap::new();
    let mut accepted: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    for step in steps {
        gathering.examined(1);
        let (resource, fence, sentence) = match step {
            Step::Granted { resource, holder, fence } => {
                let grants = granted.entry(resource).or_default();
                let newest = grants.last_key_value().map(|(newest, to)| (*newest, *to));
                grants.entry(*fence).or_insert(holder);
                let Some((newest, to)) = newest.filter(|(newest, _)| newest >= fence) else { continue };
                let sentence =
                    format!("{resource} was granted to {holder} with token {fence}, after {newest} went to {to}");
                (resource, fence, sentence)
            }
            Step::Used { accepted: false, .. } => continue,
            Step::Used { resource, holder, fence, .. } => {
                let known = granted.get(resource.as_str()).and_then(|grants| grants.get(fence));
                let before = accepted.get(resource.as_str()).copied();
                if before.is_none_or(|(newest, _)| newest < *fence) {
                    accepted.insert(resource, (*fence, holder));
                }
                let sentence = match (known, before) {
                    (None, _) => format!("{resource} accepted token {fence} of {holder}, which was never granted"),
                    (Some(to), _) if *to != holder => {
                        format!("{resource} accepted token {fence} of {holder}, which was granted to {to}")
                    }
                    (_, Some((newest, by))) if newest > *fence => {
                        format!("{resource} accepted token {fence} of {holder}, after {newest} of {by}")
                    }
                    _ => continue,
                };
                (resource, fence, sentence)
            }
        };
        gathering.found(Violation::new(Kind::LeaseShared, sentence).at(resource, *fence));
    }
    gathering.verdict()
}

/// The time during which a holder rightly counts on its lease: from the grant to when it ends by the rules (given back,
/// or expired in the world's time).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Of what.
    pub resource: String,
    /// Who.
    pub holder: String,
    /// With which fencing token.
    pub fence: u64,
    /// From when.
    pub from: Mono,
    /// Until when, exclusive.
    pub until: Mono,
}

/// No resource has two live holders at any time. A lease that was renewed under its token is one tenure, or several.
pub fn one_holder(tenures: &[Tenure]) -> Verdict {
    let mut gathering = Gathering::on("a lease has at most one live holder");
    let mut resources: BTreeMap<&str, Vec<&Tenure>> = BTreeMap::new();
    for tenure in tenures.iter().filter(|tenure| tenure.from < tenure.until) {
        resources.entry(&tenure.resource).or_default().push(tenure);
    }
    for (resource, mut tenures) in resources {
        gathering.examined(tenures.len());
        tenures.sort_by_key(|tenure| (tenure.from, tenure.until));
        let mut longest: Option<&Tenure> = None;
        for tenure in tenures {
            if let Some(other) = longest.filter(|other| other.until > tenure.from)
                && (other.fence, &other.holder) != (tenure.fence, &tenure.holder)
            {
                let sentence = format!(
                    "{resource} is held by {} (token {}) until {} ns, and by {} (token {}) from {} ns",
                    other.holder,
                    other.fence,
                    other.until.as_nanos(),
                    tenure.holder,
                    tenure.fence,
                    tenure.from.as_nanos()
                );
                gathering.found(Violation::new(Kind::LeaseShared, sentence).at(resource, tenure.fence));
            }
            longest = longest.filter(|other| other.until >= tenure.until).or(Some(tenure));
        }
    }
    gathering.verdict()
}
