//! What holds of views that are declared by documents, beside what holds of every view.

use super::{
    About::{Atomicity, Durability, Integrity, Visibility},
    Guarantee,
    Surface::{Cli, Http, Library},
    row, test,
};

const DECLARED: &str = "crates/data/src/materialized_view/declared/tests.rs";
const KEPT: &str = "crates/data/src/materialized_view/declared/tests/kept.rs";
const PROGRAMS: &str = "crates/data/src/materialized_view/declared/tests/programs.rs";
const BINDING: &str = "crates/data/src/materialized_view/declared/bind.rs";
const JQ: &str = "crates/foundations/src/jq/tests.rs";
const ROOM: &str = "crates/foundations/src/jq/tests/room.rs";
const FAULTS: &str = "crates/data/tests/sqlite/faults.rs";
const OVER_HTTP: &str = "crates/node/tests/http/declared.rs";
const COMMANDS: &str = "crates/cli/tests/cli/declared.rs";
const MEMORY: &str = "crates/data/src/materialized_view/tests/memory.rs";
const FEEDS: &str = "crates/data/src/materialized_view/tests/feeds.rs";
const LOANS: &str = "examples/tests/views.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "PUT /v1/views/{name}/document",
        Http,
        "what was declared is kept up to date after a restart, from where it was",
        &[test(OVER_HTTP, "a_view_is_declared_filled_and_goes_on_after_a_restart")],
    ),
    row(
        Durability,
        "declared view",
        Library,
        "it goes on once whoever declared it has left; one that cannot be started says why, and readers keep what they had",
        &[
            test(KEPT, "what_another_declared_goes_on_once_it_has_left"),
            test(KEPT, "a_kept_document_that_cannot_be_read_is_told_of_and_readers_keep_what_they_had"),
            test(FAULTS, "a_declared_view_that_a_full_disk_kept_from_starting_is_started_when_there_is_space"),
        ],
    ),
    row(
        Atomicity,
        "declare a view",
        Library,
        "document and first build are there together; a version never changes its meaning",
        &[test(DECLARED, "a_version_keeps_its_meaning_and_another_one_is_built_beside_it")],
    ),
    row(
        Visibility,
        "declare a view",
        Library,
        "a name that was deleted and declared anew shows nothing of what it was, also to those who knew it",
        &[
            test(KEPT, "a_name_that_others_deleted_and_declared_anew_shows_nothing_of_what_it_was"),
            test(KEPT, "a_view_that_was_deleted_and_declared_anew_between_restarts_begins_from_nothing"),
        ],
    ),
    row(
        Atomicity,
        "declared view",
        Library,
        "an event that cannot be applied changes no row, and the record says which parameter or statement it was",
        &[test(DECLARED, "an_event_without_a_value_is_parked_with_the_parameter_it_lacks")],
    ),
    row(
        Integrity,
        "declared view",
        Library,
        "a statement that wants too much memory is stopped with the limit's value: its event is poison, and nobody else is refused anything",
        &[
            test(MEMORY, "a_statement_that_sorts_too_much_is_poison_and_says_so"),
            test(MEMORY, "an_append_is_refused_where_its_inline_view_takes_too_much"),
        ],
    ),
    row(
        Integrity,
        "declared view with jq",
        Library,
        "what a program takes is counted and not timed: an event is poison on every machine or on none; numbers keep their digits",
        &[
            test(JQ, "hostile_programs_end_and_always_for_the_same_reason"),
            test(JQ, "any_program_ends_within_its_limits_twice_alike"),
            test(JQ, "numbers_keep_their_digits"),
            test(JQ, "what_is_looked_at_is_counted"),
            test(JQ, "reading_a_regular_expression_costs_by_how_it_is_written"),
            test(ROOM, "programs_as_wide_as_they_may_be_run"),
            test(ROOM, "values_as_deep_as_they_may_be_are_worked_on_from_every_depth"),
            test(BINDING, "each_output_of_a_program_gives_a_round_of_its_own"),
            test(PROGRAMS, "a_program_that_does_not_end_is_told_of_by_the_sample_and_parks_its_event"),
        ],
    ),
    row(
        Visibility,
        "PUT /v1/views/{name}/document",
        Http,
        "another version is built beside the one readers have, and given to them once it has caught up",
        &[test(OVER_HTTP, "a_changed_document_needs_a_new_version_which_is_built_beside")],
    ),
    row(
        Integrity,
        "declared view",
        Library,
        "its rows are those of a count over the same events, also of a build made while events come in",
        &[test(LOANS, "declared_loan_views_agree_with_a_direct_count")],
    ),
    row(
        Integrity,
        "POST /v1/views/{name}/check",
        Http,
        "a wrong document is refused with line and field, and changes nothing",
        &[test(OVER_HTTP, "a_document_is_checked_and_each_fault_has_its_place")],
    ),
    row(
        Integrity,
        "view declare",
        Cli,
        "a wrong document is refused with file, line and field",
        &[test(COMMANDS, "what_is_wrong_with_a_document_is_told_with_file_line_and_field")],
    ),
    row(
        Visibility,
        "read a declared view of other services' events",
        Library,
        "a feed that is silent or late by its own time, or never said one, is refused or flagged as the document says; what it said commits with the rows",
        &[
            test(FEEDS, "a_read_behind_a_silent_or_late_feed_is_refused_or_flagged"),
            test(FEEDS, "what_a_feed_said_is_known_after_a_restart_a_rebuild_and_beside_poison"),
            test(FEEDS, "an_idle_feed_is_judged_by_how_late_its_last_word_was_also_inline"),
        ],
    ),
    row(
        Visibility,
        "GET /v1/views/{name}/tables/{table}/rows",
        Http,
        "beyond what a document allows its feeds it is a 503 that names the source and its lag; with `beyond=flag` an answer that says so",
        &[test(OVER_HTTP, "a_view_behind_a_silent_feed_is_refused_or_flagged_with_its_age")],
    ),
    row(
        Integrity,
        "explain a row",
        Library,
        "the events named are those that changed the row, without those the build left out",
        &[test(DECLARED, "a_row_is_explained_by_the_events_that_made_it")],
    ),
];
