//! What holds of commands that are decided from events.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Order, Visibility},
    Guarantee,
    Surface::Library,
    row, test,
};

const COMMANDS: &str = "crates/consistency/src/event_sourcing/tests/commands.rs";
const SERIAL: &str = "crates/consistency/src/event_sourcing/tests/serial.rs";
const COURSES: &str = "crates/consistency/src/event_sourcing/tests/courses.rs";
const UPCASTING: &str = "crates/data/src/schema/upcast/tests.rs";
const SNAPSHOTS: &str = "crates/consistency/src/event_sourcing/tests/snapshots.rs";
const HISTORY: &str = "crates/consistency/src/event_sourcing/tests/history.rs";
const VERSIONS: &str = "crates/consistency/src/event_sourcing/tests/upcasting.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Atomicity,
        "handle a command in a transaction",
        Library,
        "its events commit with the transaction, or vanish with it",
        &[test(COMMANDS, "a_command_in_a_transaction_commits_or_vanishes_with_it")],
    ),
    row(
        Order,
        "handle a command",
        Library,
        "a decision is appended only at the state it was made for, and a no is said only of a state that was current",
        &[
            test(COMMANDS, "another_writer_is_noticed_and_the_command_decided_anew"),
            test(COMMANDS, "no_is_never_said_because_of_an_old_state"),
            test(SERIAL, "exactly_one_of_many_gets_the_last_cent"),
            test(SERIAL, "a_writer_who_never_gets_through_is_told_after_a_bounded_number_of_attempts"),
        ],
    ),
    row(
        Order,
        "handle a decision across streams",
        Library,
        "it is appended only if nothing was added to what its query saw; decisions that do not overlap do not wait",
        &[
            test(COURSES, "overlapping_decisions_are_decided_anew_and_others_do_not_wait"),
            test(COURSES, "a_decision_over_two_entities_writes_to_the_streams_of_both"),
            test(COURSES, "a_boundary_that_names_types_holds_the_events_that_upcasters_turn_into_them"),
        ],
    ),
    row(
        Integrity,
        "handle a decision across streams",
        Library,
        "nothing is decided over a boundary of which something was forgotten, unless that was allowed",
        &[test(COURSES, "a_boundary_of_which_something_was_truncated_decides_nothing_unless_told_to")],
    ),
    row(
        Integrity,
        "handle a command with a digest",
        Library,
        "another command under a known id is refused, not answered as the first",
        &[
            test(
                COMMANDS,
                "another_command_under_the_same_id_is_refused_where_there_is_a_digest_and_answered_as_the_first_where_not",
            ),
            test(COMMANDS, "a_digest_is_that_of_the_command_whatever_the_order_of_its_maps"),
            test(COURSES, "another_decision_under_the_same_command_id_is_refused_where_there_is_a_digest"),
        ],
    ),
    row(
        Delivery,
        "handle a command, repeated",
        Library,
        "a command is carried out once, and a repeat is answered as the first time, also by a process that knows nothing",
        &[
            test(COMMANDS, "a_repeated_command_is_answered_as_the_first_time_whatever_happened_since"),
            test(COMMANDS, "a_command_repeated_by_a_process_that_knows_nothing_is_carried_out_once"),
            test(SERIAL, "twins_of_one_command_are_carried_out_once_and_all_answered_alike"),
            test(COURSES, "a_repeated_decision_is_answered_as_the_first_time"),
        ],
    ),
    row(
        Integrity,
        "open aggregates or decisions",
        Library,
        "upcasters with a gap, a circle or the wrong end are refused at start-up, by the step",
        &[
            test(UPCASTING, "a_gap_is_named_with_the_way_that_leads_to_it"),
            test(UPCASTING, "circles_duplicates_downgrades_and_useless_steps_are_refused_by_name"),
            test(
                "crates/consistency/src/event_sourcing/tests/upcasting.rs",
                "a_chain_that_does_not_reach_todays_version_is_found_at_start_up",
            ),
        ],
    ),
    row(
        Durability,
        "snapshot",
        Library,
        "a crash between an append and its snapshot changes nothing; forgetting leaves no copy of the state beside the log",
        &[
            test(SNAPSHOTS, "a_crash_between_append_and_snapshot_changes_nothing"),
            test(SNAPSHOTS, "forgetting_leaves_no_copy_of_the_state_beside_the_log"),
        ],
    ),
    row(
        Visibility,
        "state of an aggregate",
        Library,
        "it is the fold of what the stream holds, also after a truncate, with and without snapshot or cache",
        &[
            test(SNAPSHOTS, "after_a_truncate_the_state_is_the_fold_of_what_is_left_with_and_without_snapshot"),
            test(SNAPSHOTS, "a_state_kept_in_memory_notices_a_truncate_when_the_stream_is_read"),
            test(SERIAL, "a_command_that_is_dropped_half_way_leaves_nothing_wrong_behind"),
        ],
    ),
    row(
        Visibility,
        "state at a moment",
        Library,
        "a state of the past is that of its version, its position, or its time; a moment that is not there is an error",
        &[
            test(HISTORY, "a_state_is_shown_as_of_a_version_a_position_and_now"),
            test(HISTORY, "what_had_happened_and_what_was_known_are_two_different_pasts"),
            test(HISTORY, "a_moment_that_is_not_there_is_an_error_that_says_what_is"),
        ],
    ),
    row(
        Integrity,
        "snapshot",
        Library,
        "a snapshot of another fold, one that cannot be read, or one that the history does not confirm is discarded",
        &[
            test(SNAPSHOTS, "a_snapshot_of_another_fold_is_discarded_and_counted"),
            test(SNAPSHOTS, "a_snapshot_that_cannot_be_read_is_discarded_counted_and_replaced"),
            test(SNAPSHOTS, "a_snapshot_that_the_history_does_not_confirm_is_discarded"),
        ],
    ),
    row(
        Integrity,
        "handle a command",
        Library,
        "a state is folded from events of every version that ever was; nothing is decided without an event that cannot be read",
        &[
            test(VERSIONS, "a_state_is_folded_from_events_of_every_version_that_ever_was"),
            test(VERSIONS, "an_event_of_tomorrow_is_refused_and_nothing_is_decided_without_it"),
            test(COMMANDS, "an_event_that_cannot_be_read_names_its_place_and_what_is_wrong"),
        ],
    ),
    row(
        Integrity,
        "handle a command",
        Library,
        "a decision whose event does not fit its schema is not written",
        &[test(VERSIONS, "a_decision_whose_event_does_not_fit_its_schema_is_not_written")],
    ),
];
