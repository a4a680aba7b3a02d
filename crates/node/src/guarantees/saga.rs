//! What holds of sagas.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Order, Visibility},
    Guarantee,
    Surface::{Cli, Http, Library},
    on_postgres, row, test,
};

const RULES: &str = "crates/consistency/src/saga/machine/tests.rs";
const RUNNING: &str = "crates/consistency/src/saga/tests/running.rs";
const CRASHES: &str = "crates/consistency/src/saga/tests/crashes.rs";
const DECIDING: &str = "crates/consistency/src/saga/tests/deciding.rs";
const BARRIER: &str = "crates/consistency/src/saga/tests/barrier.rs";
const REQUESTS: &str = "crates/consistency/src/saga/tests/requests.rs";
const UNREADABLE: &str = "crates/consistency/src/saga/tests/unreadable.rs";
const AT_ONCE: &str = "crates/consistency/src/saga/tests/at_once.rs";
const CHILDREN: &str = "crates/consistency/src/saga/tests/children.rs";
const CHILDREN_KILLED: &str = "crates/consistency/src/saga/tests/children_killed.rs";
const CHILDREN_LEFT: &str = "crates/consistency/src/saga/tests/children_left.rs";
const COMMAND: &str = "crates/cli/tests/cli/sagas.rs";
const AWAITING: &str = "crates/consistency/src/saga/tests/awaiting.rs";
const APPENDING: &str = "crates/data/src/store/conformance/appending.rs";
const LINE: &str = "crates/cli/src/import/line.rs";
const DECLARED: &str = "crates/consistency/src/saga/declared/tests.rs";
const HTTP: &str = "crates/node/tests/http/sagas.rs";
const KILLED: &str = "crates/consistency/tests/sagas_killed.rs";
const POSTGRES: &str = "crates/consistency/tests/postgres/sagas.rs";
const BESIDE: &str = "crates/consistency/tests/postgres/sagas_beside.rs";
const EMBEDDED: &str = "crates/node/tests/http/sagas_embedded.rs";
const NODES: &str = "crates/node/tests/postgres/several_nodes_sagas.rs";
const PROCESS: &str = "crates/cli/tests/cli/postgres_sagas.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "run a saga",
        Library,
        "wherever its process dies, a saga goes on where its journal ends, and what is recorded as done is never called again",
        &[
            test(CRASHES, "wherever_a_process_dies_a_saga_ends_and_each_step_takes_effect_once"),
            test(CRASHES, "steps_that_are_recorded_are_never_called_again"),
            test(KILLED, "sagas_of_a_process_that_is_killed_all_end_and_each_step_takes_effect_once"),
        ],
    ),
    on_postgres(
        Durability,
        "run a saga in one of several processes",
        Library,
        "where its process dies or stands still, another one goes on where its journal ends; what the first one writes late is refused",
        &[test(POSTGRES, "a_node_that_is_killed_or_stands_still_is_taken_over_and_each_step_takes_effect_once")],
    ),
    on_postgres(
        Delivery,
        "run sagas in processes that differ in `takeover`",
        Library,
        "of two times the longer one holds: while both live neither takes the other's sagas",
        &[test(BESIDE, "processes_that_differ_in_how_soon_they_take_over_leave_each_others_sagas_alone")],
    ),
    on_postgres(
        Delivery,
        "send from a saga to a queue that is not declared yet",
        Library,
        "it is sent once some process declares the queue; until then sagas and appends beside it go on, however many wait",
        &[test(BESIDE, "sagas_that_send_to_a_queue_that_nobody_declared_yet_are_in_nobodys_way")],
    ),
    on_postgres(
        Delivery,
        "start and signal a saga in several processes",
        Library,
        "each of them may be asked: a saga is started once, and what it is told reaches it wherever it ran",
        &[test(POSTGRES, "a_saga_is_started_once_and_told_by_any_node_and_whoever_ran_it_lets_go")],
    ),
    on_postgres(
        Durability,
        "run a saga at one of several nodes",
        Http,
        "where its node is killed or stands still, another one goes on of its own accord; what was done is not asked for again, what was under way is asked for under its key, and what the first one says late changes nothing",
        &[
            test(PROCESS, "sagas_of_a_node_that_is_killed_or_stands_still_go_on_at_another_and_nothing_is_done_twice"),
            test(NODES, "a_saga_of_a_node_that_is_gone_goes_on_at_one_that_was_never_asked_about_sagas"),
        ],
    ),
    on_postgres(
        Visibility,
        "declare, start, show, signal and decide about a saga at several nodes",
        Http,
        "what one node answered holds at every other at once, whichever runs the saga",
        &[
            test(NODES, "what_one_node_declared_holds_at_every_other_at_once"),
            test(NODES, "a_saga_is_shown_told_and_called_off_at_a_node_that_does_not_run_it"),
        ],
    ),
    row(
        Atomicity,
        "a saga's step that is a saga",
        Library,
        "it begins with the step's record, once for each attempt; where the process dies before a call or behind it, the step ends with it",
        &[
            test(CHILDREN_KILLED, "wherever_a_process_dies_a_step_is_one_saga_and_that_is_done_or_undone_once"),
            test(CHILDREN_KILLED, "a_saga_learns_what_became_of_one_that_ended_while_nobody_ran_it"),
            test(CHILDREN, "a_saga_of_that_id_which_the_step_did_not_start_has_it_refused"),
            test(KILLED, "sagas_of_a_process_that_is_killed_all_end_and_each_step_takes_effect_once"),
        ],
    ),
    row(
        Order,
        "give up a saga whose step is a saga, or undo the step",
        Library,
        "the one below turns back and is waited for; one that completed makes up for its steps, the last one first; one past its pivot is not undone, and somebody decides",
        &[
            test(CHILDREN, "an_abort_reaches_the_saga_of_a_step_and_nothing_is_undone_while_its_call_runs"),
            test(CHILDREN, "what_a_saga_of_a_step_did_is_undone_backwards_with_the_step"),
            test(CHILDREN, "a_saga_past_its_pivot_is_not_undone_and_somebody_decides"),
            test(CHILDREN_LEFT, "what_cannot_be_undone_since_its_events_were_forgotten_somebody_decides_about"),
            test(
                CHILDREN_LEFT,
                "a_saga_that_could_not_turn_back_is_told_again_and_does_once_its_pivot_is_known_not_to_be_done",
            ),
            test(CHILDREN_LEFT, "a_family_of_sagas_has_a_limit_and_the_step_that_goes_beyond_is_refused"),
            test(CHILDREN, "what_a_saga_came_to_that_was_forced_nobody_knows_and_it_is_not_started_again"),
            test(CHILDREN, "a_saga_that_starts_itself_without_end_is_refused_at_some_depth_and_all_of_it_is_undone"),
        ],
    ),
    row(
        Visibility,
        "a saga whose step is a saga",
        Http,
        "each shows the other, and what the saga above waits for; what the one below needs to be undone is not forgotten while the one above is open",
        &[
            test(HTTP, "a_step_that_is_a_saga_shows_and_both_are_found_by_each_other"),
            test(CHILDREN, "a_saga_waits_visibly_for_a_stuck_one_and_its_deadline_reaches_that"),
            test(CHILDREN, "a_saga_that_nobody_knows_yet_is_waited_for_and_the_newest_is_not_replaced_by_an_older_one"),
            test(CHILDREN_LEFT, "a_saga_that_cannot_read_how_one_below_ended_shows_that_until_it_can"),
            test(CHILDREN, "what_a_saga_of_a_step_needs_to_be_undone_is_kept_while_the_one_above_is_open"),
        ],
    ),
    row(
        Durability,
        "start, signal and show sagas whose steps are sagas",
        Cli,
        "each ends, with one saga for the step, however often the node is killed",
        &[test(COMMAND, "sagas_whose_steps_are_sagas_in_flight_end_once_each_though_their_node_is_killed")],
    ),
    on_postgres(
        Delivery,
        "a saga whose step is a saga in another process",
        Library,
        "that it ended is in its row until the step has ended: the saga above hears of it wherever it runs; one that its owner does not run is found by it",
        &[
            test(BESIDE, "a_saga_hears_how_one_ended_that_its_step_started_and_another_process_took_over"),
            test(BESIDE, "a_saga_of_a_step_whose_owner_lives_and_does_not_run_it_is_found_by_it"),
        ],
    ),
    row(
        Integrity,
        "start a saga whose newest version cannot be read",
        Http,
        "it is refused, and none is started by an older version; what runs by one goes on",
        &[test(EMBEDDED, "nothing_is_started_by_an_older_version_where_the_newest_cannot_be_read_any_more")],
    ),
    row(
        Integrity,
        "start a saga whose newest document is of a version that a program around the node defines",
        Http,
        "it is refused: what the program says is not taken for what the document says",
        &[test(EMBEDDED, "a_programs_saga_is_not_taken_for_the_document_of_its_version")],
    ),
    on_postgres(
        Integrity,
        "declare a saga at several nodes",
        Http,
        "of two documents that are declared as one version at once one is it; a version that a node cannot read is left to others, and nothing is started there by an older one",
        &[
            test(NODES, "of_documents_that_are_declared_at_two_nodes_at_once_one_is_the_version"),
            test(
                NODES,
                "a_newer_version_that_a_node_cannot_read_is_left_alone_there_and_nothing_is_started_by_an_older_one",
            ),
        ],
    ),
    row(
        Durability,
        "a saga's timers and deadline",
        Library,
        "they run over restarts and jumps of the wall clock; after a restart for what is left by the wall clock, and at most for their whole length again",
        &[
            test(
                CRASHES,
                "timers_run_over_restarts_and_jumps_of_the_wall_clock_and_never_longer_than_they_were_set_to",
            ),
            test(CRASHES, "a_deadline_turns_a_saga_back_also_when_it_passes_while_nobody_runs_it"),
        ],
    ),
    row(
        Durability,
        "declare, start and signal a saga",
        Http,
        "what was answered is so after a restart of the node, and what was open goes on",
        &[test(HTTP, "a_saga_runs_over_http_is_undone_where_a_step_is_refused_and_goes_on_after_a_restart")],
    ),
    row(
        Atomicity,
        "a saga's message",
        Http,
        "it is sent in the transaction of the step's record, and has the step's key as its id",
        &[
            test(HTTP, "a_saga_runs_over_http_is_undone_where_a_step_is_refused_and_goes_on_after_a_restart"),
            test(DECLARED, "a_document_runs_as_it_says"),
        ],
    ),
    row(
        Atomicity,
        "a saga's local step",
        Library,
        "its effect and its record commit together; one that fails leaves nothing, and what was done before it is made up for",
        &[
            test(RUNNING, "local_steps_and_their_records_share_one_transaction"),
            test(RUNNING, "a_local_step_that_fails_leaves_nothing_and_what_was_done_is_made_up_for"),
        ],
    ),
    row(
        Order,
        "compensate a saga",
        Library,
        "what was done or may have been is made up for, the last step first, never while a forward call is under way, nor within the quiet time of one that was given up",
        &[
            test(RULES, "what_was_done_and_what_may_have_been_is_made_up_for_backwards_and_what_was_refused_is_not"),
            test(RULES, "nothing_is_compensated_while_a_forward_call_is_under_way"),
            test(RULES, "whatever_comes_in_a_saga_keeps_its_rules_and_ends_once_it_is_answered"),
        ],
    ),
    row(
        Order,
        "a saga's pivot",
        Library,
        "behind it there is only forward, and one whose outcome nobody knows is stuck, not turned back",
        &[
            test(RULES, "behind_the_pivot_there_is_only_forward"),
            test(RULES, "a_pivot_that_nobody_knows_the_outcome_of_is_stuck_and_not_turned_back"),
            test(RULES, "an_abort_that_comes_while_the_pivot_is_on_its_way_waits_for_its_answer"),
        ],
    ),
    row(
        Delivery,
        "call a step",
        Library,
        "each attempt is recorded before it is made, and all have one key",
        &[
            test(RUNNING, "remote_steps_are_recorded_before_they_are_called_and_repeated_under_one_key"),
            test(AT_ONCE, "a_recorded_attempt_that_was_never_made_is_made_by_the_next_process"),
            test(AT_ONCE, "a_call_that_waits_for_its_place_is_not_made_once_its_runner_is_gone"),
        ],
    ),
    row(
        Delivery,
        "repeat a saga's request",
        Http,
        "what is asked for under one key is the same to the byte on every attempt, whatever happened in between",
        &[
            test(REQUESTS, "a_documents_request_is_the_same_to_the_byte_on_every_attempt"),
            test(REQUESTS, "every_attempt_of_a_step_sees_what_the_first_one_saw"),
            test(RULES, "whatever_comes_in_a_saga_keeps_its_rules_and_ends_once_it_is_answered"),
        ],
    ),
    row(
        Delivery,
        "a step's answer",
        Http,
        "one that is too large to be kept leaves its step done, and shows as not kept",
        &[
            test(HTTP, "a_saga_says_what_it_waits_for_and_an_answer_that_is_too_large_is_not_kept"),
            test(REQUESTS, "an_answer_that_is_too_large_is_not_kept_and_the_step_is_done"),
        ],
    ),
    row(
        Order,
        "calls of sagas",
        Library,
        "so many are under way at once, and whoever came first goes first",
        &[test(AT_ONCE, "so_many_calls_are_under_way_at_once_and_whoever_came_first_goes_first")],
    ),
    row(
        Integrity,
        "a saga's journal",
        Library,
        "nobody but the saga appends to it, and one that cannot be read stops its saga visibly",
        &[
            test(APPENDING, "a_rooms_own_stream_is_appended_to_by_the_room_alone"),
            test(UNREADABLE, "a_saga_whose_journal_cannot_be_read_shows_that_and_its_plan_is_not_asked"),
        ],
    ),
    row(
        Integrity,
        "append to a saga's journal",
        Http,
        "it is refused, whether there is such a saga or not",
        &[test(HTTP, "nobody_but_the_saga_writes_to_its_stream")],
    ),
    row(
        Integrity,
        "stream import",
        Cli,
        "the journal of a saga is a bad line, named with its place",
        &[test(LINE, "the_journal_of_a_saga_is_not_imported")],
    ),
    row(
        Delivery,
        "start a saga, signal it",
        Library,
        "the same id starts one saga, and tells it one signal; who says something else under it is refused",
        &[
            test(AT_ONCE, "a_start_that_says_something_else_is_refused_whether_its_saga_begins_runs_or_has_ended"),
            test(AT_ONCE, "of_two_who_decide_under_one_signal_one_is_heard_and_the_other_learns_of_it"),
            test(RUNNING, "a_saga_started_many_times_at_once_is_one_saga"),
            test(AT_ONCE, "a_repeated_start_runs_a_saga_again_whose_runner_panicked"),
            test(DECIDING, "signals_are_kept_once_and_refused_once_it_is_over"),
        ],
    ),
    row(
        Delivery,
        "run a saga",
        Library,
        "one process writes to it: a late answer of another one changes nothing",
        &[
            test(CRASHES, "whoever_comes_back_late_writes_nothing"),
            test(RULES, "late_and_repeated_answers_change_nothing"),
        ],
    ),
    row(
        Delivery,
        "a participant's barrier",
        Library,
        "duplicates, null compensations and calls that come too late have no effect",
        &[
            test(BARRIER, "duplicates_null_compensations_and_calls_that_come_too_late_have_no_effect"),
            test(BARRIER, "what_rolled_back_never_came_and_old_operations_are_forgotten"),
        ],
    ),
    row(
        Visibility,
        "a stuck saga",
        Library,
        "it shows, and what somebody decides about it is written down with why, and who says to have decided",
        &[
            test(
                DECIDING,
                "a_compensation_that_fails_for_good_is_stuck_until_somebody_decides_and_that_is_written_down",
            ),
            test(DECIDING, "a_stuck_saga_is_still_stuck_after_a_restart_and_can_be_decided_about"),
        ],
    ),
    row(
        Visibility,
        "a saga that waits",
        Library,
        "it says which signal, timer, answer or decision it waits for, and until when",
        &[
            test(AWAITING, "a_saga_says_which_signal_or_timer_it_waits_for_and_until_when"),
            test(AWAITING, "a_saga_says_that_it_rests_is_quiet_or_waits_for_somebodys_decision"),
        ],
    ),
    row(
        Visibility,
        "decide about a stuck saga",
        Http,
        "only what fits how it stands is taken, and it is an event of the saga",
        &[test(HTTP, "a_saga_that_is_stuck_shows_and_is_decided_about")],
    ),
    row(
        Integrity,
        "declare a saga",
        Http,
        "what is wrong with a document is told with line and field, and a version never becomes another",
        &[
            test(HTTP, "what_cannot_be_is_refused_with_its_place_and_a_version_never_becomes_another"),
            test(DECLARED, "everything_that_is_wrong_is_told_with_its_place"),
        ],
    ),
    row(
        Integrity,
        "sim saga",
        Cli,
        "a saga that is compensated while a call may still take effect is found out",
        &[test(RULES, "every_course_of_a_saga_ends_as_it_should_and_one_that_waits_for_nothing_is_found_out")],
    ),
    row(
        Visibility,
        "a saga of an unknown version",
        Library,
        "it waits and shows as stalled, and goes on by its own version once that is registered",
        &[test(CRASHES, "a_version_that_nobody_knows_stalls_visibly_and_goes_on_once_it_is_registered")],
    ),
];
