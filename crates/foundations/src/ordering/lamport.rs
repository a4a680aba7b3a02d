//! The Lamport clock: a counter that never falls behind what it has heard.
//!
//! Every event counts up; every message carries the sender's count; whoever receives one jumps past it. So whatever
//! happened before `b` has a smaller stamp than `b`.
//!
//! **The converse does not hold.** A smaller stamp means *happened before, or concurrent*; two concurrent events nearly
//! always get different stamps. [`LamportStamp::precedence`] therefore answers only what can be known, and has no word
//! for "concurrent". To find conflicts, use a [version vector](super::version_vector).
//!
//! Counts are believed as they come: take them only from authenticated peers, since a made-up count near `u64::MAX`
//! uses the counter up ([`Exhausted`]). Where that matters, use the [hybrid clock](super::hlc), which can tell.
//!
//! Source: L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System" (1978), rules IR1 and IR2.

use super::ReplicaId;

/// A Lamport clock of one replica. It keeps nothing across a restart: store [`last`](Self::last) with what it stamped.
///
/// # Example
/// ```
/// use quorate_foundations::ordering::{LamportClock, ReplicaId};
/// let (mut ours, mut theirs) = (LamportClock::new(ReplicaId::new(1)), LamportClock::new(ReplicaId::new(2)));
/// let sent = ours.tick()?;
/// let received = theirs.observe(sent)?;
/// assert!(sent < received);
/// # Ok::<(), quorate_foundations::ordering::lamport::Exhausted>(())
/// ```
#[derive(Clone, Debug)]
pub struct LamportClock {
    last: LamportStamp,
}

/// When an event happened, in counts; ordered by count, then by replica.
///
/// The order is total and agrees with causality. It is an *agreed* order, not evidence: see [`precedence`](Self::precedence).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LamportStamp {
    /// The clock's count, from 1; 0 stands for "before everything".
    pub count: u64,
    /// Whose clock it was; decides between equal counts.
    pub replica: ReplicaId,
}

/// All that two Lamport stamps can tell about their events.
///
/// There is no `Before` and no `Concurrent`: stamps cannot tell these two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// The stamps are of one event.
    Same,
    /// The first did **not** happen after the second: it happened before it, or they are concurrent.
    NotAfter,
    /// The first did **not** happen before the second: it happened after it, or they are concurrent.
    NotBefore,
}

/// The counter is used up. Nothing changed; waiting does not help. Only a made-up count gets a clock here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lamport counter is used up; a peer sent a count that no clock reaches by counting")]
pub struct Exhausted;

impl LamportClock {
    /// A clock for `replica` that has seen nothing.
    pub const fn new(replica: ReplicaId) -> Self {
        Self { last: LamportStamp { count: 0, replica } }
    }

    /// The clock as it was when it gave out `last`, or later: for a restart.
    pub const fn resume(last: LamportStamp) -> Self {
        Self { last }
    }

    /// The latest stamp given out; its count is 0 if there is none.
    pub const fn last(&self) -> LamportStamp {
        self.last
    }

    /// Stamps a local event, the sending of a message included.
    ///
    /// # Errors
    /// [`Exhausted`]: no larger count exists.
    pub fn tick(&mut self) -> Result<LamportStamp, Exhausted> {
        self.past(self.last.count)
    }

    /// Stamps the receipt of a message that carries `remote`.
    ///
    /// # Errors
    /// [`Exhausted`]: no larger count exists; the clock is as it was.
    pub fn observe(&mut self, remote: LamportStamp) -> Result<LamportStamp, Exhausted> {
        self.past(self.last.count.max(remote.count))
    }

    fn past(&mut self, count: u64) -> Result<LamportStamp, Exhausted> {
        self.last.count = count.checked_add(1).ok_or(Exhausted)?;
        Ok(self.last)
    }
}

impl LamportStamp {
    /// What the stamps prove about their events, and no more.
    pub fn precedence(self, other: Self) -> Precedence {
        match self.cmp(&other) {
            std::cmp::Ordering::Equal => Precedence::Same,
            std::cmp::Ordering::Less => Precedence::NotAfter,
            std::cmp::Ordering::Greater => Precedence::NotBefore,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::history::History, Exhausted, LamportClock, LamportStamp, Precedence};
    use crate::ordering::ReplicaId;

    fn clock(replica: u64) -> LamportClock {
        LamportClock::new(ReplicaId::new(replica))
    }

    #[test]
    fn a_receipt_is_later_than_the_sending_and_than_all_before_it() {
        let (mut ours, mut theirs) = (clock(1), clock(2));
        (0..5).for_each(|_| _ = ours.tick().unwrap());
        let sent = ours.last();
        assert_eq!(theirs.observe(sent).unwrap().count, 6);
        assert_eq!(ours.observe(LamportStamp { count: 2, replica: ReplicaId::new(2) }).unwrap().count, 6);
    }

    #[test]
    fn stamps_of_causally_ordered_and_of_concurrent_events_look_alike() {
        let (mut ours, mut theirs) = (clock(1), clock(2));
        let sent = ours.tick().unwrap();
        let received = theirs.observe(sent).unwrap();
        let (mut apart, mut busier) = (clock(3), clock(4));
        let lone = apart.tick().unwrap();
        busier.tick().unwrap();
        let concurrent = busier.tick().unwrap();
        assert_eq!(sent.precedence(received), Precedence::NotAfter);
        assert_eq!(lone.precedence(concurrent), Precedence::NotAfter);
    }

    #[test]
    fn precedence_turns_around_with_its_arguments() {
        let (one, two) = (clock(1).tick().unwrap(), clock(2).tick().unwrap());
        assert_eq!(one.precedence(one), Precedence::Same);
        assert_eq!(one.precedence(two), Precedence::NotAfter);
        assert_eq!(two.precedence(one), Precedence::NotBefore);
    }

    #[test]
    fn a_count_at_the_end_is_refused_and_changes_nothing() {
        let mut clock = clock(1);
        clock.tick().unwrap();
        let hostile = LamportStamp { count: u64::MAX, replica: ReplicaId::new(9) };
        assert_eq!(clock.observe(hostile), Err(Exhausted));
        assert_eq!(clock.tick().unwrap().count, 2);
    }

    #[test]
    fn a_resumed_clock_goes_on_after_its_last_stamp() {
        let mut clock = clock(1);
        let last = clock.observe(LamportStamp { count: 41, replica: ReplicaId::new(2) }).unwrap();
        assert!(LamportClock::resume(last).tick().unwrap() > last);
    }

    proptest! {
        // Lamport 1978, Clock Condition: if a → b then C(a) < C(b); with replicas as tie-break the order is total.
        #[test]
        fn happened_before_implies_a_smaller_stamp(steps in steps()) {
            let mut clocks = [clock(0), clock(1), clock(2)];
            let (mut history, mut stamps) = (History::default(), vec![]);
            for (at, heard) in steps {
                let sent = heard.filter(|_| !stamps.is_empty()).map(|pick| pick % stamps.len());
                stamps.push(match sent {
                    Some(sent) => clocks[at].observe(stamps[sent]).unwrap(),
                    None => clocks[at].tick().unwrap(),
                });
                history.event(at, sent);
            }
            for (cause, event) in history.ordered_pairs() {
                prop_assert!(stamps[cause] < stamps[event]);
                prop_assert_eq!(stamps[cause].precedence(stamps[event]), Precedence::NotAfter);
            }
            let distinct: std::collections::BTreeSet<_> = stamps.iter().collect();
            prop_assert_eq!(distinct.len(), stamps.len());
        }
    }

    /// Who acts next, and which earlier event's message it receives.
    fn steps() -> impl Strategy<Value = Vec<(usize, Option<usize>)>> {
        prop::collection::vec((0..3_usize, any::<Option<usize>>()), 1..60)
    }
}
