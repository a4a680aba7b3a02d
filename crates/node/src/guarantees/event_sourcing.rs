//! What holds of commands that are decided from events.

use super::{
    About::{Atomicity, Delivery, Integrity, Order},
    Guarantee,
    Surface::Library,
    row, test,
};

const COMMANDS: &str = "crates/consistency/src/event_sourcing/tests/commands.rs";
const SERIAL: &str = "crates/consistency/src/event_sourcing/tests/serial.rs";
const COURSES: &str = "crates/consistency/src/event_sourcing/tests/courses.rs";
const UPCASTING: &str = "crates/data/src/schema/upcast/tests.rs";

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
];
