//! The rules at the door at their edges, and for any sequence of comings and goings.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    bulkhead::config::{Queue, Shares},
    deadline::Deadline,
};

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

fn fixed(limit: u32) -> Limit {
    Limit::Fixed(NonZeroU32::new(limit).unwrap())
}

fn config(limit: u32, length: u32) -> Config {
    let queue = Queue { length, max_wait: Duration::from_millis(100) };
    Config { limit: fixed(limit), queue, ..Config::default() }
}

fn ask(priority: Priority) -> Ask {
    Ask { priority, ..Ask::default() }
}

fn of(tenant: &str) -> Ask {
    Ask { tenant: Some(tenant.parse().unwrap()), ..Ask::default() }
}

/// A door with its story: who is in, who waits, and what became of those who waited.
struct Story {
    door: Door,
    in_flight: u32,
    answers: Vec<(Ticket, Result<(), Why>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    In,
    Waits(Ticket),
    Refused(Why),
}

impl Story {
    fn of(config: Config) -> Self {
        config.check().unwrap();
        Self { door: Door::new(config), in_flight: 0, answers: Vec::new() }
    }

    fn step(&mut self, now: u64, input: Input) -> Option<Came> {
        let (mut effects, mut came) = (Vec::new(), None);
        self.door.told(self.in_flight);
        self.door.step(at(now), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Enter => came = Some(Came::In),
                Effect::Wait { ticket, .. } => came = Some(Came::Waits(ticket)),
                Effect::Refuse(rejected) => came = Some(Came::Refused(rejected.why)),
                Effect::Admit(ticket) => self.answers.push((ticket, Ok(()))),
                Effect::Dismiss(ticket, rejected) => self.answers.push((ticket, Err(rejected.why))),
            }
            self.in_flight += u32::from(matches!(effect, Effect::Enter | Effect::Admit(_)));
        }
        came
    }

    fn come(&mut self, now: u64, ask: &Ask) -> Came {
        self.step(now, Input::Arrive { ask: ask.clone(), waits: true }).expect("whoever comes is answered")
    }

    fn waits(&mut self, now: u64, ask: &Ask) -> Ticket {
        match self.come(now, ask) {
            Came::Waits(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, now: u64, tenant: Option<&str>) {
        self.in_flight -= 1;
        self.step(now, Input::Release(tenant.map(|tenant| tenant.parse().unwrap())));
    }

    fn answers(&mut self) -> Vec<(Ticket, Result<(), Why>)> {
        std::mem::take(&mut self.answers)
    }
}

#[test]
fn who_matters_more_enters_first_and_among_equals_who_came_first() {
    let mut story = Story::of(config(1, 10));
    assert_eq!(story.come(0, &Ask::default()), Came::In);
    let order = [Priority::Background, Priority::Normal, Priority::Critical, Priority::Normal];
    let [background, first, critical, second] = order.map(|priority| story.waits(1, &ask(priority)));
    for ticket in [critical, first, second, background] {
        story.release(2, None);
        assert_eq!(story.answers(), [(ticket, Ok(()))]);
    }
}

#[test]
fn a_full_queue_sends_away_who_matters_least_and_came_last() {
    let mut story = Story::of(config(1, 3));
    story.come(0, &Ask::default());
    let [early, late] = [1, 2].map(|now| story.waits(now, &ask(Priority::Background)));
    let normal = story.waits(3, &ask(Priority::Normal));
    assert_eq!(story.come(4, &ask(Priority::Background)), Came::Refused(Why::QueueFull));
    story.waits(5, &ask(Priority::Critical));
    assert_eq!(story.answers(), [(late, Err(Why::Shed))]);
    story.waits(6, &ask(Priority::Normal));
    assert_eq!(story.answers(), [(early, Err(Why::Shed))]);
    assert_eq!(story.come(7, &ask(Priority::Normal)), Came::Refused(Why::QueueFull));
    story.waits(8, &ask(Priority::Critical));
    let [(shed, why)] = story.answers()[..] else { panic!() };
    assert!(shed != normal && why == Err(Why::Shed), "of two normal ones the one that came first stays");
}

#[test]
fn nobody_is_served_whose_deadline_has_passed() {
    let mut story = Story::of(config(1, 10));
    let by = |millis| Ask { deadline: Deadline::at(at(millis)), ..Ask::default() };
    assert_eq!(story.come(5, &by(5)), Came::Refused(Why::Deadline));
    assert_eq!(story.come(5, &by(6)), Came::In);
    let (soon, later) = (story.waits(6, &by(20)), story.waits(6, &by(500)));
    assert_eq!(story.door.wake_at(), Some(at(20)));
    story.release(20, None);
    assert_eq!(story.answers(), [(soon, Err(Why::Deadline)), (later, Ok(()))]);
    let patient = story.waits(30, &by(500));
    story.step(130, Input::Release(None));
    assert_eq!(story.answers(), [(patient, Err(Why::MaxWait))], "nobody waits for longer than anybody may");
}

#[test]
fn a_share_is_kept_for_calls_that_matter_more() {
    let shares = Shares { background: 0.5, normal: 0.8 };
    let mut story = Story::of(Config { shares, ..config(10, 0) });
    let entered = |story: &mut Story, priority| (0..20).filter(|_| story.come(0, &ask(priority)) == Came::In).count();
    assert_eq!(entered(&mut story, Priority::Background), 5);
    assert_eq!(entered(&mut story, Priority::Normal), 3);
    assert_eq!(entered(&mut story, Priority::Critical), 2);
}

#[test]
fn a_tenant_at_its_share_leaves_places_to_others() {
    let mut story = Story::of(Config { tenant_share: Some(0.5), ..config(4, 4) });
    for _ in 0..2 {
        assert_eq!(story.come(0, &of("loud")), Came::In);
    }
    let [first, second] = [(); 2].map(|()| story.waits(0, &of("loud")));
    assert_eq!(story.come(0, &of("loud")), Came::Refused(Why::TenantShare), "nor may it fill the queue");
    assert_eq!(story.come(0, &of("quiet")), Came::In, "those who wait don't stand in its way");
    story.release(1, Some("loud"));
    assert_eq!(story.answers(), [(first, Ok(()))]);
    assert_eq!(story.come(1, &Ask::default()), Came::In);
    story.release(2, Some("quiet"));
    assert_eq!(story.answers(), []);
    story.release(2, Some("loud"));
    assert_eq!(story.answers(), [(second, Ok(()))]);
    story.release(3, Some("loud"));
    story.release(3, Some("loud"));
    assert!(story.door.tenants.is_empty(), "a tenant that has nothing is forgotten");
}

#[test]
fn who_came_while_tenants_were_told_apart_is_counted_until_it_leaves() {
    let shared = Config { tenant_share: Some(0.5), ..config(4, 0) };
    let mut story = Story::of(shared.clone());
    for _ in 0..2 {
        assert_eq!(story.come(0, &of("loud")), Came::In);
    }
    story.step(1, Input::Configure(Box::new(config(4, 0))));
    assert!(story.door.tells_tenants(), "they are still there");
    story.step(2, Input::Configure(Box::new(shared)));
    assert_eq!(story.come(3, &of("loud")), Came::Refused(Why::TenantShare));
    story.release(4, Some("loud"));
    assert_eq!(story.come(4, &of("loud")), Came::In);
}

#[test]
fn a_limit_that_falls_lets_nobody_enter_until_enough_have_left() {
    let mut story = Story::of(config(4, 10));
    for _ in 0..4 {
        story.come(0, &Ask::default());
    }
    story.step(1, Input::Configure(Box::new(config(2, 10))));
    let waiting = story.waits(1, &Ask::default());
    story.release(2, None);
    story.release(2, None);
    assert_eq!(story.answers(), []);
    story.release(2, None);
    assert_eq!(story.answers(), [(waiting, Ok(()))]);
    let [first, second] = [(); 2].map(|()| story.waits(3, &Ask::default()));
    story.step(3, Input::Limit(4));
    assert_eq!(story.answers(), [(first, Ok(())), (second, Ok(()))]);
}

#[derive(Clone, Debug)]
enum Step {
    Come { priority: usize, tenant: Option<u8>, deadline: Option<u64>, waits: bool },
    Leave(usize),
    Release(usize),
    Configure { limit: u32, length: u32, tenants: bool },
    Limit(u32),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, proptest::option::of(0..3_u8), proptest::option::of(0..200_u64), any::<bool>())
            .prop_map(|(priority, tenant, deadline, waits)| Step::Come { priority, tenant, deadline, waits }),
        1 => any::<usize>().prop_map(Step::Leave),
        4 => any::<usize>().prop_map(Step::Release),
        1 => (1..6_u32, 0..6_u32, any::<bool>())
            .prop_map(|(limit, length, tenants)| Step::Configure { limit, length, tenants }),
        1 => (1..6_u32).prop_map(Step::Limit),
        2 => Just(Step::Tick),
    ]
}

fn tenant(number: u8) -> Name {
    format!("tenant-{number}").parse().unwrap()
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_limit_the_shares_the_order_and_everybodys_answer(
        tenants in any::<bool>(),
        steps in proptest::collection::vec((step(), 0_u64..40), 1..150),
    ) {
        let shares = Shares { background: 0.5, normal: 0.8 };
        let mut rules = Config { shares, tenant_share: tenants.then_some(0.5), ..config(3, 4) };
        let mut story = Story::of(rules.clone());
        // Those inside, and those who wait, with what they asked.
        let mut inside: Vec<Option<Name>> = Vec::new();
        let mut waiting: BTreeMap<Ticket, (Ask, Mono)> = BTreeMap::new();
        let mut now = 0;
        for (step, gap) in steps {
            now += gap;
            let before = story.in_flight;
            let mut came_in = None;
            match step {
                Step::Come { priority, tenant: whose, deadline, waits } => {
                    let ask = Ask {
                        priority: Priority::ALL[priority],
                        tenant: whose.map(tenant),
                        deadline: deadline.map_or(Deadline::NEVER, |after| Deadline::after(at(now), Duration::from_millis(after))),
                    };
                    match story.step(now, Input::Arrive { ask: ask.clone(), waits }).unwrap() {
                        Came::In => {
                            prop_assert!(!ask.deadline.has_passed(at(now)));
                            came_in = Some(ask);
                        }
                        Came::Waits(ticket) => {
                            prop_assert!(waits);
                            let patience = at(now) + rules.queue.max_wait;
                            let ends = ask.deadline.moment().map_or(patience, |deadline| deadline.min(patience));
                            // Whose it is counts from when it comes, whatever the rules become.
                            let tenant = rules.tenant_share.and(ask.tenant);
                            waiting.insert(ticket, (Ask { tenant, ..ask }, ends));
                        }
                        Came::Refused(_) => {}
                    }
                }
                Step::Leave(which) if !waiting.is_empty() => {
                    let ticket = *waiting.keys().nth(which % waiting.len()).unwrap();
                    waiting.remove(&ticket);
                    story.step(now, Input::Leave(ticket));
                    prop_assert!(!story.answers.iter().any(|(answered, _)| *answered == ticket), "who left is not answered");
                }
                Step::Release(which) if !inside.is_empty() => {
                    let whose = inside.swap_remove(which % inside.len());
                    story.in_flight -= 1;
                    story.step(now, Input::Release(whose));
                }
                Step::Configure { limit, length, tenants } => {
                    let queue = Queue { length, ..rules.queue };
                    let tenant_share = tenants.then_some(0.5);
                    rules = Config { limit: fixed(limit), queue, tenant_share, ..rules };
                    story.step(now, Input::Configure(Box::new(rules.clone())));
                }
                Step::Limit(limit) => drop(story.step(now, Input::Limit(limit))),
                Step::Tick | Step::Leave(_) | Step::Release(_) => {
                    let mut effects = Vec::new();
                    story.door.told(story.in_flight);
                    story.door.tick(at(now), &mut effects);
                    for effect in effects {
                        match effect {
                            Effect::Admit(ticket) => {
                                story.in_flight += 1;
                                story.answers.push((ticket, Ok(())));
                            }
                            Effect::Dismiss(ticket, rejected) => story.answers.push((ticket, Err(rejected.why))),
                            other => prop_assert!(false, "{:?} without anybody coming", other),
                        }
                    }
                }
            }
            for (ticket, answer) in story.answers() {
                let (ask, ends) = waiting.remove(&ticket).expect("whoever is answered waits, and is answered once");
                match answer {
                    Ok(()) => {
                        prop_assert!(ends > at(now), "nobody enters whose time is up");
                        // Whoever matters as much and came before could have entered, or is of a tenant at its share.
                        let overtaken = waiting.iter().any(|(other, (theirs, _))| {
                            *other < ticket && (theirs.tenant.is_none() || rules.tenant_share.is_none())
                        });
                        prop_assert!(!overtaken, "nobody overtakes who could enter");
                        inside.push(ask.tenant);
                    }
                    Err(Why::Deadline | Why::MaxWait) => prop_assert!(ends <= at(now), "nobody is sent away early"),
                    Err(why) => prop_assert_eq!(why, Why::Shed),
                }
            }
            if let Some(ask) = came_in {
                inside.push(rules.tenant_share.and(ask.tenant));
            }
            prop_assert_eq!(story.in_flight as usize, inside.len());
            if story.in_flight > before {
                prop_assert!(story.in_flight <= story.door.limit(), "never above the limit but by one that fell");
            }
            for number in 0..3 {
                let theirs = inside.iter().flatten().filter(|whose| **whose == tenant(number)).count() as u32;
                let counted = story.door.tenants.get(&tenant(number)).map_or(0, |counted| counted.in_flight);
                prop_assert_eq!(counted, theirs);
            }
            prop_assert_eq!(story.door.waiting(), waiting.len());
            prop_assert!(waiting.values().all(|(_, ends)| *ends > at(now)), "whose time is up is gone");
            let heads = story.door.lines.values().filter_map(|line| line.head).count();
            prop_assert_eq!(heads, story.door.heads.len(), "who is first in a line is known once");
            let free = story.in_flight < story.door.room(Priority::Background);
            let idle = waiting.values().any(|(ask, _)| ask.tenant.is_none() || rules.tenant_share.is_none());
            prop_assert!(!(free && idle), "no place is free that somebody who waits could have");
        }
    }
}
