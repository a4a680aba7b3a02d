//! What holds of calls: how much is let through, and for how long.

use super::{About::Load, Guarantee, in_memory, test};

const DOOR: &str = "crates/resilience/src/bulkhead/machine/tests.rs";
const BULKHEAD: &str = "crates/resilience/src/bulkhead/tests.rs";
const BULKHEAD_WORD: &str = "crates/resilience/src/bulkhead/under_loom.rs";
const ADAPTIVE: &str = "crates/resilience/src/bulkhead/adaptive/tests.rs";
const TIMEOUT: &str = "crates/resilience/src/timeout/tests.rs";
const WHEEL: &str = "crates/resilience/src/timeout/wheel/tests.rs";
const RATE: &str = "crates/resilience/src/rate_limit/machine/tests.rs";
const RATE_WORD: &str = "crates/resilience/src/rate_limit/under_loom.rs";
const SHARED: &str = "crates/resilience/src/rate_limit/shared/tests.rs";
const FALLBACK: &str = "crates/resilience/src/fallback/tests.rs";
const HEDGE: &str = "crates/resilience/src/hedge/machine/tests.rs";
const OWN_CLIENT: &str = "crates/resilience/tests/upstreams/own_client.rs";
const RACE: &str = "crates/resilience/src/hedge/race/tests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    in_memory(
        Load,
        "bulkhead",
        "never more calls under way than the limit, a priority's share and a tenant's; a place is given back however a call ends",
        &[
            test(DOOR, "any_sequence_keeps_the_limit_the_shares_the_order_and_everybodys_answer"),
            test(BULKHEAD_WORD, "nobody_who_comes_around_the_lock_overfills_it_while_others_are_inside"),
            test(BULKHEAD_WORD, "a_place_that_is_freed_while_somebody_begins_to_wait_is_not_lost"),
            test(BULKHEAD, "dropping_one_who_waits_leaves_the_queue_also_after_it_was_given_the_place"),
        ],
    ),
    in_memory(
        Load,
        "bulkhead with a queue",
        "whoever matters least and came last is sent away first, and nobody is served whose deadline has passed",
        &[
            test(DOOR, "a_full_queue_sends_away_who_matters_least_and_came_last"),
            test(DOOR, "nobody_is_served_whose_deadline_has_passed"),
            test(BULKHEAD, "a_call_whose_deadline_passes_in_the_queue_is_never_made"),
        ],
    ),
    in_memory(
        Load,
        "bulkhead with an adaptive limit",
        "lasting overload doesn't raise the limit, noise doesn't lower it, and a slower upstream doesn't pin it",
        &[
            test(ADAPTIVE, "overload_that_lasts_does_not_teach_that_slow_is_usual"),
            test(ADAPTIVE, "noise_of_a_quarter_costs_an_upstream_that_is_well_nothing"),
            test(ADAPTIVE, "an_upstream_that_becomes_slower_for_good_is_believed_and_never_pins_the_limit"),
        ],
    ),
    in_memory(
        Load,
        "rate limit",
        "no span of any length sees more than a burst and what the rate allows in it, however many take at once",
        &[
            test(RATE, "any_sequence_of_takers_is_judged_as_a_bucket_of_tokens_would"),
            test(RATE, "no_border_of_a_window_lets_twice_the_rate_pass"),
            test(RATE_WORD, "of_three_that_take_at_once_two_get_what_two_may_have"),
        ],
    ),
    in_memory(
        Load,
        "rate limit by key",
        "a flood of keys grows no memory and buys nothing",
        &[test(RATE, "a_flood_of_keys_neither_grows_memory_nor_buys_units_nor_takes_those_of_others")],
    ),
    in_memory(
        Load,
        "rate limit of several processes",
        "together they get the rate; an outage of the count is answered as declared",
        &[
            test(SHARED, "processes_that_share_a_limit_get_it_together_and_ask_for_portions"),
            test(SHARED, "an_outage_of_the_store_is_answered_as_declared"),
            test("crates/node/src/quota.rs", "processes_that_share_a_store_share_its_count_which_a_restart_keeps"),
        ],
    ),
    in_memory(
        Load,
        "timeout",
        "at the deadline, never before and at most a millisecond later, the work is dropped, its answer's body included",
        &[
            test(TIMEOUT, "work_is_dropped_when_its_time_runs_out_and_not_before"),
            test(TIMEOUT, "a_body_that_trickles_is_cut_off_at_the_deadline_with_an_error_and_its_sender_dropped"),
            test(TIMEOUT, "no_attempt_outlives_its_call_and_no_call_its_caller"),
            test(WHEEL, "every_deadline_fires_at_its_tick_unless_it_was_removed"),
        ],
    ),
    in_memory(
        Load,
        "call with a deadline",
        "it isn't begun if less is left than half of the calls need, and what isn't known refuses nothing",
        &[test(TIMEOUT, "hopeless_calls_are_refused_and_unknown_ones_are_not")],
    ),
    in_memory(
        Load,
        "fallback",
        "what is served instead says so, has an age, and still counts as the failure it stands for",
        &[
            test(FALLBACK, "what_is_served_instead_still_counts_as_the_failure_it_stands_for"),
            test(FALLBACK, "any_sequence_stays_within_bounds_and_serves_only_what_was_last_remembered"),
        ],
    ),
    in_memory(
        Load,
        "hedge",
        "what isn't repeatable is never copied, copies stay within the dependency's budget, and losers end with the answer",
        &[
            test(HEDGE, "any_sequence_delivers_once_and_leaves_nothing_running"),
            test(HEDGE, "what_is_not_repeatable_is_never_copied"),
            test(RACE, "copies_stay_within_the_budget_of_the_dependency_however_slow_it_is"),
            test(RACE, "the_quicker_copy_wins_and_the_upstream_works_for_nobody_any_more"),
            test(OWN_CLIENT, "the_loser_of_a_hedge_is_reset_and_its_connection_goes_on_with_the_winner"),
        ],
    ),
];
