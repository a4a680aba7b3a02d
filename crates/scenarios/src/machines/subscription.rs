//! The machine of a durable subscription in several processes over the same rows, each with a clock of its own: whoever holds an
//! event holds it alone, order is kept, and in the end everything is settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_data::{
    event::Position,
    subscription::{
        Backoff, Claim,
        machine::{Changes, Dispatcher, Effect, Input, Key, Moment, Phase, Rules, Saved, Stored},
    },
};
use quorate_foundations::time::{Boot, Mono};
use quorate_sim::{
    Violation,
    check::lease::{self, Step, Tenure},
};

use super::Course;
use crate::rule;

/// Rows are written so many bytes at a time: a few of them.
const FEW: usize = 200;

const PROCESSES: usize = 3;
const EVENTS: u64 = 25;
const KEYS: usize = 4;
const TTL: Duration = Duration::from_secs(5);
/// The most that passes between two things that happen.
const STEP: Duration = Duration::from_millis(300);
/// Clocks gain or lose at most so many parts in a million.
const DRIFT_PPM: u64 = 1_000;
/// So many rounds settle everything, once nobody does anything else.
const ROUNDS: usize = 400;

/// The rows as a store keeps them: written if nobody else was first.
#[derive(Default)]
struct Rows {
    /// Whether they are written whoever was first: the bug that all of this is against.
    blind: bool,
    revision: u64,
    checkpoint: Position,
    fence: u64,
    rows: BTreeMap<Position, Stored>,
}

impl Rows {
    fn is(&self, place: Position, known: Option<Saved>) -> bool {
        self.rows.get(&place).map(|row| Saved { changed: row.changed, state: row.phase }) == known
    }

    fn write(&mut self, changes: &Changes) -> bool {
        let put = changes.put.iter().map(|(row, known)| (row.position, *known));
        let deleted = changes.delete.iter().map(|(place, known)| (*place, Some(*known)));
        let as_known = put.chain(deleted).all(|(place, known)| self.is(place, known));
        if !self.blind && (self.revision != changes.based_on || !as_known) {
            return false;
        }
        (self.revision, self.checkpoint, self.fence) = (changes.based_on + 1, changes.checkpoint, changes.fence);
        changes.delete.iter().for_each(|(place, _)| drop(self.rows.remove(place)));
        changes.put.iter().for_each(|(row, _)| drop(self.rows.insert(row.position, row.clone())));
        true
    }
}

/// A process: its machine, while it has one, and how fast its clock goes.
#[derive(Default)]
struct Process {
    machine: Option<Dispatcher>,
    /// Parts in a million that its clock gains; half of the bound is none.
    ppm: u64,
}

/// What a consumer holds, as far as it knows.
#[derive(Clone)]
struct Held {
    claim: Claim,
    by: String,
    /// Its place among the tenures.
    tenure: usize,
}

struct World {
    rules: Rules,
    keys: Vec<Key>,
    rows: Rows,
    processes: Vec<Process>,
    held: Vec<Held>,
    steps: Vec<Step>,
    tenures: Vec<Tenure>,
    done: BTreeSet<Position>,
    found: Vec<Violation>,
}

/// Plays it.
pub(crate) fn play(course: &mut Course) -> Vec<Violation> {
    play_with(course, false)
}

/// Plays it; `blind`: whether rows are written whoever was first.
fn play_with(course: &mut Course, blind: bool) -> Vec<Violation> {
    let mut world = World::new(course);
    world.rows.blind = blind;
    while course.goes_on(STEP) {
        world.act(course);
    }
    world.wind_up(course);
    let World { mut found, steps, tenures, .. } = world;
    found.extend(rule::broken(&lease::fences_hold(&steps)));
    found.extend(rule::broken(&lease::one_holder(&tenures)));
    found
}

impl World {
    fn new(course: &mut Course) -> Self {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2) };
        let window = 1 + course.below(8);
        let rules = Rules { lease_ttl: TTL, max_attempts: u32::MAX, window, max_parked: 1_000, backoff };
        let process = |course: &mut Course| Process { machine: None, ppm: course.rng.below(DRIFT_PPM) };
        Self {
            rules,
            keys: (0..EVENTS).map(|_| Key::from(course.below(KEYS).to_string())).collect(),
            rows: Rows { revision: 1, ..Rows::default() },
            processes: (0..PROCESSES).map(|_| process(course)).collect(),
            held: Vec::new(),
            steps: Vec::new(),
            tenures: Vec::new(),
            done: BTreeSet::new(),
            found: Vec::new(),
        }
    }

    fn act(&mut self, course: &mut Course) {
        let process = course.below(PROCESSES);
        match course.below(22) {
            0..=6 => self.take(course, process),
            7..=11 => self.settle(course, process, How::Ack),
            12..=13 => self.settle(course, process, How::Nack),
            14 => self.settle(course, process, How::Extend),
            15 => self.settle(course, process, How::Return),
            16 => {
                course.injected("a process crashed");
                self.processes[process].machine = None;
            }
            // A consumer dies, and with it what it knows of its leases.
            17 if !self.held.is_empty() => {
                course.injected("a consumer died");
                let nth = course.below(self.held.len());
                self.held.swap_remove(nth);
            }
            18..=19 => self.settle_and_take(course, process),
            _ => course.pass(TTL / 2),
        }
    }

    fn moment(&self, course: &Course, process: usize) -> Moment {
        let (now, ppm) = (course.now().as_nanos(), self.processes[process].ppm);
        let boot = now - now / 1_000_000 * (DRIFT_PPM / 2) + now / 1_000_000 * ppm;
        Moment { boot: Boot::from_nanos(boot), ..Moment::default() }
    }

    fn restore(&self, before: Option<&Dispatcher>, now: Moment) -> Dispatcher {
        let rows: Vec<Stored> = self.rows.rows.values().cloned().collect();
        let stored = (self.rows.revision, self.rows.checkpoint, self.rows.fence);
        Dispatcher::restore(self.rules, stored, &rows, before, now)
    }

    fn run(&mut self, course: &mut Course, process: usize, input: &Input) -> Vec<Effect> {
        self.round(course, process, std::slice::from_ref(input), false).unwrap_or_default()
    }

    /// What the driver does: load what is stale, step, write, and begin anew if somebody was first. `None` if the process died
    /// once a part was written and another was not, as it does where it `may_die`: nobody hears what was decided.
    fn round(&mut self, course: &mut Course, process: usize, inputs: &[Input], may_die: bool) -> Option<Vec<Effect>> {
        let now = self.moment(course, process);
        loop {
            let known = self.processes[process].machine.take();
            if known.is_none() && self.rows.rows.values().any(|row| row.phase == Phase::Leased) {
                course.reached("subscription: leases were read back");
            }
            let mut machine = known.unwrap_or_else(|| self.restore(None, now));
            if inputs.iter().any(|input| matches!(input, Input::Take { .. })) {
                self.feed(&mut machine, now);
            }
            let mut effects = Vec::new();
            inputs.iter().for_each(|input| machine.step(now, input.clone(), &mut effects));
            let mut wrote = false;
            let first = loop {
                let Some(changes) = machine.changes_or_checkpoint(1, FEW) else {
                    break wrote || self.rows.revision == machine.revision();
                };
                if wrote && may_die {
                    course.injected("a process crashed between two parts of a change");
                    return None;
                }
                if !self.rows.write(&changes) {
                    break false;
                }
                machine.saved(&changes);
                wrote = true;
            };
            if !first {
                course.reached("subscription: another process was first");
                self.processes[process].machine = Some(self.restore(Some(&machine), now));
                continue;
            }
            self.processes[process].machine = Some(machine);
            return Some(effects);
        }
    }

    fn feed(&self, machine: &mut Dispatcher, now: Moment) {
        while machine.room() > 0 && machine.scanned().get() < EVENTS {
            let place = machine.scanned().next();
            let events = vec![(place, self.key(place).clone())];
            machine.step(now, Input::Scanned { events, to: place }, &mut Vec::new());
        }
    }

    fn key(&self, place: Position) -> &Key {
        &self.keys[usize::try_from(place.get()).unwrap_or(1) - 1]
    }

    fn take(&mut self, course: &mut Course, process: usize) {
        let (max, owner) = (1 + course.below(3), Arc::from(format!("consumer-{}", course.below(4))));
        let effects = self.run(course, process, &Input::Take { max, owner: Arc::clone(&owner) });
        let told = !course.chance(10);
        self.handed(course, process, effects, &owner, told);
    }

    /// `told`: whether the consumer hears of it.
    fn handed(&mut self, course: &mut Course, process: usize, effects: Vec<Effect>, owner: &Arc<str>, told: bool) {
        for effect in effects {
            let Effect::Hand { claim, attempt, ttl, .. } = effect else { continue };
            if attempt > 1 {
                course.reached("subscription: an event was handed out again");
            }
            course.note(&[process as u64, claim.position.get(), claim.fence]);
            self.judge_order(claim.position);
            let (resource, holder) = (format!("event {}", claim.position), owner.to_string());
            self.steps.push(Step::Granted { resource: resource.clone(), holder: holder.clone(), fence: claim.fence });
            let (from, until) = (course.now(), until(course, ttl));
            self.tenures.push(Tenure { resource, holder, fence: claim.fence, from, until });
            if told {
                self.held.push(Held { claim, by: owner.to_string(), tenure: self.tenures.len() - 1 });
            }
        }
    }

    /// Nothing comes back that is done, and nothing comes before what is ahead of it in its key.
    fn judge_order(&mut self, place: Position) {
        if self.done.contains(&place) {
            self.found.push(Violation::new("done for good", format!("event {place} is handed out, and is settled")));
        }
        let earlier = (1..place.get())
            .map(Position::new)
            .find(|earlier| self.key(*earlier) == self.key(place) && !self.done.contains(earlier));
        if let Some(earlier) = earlier {
            let what = format!("event {place} is handed out before {earlier}, which is not settled");
            self.found.push(Violation::new("order of a key", what));
        }
    }

    fn settle(&mut self, course: &mut Course, process: usize, how: How) {
        if self.held.is_empty() {
            return;
        }
        let nth = course.below(self.held.len());
        let claim = self.held[nth].claim;
        let input = match how {
            How::Ack => Input::Ack(claim),
            How::Nack => Input::Nack { claim, rest: course.chance(50).then_some(Duration::ZERO), reason: "no".into() },
            How::Extend => Input::Extend { claim, ttl: TTL },
            How::Return => Input::Return(claim),
        };
        let accepted = self.run(course, process, &input) != [Effect::Lost(claim)];
        self.settled(course, process, nth, how, accepted);
    }

    /// A consumer is done with an event and asks for more, both in one round of the process.
    fn settle_and_take(&mut self, course: &mut Course, process: usize) {
        if self.held.is_empty() {
            return;
        }
        let nth = course.below(self.held.len());
        let Held { claim, by, .. } = self.held[nth].clone();
        let (max, owner) = (2 + course.below(6), Arc::from(by));
        let inputs = [Input::Ack(claim), Input::Take { max, owner: Arc::clone(&owner) }];
        let may_die = course.chance(50);
        let Some(effects) = self.round(course, process, &inputs, may_die) else {
            // Nobody was told; that the event is done may be among what was written.
            if self.rows.rows.get(&claim.position).is_some_and(|row| row.phase == Phase::Settled) {
                self.done.insert(claim.position);
            }
            return;
        };
        let accepted = !effects.contains(&Effect::Lost(claim));
        self.settled(course, process, nth, How::Ack, accepted);
        self.handed(course, process, effects, &owner, true);
    }

    /// What became of the `nth` event that is held.
    fn settled(&mut self, course: &mut Course, process: usize, nth: usize, how: How, accepted: bool) {
        let Held { claim, by, tenure } = self.held[nth].clone();
        course.note(&[process as u64, claim.position.get(), claim.fence, u64::from(accepted)]);
        let resource = format!("event {}", claim.position);
        self.steps.push(Step::Used { resource, holder: by, fence: claim.fence, accepted });
        if !accepted {
            course.reached("subscription: a lease was taken over");
        }
        if accepted && how == How::Ack {
            self.done.insert(claim.position);
        }
        let now = course.now();
        let known = &mut self.tenures[tenure];
        if how == How::Extend {
            // From now on again, whatever was before.
            known.until = if accepted { until(course, TTL).max(known.until) } else { known.until };
            return;
        }
        known.until = known.until.min(now);
        // Sometimes a consumer forgets that it is done, and says so once more.
        if !course.chance(10) {
            self.held.swap_remove(nth);
        }
    }

    /// From here on everybody does their work: is everything settled in the end?
    fn wind_up(&mut self, course: &mut Course) {
        for round in 0..ROUNDS {
            course.pass(TTL * 2);
            self.take(course, round % PROCESSES);
            while !self.held.is_empty() {
                self.settle(course, round % PROCESSES, How::Ack);
            }
        }
        let missing = (1..=EVENTS).map(Position::new).find(|place| !self.done.contains(place));
        if let Some(missing) = missing {
            self.found.push(Violation::new("settled in the end", format!("event {missing} is never settled")));
        }
    }
}

/// What a consumer does about what it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Ack,
    Nack,
    Extend,
    Return,
}

/// Until when a lease lasts that begins now, for certain, whoever's clock it is read from.
fn until(course: &Course, ttl: Duration) -> Mono {
    let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
    course.now() + Duration::from_nanos(nanos - nanos / 1_000_000 * DRIFT_PPM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_die_between_two_parts_of_a_change_break_nothing() {
        let mut died = 0;
        for seed in 0..200 {
            let mut course = Course::new(seed, None, u64::MAX);
            let found = play(&mut course);
            assert!(found.is_empty(), "seed {seed}: {}", found[0]);
            died += course.injected.get("a process crashed between two parts of a change").unwrap_or(&0);
        }
        assert!(died > 0);
    }

    #[test]
    fn processes_that_write_whoever_was_first_are_found() {
        let found = |seed| play_with(&mut Course::new(seed, None, u64::MAX), true).into_iter().next();
        let first = (0..20).find_map(found).expect("an event that two hold");
        assert!(!first.what.is_empty(), "{first}");
    }
}
