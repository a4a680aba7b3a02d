use std::time::Duration;

use proptest::prelude::*;

use super::{super::history::History, Answer, Config, ConfigError, Hlc, HlcError, Mark, Stamp};
use crate::time::Wall;

const NOON: Wall = Wall::from_unix_nanos(1_700_000_000_000_000_000);
const MILLI: i64 = 1_000_000;

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A clock with its shell: the disk keeps the mark, a crash keeps nothing else.
struct Node {
    clock: Hlc,
    disk: Mark,
    persists: usize,
}

/// What crashes meanwhile, if the clock asks for a mark.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    CrashBeforePersist,
    CrashAfterPersist,
}

impl Node {
    fn first_start() -> Self {
        Self { clock: Hlc::resume(Config::default(), Mark::START), disk: Mark::START, persists: 0 }
    }

    fn restart(&mut self) {
        self.clock = Hlc::resume(Config::default(), self.disk);
    }

    fn persist(&mut self, mark: Mark) {
        self.disk = mark;
        self.persists += 1;
        self.clock.persisted(mark);
    }

    /// `None` if the node crashed before it had a stamp.
    fn drive(
        &mut self,
        fault: Fault,
        ask: impl Fn(&mut Hlc) -> Result<Answer, HlcError>,
    ) -> Result<Option<Stamp>, HlcError> {
        match (ask(&mut self.clock)?, fault) {
            (Answer::Stamp(stamp), _) => return Ok(Some(stamp)),
            (Answer::PersistFirst(mark), Fault::None) => self.persist(mark),
            (Answer::PersistFirst(_), Fault::CrashBeforePersist) => self.restart(),
            (Answer::PersistFirst(mark), Fault::CrashAfterPersist) => {
                self.disk = mark;
                self.restart();
            }
        }
        if fault != Fault::None {
            return Ok(None);
        }
        match ask(&mut self.clock)? {
            Answer::Stamp(stamp) => Ok(Some(stamp)),
            Answer::PersistFirst(mark) => panic!("asked for {mark:?} right after a mark was persisted"),
        }
    }

    fn tick(&mut self, now: Wall) -> Stamp {
        self.drive(Fault::None, |clock| clock.tick(now)).unwrap().unwrap()
    }

    fn observe(&mut self, now: Wall, remote: Stamp) -> Result<Stamp, HlcError> {
        self.drive(Fault::None, |clock| clock.observe(now, remote)).map(Option::unwrap)
    }
}

#[test]
fn a_stamp_is_the_wall_reading_while_that_advances() {
    let mut node = Node::first_start();
    assert_eq!(node.tick(NOON), Stamp::new(NOON, 0));
    assert_eq!(node.tick(NOON + millis(1)), Stamp::new(NOON + millis(1), 0));
}

// Kulkarni et al. 2014, figure 5: the four cases of a receipt.
#[test]
fn a_receipt_takes_the_latest_time_and_counts_where_that_is_no_news() {
    let received = |own: Stamp, now: Wall, remote: Stamp| {
        let mut node = Node::first_start();
        node.observe(NOON, own).unwrap();
        node.observe(now, remote).unwrap()
    };
    let (later, latest) = (NOON + millis(1), NOON + millis(2));
    assert_eq!(received(Stamp::new(later, 6), NOON, Stamp::new(later, 9)), Stamp::new(later, 10));
    assert_eq!(received(Stamp::new(later, 6), NOON, Stamp::new(NOON, 9)), Stamp::new(later, 8));
    assert_eq!(received(Stamp::new(later, 6), NOON, Stamp::new(latest, 9)), Stamp::new(latest, 10));
    assert_eq!(received(Stamp::new(later, 6), latest, Stamp::new(later, 9)), Stamp::new(latest, 0));
}

#[test]
fn a_stamp_a_day_ahead_is_refused_and_leaves_no_trace() {
    let mut node = Node::first_start();
    node.tick(NOON);
    let (before, mark) = (node.clock.last(), node.clock.mark());
    let day = Duration::from_secs(86_400);
    let refused = node.clock.observe(NOON, Stamp::new(NOON + day, 0)).unwrap_err();
    assert_eq!(refused, HlcError::TooFarAhead { offset: day, bound: millis(500) });
    assert_eq!(refused.to_string(), "the stamp is 86400s ahead of this wall clock, more than the bound of 500ms");
    assert_eq!((node.clock.last(), node.clock.mark()), (before, mark));
}

#[test]
fn the_bound_itself_is_still_accepted_and_a_nanosecond_more_is_not() {
    let mut node = Node::first_start();
    let at_bound = NOON + millis(500);
    assert_eq!(node.observe(NOON, Stamp::new(at_bound, 0)), Ok(Stamp::new(at_bound, 1)));
    let beyond = Stamp::new(at_bound + Duration::from_nanos(1), 0);
    assert!(matches!(node.observe(NOON, beyond), Err(HlcError::TooFarAhead { .. })));
}

#[test]
fn a_node_whose_wall_clock_was_set_back_refuses_its_peers_and_says_by_how_much() {
    let mut node = Node::first_start();
    let sent = node.tick(NOON);
    let hour = Duration::from_secs(3600);
    assert_eq!(node.clock.ahead_of(NOON - hour), hour);
    assert!(matches!(node.observe(NOON - hour, sent), Err(HlcError::TooFarAhead { offset, .. }) if offset == hour));
}

#[test]
fn no_stamp_leaves_before_its_mark_is_persisted() {
    let mut clock = Hlc::resume(Config::default(), Mark::START);
    let Answer::PersistFirst(mark) = clock.tick(NOON).unwrap() else { panic!("a stamp without a mark") };
    assert_eq!(mark, Mark::new(NOON + millis(250)));
    assert_eq!(clock.tick(NOON), Ok(Answer::PersistFirst(mark)), "asking again changes nothing");
    clock.persisted(mark);
    assert_eq!(clock.tick(NOON), Ok(Answer::Stamp(Stamp::new(NOON, 0))));
}

#[test]
fn a_receipt_is_below_the_mark_too() {
    let mut clock = Hlc::resume(Config::default(), Mark::START);
    clock.persisted(Mark::new(NOON + millis(250)));
    let Answer::PersistFirst(mark) = clock.observe(NOON, Stamp::new(NOON + millis(400), 7)).unwrap() else {
        panic!("a receipt stamped beyond the mark")
    };
    assert_eq!(mark, Mark::new(NOON + millis(500)), "a window beyond the peer's clock, but within the bound");
}

#[test]
fn an_older_mark_changes_nothing() {
    let mut node = Node::first_start();
    node.tick(NOON);
    let mark = node.clock.mark();
    node.clock.persisted(Mark::new(NOON - millis(1)));
    assert_eq!(node.clock.mark(), mark);
}

#[test]
fn the_first_stamp_after_a_restart_is_larger_though_the_wall_clock_was_set_back() {
    let mut node = Node::first_start();
    let before = (0..1000).map(|_| node.tick(NOON)).last().unwrap();
    node.restart();
    assert!(node.tick(NOON - Duration::from_secs(86_400)) > before);
}

#[test]
fn a_crash_loop_does_not_run_ahead_of_the_wall_clock() {
    let mut node = Node::first_start();
    for _ in 0..1000 {
        node.tick(NOON);
        node.restart();
    }
    assert!(node.clock.ahead_of(NOON) <= millis(250) + Duration::from_micros(1));
}

#[test]
fn peers_that_restart_in_turn_do_not_push_each_other_beyond_the_bound() {
    let (mut one, mut two) = (Node::first_start(), Node::first_start());
    for _ in 0..100 {
        let sent = one.tick(NOON);
        let answered = two.observe(NOON, sent).unwrap_or_else(|_| two.tick(NOON));
        two.restart();
        one.observe(NOON, answered).unwrap_or_else(|_| one.tick(NOON));
        one.restart();
    }
    let slack = Duration::from_micros(1);
    assert!(one.clock.ahead_of(NOON) <= millis(500) + slack && two.clock.ahead_of(NOON) <= millis(500) + slack);
}

#[test]
fn a_restarted_node_is_believed_by_a_peer_whose_clock_is_behind_by_half_the_bound() {
    let (mut one, mut two) = (Node::first_start(), Node::first_start());
    one.tick(NOON);
    one.restart();
    let sent = one.tick(NOON);
    two.observe(NOON - millis(249), sent).unwrap();
}

#[test]
fn a_second_of_load_persists_only_four_marks() {
    let mut node = Node::first_start();
    (0..100_000).for_each(|step| _ = node.tick(NOON + Duration::from_micros(10 * step)));
    assert_eq!(node.persists, 4);
}

#[test]
fn a_shell_that_renews_marks_early_never_waits_for_one() {
    let mut node = Node::first_start();
    node.tick(NOON);
    for step in 0..1000 {
        let now = NOON + millis(step);
        if let Some(mark) = node.clock.renewal(now) {
            node.persist(mark);
        }
        assert!(matches!(node.clock.tick(now), Ok(Answer::Stamp(_))));
    }
    assert!((7..=9).contains(&node.persists), "one per half window, not {}", node.persists);
}

#[test]
fn a_clock_ahead_of_the_wall_clock_renews_no_mark_it_already_has() {
    let mut node = Node::first_start();
    node.tick(NOON);
    node.restart();
    let set_back = NOON - millis(1000);
    node.persist(node.clock.renewal(set_back).expect("nothing is left below the mark after a restart"));
    node.tick(set_back);
    assert_eq!(node.clock.renewal(set_back), None);
}

#[test]
fn a_full_counter_carries_on_a_nanosecond_later() {
    let mut node = Node::first_start();
    let full = Stamp::new(NOON + millis(1), u32::MAX);
    let carried = node.observe(NOON, full).unwrap();
    assert_eq!(carried, Stamp::new(NOON + millis(1) + Duration::from_nanos(1), 0));
}

#[test]
fn the_end_of_time_is_an_error_and_not_a_repetition() {
    let mut node = Node::first_start();
    let end = Wall::from_unix_nanos(i64::MAX);
    assert_eq!(node.clock.tick(end), Err(HlcError::Exhausted));
    assert_eq!(node.clock.observe(end, Stamp::new(end, u32::MAX)), Err(HlcError::Exhausted));
    assert_eq!(node.clock.renewal(end), None);
    node.tick(NOON);

    let mut at_end = Hlc::resume(Config::default(), Mark::new(end));
    assert_eq!(at_end.tick(NOON), Err(HlcError::Exhausted));
}

#[test]
fn a_wall_clock_before_1970_counts_as_1970() {
    let mut node = Node::first_start();
    let stamps = [-1, i64::MIN, 0].map(|nanos| node.tick(Wall::from_unix_nanos(nanos)));
    assert!(stamps.is_sorted_by(|a, b| a < b) && stamps[0] > Stamp::ZERO);
}

#[test]
fn a_window_that_peers_would_not_follow_is_refused() {
    assert_eq!(Config::new(millis(500), millis(250)), Ok(Config::default()));
    assert_eq!(Config::new(millis(500), Duration::ZERO), Err(ConfigError::ZeroWindow));
    let too_wide = ConfigError::WindowTooWide { window: millis(251), max_offset: millis(500) };
    assert_eq!(Config::new(millis(500), millis(251)), Err(too_wide));
}

/// One thing that happens to one node.
#[derive(Clone, Debug)]
struct Step {
    node: usize,
    /// What its wall clock reads, in nanoseconds after (or before) the common time.
    skew: i64,
    /// The earlier event whose message it receives, if any.
    heard: Option<usize>,
    restarts_first: bool,
    fault: Fault,
}

fn steps(skew: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Step>> {
    let fault =
        prop_oneof![4 => Just(Fault::None), 1 => Just(Fault::CrashBeforePersist), 1 => Just(Fault::CrashAfterPersist)];
    let step = (0..3_usize, skew, any::<Option<usize>>(), prop::bool::weighted(0.2), fault)
        .prop_map(|(node, skew, heard, restarts_first, fault)| Step { node, skew, heard, restarts_first, fault });
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn stamps_grow_under_any_wall_readings_crashes_and_remote_stamps(
        steps in steps(prop_oneof![any::<i64>(), -MILLI..MILLI, Just(0), Just(i64::MAX)]),
        remote_nanos in prop::collection::vec((-600 * MILLI..600 * MILLI, prop_oneof![any::<u32>(), Just(u32::MAX)]), 80),
    ) {
        let mut node = Node::first_start();
        let mut latest = Stamp::ZERO;
        for (step, (ahead, logical)) in steps.iter().zip(remote_nanos) {
            if step.restarts_first {
                node.restart();
            }
            // Mostly near noon, sometimes anywhere at all; the last readings of time itself are tested on their own.
            let now = Wall::from_unix_nanos(NOON.unix_nanos().saturating_add(step.skew).min(i64::MAX / 2));
            let remote = Stamp::new(Wall::from_unix_nanos(now.unix_nanos().saturating_add(ahead)), logical);
            let given = match step.heard {
                Some(_) => node.drive(step.fault, |clock| clock.observe(now, remote)),
                None => node.drive(step.fault, |clock| clock.tick(now)),
            };
            match given {
                Ok(Some(stamp)) => {
                    prop_assert!(stamp > latest);
                    prop_assert!(step.heard.is_none() || stamp > remote);
                    prop_assert!(stamp.wall() >= now);
                    prop_assert!(stamp < Stamp::new(node.disk.wall(), 0));
                    latest = stamp;
                }
                Ok(None) => {}
                Err(HlcError::TooFarAhead { offset, bound }) => prop_assert!(step.heard.is_some() && offset > bound),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }

    // Kulkarni et al. 2014, theorem 1: e → f implies stamp(e) < stamp(f); here through crashes and restarts too.
    #[test]
    fn happened_before_implies_a_smaller_stamp(steps in steps(-200 * MILLI..200 * MILLI)) {
        let mut nodes = [Node::first_start(), Node::first_start(), Node::first_start()];
        let (mut history, mut stamps) = (History::default(), vec![]);
        for (at, step) in steps.iter().enumerate() {
            let now = Wall::from_unix_nanos(NOON.unix_nanos() + at as i64 * MILLI + step.skew);
            let node = &mut nodes[step.node];
            if step.restarts_first {
                node.restart();
            }
            let sent = step.heard.filter(|_| !stamps.is_empty()).map(|pick| pick % stamps.len());
            let given = match sent {
                Some(sent) => node.drive(step.fault, |clock| clock.observe(now, stamps[sent])),
                None => node.drive(step.fault, |clock| clock.tick(now)),
            };
            if let Ok(Some(stamp)) = given {
                history.event(step.node, sent);
                stamps.push(stamp);
            }
        }
        for (cause, event) in history.ordered_pairs() {
            prop_assert!(stamps[cause] < stamps[event]);
        }
    }

    // The paper's theorem 2 (clocks stay near wall time), with marks and restarts, which add a nanosecond each.
    #[test]
    fn no_stamp_is_further_ahead_of_the_latest_wall_reading_than_the_bound(steps in steps(0..50 * MILLI)) {
        let mut nodes = [Node::first_start(), Node::first_start(), Node::first_start()];
        let mut stamps: Vec<Stamp> = vec![];
        let latest_reading = NOON + millis(50);
        for step in &steps {
            let now = Wall::from_unix_nanos(NOON.unix_nanos() + step.skew);
            let node = &mut nodes[step.node];
            if step.restarts_first {
                node.restart();
            }
            let given = match step.heard.filter(|_| !stamps.is_empty()) {
                Some(pick) => node.drive(step.fault, |clock| clock.observe(now, stamps[pick % stamps.len()])),
                None => node.drive(step.fault, |clock| clock.tick(now)),
            };
            if let Ok(Some(stamp)) = given {
                prop_assert!(stamp.wall() <= latest_reading + millis(500) + Duration::from_micros(1));
                stamps.push(stamp);
            }
        }
    }
}
