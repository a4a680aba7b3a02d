//! What holds of letting events go: truncate, tombstone, the rules of a stream, and archives.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Visibility},
    Guarantee,
    Proof::Conformance,
    Surface::{Http, Library},
    row, test,
};

const RETENTION: &str = "crates/data/tests/sqlite/retention.rs";
const SET_CLOCK: &str = "crates/data/tests/sqlite/clock.rs";
const TRUSTED_CLOCK: &str = "crates/data/src/store/retention/clock.rs";
const ARCHIVES: &str = "crates/data/tests/sqlite/archive.rs";
const POWER: &str = "crates/scenarios/tests/store/main.rs";
const KEEPING: &str = "crates/node/tests/http/retention.rs";
const STORE: &str = "crates/node/tests/http/store.rs";
const READING: &str = "crates/node/src/http/streams.rs";
const BACKUP: &str = "crates/data/tests/sqlite/backup.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "truncate, tombstone",
        Library,
        "forgotten data is gone from the store's files",
        &[test(RETENTION, "truncated_data_is_gone_from_the_files_each_time")],
    ),
    row(
        Durability,
        "archive",
        Library,
        "killed at any moment, each event is in the store or in an archive that proves itself, and the same order finishes",
        &[
            Conformance("archived_events_are_in_the_file_and_leave_stubs"),
            test(ARCHIVES, "archiving_killed_at_any_moment_leaves_each_event_somewhere"),
            test(POWER, "whatever_operation_the_power_fails_at_an_event_is_in_the_store_or_in_its_archive"),
            test(ARCHIVES, "a_crash_between_the_file_and_the_stubs_is_finished_by_the_same_order"),
        ],
    ),
    row(
        Integrity,
        "verify",
        Http,
        "an archive's file that is damaged, or another one, is named; one that is not there is listed",
        &[test(STORE, "verifying_reads_the_archives_and_tells_which_are_missing_and_which_are_damaged")],
    ),
    row(
        Durability,
        "max_age",
        Library,
        "a wall clock that jumps ahead expires nothing unless the jump stands for an hour",
        &[
            test(SET_CLOCK, "a_clock_that_jumps_ahead_and_is_set_right_costs_no_event"),
            test(TRUSTED_CLOCK, "a_jump_ahead_is_believed_only_after_it_stood_for_the_probation"),
            test(TRUSTED_CLOCK, "a_clock_that_stood_ahead_before_the_start_waits_as_well"),
        ],
    ),
    row(
        Atomicity,
        "retire in a transaction",
        Library,
        "a truncate or tombstone commits with what else its transaction does, and nobody ever sees half of it",
        &[
            Conformance("a_transaction_forgets_events_with_what_else_it_does"),
            Conformance("events_that_are_being_forgotten_are_never_seen_whole"),
            test(ARCHIVES, "forgetting_killed_at_any_moment_is_whole_and_goes_on"),
        ],
    ),
    row(
        Atomicity,
        "truncate, tombstone with an idempotency key",
        Http,
        "the effect and its kept reply are one transaction: a repetition is answered as the first time",
        &[
            test(KEEPING, "a_repeated_truncate_is_answered_as_the_first_time_also_after_a_restart"),
            test(KEEPING, "a_refused_tombstone_is_answered_as_the_first_time"),
        ],
    ),
    row(
        Atomicity,
        "truncate, tombstone with If-Match",
        Http,
        "nothing is forgotten unless the stream is at the version that is expected",
        &[test(KEEPING, "a_truncate_is_done_only_at_the_version_that_is_expected")],
    ),
    row(
        Atomicity,
        "set metadata",
        Library,
        "metadata is set only at the version that is expected, and commits with its transaction",
        &[
            Conformance("metadata_is_set_on_the_condition_of_its_version"),
            Conformance("metadata_commits_with_its_transaction"),
            Conformance("values_commit_with_their_transaction"),
            Conformance("of_those_who_set_metadata_at_once_each_sees_the_one_before"),
        ],
    ),
    row(
        Visibility,
        "rules of a stream",
        Library,
        "reads of a stream follow its rules as soon as they are set; a scavenge forgets the rest",
        &[
            Conformance("only_the_newest_events_that_max_count_allows_are_read"),
            Conformance("events_older_than_max_age_are_not_read"),
            Conformance("a_scavenge_forgets_what_rules_no_longer_keep"),
        ],
    ),
    row(
        Visibility,
        "truncate",
        Library,
        "however long the stream is, other writers have their turn while its data is wiped",
        &[test(ARCHIVES, "a_truncate_of_many_events_leaves_other_writers_their_turn")],
    ),
    row(
        Visibility,
        "read a stream",
        Http,
        "a page of which events are forgotten while it is read shows what the stream has become, not less than it ever was",
        &[test(READING, "a_page_of_which_everything_is_forgotten_while_it_is_read_shows_what_the_stream_has_become")],
    ),
    row(
        Visibility,
        "tombstone",
        Library,
        "a tombstoned stream takes no events and shows none, for good",
        &[Conformance("a_tombstoned_stream_is_closed_for_good")],
    ),
    row(
        Integrity,
        "archive",
        Library,
        "an archive that was changed or cut off is noticed, and sealed data stays sealed in it",
        &[
            Conformance("an_archive_keeps_sealed_data_sealed"),
            test("crates/data/src/store/archive/tests.rs", "any_flipped_byte_and_any_cut_is_noticed"),
        ],
    ),
    row(
        Durability,
        "truncate, tombstone, scavenge",
        Library,
        "what was forgotten when the process died, or while a reader stood in the way, is wiped all the same",
        &[
            test(RETENTION, "what_a_process_had_forgotten_when_it_died_is_wiped_by_the_next"),
            test(RETENTION, "a_reader_in_the_way_delays_forgetting_and_does_not_prevent_it"),
            test(RETENTION, "a_store_that_was_too_busy_to_wipe_does_it_later"),
            test(BACKUP, "forgotten_data_is_not_in_a_later_backup"),
        ],
    ),
    row(
        Visibility,
        "truncate, tombstone",
        Library,
        "a read that overlaps it has no hole, and leaves no data behind for later ones",
        &[
            test(RETENTION, "a_stream_read_while_it_is_truncated_has_no_hole"),
            test(RETENTION, "a_read_that_overlaps_forgetting_leaves_nothing_to_later_ones"),
            test(RETENTION, "readers_that_cached_the_data_do_not_serve_it_again"),
        ],
    ),
    row(
        Delivery,
        "archive, repeated",
        Library,
        "an order that was done, or died half-way, is answered with its own archive although the stream has grown",
        &[
            Conformance("a_finished_archive_order_is_known_when_the_stream_has_grown"),
            test(ARCHIVES, "an_order_that_died_is_finished_where_it_was_begun_although_the_stream_has_grown"),
            Conformance("an_archive_is_made_once_and_never_overwritten"),
        ],
    ),
    row(
        Integrity,
        "truncate, tombstone, scavenge",
        Library,
        "damage in the way of one stream is told to whoever asks, and keeps no other stream from being wiped",
        &[
            test(RETENTION, "one_damaged_block_does_not_keep_other_streams_from_being_wiped"),
            test(RETENTION, "a_scavenge_goes_on_with_other_streams_and_then_tells_of_the_damage"),
        ],
    ),
    row(
        Integrity,
        "truncate, tombstone, archive",
        Library,
        "no more is forgotten at a time than the limit allows; beyond it nothing changes and the caller is told",
        &[test(RETENTION, "nothing_more_is_forgotten_than_the_limit_allows_until_some_is_wiped")],
    ),
    row(
        Atomicity,
        "PUT /v1/streams/{stream}/metadata",
        Http,
        "metadata that were read can be changed and sent back, and are refused once somebody else has set them",
        &[
            test(KEEPING, "metadata_that_were_read_can_be_changed_and_sent_back_and_are_refused_once_they_are_old"),
            test(KEEPING, "metadata_is_set_under_a_precondition_and_read_back"),
        ],
    ),
];
