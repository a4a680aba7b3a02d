//! What holds of transactions over several participants.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Visibility},
    Guarantee,
    Surface::{Http, Library},
    on_both, on_postgres, row, test,
};

const RULES: &str = "crates/consistency/src/two_phase_commit/machine/tests.rs";
const TRANSFERS: &str = "crates/consistency/src/two_phase_commit/tests/transfers.rs";
const TAKEOVER: &str = "crates/consistency/src/two_phase_commit/tests/takeover.rs";
const EMBEDDED: &str = "crates/consistency/src/two_phase_commit/tests/embedded.rs";
const HANDS: &str = "crates/consistency/src/two_phase_commit/tests/hands.rs";
const WEB: &str = "crates/consistency/src/two_phase_commit/tests/web.rs";
const KILLED: &str = "crates/consistency/tests/transactions_killed.rs";
const POSTGRES: &str = "crates/consistency/tests/postgres/two_phase_commit.rs";
const BESIDE: &str = "crates/consistency/tests/postgres/two_phase_commit/beside.rs";
const PROMISES: &str = "crates/consistency/tests/postgres/two_phase_commit/promises.rs";
const ALONE: &str = "crates/consistency/src/two_phase_commit/tests/alone.rs";
const DEATHS: &str = "crates/consistency/src/two_phase_commit/tests/deaths.rs";
const TURNS: &str = "crates/consistency/src/two_phase_commit/tests/turns.rs";
const INBOXES: &str = "crates/node/tests/http/inboxes.rs";
const HTTP: &str = "crates/node/tests/http/transactions.rs";
const KILLED_NODES: &str = "crates/cli/tests/cli/transactions_begun.rs";
const BEGUN: &str = "crates/node/tests/http/coordinating.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Atomicity,
        "two-phase commit",
        Library,
        "every participant does it and the events are in the log, or nothing of it is anywhere, whoever dies when",
        &[
            test(RULES, "every_course_with_every_pair_of_faults_ends_the_same_everywhere"),
            test(TRANSFERS, "a_transfer_is_in_both_stores_or_in_neither"),
            test(TRANSFERS, "events_travel_with_the_decision_and_an_expectation_that_fails_aborts"),
            test(
                DEATHS,
                "a_coordinator_that_dies_between_its_decision_and_the_first_commit_has_decided_events_included",
            ),
            test(KILLED, "a_process_that_is_killed_makes_and_loses_no_money_and_leaves_nothing_in_doubt"),
        ],
    ),
    row(
        Atomicity,
        "two-phase commit with one participant",
        Library,
        "what may have been done is unknown whatever is said later, until the participant says that it was",
        &[
            test(ALONE, "what_may_have_been_done_alone_is_unknown_until_its_participant_says_it"),
            test(RULES, "one_alone_does_it_in_one_phase_and_its_lost_answer_is_unknown"),
        ],
    ),
    row(
        Atomicity,
        "participant that is a PostgreSQL database",
        Library,
        "a yes means that the server holds the very transaction that was begun, and read-only that it was given no number",
        &[
            test(PROMISES, "a_connection_that_does_not_keep_a_transaction_together_promises_nothing"),
            test(PROMISES, "what_only_looks_as_if_it_read_is_promised_and_remembered"),
            test(PROMISES, "what_a_server_cannot_promise_is_a_no_that_says_why"),
        ],
    ),
    row(
        Atomicity,
        "end what is in doubt",
        Library,
        "one at a time ends a branch, and as the log says: where it cannot be read nobody is told anything",
        &[
            test(TURNS, "sweeps_and_people_wait_for_their_turn_with_a_branch"),
            test(HANDS, "where_the_log_does_not_say_what_was_ordered_nobody_is_told_anything"),
            test(HANDS, "what_was_ordered_before_a_decision_keeps_it_from_being_made"),
            test(TAKEOVER, "a_coordinator_that_cannot_tell_who_it_was_does_not_begin_anew"),
        ],
    ),
    row(
        Atomicity,
        "two-phase commit over PostgreSQL databases",
        Library,
        "a coordinator or a server that is killed before or behind any promise or commit, or an answer that is lost, leaves all databases the same",
        &[
            test(POSTGRES, "a_coordinator_killed_at_any_point_is_taken_over_and_both_databases_end_the_same"),
            test(POSTGRES, "a_server_killed_at_any_point_leaves_both_databases_the_same"),
            test(POSTGRES, "answers_that_are_lost_are_looked_for_and_nothing_is_done_twice_or_by_half"),
        ],
    ),
    row(
        Durability,
        "two-phase commit",
        Library,
        "what was decided is committed by whoever takes over, and what was not is aborted; a late decision of the one before is refused",
        &[
            test(TAKEOVER, "what_was_decided_is_committed_by_whoever_takes_over"),
            test(TAKEOVER, "what_was_not_decided_is_aborted_by_whoever_takes_over_and_a_late_decision_is_refused"),
            test(RULES, "nobody_is_told_to_commit_before_the_decision_is_in_the_log"),
            test(TRANSFERS, "whoever_does_not_vote_in_time_has_it_aborted_and_never_behind_the_decision"),
            test(TAKEOVER, "after_a_restore_what_was_decided_is_done_and_what_may_have_been_is_left_to_people"),
        ],
    ),
    on_both(
        Atomicity,
        "take over a coordinator",
        Library,
        "of two that have a coordinator's name on one log, the log takes decisions of the later one alone",
        &[
            test(TAKEOVER, "what_was_not_decided_is_aborted_by_whoever_takes_over_and_a_late_decision_is_refused"),
            test(POSTGRES, "of_two_nodes_over_one_log_the_one_that_took_over_decides"),
        ],
    ),
    on_postgres(
        Atomicity,
        "coordinators of one name beside each other",
        Library,
        "each begins transactions; what one left that gives no sign of life is ended by another as the log says, and it decides nothing when it goes on",
        &[
            test(
                BESIDE,
                "what_a_coordinator_that_stands_still_left_is_ended_by_another_and_it_decides_nothing_when_it_goes_on",
            ),
            test(BESIDE, "coordinators_beside_each_other_decide_in_turns_and_leave_each_others_transactions_alone"),
        ],
    ),
    row(
        Durability,
        "participant in an embedded store",
        Library,
        "a promise outlasts its store's death, and keeps others from what it claims until it has ended",
        &[
            test(TAKEOVER, "a_promise_outlasts_its_store_and_ends_when_both_are_back"),
            test(DEATHS, "a_participant_that_dies_between_its_promise_and_its_vote_is_aborted_when_it_is_back"),
            test(TRANSFERS, "appends_go_on_whatever_is_in_doubt_and_claims_keep_others_out_until_it_ends"),
            test(EMBEDDED, "of_a_group_that_fails_each_has_the_answer_it_deserves_and_claims_stay_right"),
            test(EMBEDDED, "a_commit_that_fails_stays_in_doubt_and_is_done_once_it_can_be"),
            test(EMBEDDED, "many_large_promises_outlast_a_restart"),
        ],
    ),
    row(
        Delivery,
        "participant in an embedded store",
        Library,
        "prepares, commits and aborts in any order, repeated and late, have the effect once or not at all",
        &[
            test(EMBEDDED, "any_order_of_messages_has_the_effect_once_or_not_at_all"),
            test(EMBEDDED, "what_its_coordinator_says_has_ended_is_forgotten_and_a_late_prepare_is_refused"),
            test(EMBEDDED, "what_is_known_already_is_answered_as_it_stands_and_not_tried_again"),
            test(DEATHS, "a_prepare_that_comes_behind_its_abort_is_refused_by_a_record_or_by_none"),
        ],
    ),
    row(
        Delivery,
        "participant over HTTP",
        Library,
        "whatever request or answer is lost or doubled on the way, the service ends as everybody else",
        &[test(WEB, "a_service_over_http_takes_part_whatever_is_lost_on_the_way")],
    ),
    row(
        Visibility,
        "two-phase commit",
        Library,
        "what is in doubt is listed with its locks, and what was ended by hand or otherwise than decided is recorded and told",
        &[
            test(TRANSFERS, "appends_go_on_whatever_is_in_doubt_and_claims_keep_others_out_until_it_ends"),
            test(HANDS, "what_is_resolved_by_hand_is_recorded_and_says_that_it_contradicts"),
            test(HANDS, "what_is_ordered_while_a_participant_is_away_is_what_it_is_told"),
            test(HANDS, "what_a_participant_says_by_mistake_is_recorded_and_changes_no_decision"),
            test(HANDS, "a_participant_that_had_ended_it_otherwise_is_told_of_and_recorded"),
            test(HANDS, "what_nobody_knows_of_is_not_resolved_and_not_recorded"),
            test(HANDS, "whoever_orders_one_thing_and_the_other_for_ever_is_refused_and_the_record_stays_readable"),
            test(TAKEOVER, "a_coordinator_that_was_replaced_raises_no_alarm_for_what_its_successor_ends"),
        ],
    ),
    row(
        Visibility,
        "transactions in doubt",
        Http,
        "what is promised in the node's store, and what coordinators in its process hold, is listed; an order is recorded with who and why before it is done, \
         or waits in the log",
        &[
            test(HTTP, "what_is_in_doubt_is_listed_shown_and_ended_by_hand_with_who_ordered_it_and_why"),
            test(HTTP, "without_its_coordinator_an_order_waits_for_it_in_the_log"),
            test(HTTP, "promises_in_the_store_are_listed_page_by_page_whoever_coordinates_them"),
            test(HTTP, "a_promise_of_a_participant_that_its_coordinator_does_not_know_is_listed_and_can_be_ordered"),
        ],
    ),
    row(
        Atomicity,
        "begin a transaction",
        Http,
        "it is carried out once under its id: every participant does it and its events are in the log, or nothing of it is anywhere; what may be either is told as neither, \
         and what it was told as it stays, behind restarts too",
        &[
            test(BEGUN, "a_transaction_is_carried_out_once_under_its_name_and_its_events_travel_with_the_decision"),
            test(BEGUN, "whoever_says_no_aborts_it_for_all_and_why_is_told_again_behind_a_restart"),
            test(BEGUN, "what_may_be_either_is_told_as_neither_and_one_participant_alone_is_recorded_as_well"),
            test(BEGUN, "what_was_decided_is_done_by_the_next_process_and_a_person_ends_what_stays_in_doubt"),
            test(BEGUN, "what_was_begun_is_told_whatever_is_allowed_or_configured_by_now"),
        ],
    ),
    row(
        Durability,
        "begin a transaction",
        Http,
        "a node that dies before or between the prepares, or behind its decision before or between the commits, and is started again over its data directory leaves all \
         participants the same, and tells whoever asks again how it ended",
        &[test(
            KILLED_NODES,
            "a_node_killed_at_any_point_leaves_all_participants_the_same_and_its_caller_learns_how_it_ended",
        )],
    ),
    row(
        Integrity,
        "begin a transaction",
        Http,
        "whoever answers never, too much or nonsense has not voted; nobody is called whose address is not public or allowed, and nothing is begun of what breaks a limit",
        &[
            test(BEGUN, "who_answers_never_too_much_or_nonsense_or_is_not_there_has_not_voted"),
            test(BEGUN, "a_transaction_that_cannot_be_is_refused_with_what_is_wrong_and_nobody_is_asked"),
            test(BEGUN, "nobody_is_written_down_for_what_is_refused_and_a_database_of_the_settings_stays"),
        ],
    ),
    row(
        Integrity,
        "append, and forget",
        Http,
        "nobody but a coordinator of transactions writes what decides them, and nobody takes that away",
        &[
            test(HTTP, "nobody_writes_in_a_coordinators_place"),
            test(INBOXES, "what_would_be_written_in_the_place_of_a_coordinator_or_a_saga_is_parked_at_once"),
        ],
    ),
];
