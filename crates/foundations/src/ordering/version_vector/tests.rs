use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Causality, Dot, VersionVector, VersionVectorError};
use crate::ordering::ReplicaId;

const A: ReplicaId = ReplicaId::new(1);
const B: ReplicaId = ReplicaId::new(2);

fn vector(entries: &[(ReplicaId, u64)]) -> VersionVector {
    VersionVector::from_dots(entries.iter().map(|&(replica, counter)| Dot { replica, counter })).unwrap()
}

fn full() -> VersionVector {
    VersionVector::from_dots((0..1024).map(|n| Dot { replica: ReplicaId::new(n + 100), counter: 1 })).unwrap()
}

#[test]
fn writes_without_knowledge_of_each_other_are_concurrent() {
    assert_eq!(vector(&[(A, 1)]).compare(&vector(&[(B, 1)])), Causality::Concurrent);
    assert_eq!(vector(&[(A, 2), (B, 1)]).compare(&vector(&[(A, 1), (B, 2)])), Causality::Concurrent);
}

#[test]
fn a_state_that_saw_more_is_after_one_that_saw_less() {
    assert_eq!(vector(&[(A, 2), (B, 1)]).compare(&vector(&[(A, 2)])), Causality::After);
    assert_eq!(VersionVector::new().compare(&vector(&[(A, 1)])), Causality::Before);
    assert_eq!(VersionVector::new().compare(&VersionVector::new()), Causality::Equal);
}

#[test]
fn a_vector_contains_exactly_the_writes_up_to_its_counter() {
    let seen = vector(&[(A, 2)]);
    let contained = [0, 1, 2, 3].map(|counter| seen.contains(Dot { replica: A, counter }));
    assert_eq!(contained, [false, true, true, false]);
    assert!(!seen.contains(Dot { replica: B, counter: 1 }));
}

#[test]
fn an_increment_names_the_write_it_counted() {
    let mut seen = vector(&[(A, 7)]);
    assert_eq!(seen.increment(A), Ok(Dot { replica: A, counter: 8 }));
    assert_eq!(seen.increment(B), Ok(Dot { replica: B, counter: 1 }));
    assert_eq!(seen, vector(&[(B, 1), (A, 8)]));
}

#[test]
fn one_replica_too_many_is_refused_and_nothing_changes() {
    let too_many = Err(VersionVectorError::TooManyReplicas { replicas: 1025 });
    let mut seen = full();
    assert_eq!(seen.merge(&vector(&[(A, 1)])), too_many);
    assert_eq!(seen.increment(A).map(|_| ()), too_many);
    assert_eq!(seen, full());

    let known = ReplicaId::new(100);
    seen.increment(known).unwrap();
    seen.merge(&vector(&[(known, 9)])).unwrap();
    assert_eq!((seen.len(), seen.get(known)), (1024, 9));
}

#[test]
fn a_used_up_counter_is_refused_and_nothing_changes() {
    let mut seen = vector(&[(A, u64::MAX)]);
    assert_eq!(seen.increment(A), Err(VersionVectorError::CounterExhausted { replica: A }));
    assert_eq!(seen, vector(&[(A, u64::MAX)]));
}

#[test]
fn entries_from_outside_are_checked() {
    let read = |entries: &[(ReplicaId, u64)]| {
        VersionVector::from_dots(entries.iter().map(|&(replica, counter)| Dot { replica, counter }))
    };
    assert_eq!(read(&[(A, 0)]), Err(VersionVectorError::ZeroCounter { replica: A }));
    assert_eq!(read(&[(A, 1), (B, 1), (A, 2)]), Err(VersionVectorError::RepeatedReplica { replica: A }));
    let endless = (0..).map(|n| Dot { replica: ReplicaId::new(n), counter: 1 });
    assert_eq!(VersionVector::from_dots(endless), Err(VersionVectorError::TooManyReplicas { replicas: 1025 }));
}

/// A replica's state twice: as a vector, and as the plain set of writes it has seen.
#[derive(Clone, Debug, Default)]
struct State {
    vector: VersionVector,
    seen: BTreeSet<(u64, u64)>,
}

impl State {
    fn write(&mut self, replica: u64) {
        let dot = self.vector.increment(ReplicaId::new(replica)).unwrap();
        self.seen.insert((replica, dot.counter));
    }

    fn read(&mut self, other: &Self) {
        self.vector.merge(&other.vector).unwrap();
        self.seen.extend(&other.seen);
    }

    fn naive(&self, other: &Self) -> Causality {
        match (self.seen.is_superset(&other.seen), other.seen.is_superset(&self.seen)) {
            (true, true) => Causality::Equal,
            (false, true) => Causality::Before,
            (true, false) => Causality::After,
            (false, false) => Causality::Concurrent,
        }
    }
}

/// Every state that ever existed while replicas wrote and read from each other.
fn states() -> impl Strategy<Value = Vec<State>> {
    prop::collection::vec((0..4_usize, 0..4_usize), 1..40).prop_map(|steps| {
        let mut replicas = vec![State::default(); 4];
        let mut states = replicas.clone();
        for (at, from) in steps {
            let other = replicas[from].clone();
            match at == from {
                true => replicas[at].write(at as u64),
                false => replicas[at].read(&other),
            }
            states.push(replicas[at].clone());
        }
        states
    })
}

fn any_vector() -> impl Strategy<Value = VersionVector> {
    prop::collection::btree_map(0..6_u64, 1..4_u64, 0..6).prop_map(|entries| {
        VersionVector::from_dots(entries.into_iter().map(|(n, counter)| Dot { replica: ReplicaId::new(n), counter }))
            .unwrap()
    })
}

fn merged(left: &VersionVector, right: &VersionVector) -> VersionVector {
    let mut both = left.clone();
    both.merge(right).unwrap();
    both
}

proptest! {
    #[test]
    fn comparing_vectors_agrees_with_comparing_histories(states in states()) {
        for (left, right) in states.iter().flat_map(|left| states.iter().map(move |right| (left, right))) {
            prop_assert_eq!(left.vector.compare(&right.vector), left.naive(right));
        }
    }

    #[test]
    fn comparing_is_a_partial_order(a in any_vector(), b in any_vector(), c in any_vector()) {
        prop_assert_eq!(a.compare(&a), Causality::Equal);
        prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
        prop_assert_eq!(a.compare(&b) == Causality::Equal, a == b);
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        // Any two have an upper bound, so chains occur in every case and not only by luck.
        let (ab, abc) = (merged(&a, &b), merged(&merged(&a, &b), &c));
        prop_assert!(a <= ab && ab <= abc && a <= abc);
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(a in any_vector(), b in any_vector(), c in any_vector()) {
        prop_assert_eq!(merged(&a, &b), merged(&b, &a));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(merged(&a, &a), a);
    }

    #[test]
    fn a_merge_is_the_least_state_that_includes_both(a in any_vector(), b in any_vector(), c in any_vector()) {
        let both = merged(&a, &b);
        prop_assert!(both.includes(&a) && both.includes(&b));
        let bound = merged(&both, &c);
        prop_assert!(bound.includes(&both));
        prop_assert_eq!(c.includes(&a) && c.includes(&b), c.includes(&both));
    }

    #[test]
    fn entries_are_read_back_in_any_order(a in any_vector()) {
        let backwards: Vec<_> = a.iter().collect::<Vec<_>>().into_iter().rev().collect();
        prop_assert_eq!(VersionVector::from_dots(backwards), Ok(a));
    }
}
