//! Any history: two processes, crashes between any two effects and any two parts of a change, transactions that settle behind their backs, and time.
//! A naive judge that knows nothing of windows or rows watches what is handed out and what is accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::{Changes, Dispatcher, Effect, Input, Key, Moment, Phase, Rules, Selection, Stored, at, owner, position};
use crate::{
    event::Position,
    subscription::{Backoff, Claim, machine::Saved},
};

#[derive(Clone, Debug)]
enum Op {
    Take {
        node: usize,
        max: usize,
        reply_lost: bool,
    },
    Ack {
        node: usize,
        which: prop::sample::Index,
    },
    AckElsewhere {
        which: prop::sample::Index,
    },
    Nack {
        node: usize,
        which: prop::sample::Index,
        at_once: bool,
    },
    Extend {
        node: usize,
        which: prop::sample::Index,
    },
    Park {
        node: usize,
        which: prop::sample::Index,
    },
    Return {
        node: usize,
        which: prop::sample::Index,
    },
    /// Both in one round, which is broken off once so many rows are written, if there are more to write.
    AckAndTake {
        node: usize,
        which: prop::sample::Index,
        max: usize,
        broken: Option<Broken>,
    },
    Hear {
        node: usize,
    },
    Sleep {
        seconds: u64,
    },
    Crash {
        node: usize,
    },
    Replay {
        node: usize,
        which: Option<u64>,
    },
    Discard {
        node: usize,
        which: u64,
    },
}

/// Where what a round decided stops being written.
#[derive(Clone, Copy, Debug)]
struct Broken {
    after: usize,
    /// Whether the process dies of it, or is only refused.
    dies: bool,
}

/// What came of a round.
#[derive(Debug)]
enum Round {
    Done(Vec<Effect>),
    /// Nobody hears of what was decided.
    Broken(Vec<Effect>),
}

fn op() -> impl Strategy<Value = Op> {
    let node = || 0..2_usize;
    let which = any::<prop::sample::Index>;
    prop_oneof![
        6 => (node(), 1..4_usize, prop::bool::weighted(0.1))
            .prop_map(|(node, max, reply_lost)| Op::Take { node, max, reply_lost }),
        4 => (node(), which()).prop_map(|(node, which)| Op::Ack { node, which }),
        2 => which().prop_map(|which| Op::AckElsewhere { which }),
        3 => (node(), which(), any::<bool>()).prop_map(|(node, which, at_once)| Op::Nack { node, which, at_once }),
        1 => (node(), which()).prop_map(|(node, which)| Op::Extend { node, which }),
        1 => (node(), which()).prop_map(|(node, which)| Op::Park { node, which }),
        1 => (node(), which()).prop_map(|(node, which)| Op::Return { node, which }),
        4 => (node(), which(), 1..6_usize, prop::option::of((1..4_usize, any::<bool>())))
            .prop_map(|(node, which, max, broken)| {
                let broken = broken.map(|(after, dies)| Broken { after, dies });
                Op::AckAndTake { node, which, max, broken }
            }),
        1 => node().prop_map(|node| Op::Hear { node }),
        3 => (1..40_u64).prop_map(|seconds| Op::Sleep { seconds }),
        1 => node().prop_map(|node| Op::Crash { node }),
        1 => (node(), prop::option::of(1..20_u64)).prop_map(|(node, which)| Op::Replay { node, which }),
        1 => (node(), 1..20_u64).prop_map(|(node, which)| Op::Discard { node, which }),
    ]
}

/// The rows, under the rules of `rows::write` and `rows::settle`.
#[derive(Clone, Default)]
struct Disk {
    revision: u64,
    checkpoint: Position,
    fence: u64,
    rows: BTreeMap<Position, Stored>,
}

impl Disk {
    fn is(&self, place: Position, known: Option<Saved>) -> bool {
        self.rows.get(&place).map(|row| Saved { changed: row.changed, state: row.phase }) == known
    }

    fn write(&mut self, changes: &Changes) -> bool {
        let known = changes.put.iter().map(|(row, known)| (row.position, *known));
        let gone = changes.delete.iter().map(|(place, known)| (*place, Some(*known)));
        if self.revision != changes.based_on || !known.chain(gone).all(|(place, known)| self.is(place, known)) {
            return false;
        }
        (self.revision, self.checkpoint, self.fence) = (changes.based_on + 1, changes.checkpoint, changes.fence);
        changes.delete.iter().for_each(|(place, _)| drop(self.rows.remove(place)));
        changes.put.iter().for_each(|(row, _)| drop(self.rows.insert(row.position, row.clone())));
        true
    }

    fn settle(&mut self, claim: Claim) -> bool {
        let held = |row: &&mut Stored| row.phase == Phase::Leased && row.fence == claim.fence;
        self.rows.get_mut(&claim.position).filter(held).map(|row| row.phase = Phase::Settled).is_some()
    }
}

/// What anybody could note down who sees every promise made.
#[derive(Default)]
struct Judge {
    done: BTreeSet<Position>,
    parked: BTreeSet<Position>,
    attempts: BTreeMap<Position, u32>,
    /// How many more there may have been that nobody heard of.
    unheard: BTreeMap<Position, u32>,
    /// What was given a lease that nobody heard of while an earlier event of its key was out.
    behind: BTreeSet<Position>,
    /// The lease that counts, since when it was last promised, and for how long.
    leases: BTreeMap<Position, (u64, u64)>,
    highest_fence: u64,
    checkpoint: Position,
}

struct World {
    rules: Rules,
    log: Vec<Option<Key>>,
    disk: Disk,
    nodes: [Option<Dispatcher>; 2],
    seconds: u64,
    claims: Vec<Claim>,
    judge: Judge,
}

const TTL: u64 = 30;

impl World {
    fn new(log: &[u8], window: usize, max_parked: usize) -> Self {
        let key = |n: &u8| (*n < 3).then(|| Key::from(n.to_string()));
        let backoff = Backoff { first: Duration::from_secs(5), max: Duration::from_secs(20) };
        let rules = Rules { lease_ttl: Duration::from_secs(TTL), max_attempts: 3, window, max_parked, backoff };
        Self {
            rules,
            log: log.iter().map(key).collect(),
            disk: Disk { revision: 1, ..Disk::default() },
            nodes: [None, None],
            seconds: 0,
            claims: Vec::new(),
            judge: Judge::default(),
        }
    }

    fn now(&self) -> Moment {
        at(self.seconds)
    }

    fn key(&self, place: Position) -> &Key {
        self.log[place.get() as usize - 1].as_ref().expect("only matching events are handed out")
    }

    fn run(&mut self, node: usize, input: &Input) -> Vec<Effect> {
        match self.round(node, std::slice::from_ref(input), None) {
            Round::Done(effects) => effects,
            Round::Broken(effects) => unreachable!("nothing breaks it off: {effects:?}"),
        }
    }

    /// What the driver does: load what is stale, step, write, and begin anew if somebody was first.
    fn round(&mut self, node: usize, inputs: &[Input], broken: Option<Broken>) -> Round {
        loop {
            let mut machine = self.nodes[node].take().unwrap_or_else(|| self.restore(None));
            let mut effects = Vec::new();
            if inputs.iter().any(|input| matches!(input, Input::Take { .. })) {
                self.feed(&mut machine);
            }
            inputs.iter().for_each(|input| machine.step(self.now(), input.clone(), &mut effects));
            // At once, or row by row: what has become durable in the end is the same.
            let most = if broken.is_some() || self.seconds.is_multiple_of(2) { 1 } else { usize::MAX };
            let (mut disk, mut first, mut parts) = (self.disk.clone(), true, 0);
            while first && let Some(changes) = machine.changes_or_checkpoint(1, most) {
                if let Some(Broken { dies, .. }) = broken.filter(|broken| broken.after == parts) {
                    self.disk = disk;
                    self.nodes[node] = (!dies).then(|| self.restore(Some(&machine)));
                    return Round::Broken(effects);
                }
                first = disk.write(&changes);
                if first {
                    machine.saved(&changes);
                }
                parts += 1;
            }
            if !first || (parts == 0 && disk.revision != machine.revision()) {
                self.nodes[node] = Some(self.restore(Some(&machine)));
                continue;
            }
            self.disk = disk;
            self.nodes[node] = Some(machine);
            return Round::Done(effects);
        }
    }

    fn restore(&self, before: Option<&Dispatcher>) -> Dispatcher {
        let rows: Vec<Stored> = self.disk.rows.values().cloned().collect();
        let stored = (self.disk.revision, self.disk.checkpoint, self.disk.fence);
        Dispatcher::restore(self.rules, stored, &rows, before, self.now())
    }

    fn feed(&self, machine: &mut Dispatcher) {
        while machine.room() > 0 && machine.scanned().get() < self.log.len() as u64 {
            let place = machine.scanned().next();
            let key = self.log[place.get() as usize - 1].clone();
            let events = key.map(|key| (place, key)).into_iter().collect();
            machine.step(self.now(), Input::Scanned { events, to: place }, &mut Vec::new());
        }
    }

    fn act(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Take { node, max, reply_lost } => self.take(*node, *max, *reply_lost)?,
            Op::Ack { node, which } => self.settles(*node, which, Input::Ack)?,
            Op::AckElsewhere { which } => self.settle_elsewhere(which)?,
            Op::Nack { node, which, at_once } => {
                let rest = at_once.then_some(Duration::ZERO);
                self.settles(*node, which, |claim| Input::Nack { claim, rest, reason: "no".into() })?;
            }
            Op::Extend { node, which } => {
                let ttl = Duration::from_secs(TTL);
                self.settles(*node, which, |claim| Input::Extend { claim, ttl })?;
            }
            Op::Park { node, which } => {
                self.settles(*node, which, |claim| Input::Park { claim, reason: "poison".into() })?;
            }
            Op::Return { node, which } => self.settles(*node, which, Input::Return)?,
            Op::AckAndTake { node, which, max, broken } => self.ack_and_take(*node, which, *max, *broken)?,
            Op::Hear { node } => self.hear(*node),
            Op::Sleep { seconds } => self.seconds += seconds,
            Op::Crash { node } => self.nodes[*node] = None,
            Op::Replay { node, which } => {
                self.notice_time(*node)?;
                let which = which.map_or(Selection::All, |n| Selection::Event(position(n)));
                self.run(*node, &Input::Replay(which));
            }
            Op::Discard { node, which } => {
                self.notice_time(*node)?;
                self.discard(*node, Selection::Event(position(*which)));
            }
        }
        self.inspect()
    }

    /// Lets a node park what is out of attempts, so that the judge sees it parked.
    fn notice_time(&mut self, node: usize) -> Result<(), TestCaseError> {
        self.run(node, &Input::Scanned { events: Vec::new(), to: Position::ZERO });
        self.inspect()
    }

    fn take(&mut self, node: usize, max: usize, reply_lost: bool) -> Result<(), TestCaseError> {
        for effect in self.run(node, &Input::Take { max, owner: owner() }) {
            let Effect::Hand { claim, attempt, .. } = effect else { continue };
            self.judge_hand(claim, attempt)?;
            if !reply_lost {
                self.claims.push(claim);
            }
        }
        Ok(())
    }

    fn judge_hand(&mut self, claim: Claim, attempt: u32) -> Result<(), TestCaseError> {
        let place = claim.position;
        let key = self.key(place).clone();
        let judge = &self.judge;
        prop_assert!(!judge.done.contains(&place), "{place} is handed out although it is settled");
        for earlier in (1..place.get()).map(position) {
            let same_key = self.log[earlier.get() as usize - 1].as_ref() == Some(&key);
            prop_assert!(!same_key || judge.done.contains(&earlier), "{place} is handed out before {earlier}");
        }
        prop_assert!(claim.fence > judge.highest_fence, "fences rise");
        let next = judge.attempts.get(&place).copied().unwrap_or(0) + 1;
        let unheard = judge.unheard.get(&place).copied().unwrap_or(0);
        prop_assert!((next..=next + unheard).contains(&attempt), "attempts are counted: {attempt} after {next} - 1");
        if let Some((_, since)) = judge.leases.get(&place) {
            prop_assert!(since + TTL <= self.seconds, "{} is taken from its holder early", place);
        }
        let seconds = self.seconds;
        self.judge.highest_fence = claim.fence;
        self.judge.attempts.insert(place, attempt);
        self.judge.unheard.remove(&place);
        self.judge.leases.insert(place, (claim.fence, seconds));
        Ok(())
    }

    fn settles(
        &mut self,
        node: usize,
        which: &prop::sample::Index,
        input: impl Fn(Claim) -> Input,
    ) -> Result<(), TestCaseError> {
        if self.claims.is_empty() {
            return Ok(());
        }
        let claim = *which.get(&self.claims);
        let input = input(claim);
        let lost = self.run(node, &input) == [Effect::Lost(claim)];
        self.judge_parked((!lost).then_some(claim.position))?;
        let held = self.judge.leases.get(&claim.position).is_some_and(|(fence, _)| *fence == claim.fence);
        prop_assert_eq!(lost, !held, "{:?} of {:?}", input, claim);
        if !lost {
            self.note(claim, &input);
        }
        Ok(())
    }

    fn ack_and_take(
        &mut self,
        node: usize,
        which: &prop::sample::Index,
        max: usize,
        broken: Option<Broken>,
    ) -> Result<(), TestCaseError> {
        if self.claims.is_empty() {
            return self.take(node, max, false);
        }
        let claim = *which.get(&self.claims);
        match self.round(node, &[Input::Ack(claim), Input::Take { max, owner: owner() }], broken) {
            Round::Broken(effects) => self.note_broken(claim, &effects),
            Round::Done(effects) => {
                let lost = effects.contains(&Effect::Lost(claim));
                // Leases that are given to others in the same round are looked at when they are handed out.
                let taken = |effect: &Effect| match effect {
                    Effect::Hand { claim, .. } => self.judge.leases.remove_entry(&claim.position),
                    _ => None,
                };
                let taken: Vec<_> = effects.iter().filter_map(taken).collect();
                self.judge_parked((!lost).then_some(claim.position))?;
                self.judge.leases.extend(taken);
                let held = self.judge.leases.get(&claim.position).is_some_and(|(fence, _)| *fence == claim.fence);
                prop_assert_eq!(lost, !held, "settling {:?}", claim);
                if !lost {
                    self.note(claim, &Input::Ack(claim));
                }
                for effect in effects {
                    let Effect::Hand { claim, attempt, .. } = effect else { continue };
                    self.judge_hand(claim, attempt)?;
                    self.claims.push(claim);
                }
            }
        }
        Ok(())
    }

    /// Of what a round decided that was broken off, only what its rows say has become of it. Whoever was to be handed an
    /// event did not get it; that may have cost the first of a key an attempt, and nothing behind it unless a transaction
    /// settles what stands before before anybody has looked.
    fn note_broken(&mut self, claim: Claim, effects: &[Effect]) {
        if self.disk.rows.get(&claim.position).is_some_and(|row| row.phase == Phase::Settled) {
            self.judge.leases.remove(&claim.position);
            self.judge.done.insert(claim.position);
        }
        for effect in effects {
            let Effect::Hand { claim: Claim { position: place, fence }, .. } = *effect else { continue };
            let is_written = self.disk.rows.get(&place).is_some_and(|row| row.fence == fence);
            let is_first = (1..place.get()).map(position).all(|earlier| {
                self.log[earlier.get() as usize - 1].as_ref() != Some(self.key(place))
                    || self.judge.done.contains(&earlier)
            });
            if is_written && is_first {
                self.judge.leases.remove(&place);
                *self.judge.unheard.entry(place).or_default() += 1;
            } else if is_written {
                self.judge.behind.insert(place);
            }
        }
    }

    fn note(&mut self, claim: Claim, input: &Input) {
        let place = claim.position;
        match input {
            Input::Extend { .. } => drop(self.judge.leases.insert(place, (claim.fence, self.seconds))),
            Input::Ack(_) => {
                self.judge.leases.remove(&place);
                self.judge.done.insert(place);
            }
            Input::Return(_) => {
                self.judge.leases.remove(&place);
                self.judge.attempts.entry(place).and_modify(|attempts| *attempts -= 1);
            }
            _ => drop(self.judge.leases.remove(&place)),
        }
    }

    fn settle_elsewhere(&mut self, which: &prop::sample::Index) -> Result<(), TestCaseError> {
        if self.claims.is_empty() {
            return Ok(());
        }
        let claim = *which.get(&self.claims);
        let held = self.judge.leases.get(&claim.position).is_some_and(|(fence, _)| *fence == claim.fence);
        prop_assert_eq!(self.disk.settle(claim), held, "settling {:?} in a transaction", claim);
        if held {
            self.note(claim, &Input::Ack(claim));
            let key = self.key(claim.position).clone();
            let next = (claim.position.get() + 1..=self.log.len() as u64).map(position);
            let mut next = next.filter(|place| self.log[place.get() as usize - 1].as_ref() == Some(&key));
            if let Some(first) = next.find(|place| !self.judge.done.contains(place))
                && self.judge.behind.remove(&first)
            {
                *self.judge.unheard.entry(first).or_default() += 1;
            }
        }
        Ok(())
    }

    fn hear(&mut self, node: usize) {
        let settled = |row: &&Stored| row.phase == Phase::Settled && row.fence > 0;
        let claims: Vec<Claim> =
            self.disk.rows.values().filter(settled).map(|row| Claim::new(row.position, row.fence)).collect();
        for claim in claims {
            self.run(node, &Input::SettledElsewhere(claim));
        }
    }

    fn discard(&mut self, node: usize, which: Selection) {
        let parked: Vec<Position> = self.judge.parked.iter().copied().collect();
        self.run(node, &Input::Discard(which));
        // What is neither parked nor otherwise known any more was given up.
        let rows = &self.disk.rows;
        let given_up = |place: &Position| rows.get(place).is_none_or(|row| row.phase == Phase::Settled);
        self.judge.done.extend(parked.into_iter().filter(given_up));
    }

    /// Notes which events the rows call parked. A lease ends without its holder's doing only if it has expired, and the
    /// event was out of attempts; `settling` is what a holder is just doing something about.
    fn judge_parked(&mut self, settling: Option<Position>) -> Result<(), TestCaseError> {
        let parked = self.disk.rows.values().filter(|row| row.phase == Phase::Parked);
        self.judge.parked = parked.map(|row| row.position).collect();
        for (place, (fence, since)) in self.judge.leases.clone() {
            let row = self.disk.rows.get(&place);
            let held = row.is_some_and(|row| row.phase == Phase::Leased && row.fence == fence);
            if !held && settling != Some(place) {
                prop_assert!(since + TTL <= self.seconds, "the lease of {place} ended early");
                prop_assert!(self.judge.attempts[&place] >= self.rules.max_attempts, "{place} had attempts left");
                self.judge.leases.remove(&place);
            }
        }
        Ok(())
    }

    fn inspect(&mut self) -> Result<(), TestCaseError> {
        self.judge_parked(None)?;
        let checkpoint = self.disk.checkpoint;
        prop_assert!(checkpoint >= self.judge.checkpoint, "the checkpoint moved back");
        self.judge.checkpoint = checkpoint;
        for place in (1..=checkpoint.get()).map(position).filter(|p| self.log[p.get() as usize - 1].is_some()) {
            let set_aside = self.disk.rows.get(&place).is_some_and(|row| !row.failures.is_empty());
            prop_assert!(self.judge.done.contains(&place) || set_aside, "the checkpoint {checkpoint} passed {place}");
        }
        let ahead = self.disk.rows.values().filter(|row| row.position > checkpoint && row.phase != Phase::Parked);
        prop_assert!(ahead.count() <= self.rules.window + self.rules.max_parked, "the window is bounded");
        Ok(())
    }

    /// From here on everybody does their work: is everything settled in the end?
    fn wind_up(&mut self) -> Result<(), TestCaseError> {
        for round in 0..10 * self.log.len() + 50 {
            self.seconds += 40;
            self.take(round % 2, 5, false)?;
            for claim in std::mem::take(&mut self.claims) {
                if self.run(round % 2, &Input::Ack(claim)).is_empty() {
                    self.note(claim, &Input::Ack(claim));
                }
            }
            self.inspect()?;
            self.run(round % 2, &Input::Replay(Selection::All));
            self.inspect()?;
        }
        let missing = |n: &u64| self.log[*n as usize - 1].is_some() && !self.judge.done.contains(&position(*n));
        prop_assert_eq!((1..=self.log.len() as u64).find(missing), None, "an event is never settled");
        prop_assert_eq!(self.disk.checkpoint.get(), self.log.len() as u64);
        prop_assert!(self.disk.rows.is_empty(), "rows are left over: {:?}", self.disk.rows);
        Ok(())
    }
}

#[test]
fn a_lease_that_nobody_heard_of_may_cost_an_attempt_once_a_transaction_settles_what_stands_before_it() {
    let broken = Some(Broken { after: 1, dies: false });
    let any = any::<prop::sample::Index>().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let ops = [
        Op::Take { node: 0, max: 1, reply_lost: false },
        Op::AckAndTake { node: 0, which: any, max: 3, broken },
        Op::AckElsewhere { which: any },
    ];
    let mut world = World::new(&[0, 0, 1, 2], 4, 1);
    ops.iter().for_each(|op| world.act(op).unwrap());
    world.wind_up().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn keys_stay_in_order_fences_decide_and_everything_is_settled_in_the_end(
        log in proptest::collection::vec(0..4_u8, 0..20),
        window in 1..8_usize,
        max_parked in 1..12_usize,
        ops in proptest::collection::vec(op(), 0..80),
    ) {
        let mut world = World::new(&log, window, max_parked);
        for op in &ops {
            world.act(op)?;
        }
        world.wind_up()?;
    }
}
