use std::time::Duration;

use proptest::prelude::*;
use quorate_foundations::time::{Boot, Wall};

use super::{Effect, Endpoint, GONE_PAUSE, Input, LONGEST_PAUSE, LONGEST_REST, Rules, SHORT_PAUSE, Why};

const RULES: Rules = Rules {
    disable_after: Duration::from_secs(100),
    longest_gap: Duration::from_secs(99),
    least_rest: Duration::from_secs(5),
};

fn at(secs: u64) -> (Boot, Wall) {
    (Boot::ZERO + Duration::from_secs(secs), Wall::default() + Duration::from_secs(secs))
}

fn step(endpoint: &mut Endpoint, secs: u64, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    endpoint.step(at(secs), input, &RULES, &mut effects);
    effects
}

fn answered(status: u16) -> Input {
    Input::Answered { status, retry_after: None }
}

fn asking(status: u16, secs: u64) -> Input {
    Input::Answered { status, retry_after: Some(Duration::from_secs(secs)) }
}

#[test]
fn success_settles_and_is_written_down_only_after_failure() {
    let mut endpoint = Endpoint::default();
    assert_eq!(step(&mut endpoint, 1, answered(204)), [Effect::Ack]);
    step(&mut endpoint, 2, answered(500));
    assert_eq!(step(&mut endpoint, 3, answered(200)), [Effect::Recovered, Effect::Ack]);
    assert_eq!(step(&mut endpoint, 4, answered(200)), [Effect::Ack]);
}

#[test]
fn what_our_own_policies_refuse_is_no_attempt_and_no_failure() {
    let mut endpoint = Endpoint::default();
    let refused = step(&mut endpoint, 1, Input::Refused { retry_after: Some(Duration::from_secs(7)) });
    assert_eq!(refused, [Effect::GiveBack, Effect::Pause(Duration::from_secs(7))]);
    let refused = step(&mut endpoint, 2, Input::Refused { retry_after: None });
    assert_eq!(refused, [Effect::GiveBack, Effect::Pause(SHORT_PAUSE)]);
    assert_eq!(endpoint, Endpoint::default());
}

#[test]
fn redirects_and_refusals_are_failures_of_the_event() {
    for status in [100, 199, 300, 301, 308, 400, 401, 404, 422, 500, 502, 599] {
        let effects = step(&mut Endpoint::default(), 1, answered(status));
        assert_eq!(effects.last(), Some(&Effect::Nack(None)), "{status}");
    }
}

#[test]
fn an_event_rests_for_as_long_as_the_endpoint_asks_unless_that_is_less_than_it_would_anyway() {
    let rest = |input| {
        let effects = step(&mut Endpoint::default(), 1, input);
        effects.into_iter().find_map(|effect| if let Effect::Nack(rest) = effect { Some(rest) } else { None })
    };
    assert_eq!(rest(asking(500, 60)), Some(Some(Duration::from_secs(60))));
    assert_eq!(rest(asking(500, 4)), Some(None));
    assert_eq!(rest(asking(500, u64::MAX)), Some(Some(LONGEST_REST)));
}

#[test]
fn an_endpoint_that_asks_for_less_is_left_alone_as_a_whole() {
    let pauses = |input| step(&mut Endpoint::default(), 1, input).contains(&Effect::Pause(Duration::from_secs(9)));
    assert!(pauses(asking(429, 9)) && pauses(asking(503, 9)));
    assert!(!pauses(asking(500, 9)) && !pauses(answered(429)));
    let longest = step(&mut Endpoint::default(), 1, asking(503, 1 << 40));
    assert!(longest.contains(&Effect::Pause(LONGEST_PAUSE)));
}

#[test]
fn an_endpoint_that_is_gone_is_disabled_and_the_event_is_kept() {
    let effects = step(&mut Endpoint::default(), 1, answered(410));
    assert_eq!(effects[1..], [Effect::Disable(Why::Gone), Effect::GiveBack, Effect::Pause(GONE_PAUSE)]);
}

#[test]
fn an_endpoint_that_has_only_failed_for_too_long_is_disabled() {
    let mut endpoint = Endpoint::default();
    let disables = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Disable(_)));
    assert!(!disables(&step(&mut endpoint, 10, answered(500))));
    assert!(!disables(&step(&mut endpoint, 109, Input::Unanswered)));
    let effects = step(&mut endpoint, 110, Input::Unanswered);
    assert!(effects.contains(&Effect::Disable(Why::Failing(Duration::from_secs(100)))));
    assert_eq!(effects.last(), Some(&Effect::Nack(None)), "the event is kept, whatever becomes of the endpoint");
    step(&mut endpoint, 111, answered(200));
    assert!(!disables(&step(&mut endpoint, 300, answered(500))), "success begins it anew");
}

#[test]
fn time_in_which_no_process_looked_is_not_the_endpoints() {
    let before = (Wall::default(), Duration::from_secs(90));
    let mut endpoint = Endpoint::restored(Some(before));
    let effects = step(&mut endpoint, 1_000_000, answered(500));
    assert_eq!(effects[0], Effect::Failing { since: before.0, so_far: before.1 });
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Disable(_))));
    let effects = step(&mut endpoint, 1_000_010, answered(500));
    assert!(effects.contains(&Effect::Disable(Why::Failing(Duration::from_secs(100)))));
}

#[test]
fn time_in_which_nothing_was_sent_is_not_the_endpoints() {
    let rules = Rules { longest_gap: Duration::from_secs(10), ..RULES };
    let mut endpoint = Endpoint::default();
    for (day, so_far) in [(0, 0), (1, 10), (2, 20)] {
        let mut effects = Vec::new();
        endpoint.step(at(day * 86_400), answered(500), &rules, &mut effects);
        assert_eq!(effects[0], Effect::Failing { since: Wall::default(), so_far: Duration::from_secs(so_far) });
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Disable(_))), "day {day}");
    }
}

proptest! {
    /// Whatever happens, each attempt ends in exactly one way, and nothing is settled that was not taken.
    #[test]
    fn every_attempt_ends_in_one_way(attempts in prop::collection::vec((0_u64..1_000, 100_u16..700, any::<Option<u32>>(), 0..3), 1..50)) {
        let mut endpoint = Endpoint::default();
        for (secs, status, asked, kind) in attempts {
            let retry_after = asked.map(|secs| Duration::from_secs(secs.into()));
            let input = match kind {
                0 => Input::Answered { status, retry_after },
                1 => Input::Unanswered,
                _ => Input::Refused { retry_after },
            };
            let effects = step(&mut endpoint, secs, input);
            let ends = effects.iter().filter(|effect| matches!(effect, Effect::Ack | Effect::Nack(_) | Effect::GiveBack));
            prop_assert_eq!(ends.count(), 1);
            let taken = kind == 0 && (200..300).contains(&status);
            prop_assert_eq!(effects.contains(&Effect::Ack), taken);
        }
    }
}
