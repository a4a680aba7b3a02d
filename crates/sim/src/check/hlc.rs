//! Do a node's stamps only grow, through restarts and clocks set back?
//!
//! Source: S. Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases" (2014),
//! theorem 1.

use std::{collections::BTreeMap, fmt};

use super::verdict::{Gathering, Kind, Verdict, Violation};

/// A stamp that a node gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped<S> {
    /// Who gave it. The same before and after a restart.
    pub node: String,
    /// The stamp.
    pub stamp: S,
    /// The stamp of what caused it, if it answers something received.
    pub heard: Option<S>,
}

/// Each node's stamps increase strictly, and each is larger than the one that caused it.
///
/// `stamped`: each node's stamps in the order in which it gave them.
///
/// ```
/// use quorate_sim::check::hlc::{Stamped, stamps_increase};
///
/// let stamped = |stamp| Stamped { node: "n1".into(), stamp, heard: None };
/// assert!(stamps_increase(&[stamped(4), stamped(5)]).holds());
/// assert!(stamps_increase(&[stamped(4), stamped(4)]).is_violated());
/// ```
pub fn stamps_increase<S: Ord + fmt::Display>(stamped: &[Stamped<S>]) -> Verdict {
    let mut gathering = Gathering::on("stamps of a node increase, and exceed what caused them");
    let mut latest: BTreeMap<&str, &S> = BTreeMap::new();
    for (number, Stamped { node, stamp, heard }) in (1..).zip(stamped) {
        gathering.examined(1);
        if let Some(before) = latest.insert(node, stamp)
            && before >= stamp
        {
            let sentence = format!("{node} stamped {stamp} after {before}");
            gathering.found(Violation::new(Kind::ClockBackwards, sentence).at(node, number));
        }
        if let Some(heard) = heard.as_ref().filter(|heard| *heard >= stamp) {
            let sentence = format!("{node} stamped {stamp} although it had heard of {heard}");
            gathering.found(Violation::new(Kind::ClockBackwards, sentence).at(node, number));
        }
    }
    gathering.verdict()
}
