//! Hybrid clocks of several nodes that stamp, send and receive, while their wall clocks jump and they crash: every node's stamps
//! grow, through restarts, and beyond what they were told.

use std::time::Duration;

use quorate_foundations::{
    ordering::hlc::{Answer, Config, Hlc, HlcError, Mark, Stamp},
    time::Wall,
};
use quorate_sim::{
    Violation,
    check::hlc::{Stamped, stamps_increase},
};

use super::Course;
use crate::rule;

const NODES: usize = 5;
/// The most that passes between two things that happen.
const STEP: Duration = Duration::from_millis(100);
/// When every course begins, by clocks that are right.
const BEGINNING: Wall = Wall::from_unix_nanos(1_767_225_600_000_000_000);
/// The most messages under way; further ones are lost.
const MOST_MESSAGES: usize = 50;

/// A node: what it keeps, and how its clock is off.
struct Node {
    clock: Hlc,
    /// What is durable.
    mark: Mark,
    /// Nanoseconds that its wall clock is off.
    off: i64,
}

struct Nodes {
    config: Config,
    durable: bool,
    nodes: Vec<Node>,
    /// Stamps under way, to whom.
    messages: Vec<(usize, Stamp)>,
    stamped: Vec<Stamped<Stamp>>,
    found: Vec<Violation>,
}

/// Plays it.
pub(crate) fn play(course: &mut Course) -> Vec<Violation> {
    play_with(course, true)
}

/// Plays it; `durable`: whether what is written down is there after a crash.
fn play_with(course: &mut Course, durable: bool) -> Vec<Violation> {
    let config = Config::default();
    let node =
        |course: &mut Course| Node { clock: Hlc::resume(config, Mark::START), mark: Mark::START, off: skew(course) };
    let nodes = (0..NODES).map(|_| node(course)).collect();
    let mut all = Nodes { config, durable, nodes, messages: Vec::new(), stamped: Vec::new(), found: Vec::new() };
    while course.goes_on(STEP) {
        let at = course.below(NODES);
        match course.below(20) {
            0 => all.crash(course, at),
            1 => all.step_clock(course, at),
            2 => all.renew(course, at),
            3..=10 => all.send(course, at),
            _ => all.receive(course),
        }
    }
    let mut found = all.found;
    found.extend(rule::broken(&stamps_increase(&all.stamped)));
    found
}

/// Half a bound in either direction, so that nodes mostly believe each other.
fn skew(course: &mut Course) -> i64 {
    i64::try_from(course.rng.below(250_000_000)).unwrap_or(0) - 125_000_000
}

impl Nodes {
    fn wall(&self, course: &Course, at: usize) -> Wall {
        let nanos = i64::try_from(course.now().as_nanos()).unwrap_or(i64::MAX);
        Wall::from_unix_nanos(BEGINNING.unix_nanos() + nanos + self.nodes[at].off)
    }

    /// The process is gone; what was durable is all that is left.
    fn crash(&mut self, course: &mut Course, at: usize) {
        course.injected("a node crashed");
        let node = &mut self.nodes[at];
        node.clock = Hlc::resume(self.config, if self.durable { node.mark } else { Mark::START });
    }

    fn step_clock(&mut self, course: &mut Course, at: usize) {
        course.injected("a wall clock was set");
        self.nodes[at].off = match course.below(3) {
            0 => skew(course) - 86_400_000_000_000,
            1 => skew(course) - 2_000_000_000,
            _ => skew(course),
        };
    }

    /// Reserves ahead of need, as a shell does that writes something anyway.
    fn renew(&mut self, course: &Course, at: usize) {
        let now = self.wall(course, at);
        let node = &mut self.nodes[at];
        if let Some(mark) = node.clock.renewal(now) {
            node.mark = node.mark.max(mark);
            node.clock.persisted(mark);
        }
    }

    fn send(&mut self, course: &mut Course, at: usize) {
        let Some(stamp) = self.stamp(course, at, None) else { return };
        if self.messages.len() < MOST_MESSAGES {
            let to = course.below(NODES);
            self.messages.push((to, stamp));
        }
    }

    /// One of the messages arrives, in whatever order; sometimes it will arrive again.
    fn receive(&mut self, course: &mut Course) {
        if self.messages.is_empty() {
            return;
        }
        let nth = course.below(self.messages.len());
        let (to, stamp) = if course.chance(10) { self.messages[nth] } else { self.messages.swap_remove(nth) };
        self.stamp(course, to, Some(stamp));
    }

    /// Has the clock at `at` stamp something, on hearing of `heard` if of anything. `None` where it refused, or the node crashed.
    fn stamp(&mut self, course: &mut Course, at: usize, heard: Option<Stamp>) -> Option<Stamp> {
        loop {
            let now = self.wall(course, at);
            let node = &mut self.nodes[at];
            let answer = match heard {
                Some(heard) => node.clock.observe(now, heard),
                None => node.clock.tick(now),
            };
            match answer {
                Ok(Answer::Stamp(stamp)) => {
                    self.hand_out(course, at, now, stamp, heard);
                    return Some(stamp);
                }
                Ok(Answer::PersistFirst(mark)) => {
                    let crash = course.below(10);
                    if crash != 0 {
                        node.mark = node.mark.max(mark);
                    }
                    if crash < 2 {
                        course.reached("hlc: a node crashed while it made its mark durable");
                        self.crash(course, at);
                        return None;
                    }
                    node.clock.persisted(mark);
                }
                Err(HlcError::TooFarAhead { .. }) => {
                    course.reached("hlc: a stamp from the future was refused");
                    return None;
                }
                Err(other) => {
                    self.found.push(Violation::new("a clock answers", format!("node {at}: {other}")));
                    return None;
                }
            }
        }
    }

    fn hand_out(&mut self, course: &mut Course, at: usize, now: Wall, stamp: Stamp, heard: Option<Stamp>) {
        if stamp.wall() > now {
            course.reached("hlc: a stamp ran ahead of its wall clock");
        }
        let bytes = stamp.to_bytes().iter().fold(0_u64, |sum, byte| sum.wrapping_mul(257) + u64::from(*byte));
        course.note(&[at as u64, bytes]);
        self.stamped.push(Stamped { node: at.to_string(), stamp, heard });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_forget_their_marks_are_found() {
        let found = |seed| play_with(&mut Course::new(seed, None, u64::MAX), false).into_iter().next();
        let first = (0..50).find_map(found).expect("a stamp that was given twice");
        assert_eq!(first.rule, "stamps of a node increase, and exceed what caused them");
    }
}
