//! What holds of calls through a stack of policies, and of the documents that say which.

use super::{About::Load, Guarantee, Surface, in_memory, test};

const STACK: &str = "crates/resilience/src/stack/tests.rs";
const FAILING: &str = "crates/resilience/src/stack/tests/failing.rs";
const BODIES: &str = "crates/resilience/src/http/tests/bodies.rs";
const DOOR: &str = "crates/resilience/src/bulkhead/machine/tests.rs";
const LATE: &str = "crates/resilience/src/stack/tests/late.rs";
const REPLAYS: &str = "crates/resilience/src/http/tests/replays.rs";
const CLIENT: &str = "crates/resilience/src/client/tests.rs";
const HTTP: &str = "crates/resilience/src/http/tests.rs";
const POLICY: &str = "crates/resilience/src/policy/tests.rs";
const LIMITED: &str = "crates/resilience/src/stack/limited/tests.rs";
const ASKED: &str = "crates/node/tests/http/deadlines.rs";
const APPLIED: &str = "crates/resilience/src/policy/registry/tests.rs";
const DECLARED: &str = "crates/node/tests/http/policies.rs";
const RATES: &str = "crates/node/tests/http/rates.rs";
const COMMANDS: &str = "crates/cli/tests/cli/retries.rs";
const COUNTED: &str = "crates/resilience/src/policy/registry/tests/counted.rs";
const SHARED: &str = "crates/resilience/src/rate_limit/shared/tests.rs";
const EACH: &str = "crates/resilience/src/circuit_breaker/each/tests.rs";
const CIRCUITS: &str = "crates/resilience/src/policy/registry/tests/circuits.rs";
const BREAKER: &str = "crates/resilience/src/circuit_breaker/machine/tests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    in_memory(
        Load,
        "circuit breaker",
        "half open, an upstream is tried by as many calls as it should, and never stays half open for good",
        &[
            test(STACK, "while_half_open_a_thousand_callers_reach_the_upstream_once"),
            test(STACK, "a_call_that_is_dropped_gives_its_probe_back_and_counts_for_nothing"),
            test(BREAKER, "no_sequence_of_events_leaks_a_probe_or_leaves_the_circuit_stuck"),
            test(FAILING, "a_probe_of_the_dependency_is_one_call_whatever_is_sent_again_otherwise"),
            test(BODIES, "a_probe_closes_the_circuit_when_its_answer_is_complete_and_not_before"),
        ],
    ),
    in_memory(
        Load,
        "circuit breaker",
        "an upstream that hangs, in its head or in its body, is one that fails, whichever time runs out",
        &[
            test(FAILING, "an_upstream_that_hangs_opens_the_circuit_also_where_only_the_whole_call_has_a_time"),
            test(FAILING, "a_dependency_whose_attempts_run_out_before_the_call_does_opens_its_circuit"),
            test(FAILING, "a_caller_who_leaves_less_than_an_attempt_may_take_disarms_no_circuit"),
            test(FAILING, "an_attempt_that_was_cut_off_before_half_of_the_calls_are_done_says_nothing"),
            test(BODIES, "answers_that_break_off_or_hang_are_failures_to_both_circuits"),
        ],
    ),
    in_memory(
        Load,
        "circuit breaker per endpoint and operation",
        "one that fails opens its own circuit alone; circuits are no more than there may be; a policy that changes keeps them, and a reset \
         of the dependency closes them all",
        &[
            test(CIRCUITS, "each_operation_of_each_endpoint_has_a_circuit_that_is_listed_by_name"),
            test(CIRCUITS, "open_circuits_of_endpoints_stay_open_when_their_policy_changes"),
            test(CIRCUITS, "a_reset_of_a_dependency_closes_its_circuits_and_no_others"),
            test(CIRCUITS, "an_attempt_that_is_dropped_gives_the_probe_of_its_endpoint_back"),
            test(CIRCUITS, "while_every_endpoint_is_out_calls_fail_at_once_and_the_counts_say_why"),
            test(EACH, "a_flood_of_names_shares_one_circuit_and_takes_nothing_from_those_in_use"),
            test(EACH, "endpoints_that_are_gone_make_room_also_if_their_circuits_had_opened"),
            test(DECLARED, "each_operation_of_each_endpoint_has_a_circuit_that_is_listed_and_steered_by_its_name"),
        ],
    ),
    in_memory(
        Load,
        "bulkhead",
        "whoever finds no place is refused once, an answer holds its place to its last byte and not beyond its time, and a tenant is \
         counted until it leaves",
        &[
            test(FAILING, "who_finds_no_place_is_counted_once_and_who_waits_for_one_is_not"),
            test(BODIES, "an_answer_that_nobody_reads_is_dropped_with_its_place_when_its_time_is_up"),
            test(FAILING, "a_listener_that_panics_costs_no_place"),
            test(DOOR, "who_came_while_tenants_were_told_apart_is_counted_until_it_leaves"),
        ],
    ),
    in_memory(
        Load,
        "fallback",
        "only failures are replaced, what is served says that it is less, and the circuit hears of every failure",
        &[
            test(STACK, "a_lesser_answer_says_that_it_is_one_and_hides_no_outage_from_the_circuit"),
            test(FAILING, "what_the_caller_did_wrong_is_not_replaced_and_what_is_is_counted"),
        ],
    ),
    in_memory(
        Load,
        "retry",
        "retries stay within the dependency's budget, those that wait included, and one hop of a request retries",
        &[
            test(FAILING, "what_never_reaches_the_upstream_feeds_no_budget"),
            test(FAILING, "a_budget_whose_interval_becomes_shorter_credits_no_calls_of_before"),
            test(FAILING, "copies_and_the_attempts_after_them_tell_the_next_hop_what_was_spent"),
            test(STACK, "a_thousand_calls_that_fail_together_are_retried_within_the_budget_when_they_come_back"),
            test(STACK, "of_three_hops_that_could_retry_the_first_does_and_the_upstream_sees_its_attempts_alone"),
        ],
    ),
    in_memory(
        Load,
        "retry",
        "what may not be done twice is sent twice only if it certainly was not done",
        &[
            test(STACK, "what_may_not_be_done_twice_is_sent_once_unless_it_certainly_was_not_done"),
            test(HTTP, "a_keyed_post_is_sent_again_with_its_body_and_a_bare_one_is_not"),
        ],
    ),
    in_memory(
        Load,
        "retry",
        "a body that breaks off is never sent again as if it were whole, and is its caller's doing and not the upstream's",
        &[
            test(REPLAYS, "a_body_that_broke_off_is_whole_to_nobody_and_told_no_second_time"),
            test(CLIENT, "an_upload_that_its_own_caller_breaks_off_is_no_failure_of_the_upstream"),
            test(CLIENT, "an_upload_that_outgrows_what_is_kept_while_two_attempts_send_it_goes_on_with_one"),
        ],
    ),
    in_memory(
        Load,
        "timeout",
        "a call ends by its deadline, which travels from hop to hop, and its work ends with it",
        &[
            test(STACK, "a_call_ends_by_its_total_deadline_and_no_attempt_begins_that_would_not_fit"),
            test(HTTP, "what_is_written_for_the_next_hop_is_received_there"),
            test(BODIES, "an_attempts_time_holds_to_the_last_byte_of_its_answer"),
            test(BODIES, "an_answer_that_nobody_reads_is_dropped_with_its_place_when_its_time_is_up"),
        ],
    ),
    in_memory(
        Load,
        "timeout",
        "nothing is sent for which too little time is left, also after a wait for a place or between attempts, and each hop knows for how \
         long its attempt is waited for",
        &[
            test(LATE, "who_has_waited_until_too_little_is_left_is_not_sent"),
            test(LATE, "no_attempt_begins_when_its_wait_has_ended_too_late"),
            test(STACK, "the_next_hop_is_told_for_how_long_its_attempt_is_waited_for"),
            test(
                HTTP,
                "of_two_stacks_around_one_service_the_outer_one_retries_and_the_inner_one_passes_on_what_it_said",
            ),
        ],
    ),
    in_memory(
        Load,
        "a call that is dropped",
        "at whatever moment, it leaves no place taken, nothing waiting and nothing under way",
        &[test(LATE, "a_call_that_is_dropped_at_any_moment_leaves_nothing_behind")],
    ),
    in_memory(
        Load,
        "rate limit around a stack",
        "what a key may not have never reaches the upstream, also when several processes share the count or it cannot be asked",
        &[
            test(LIMITED, "processes_that_share_a_count_reach_the_upstream_as_often_as_one_may"),
            test(
                LIMITED,
                "a_count_that_cannot_be_asked_is_answered_as_declared_and_the_upstream_does_not_see_what_is_refused",
            ),
            test(LIMITED, "keys_do_not_spend_each_others_units_and_a_call_without_one_is_not_limited"),
        ],
    ),
    in_memory(
        Load,
        "rate limit of a policy that the store counts",
        "all processes make as many calls together as one may, whatever their clocks say; while the store cannot count, what the document \
         says holds and is counted",
        &[
            test(COUNTED, "processes_that_share_a_store_make_as_many_calls_together_as_one_may"),
            test(SHARED, "calls_that_come_at_once_ask_together_and_are_answered_as_if_each_had"),
            test(
                "crates/node/tests/postgres/several_nodes.rs",
                "a_node_whose_clock_is_ahead_takes_nothing_of_a_shared_rate_from_the_others_and_gets_no_more",
            ),
            test("crates/node/src/quota.rs", "a_clock_that_was_ahead_keeps_nobody_waiting_once_it_is_set_right"),
            test(COUNTED, "while_the_store_cannot_count_what_the_document_says_holds_and_is_counted"),
            test(COUNTED, "a_call_waits_for_the_count_a_quarter_of_its_own_time_and_then_what_is_declared_holds"),
            test(
                DECLARED,
                "a_rate_that_the_store_counts_is_spent_after_a_restart_and_holds_as_declared_while_it_cannot_count",
            ),
        ],
    ),
    Guarantee {
        about: Load,
        operation: "request with a deadline",
        surface: Surface::Http,
        backends: &[],
        holds: "it is not begun once its time is over, is given up when that runs out, and its reply never looks whole then",
        proofs: &[
            test(ASKED, "a_request_whose_time_is_over_when_it_comes_is_not_begun"),
            test(ASKED, "a_write_whose_time_runs_out_is_given_up_and_says_that_it_does_not_know"),
            test(ASKED, "a_wait_that_a_request_asks_for_lasts_no_longer_than_its_caller_waits"),
            test(ASKED, "a_reply_that_is_under_way_breaks_off_at_the_deadline_instead_of_ending_as_if_it_were_whole"),
        ],
    },
    in_memory(
        Load,
        "policies in force",
        "they change all together or not at all; what circuits, limits, budgets and counters remember stays; services that are there heed \
         them",
        &[
            test(APPLIED, "an_open_circuit_a_spent_rate_and_a_spent_budget_stay_so_when_their_policy_changes"),
            test(APPLIED, "services_that_are_there_heed_what_is_declared_changed_and_removed"),
            test(APPLIED, "documents_of_which_one_cannot_work_change_nothing"),
            test(CIRCUITS, "counters_go_on_whatever_documents_say_meanwhile"),
        ],
    ),
    Guarantee {
        about: Load,
        operation: "policies of a node",
        surface: Surface::Http,
        backends: &[],
        holds: "a folder is watched, and with something wrong in it nothing changes; what was declared is in force after a restart",
        proofs: &[
            test(
                DECLARED,
                "a_folder_is_in_force_from_the_start_watched_and_kept_as_it_was_while_something_in_it_is_wrong",
            ),
            test(DECLARED, "what_is_wrong_with_a_policy_is_told_with_line_and_field_and_changes_nothing"),
            test(
                DECLARED,
                "a_circuit_that_is_open_stays_open_when_its_policy_is_declared_anew_and_across_a_restart_the_policy_stays",
            ),
            test(DECLARED, "a_change_whose_asker_goes_away_is_made_or_not_and_everybody_says_the_same"),
            test(
                DECLARED,
                "a_folder_that_contradicts_what_is_declared_keeps_no_node_from_starting_and_holds_once_that_is_deleted",
            ),
        ],
    },
    Guarantee {
        about: Load,
        operation: "rate of requests",
        surface: Surface::Http,
        backends: &[],
        holds: "a client, and a tenant, beyond its rate is refused before anything is done, and told when to come back",
        proofs: &[
            test(RATES, "a_client_that_asks_too_often_is_told_when_to_come_back_and_nothing_is_done"),
            test(RATES, "a_tenant_has_its_rate_whatever_others_ask_and_one_that_is_not_named_is_only_a_client"),
            test(RATES, "a_rate_that_the_store_counts_survives_a_restart_and_a_reset_gives_it_back"),
            test(RATES, "while_the_store_cannot_count_what_was_chosen_holds"),
            test("crates/node/src/quota.rs", "a_flood_of_keys_shares_one_bucket_and_those_who_were_there_keep_theirs"),
        ],
    },
    Guarantee {
        about: Load,
        operation: "request of a command",
        surface: Surface::Cli,
        backends: &[],
        holds: "it is sent again only if it may be repeated or was not done, no more often than was said, and no longer than its deadline",
        proofs: &[
            test(COMMANDS, "what_only_reads_is_sent_again_until_the_node_answers"),
            test(COMMANDS, "an_append_is_sent_again_with_the_same_id_and_so_is_what_has_a_key"),
            test(COMMANDS, "a_write_without_a_key_is_sent_again_only_if_it_certainly_was_not_done"),
            test(COMMANDS, "a_wait_that_the_node_asks_for_is_kept_to_or_not_begun"),
            test(COMMANDS, "an_attempt_that_hangs_is_given_up_in_time_and_a_write_says_that_it_does_not_know"),
            test(
                COMMANDS,
                "an_import_that_is_refused_behind_an_attempt_that_may_have_been_done_does_not_say_that_nothing_was",
            ),
        ],
    },
    Guarantee {
        about: Load,
        operation: "policy check",
        surface: Surface::Cli,
        backends: &[],
        holds: "combinations that cannot work are named with file, line and field",
        proofs: &[
            test(POLICY, "each_impossible_combination_is_named_with_the_field_that_would_have_to_change"),
            test(POLICY, "waits_that_leave_no_time_for_the_last_attempt_are_impossible"),
        ],
    },
];
