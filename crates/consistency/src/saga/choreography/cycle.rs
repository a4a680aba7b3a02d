//! Reactions that lead back to themselves, found before the first event.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Process, ProcessError};

/// One reaction as an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge<'a> {
    to: &'a Arc<str>,
    by: &'a str,
}

/// Refuses reactions that form a cycle, also one over several processes, and tells its path. Reactions that are
/// [meant](super::Reaction::again) to do so are passed over: the limits of a chain bound them.
pub(super) fn check<'p>(processes: impl IntoIterator<Item = &'p Process>) -> Result<(), ProcessError> {
    let mut edges: BTreeMap<&Arc<str>, BTreeSet<Edge<'_>>> = BTreeMap::new();
    for process in processes {
        for reaction in process.reactions.iter().filter(|one| !one.again) {
            let out = edges.entry(&reaction.on).or_default();
            out.extend(reaction.emits.iter().map(|to| Edge { to, by: &reaction.by }));
        }
    }
    match find(&edges) {
        Some(path) => Err(ProcessError::Cycle { path }),
        None => Ok(()),
    }
}

/// The first cycle, as `a → b (by x) → a (by y)`. Iterative: as deep as there are types.
fn find(edges: &BTreeMap<&Arc<str>, BTreeSet<Edge<'_>>>) -> Option<String> {
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        if done.contains(*start) {
            continue;
        }
        // The path, and what is left to try behind each type on it.
        let mut path: Vec<(&Arc<str>, &str, Vec<&Edge<'_>>)> = vec![(start, "", left(edges, start))];
        while let Some((here, _, rest)) = path.last_mut() {
            let Some(next) = rest.pop() else {
                done.insert(*here);
                path.pop();
                continue;
            };
            if let Some(from) = path.iter().position(|(seen, ..)| *seen == next.to) {
                let mut told = path[from].0.to_string();
                for (kind, by, _) in &path[from + 1..] {
                    told.push_str(&format!(" → {kind} (by {by})"));
                }
                told.push_str(&format!(" → {} (by {})", next.to, next.by));
                return Some(told);
            }
            if !done.contains(next.to) {
                path.push((next.to, next.by, left(edges, next.to)));
            }
        }
    }
    None
}

fn left<'e, 'a>(edges: &'e BTreeMap<&Arc<str>, BTreeSet<Edge<'a>>>, kind: &Arc<str>) -> Vec<&'e Edge<'a>> {
    edges.get(kind).into_iter().flatten().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, reactions: &[(&str, &str, &str)]) -> Process {
        let process = Process::new(name.parse().unwrap()).begins(&["a"]);
        reactions.iter().fold(process, |process, (by, on, emits)| process.reaction(by, on, &[emits]))
    }

    #[test]
    fn a_cycle_is_refused_with_its_path() {
        let own = process("p", &[("x", "a", "b"), ("y", "b", "c"), ("z", "c", "b")]);
        let Err(ProcessError::Cycle { path }) = own.check() else { panic!("no cycle") };
        assert_eq!(path, "b → c (by y) → b (by z)");
        let itself = process("p", &[("x", "a", "a")]);
        assert!(matches!(itself.check(), Err(ProcessError::Cycle { path }) if path == "a → a (by x)"));
    }

    #[test]
    fn a_cycle_over_two_processes_is_one() {
        let (one, other) = (process("one", &[("x", "a", "b")]), process("other", &[("y", "b", "a")]));
        one.check().and(other.check()).unwrap();
        assert!(matches!(check([&one, &other]), Err(ProcessError::Cycle { .. })));
    }

    #[test]
    fn ways_that_meet_are_no_cycle_and_one_that_is_meant_is_none() {
        process("p", &[("x", "a", "b"), ("x", "a", "c"), ("y", "b", "d"), ("z", "c", "d")]).check().unwrap();
        let again = process("p", &[("x", "a", "b")]).reaction("y", "b", &["a"]).meant("b");
        again.check().unwrap();
    }
}
