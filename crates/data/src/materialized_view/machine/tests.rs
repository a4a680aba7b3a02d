use std::{sync::Arc, time::Duration};

use super::*;

const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn shard(on_poison: OnPoison) -> Shard {
    let config = Config { on_poison, max_attempts: 3, stride: 100, ..Config::default() };
    Shard::new(&config, Position::ZERO, BTreeSet::new(), None)
}

fn item(position: u64, key: &str) -> Item {
    Item { position: Position::new(position), key: key.into() }
}

fn items(from: u64, to: u64) -> impl Iterator<Item = Item> {
    (from..=to).map(|n| item(n, &format!("key-{n}")))
}

fn at(n: u64) -> Position {
    Position::new(n)
}

impl Shard {
    /// Takes in what follows what was read.
    fn read(&mut self, items: impl IntoIterator<Item = Item>, scanned: Position) {
        self.take_in(self.scanned(), items, scanned);
    }
}

fn failure(culprit: Option<Position>) -> Failure {
    Failure { culprit, reason: "no".into(), certain: false }
}

/// Commits what is planned, as if it worked.
fn go_on(shard: &mut Shard) -> (Vec<Fate>, Position) {
    let Plan::Commit { fates, to } = shard.plan(NOW, true) else { panic!("{:?}", shard.plan(NOW, true)) };
    shard.committed(&fates, to, Duration::ZERO);
    (fates, to)
}

/// Fails what is planned until one event alone has failed for the last time.
fn give_up_at(shard: &mut Shard, poison: Position) {
    let mut now = NOW;
    for _ in 0..200 {
        match shard.plan(now, true) {
            Plan::Rest { until } => now = until,
            Plan::Commit { fates, to }
                if fates.contains(&Fate::Apply) && to >= poison && shard.checkpoint() < poison =>
            {
                shard.failed(now, fates.len(), failure(None));
            }
            Plan::Commit { fates, .. } if matches!(fates[..], [Fate::Park | Fate::Skip]) => return,
            Plan::Commit { fates, to } => shard.committed(&fates, to, Duration::ZERO),
            Plan::Stop => return,
            Plan::Read => panic!("it never gave up"),
        }
    }
    panic!("it never gave up");
}

#[test]
fn a_batch_moves_the_checkpoint_over_what_did_not_match() {
    let mut shard = shard(OnPoison::Stop);
    shard.read([item(3, "a"), item(7, "b")], at(40));
    assert_eq!(go_on(&mut shard), (vec![Fate::Apply, Fate::Apply], at(40)));
    assert_eq!((shard.checkpoint(), shard.reached()), (at(40), at(40)));
}

#[test]
fn the_checkpoint_moves_over_events_that_never_match_only_now_and_then() {
    let mut shard = shard(OnPoison::Stop);
    shard.read([], at(99));
    assert_eq!(shard.plan(NOW, false), Plan::Read);
    assert_eq!(shard.reached(), at(99), "readers need not wait for the checkpoint");
    shard.read([], at(100));
    assert_eq!(shard.plan(NOW, false), Plan::Commit { fates: vec![], to: at(100) });
}

#[test]
fn an_idle_shard_writes_down_even_a_small_step() {
    let mut shard = shard(OnPoison::Stop);
    shard.read([], at(1));
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![], to: at(1) });
    shard.committed(&[], at(1), Duration::ZERO);
    assert_eq!(shard.plan(NOW, true), Plan::Read);
}

#[test]
fn a_failing_batch_is_halved_until_one_event_fails_alone() {
    let mut shard = shard(OnPoison::Park);
    shard.read(items(1, 40), at(40));
    give_up_at(&mut shard, at(23));
    assert_eq!(shard.checkpoint(), at(22), "everything before it was applied");
    let trouble = shard.trouble().unwrap();
    assert_eq!((trouble.position, trouble.attempts), (at(23), 3));
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![Fate::Park], to: at(23) });
}

#[test]
fn a_named_culprit_is_found_without_halving() {
    let mut shard = shard(OnPoison::Park);
    shard.read(items(1, 40), at(40));
    assert_eq!(shard.failed(NOW, 40, failure(Some(at(23)))), None);
    assert_eq!(go_on(&mut shard), (vec![Fate::Apply; 22], at(22)));
    assert_eq!(shard.failed(NOW, 18, failure(Some(at(23)))), None);
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![Fate::Apply], to: at(23) });
}

#[test]
fn an_event_that_fails_rests_longer_each_time() {
    let mut shard = shard(OnPoison::Stop);
    shard.read(items(1, 1), at(1));
    shard.failed(NOW, 1, failure(None));
    let Plan::Rest { until: first } = shard.plan(NOW, true) else { panic!() };
    shard.failed(first, 1, failure(None));
    let Plan::Rest { until: second } = shard.plan(first, true) else { panic!() };
    assert_eq!(second.saturating_since(first), 2 * first.saturating_since(NOW));
}

#[test]
fn a_policy_of_stopping_stops_at_the_event_and_not_behind_it() {
    let mut shard = shard(OnPoison::Stop);
    shard.read(items(1, 9), at(9));
    give_up_at(&mut shard, at(5));
    assert_eq!(shard.plan(NOW, true), Plan::Stop);
    assert_eq!(shard.checkpoint(), at(4));
}

#[test]
fn later_events_of_a_parked_key_are_parked_behind_it_and_others_go_on() {
    let mut shard = shard(OnPoison::Park);
    shard.read([item(1, "a"), item(2, "b"), item(3, "a"), item(4, "b")], at(4));
    give_up_at(&mut shard, at(1));
    assert_eq!(go_on(&mut shard), (vec![Fate::Park], at(1)));
    assert_eq!(go_on(&mut shard), (vec![Fate::Apply, Fate::ParkBehind, Fate::Apply], at(4)));
}

#[test]
fn a_skipped_event_does_not_hold_its_key() {
    let mut shard = shard(OnPoison::Skip);
    shard.read([item(1, "a"), item(2, "a")], at(2));
    give_up_at(&mut shard, at(1));
    assert_eq!(go_on(&mut shard), (vec![Fate::Skip], at(1)));
    assert_eq!(go_on(&mut shard), (vec![Fate::Apply], at(2)));
}

#[test]
fn attempts_counted_before_a_restart_count() {
    let config = Config { on_poison: OnPoison::Park, max_attempts: 3, ..Config::default() };
    let trouble =
        Trouble { position: at(1), attempts: 3, reason: "it killed the process".into(), ordered: None, certain: false };
    let mut shard = Shard::new(&config, Position::ZERO, BTreeSet::new(), Some(trouble));
    shard.read(items(1, 2), at(2));
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![Fate::Park], to: at(1) });
}

#[test]
fn keys_parked_before_a_restart_stay_parked() {
    let mut shard = Shard::new(&Config::default(), Position::ZERO, BTreeSet::from([Arc::from("a")]), None);
    shard.read([item(1, "a")], at(1));
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![Fate::ParkBehind], to: at(1) });
}

#[test]
#[should_panic(expected = "invariant: the log is read in order")]
fn a_log_that_goes_backwards_is_not_believed() {
    let mut shard = shard(OnPoison::Stop);
    shard.read(items(1, 3), at(3));
    shard.read([item(3, "a")], at(4));
}

#[test]
fn a_batch_grows_while_it_is_quick_and_shrinks_when_it_is_not() {
    let mut pace = Pace::new(Duration::from_millis(5), 1_000);
    for _ in 0..10 {
        pace.took(pace.batch(), Duration::from_millis(1));
    }
    assert_eq!(pace.batch(), 1_000, "never beyond its limit");
    pace.took(1_000, Duration::from_millis(50));
    assert_eq!(pace.batch(), 100);
    pace.took(3, Duration::from_micros(1));
    assert_eq!(pace.batch(), 100, "a batch that was not full says nothing");
}

#[test]
fn a_batch_grows_where_more_events_cost_little_more_and_stays_within_its_time() {
    let target = Duration::from_millis(5);
    // Three µs for each of a thousand rows, and a quarter for each event.
    let took = |events: u64| Duration::from_nanos(3_000 * events.min(1_000) + 250 * events);
    let mut pace = Pace::new(target, 5_000);
    for _ in 0..40 {
        let took = took(pace.batch() as u64);
        assert!(took <= target, "{} events take {took:?}", pace.batch());
        pace.took(pace.batch(), took);
    }
    assert!(pace.batch() > 3_000, "{}", pace.batch());
}

#[test]
fn a_batch_whose_cost_is_its_length_never_takes_longer_than_its_time() {
    let target = Duration::from_millis(5);
    for nanos in [100, 900, 1_700, 3_300, 60_000] {
        let mut pace = Pace::new(target, 5_000);
        for _ in 0..40 {
            let took = Duration::from_nanos(nanos * pace.batch() as u64);
            assert!(took <= target, "{} events take {took:?}", pace.batch());
            pace.took(pace.batch(), took);
        }
        assert!(pace.batch() == 5_000 || Duration::from_nanos(nanos * pace.batch() as u64) > target / 2);
    }
}

#[test]
fn a_shard_that_had_stopped_tries_once_more_when_it_is_started_again() {
    let config = Config { max_attempts: 3, ..Config::default() };
    let trouble = Trouble { position: at(1), attempts: 3, reason: "no".into(), ordered: None, certain: false };
    let mut shard = Shard::new(&config, Position::ZERO, BTreeSet::new(), Some(trouble));
    shard.read(items(1, 1), at(1));
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![Fate::Apply], to: at(1) });
    shard.failed(NOW, 1, failure(None));
    assert_eq!(shard.plan(NOW, true), Plan::Stop);
}

#[test]
fn what_somebody_ordered_goes_before_the_policy() {
    let ordered = Some(Ordered { verdict: OnPoison::Skip, by: "ada".into() });
    let trouble = Trouble { position: at(1), attempts: 1, reason: "no".into(), ordered, certain: false };
    let mut shard = Shard::new(&Config::default(), Position::ZERO, BTreeSet::new(), Some(trouble));
    shard.read(items(1, 1), at(1));
    assert_eq!(shard.plan(NOW, true), Plan::Commit { fates: vec![Fate::Skip], to: at(1) });
}

#[test]
fn what_was_handed_is_counted_batch_by_batch_and_across_pages() {
    let mut shard = shard(OnPoison::Stop);
    shard.read([item(3, "a"), item(7, "b")], at(40));
    shard.read([item(45, "a")], at(50));
    let of = |positions: u64, events: &[u64]| {
        events.iter().fold(Handed { positions, ..Handed::default() }, |handed, n| handed.and(at(*n)))
    };
    assert_eq!(shard.handed(at(3)), of(3, &[3]));
    assert_eq!(shard.handed(at(45)), of(45, &[3, 7, 45]));
    shard.committed(&[Fate::Apply], at(3), Duration::ZERO);
    assert_eq!(shard.handed(at(44)), of(41, &[7]));
    shard.committed(&[Fate::Apply], at(44), Duration::ZERO);
    assert_eq!(shard.handed(at(50)), of(6, &[45]));
    assert_eq!(of(41, &[7]).then(of(6, &[45])), of(47, &[7, 45]));
}

#[test]
fn positions_that_a_page_passes_over_or_gives_twice_are_not_counted_as_looked_at_once() {
    let mut shard = shard(OnPoison::Stop);
    shard.take_in(at(0), [item(3, "a")], at(10));
    shard.take_in(at(15), [], at(20));
    assert_eq!(shard.handed(at(20)).positions, 15, "nobody looked at 11 to 15");
    shard.take_in(at(18), [], at(30));
    assert_eq!(shard.handed(at(30)).positions, 27, "and 19 and 20 were looked at twice");
}

mod histories {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// A log for one shard: positions that rise, with keys, and which of them are poison.
    #[derive(Clone, Debug)]
    struct Log {
        events: Vec<(u64, u8, bool)>,
        /// How many are read at once.
        page: usize,
        named: bool,
        policy: OnPoison,
    }

    fn logs() -> impl Strategy<Value = Log> {
        let event = (1_u64..4, 0_u8..4, prop::bool::weighted(0.15));
        let policy = prop_oneof![Just(OnPoison::Park), Just(OnPoison::Skip), Just(OnPoison::Stop)];
        (prop::collection::vec(event, 0..60), 1_usize..20, any::<bool>(), policy).prop_map(
            |(steps, page, named, policy)| {
                let mut position = 0;
                let events = steps.into_iter().map(|(step, key, poison)| {
                    position += step;
                    (position, key, poison)
                });
                Log { events: events.collect(), page, named, policy }
            },
        )
    }

    /// What became of each event, in the order in which it was decided; also whether the shard stopped.
    fn run(log: &Log) -> (Vec<(u64, Fate)>, bool) {
        let config = Config { on_poison: log.policy, max_attempts: 2, batch_events: 16, ..Config::default() };
        let mut shard = Shard::new(&config, Position::ZERO, BTreeSet::new(), None);
        let (mut read, mut done, mut now) = (0, Vec::new(), NOW);
        for _ in 0..10_000 {
            match shard.plan(now, true) {
                Plan::Stop => return (done, true),
                Plan::Rest { until } => now = until,
                Plan::Read if read == log.events.len() => return (done, false),
                Plan::Read => {
                    let page = &log.events[read..log.events.len().min(read + log.page)];
                    let items = page.iter().map(|(position, key, _)| item(*position, &format!("key-{key}")));
                    shard.read(items, at(page.last().map_or(0, |last| last.0)));
                    read += page.len();
                }
                Plan::Commit { fates, to } => {
                    let batch = &log.events[done.len()..done.len() + fates.len()];
                    let fated = || batch.iter().zip(&fates);
                    let poison = fated().find(|((_, _, poison), fate)| *poison && **fate == Fate::Apply);
                    if let Some(((position, ..), _)) = poison {
                        shard.failed(now, fates.len(), failure(log.named.then(|| at(*position))));
                        continue;
                    }
                    done.extend(fated().map(|((position, ..), fate)| (*position, *fate)));
                    assert!(to.get() >= done.last().map_or(0, |last| last.0));
                    shard.committed(&fates, to, Duration::ZERO);
                }
            }
        }
        panic!("it goes on for ever");
    }

    proptest! {
        /// Whatever is poison, and however it is found: every event is dealt with once, in the order of the log, healthy
        /// ones are applied unless an earlier one of their key is parked, and a stop is right before poison.
        #[test]
        fn every_event_meets_its_fate_once_and_in_order(log in logs()) {
            let (done, stopped) = run(&log);
            let mut parked: BTreeMap<u8, ()> = BTreeMap::new();
            for ((position, key, poison), (decided, fate)) in log.events.iter().zip(&done) {
                prop_assert_eq!(position, decided);
                let wanted = match (parked.contains_key(key), poison, log.policy) {
                    (true, ..) => Fate::ParkBehind,
                    (_, false, _) => Fate::Apply,
                    (_, true, OnPoison::Park) => Fate::Park,
                    (_, true, _) => Fate::Skip,
                };
                prop_assert_eq!(*fate, wanted);
                if *fate == Fate::Park {
                    parked.insert(*key, ());
                }
            }
            let next = log.events.get(done.len());
            prop_assert_eq!(stopped, log.policy == OnPoison::Stop && next.is_some_and(|next| next.2));
            prop_assert!(stopped || next.is_none());
        }
    }
}

#[test]
fn what_would_certainly_fail_again_is_tried_once() {
    for (policy, verdict) in
        [(OnPoison::Park, Some(Fate::Park)), (OnPoison::Skip, Some(Fate::Skip)), (OnPoison::Stop, None)]
    {
        let mut shard = shard(policy);
        shard.read(items(1, 2), at(2));
        let certain = Failure { certain: true, ..failure(Some(at(1))) };
        assert_eq!(shard.failed(NOW, 2, certain.clone()), None, "a batch says nothing of one event alone");
        assert_eq!(shard.failed(NOW, 1, certain).map(|trouble| trouble.attempts), Some(1));
        match shard.plan(NOW, true) {
            Plan::Commit { fates, .. } => assert_eq!(fates.first(), verdict.as_ref()),
            plan => assert_eq!((plan, verdict), (Plan::Stop, None)),
        }
    }
}
