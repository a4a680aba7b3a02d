//! What holds, operation by operation, and the tests that say so: the table behind `quorate guarantees`.
//!
//! A row promises nothing that its proofs do not try, and names the backends they try it on. A claim of the conformance
//! suite is tried on every backend there is.

/// What a guarantee is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// What survives.
    Durability,
    /// What happens together or not at all.
    Atomicity,
    /// What comes before what.
    Order,
    /// Who sees what, and when.
    Visibility,
    /// How often something happens or arrives.
    Delivery,
    /// What is noticed when it is no longer as it was.
    Integrity,
}

/// Where the operation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// In process.
    Library,
    /// Over HTTP.
    Http,
    /// At the command line.
    Cli,
}

/// What keeps the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The embedded store.
    Sqlite,
}

/// A test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A claim of [`quorate_data::store::conformance`].
    Conformance(&'static str),
    /// A test, with the file of the repository that it stands in.
    Test {
        /// The file.
        file: &'static str,
        /// The test's name.
        name: &'static str,
    },
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Guarantee {
    /// What it is about.
    pub about: About,
    /// The operation.
    pub operation: &'static str,
    /// Where it is asked for.
    pub surface: Surface,
    /// On which backends it holds.
    pub backends: &'static [Backend],
    /// What holds.
    pub holds: &'static str,
    /// The tests that try it; at least one.
    pub proofs: &'static [Proof],
}

impl About {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Durability => "durability",
            Self::Atomicity => "atomicity",
            Self::Order => "order",
            Self::Visibility => "visibility",
            Self::Delivery => "delivery",
            Self::Integrity => "integrity",
        }
    }
}

impl Surface {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Http => "http",
            Self::Cli => "cli",
        }
    }
}

impl Backend {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
        }
    }
}

impl Proof {
    /// The test's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conformance(name) | Self::Test { name, .. } => name,
        }
    }
}

const fn test(file: &'static str, name: &'static str) -> Proof {
    Proof::Test { file, name }
}

const fn row(
    about: About,
    operation: &'static str,
    surface: Surface,
    holds: &'static str,
    proofs: &'static [Proof],
) -> Guarantee {
    Guarantee { about, operation, surface, backends: &[Backend::Sqlite], holds, proofs }
}

use self::{
    About::{Atomicity, Delivery, Durability, Integrity, Order, Visibility},
    Proof::Conformance,
    Surface::{Cli, Http, Library},
};

const APPENDING: &str = "crates/node/tests/http/append.rs";
const IDEMPOTENCY: &str = "crates/node/tests/http/keys.rs";
const SCHEMAS: &str = "crates/node/tests/http/schemas.rs";
const SUBSCRIBING: &str = "crates/node/tests/http/subscribe.rs";
const BIT_ROT: &str = "crates/data/tests/sqlite_bit_rot.rs";
const PAGES: &str = "crates/data/tests/sqlite_pages.rs";
const FAULTS: &str = "crates/data/tests/sqlite_faults.rs";
const ERASURE: &str = "crates/data/tests/sqlite_erasure.rs";
const ERASING: &str = "crates/node/tests/http/erasure.rs";
const LETTING_GO: &str = "crates/data/src/subscription/tests/erasing.rs";
const CONSUMING: &str = "crates/data/src/subscription/tests/consuming.rs";
const SHARING: &str = "crates/data/src/subscription/tests/processes.rs";
const DISPATCHER: &str = "crates/data/src/subscription/machine/tests.rs";
const HISTORIES: &str = "crates/data/src/subscription/machine/tests/histories.rs";
const WORKERS: &str = "crates/node/tests/http/subscriptions.rs";
const COMMANDS: &str = "crates/consistency/src/event_sourcing/tests/commands.rs";
const SERIAL: &str = "crates/consistency/src/event_sourcing/tests/serial.rs";
const COURSES: &str = "crates/consistency/src/event_sourcing/tests/courses.rs";
const RETENTION: &str = "crates/data/tests/sqlite_retention.rs";
const SET_CLOCK: &str = "crates/data/tests/sqlite_clock.rs";
const TRUSTED_CLOCK: &str = "crates/data/src/store/retention/clock.rs";
const ARCHIVES: &str = "crates/data/tests/sqlite_archive.rs";
const POWER: &str = "crates/scenarios/tests/store/main.rs";
const KEEPING: &str = "crates/node/tests/http/retention.rs";

/// Every row, by what it is about.
pub const TABLE: &[Guarantee] = &[
    row(
        Durability,
        "append",
        Library,
        "an acknowledged append survives a kill of the process",
        &[Conformance("an_acknowledged_append_survives_a_crash")],
    ),
    row(
        Durability,
        "transact",
        Library,
        "a committed transaction survives a kill of the process",
        &[Conformance("committed_transactions_survive_a_crash")],
    ),
    row(
        Durability,
        "append",
        Library,
        "whichever operation of the disk fails, what was acknowledged is there once and what was refused is not",
        &[
            test(FAULTS, "one_failed_operation_loses_nothing_acknowledged_and_keeps_nothing_refused"),
            test(FAULTS, "a_disk_that_dies_at_any_operation_loses_nothing_acknowledged_and_keeps_nothing_refused"),
        ],
    ),
    row(
        Durability,
        "append",
        Library,
        "what was acknowledged survives the power failing, at whatever operation of the disk, also after a sync failed",
        &[
            test(POWER, "whatever_operation_the_power_fails_at_what_was_acknowledged_is_there_and_nothing_is_torn"),
            test(POWER, "what_is_acknowledged_after_a_sync_failed_survives_the_power_failing"),
        ],
    ),
    row(
        Durability,
        "append",
        Cli,
        "what was acknowledged before kill -9 is there afterwards, once",
        &[test(
            "crates/cli/tests/cli/serve.rs",
            "every_acknowledged_append_is_there_after_a_kill_and_answers_as_the_first_time",
        )],
    ),
    row(
        Durability,
        "truncate, tombstone",
        Library,
        "forgotten data is gone from the store's files",
        &[test(RETENTION, "truncated_data_is_gone_from_the_files_each_time")],
    ),
    row(
        Durability,
        "erase a data subject",
        Library,
        "neither the data nor its key stands in any file afterwards, nor do copies that rooms kept; no crash, and no older copy of store or keys alone, brings them back",
        &[
            test(ERASURE, "neither_data_nor_destroyed_keys_stand_in_any_file"),
            test(ERASURE, "copies_that_rooms_and_applications_kept_are_wiped_out_of_the_files_with_the_erasure"),
            test(ERASURE, "a_crash_between_ledger_and_key_is_finished_by_opening"),
            test(ERASURE, "keys_that_know_more_than_the_ledger_teach_it"),
            test(ERASURE, "an_older_backup_beside_the_surviving_keys_does_not_bring_data_back"),
        ],
    ),
    row(
        Durability,
        "restore with the erasure ledger",
        Cli,
        "a backup and keys from before an erasure come back without what was erased",
        &[
            test(
                "crates/cli/tests/cli/erasure.rs",
                "a_backup_from_before_an_erasure_is_restored_without_what_was_erased",
            ),
            test(ERASURE, "with_the_ledger_older_copies_of_both_do_not_bring_data_back"),
            test(ERASURE, "a_restored_backup_forgets_what_consumers_had_said_of_who_was_erased_since"),
        ],
    ),
    row(
        Durability,
        "register a schema",
        Library,
        "a registered schema, and the mode of its type, survive a kill of the process",
        &[Conformance("schemas_and_modes_outlive_reopening_and_a_crash")],
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
        "set metadata",
        Library,
        "metadata is set only at the version that is expected, and commits with its transaction",
        &[
            Conformance("metadata_is_set_on_the_condition_of_its_version"),
            Conformance("metadata_commits_with_its_transaction"),
        ],
    ),
    row(
        Atomicity,
        "append to several streams",
        Library,
        "all of it is written, or nothing",
        &[
            Conformance("several_streams_are_appended_together_or_not_at_all"),
            Conformance("a_malformed_batch_changes_nothing"),
        ],
    ),
    row(
        Atomicity,
        "transact",
        Library,
        "events and the application's tables commit together, or nothing does",
        &[
            Conformance("a_transaction_commits_events_and_tables_together"),
            Conformance("a_transaction_that_says_no_leaves_nothing"),
        ],
    ),
    row(
        Atomicity,
        "transact",
        Library,
        "a transaction that fails leaves those committed with it alone",
        &[
            Conformance("a_failing_transaction_leaves_its_neighbours_alone"),
            Conformance("a_deferred_constraint_fails_only_its_own_transaction"),
        ],
    ),
    row(
        Atomicity,
        "handle a command in a transaction",
        Library,
        "its events commit with the transaction, or vanish with it",
        &[test(COMMANDS, "a_command_in_a_transaction_commits_or_vanishes_with_it")],
    ),
    row(
        Atomicity,
        "settle an event in a transaction",
        Library,
        "a consumer's work and its acknowledgement commit together, or neither does",
        &[
            test(CONSUMING, "work_and_its_acknowledgement_commit_together_or_not_at_all"),
            test(CONSUMING, "an_acknowledgement_whose_transaction_rolled_back_was_none"),
            test(CONSUMING, "an_event_settled_in_a_transaction_stays_settled_after_a_restart"),
        ],
    ),
    row(
        Atomicity,
        "erase a data subject",
        Library,
        "whichever operation of the disk fails, it is told as done only when it is; a repeat finishes it and destroys nothing twice",
        &[
            test(FAULTS, "an_erasure_is_told_as_done_only_when_it_is_and_a_repeat_finishes_whatever_fails"),
            test(ERASURE, "an_erasure_whose_caller_went_away_comes_to_its_end_and_is_incomplete_until_then"),
            Conformance("erasing_twice_and_erasing_nobody_is_harmless"),
        ],
    ),
    row(
        Atomicity,
        "POST /v1/subjects/{subject}/erase",
        Http,
        "copies that could not be forgotten are told with their room, and the subject is called erased only once they are",
        &[test(ERASING, "copies_that_could_not_be_forgotten_are_told_and_a_repeat_finishes")],
    ),
    row(
        Atomicity,
        "POST /v1/events",
        Http,
        "several streams are written together, or none is",
        &[test("crates/node/tests/http/several.rs", "several_streams_are_written_together_or_not_at_all")],
    ),
    row(
        Atomicity,
        "view",
        Library,
        "rows, checkpoint, parked events and effects commit together: a view is the fold of the log",
        &[
            test(
                "crates/data/src/materialized_view/tests/keeping_up.rs",
                "a_restart_goes_on_at_the_checkpoint_and_applies_nothing_twice",
            ),
            test("crates/data/src/materialized_view/tests/keeping_up.rs", "shards_together_are_the_fold_of_the_log"),
        ],
    ),
    row(
        Atomicity,
        "inline view",
        Library,
        "events and rows commit together; what the view cannot take is refused alone",
        &[
            test("crates/data/src/materialized_view/tests/inline.rs", "an_append_and_its_rows_are_there_together"),
            test(
                "crates/data/src/materialized_view/tests/inline.rs",
                "an_event_that_the_view_cannot_take_is_refused_and_others_are_not",
            ),
        ],
    ),
    row(
        Atomicity,
        "command",
        Library,
        "a command, its events and the answer to its key commit together",
        &[
            test("crates/consistency/src/cqrs/tests.rs", "a_command_is_carried_out_once_however_often_it_is_sent"),
            test("crates/consistency/src/cqrs/tests.rs", "a_rejection_is_an_answer_and_stays_the_answer"),
        ],
    ),
    row(
        Order,
        "append",
        Library,
        "positions are dense and in commit order, whatever was refused or rolled back",
        &[
            Conformance("positions_stay_dense_through_refusals_and_rollbacks"),
            Conformance("concurrent_writers_lose_nothing_and_keep_their_order"),
        ],
    ),
    row(
        Order,
        "append with an expected version",
        Library,
        "of writers that expect the same version one wins",
        &[
            Conformance("of_two_writers_at_the_same_version_one_wins"),
            Conformance("each_expectation_accepts_exactly_its_states"),
        ],
    ),
    row(
        Order,
        "append on a condition",
        Library,
        "of concurrent decisions that overlap exactly one wins",
        &[
            Conformance("of_concurrent_overlapping_decisions_exactly_one_wins"),
            Conformance("disjoint_decisions_do_not_disturb_each_other"),
        ],
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
        Order,
        "pull from a durable subscription",
        Library,
        "events of one key come one at a time and in their order, however many processes share the work",
        &[
            test(DISPATCHER, "of_one_key_only_the_first_event_is_out_and_other_keys_go_on"),
            test(HISTORIES, "keys_stay_in_order_fences_decide_and_everything_is_settled_in_the_end"),
            test(SHARING, "competing_consumers_of_three_processes_share_the_work_and_keep_the_order_of_each_key"),
            test(SHARING, "whatever_happens_to_two_processes_every_event_is_settled_in_the_order_of_its_key"),
        ],
    ),
    row(
        Order,
        "register a schema",
        Library,
        "whatever is appended behind a registration was held against it; of racing ones each version is given once",
        &[
            Conformance("nothing_is_appended_behind_a_registration_that_does_not_fit_it"),
            Conformance("of_racing_registrations_each_gets_its_due"),
        ],
    ),
    row(
        Order,
        "If-Match, If-None-Match",
        Http,
        "of many writers that expect the same version one wins",
        &[test(APPENDING, "of_many_writers_that_expect_the_same_version_one_wins")],
    ),
    row(
        Order,
        "stream import",
        Cli,
        "each stream keeps the order of the input, and no event is lost or doubled",
        &[
            test(
                "crates/cli/tests/cli/import.rs",
                "plain_and_compressed_files_and_standard_input_bring_the_same_events",
            ),
            test(
                "crates/cli/tests/cli/import_faults.rs",
                "an_import_killed_half_way_is_resumed_without_loss_or_doubles",
            ),
        ],
    ),
    row(
        Order,
        "view",
        Library,
        "of two owners of a shard the later one alone writes",
        &[test("crates/data/src/materialized_view/tests/keeping_up.rs", "an_owner_who_comes_back_late_writes_nothing")],
    ),
    row(
        Order,
        "view, parked events",
        Library,
        "events of a key are applied in order, also through parking and replay",
        &[test(
            "crates/data/src/materialized_view/tests/poison.rs",
            "poison_is_parked_with_what_follows_in_its_key_and_other_keys_go_on",
        )],
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
        "transact",
        Library,
        "nobody sees a transaction before it commits; it sees its own appends",
        &[Conformance("others_see_nothing_before_the_commit"), Conformance("a_transaction_reads_its_own_appends")],
    ),
    row(
        Visibility,
        "read",
        Library,
        "reads agree with a naive log, whatever was written before",
        &[Conformance("random_histories_read_like_a_naive_log")],
    ),
    row(
        Visibility,
        "read with a token",
        Http,
        "a read includes the write its token names, or says why not",
        &[test("crates/node/tests/http/read.rs", "a_token_makes_a_read_include_its_write_or_say_why_not")],
    ),
    row(
        Visibility,
        "erase a data subject",
        Library,
        "once it is answered no read, reader or subscription hands out the data, although it had read it before",
        &[
            test(LETTING_GO, "a_reader_hands_out_nothing_that_was_erased_although_it_had_read_it"),
            test(LETTING_GO, "a_subscription_hands_out_nothing_that_was_erased_although_it_had_read_ahead"),
            test(LETTING_GO, "consumers_that_pull_while_a_subject_is_erased_see_nothing_of_it_afterwards"),
            test(
                "crates/consistency/src/event_sourcing/tests/erasure.rs",
                "an_erasure_takes_events_out_of_states_in_memory_and_in_the_log",
            ),
        ],
    ),
    row(
        Visibility,
        "POST /v1/subjects/{subject}/erase",
        Http,
        "once it is answered nothing of the data is sent, not even to a slow reader for whom it had been read",
        &[
            test(ERASING, "a_slow_reader_is_sent_nothing_after_it_was_erased_although_it_was_read_before"),
            test(ERASING, "an_erased_subject_is_unreadable_everywhere_and_the_chain_still_verifies"),
        ],
    ),
    row(
        Visibility,
        "tombstone",
        Library,
        "a tombstoned stream takes no events and shows none, for good",
        &[Conformance("a_tombstoned_stream_is_closed_for_good")],
    ),
    row(
        Visibility,
        "query of a view",
        Library,
        "with a token it shows that write, or says how far the view is",
        &[
            test(
                "crates/data/src/materialized_view/tests/keeping_up.rs",
                "a_read_waits_for_its_own_write_or_is_told_how_far_the_view_is",
            ),
            test(
                "crates/consistency/src/cqrs/tests.rs",
                "a_question_sees_the_callers_own_command_or_says_how_far_it_is",
            ),
        ],
    ),
    row(
        Visibility,
        "rebuild a view",
        Library,
        "readers see no half-built view, and never less than before",
        &[
            test(
                "crates/data/src/materialized_view/tests/rebuilding.rs",
                "a_rebuild_under_writes_ends_with_the_fold_of_the_log",
            ),
            test(
                "crates/data/src/materialized_view/tests/rebuilding.rs",
                "a_build_that_has_not_caught_up_is_not_given_to_readers",
            ),
        ],
    ),
    row(
        Visibility,
        "POST /v1/views/{name}/switch",
        Http,
        "a build with parked events is given to readers only if that is accepted",
        &[test(
            "crates/node/tests/http/views.rs",
            "readers_are_given_another_build_when_somebody_accepts_what_it_lacks",
        )],
    ),
    row(
        Delivery,
        "append, repeated",
        Library,
        "an event is written once; a repeat answers as the first time, for ever",
        &[
            Conformance("a_repeated_append_answers_as_the_first_time"),
            Conformance("a_repeat_is_known_after_reopening_and_after_a_crash"),
            Conformance("a_repeat_is_known_after_truncate_and_tombstone"),
            Conformance("a_repeat_is_known_whatever_was_registered_since"),
            Conformance("concurrent_repeats_write_once"),
        ],
    ),
    row(
        Delivery,
        "Idempotency-Key",
        Http,
        "a repeated request is done once and answered with the first reply",
        &[
            test(IDEMPOTENCY, "a_repeated_request_is_answered_with_the_first_reply_also_after_a_restart"),
            test(IDEMPOTENCY, "of_many_equal_requests_at_once_one_is_done_and_the_others_repeat_its_reply_or_wait"),
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
        Delivery,
        "pull from a durable subscription",
        Library,
        "every event comes at least once: what is acknowledged stays settled over a restart, what is not comes again",
        &[
            test(CONSUMING, "what_is_acknowledged_does_not_come_again_and_what_is_not_does"),
            test(CONSUMING, "a_pull_that_is_dropped_costs_no_attempt_and_holds_nothing"),
            test(DISPATCHER, "what_was_settled_ahead_is_not_handed_out_again_after_a_restart"),
            test(SHARING, "whatever_happens_to_two_processes_every_event_is_settled_in_the_order_of_its_key"),
        ],
    ),
    row(
        Delivery,
        "settle an event by its lease",
        Library,
        "leases are fenced: a consumer whose event somebody else has by now changes nothing and is told so",
        &[
            test(SHARING, "a_process_that_was_away_is_fenced"),
            test(DISPATCHER, "an_expired_lease_stands_until_someone_else_has_the_event"),
            test(DISPATCHER, "what_a_stranger_claims_changes_nothing"),
            test(CONSUMING, "a_lost_lease_does_not_spoil_the_others_of_its_call"),
        ],
    ),
    row(
        Delivery,
        "park, replay",
        Library,
        "an event that fails too often is parked with what stands behind it, and a replay hands both out in order",
        &[
            test(DISPATCHER, "the_last_failure_parks_the_event_and_what_stands_behind_it_and_nobody_else"),
            test(DISPATCHER, "what_arrives_for_a_parked_key_is_parked_behind_it"),
            test(CONSUMING, "a_poisonous_event_parks_its_key_and_a_replay_hands_it_out_in_order"),
            test(CONSUMING, "a_replayed_event_survives_a_restart_although_the_checkpoint_passed_it"),
        ],
    ),
    row(
        Delivery,
        "/v1/subscriptions",
        Http,
        "events settled over HTTP stay settled over a restart, and a lost lease is named",
        &[
            test(WORKERS, "events_are_pulled_as_the_log_serves_them_and_settled_for_good_also_over_a_restart"),
            test(WORKERS, "a_lost_lease_is_named_and_the_reply_says_whether_others_were_settled"),
            test(WORKERS, "parked_events_are_listed_page_by_page_and_replayed_or_discarded_by_key"),
        ],
    ),
    row(
        Delivery,
        "subscribe",
        Http,
        "what was there comes first, then what happens: no gap and no repetition",
        &[
            test(SUBSCRIBING, "what_was_there_comes_first_then_what_happens_without_a_seam"),
            test(SUBSCRIBING, "a_reader_that_comes_back_resumes_where_it_was"),
        ],
    ),
    row(
        Delivery,
        "subscribe",
        Http,
        "a reader that does not read is let go and can come back to where it was",
        &[test(SUBSCRIBING, "a_reader_that_never_reads_is_let_go_and_can_come_back")],
    ),
    row(
        Delivery,
        "effect of a view",
        Library,
        "carried out at least once, under one key; a rebuild sends nothing again and loses nothing",
        &[
            test(
                "crates/data/src/materialized_view/tests/rebuilding.rs",
                "a_rebuild_sends_nothing_again_and_goes_on_at_the_next_position",
            ),
            test(
                "crates/data/src/materialized_view/tests/rebuilding.rs",
                "what_the_old_build_never_came_to_is_carried_out_by_the_new_one",
            ),
        ],
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
        Integrity,
        "verify",
        Library,
        "one changed byte in any column of any table is named",
        &[test(BIT_ROT, "one_changed_byte_in_any_column_of_any_table_is_named")],
    ),
    row(
        Integrity,
        "read",
        Library,
        "an event whose key is missing is an error and never passes for erased",
        &[
            test(ERASURE, "keys_older_than_an_event_are_an_error_until_its_subject_is_erased"),
            test(ERASURE, "rot_in_keys_and_ledger_is_named_and_nothing_wrong_is_served"),
        ],
    ),
    row(
        Integrity,
        "read",
        Library,
        "damaged bytes are never served",
        &[test(BIT_ROT, "damaged_bytes_are_never_served_wherever_they_are_in_the_file")],
    ),
    row(
        Integrity,
        "read",
        Library,
        "a changed byte in any page of the file or of its log, the application's tables included, is an error that names it",
        &[
            test(PAGES, "a_flipped_byte_in_any_page_is_never_served_and_verifying_names_the_page"),
            test(PAGES, "a_flipped_byte_in_the_log_of_a_live_store_is_noticed_and_never_reaches_the_file"),
        ],
    ),
    row(
        Integrity,
        "append",
        Library,
        "an event comes back byte for byte; its id is refused for other content",
        &[Conformance("an_event_comes_back_as_it_went_in"), Conformance("an_id_used_for_other_content_is_refused")],
    ),
    row(
        Integrity,
        "append",
        Library,
        "an event that does not fit the schema of its type is refused, also in a transaction",
        &[Conformance("what_does_not_fit_its_schema_is_refused_on_every_road")],
    ),
    row(
        Integrity,
        "append",
        Http,
        "an event that does not fit the schema of its type is refused with the path, on every road",
        &[test(SCHEMAS, "what_does_not_fit_is_refused_with_its_path_on_every_road")],
    ),
    row(
        Integrity,
        "open aggregates or decisions",
        Library,
        "upcasters with a gap, a circle or the wrong end are refused at start-up, by the step",
        &[
            test("crates/data/src/schema/upcast/tests.rs", "a_gap_is_named_with_the_way_that_leads_to_it"),
            test(
                "crates/data/src/schema/upcast/tests.rs",
                "circles_duplicates_downgrades_and_useless_steps_are_refused_by_name",
            ),
            test(
                "crates/consistency/src/event_sourcing/tests/upcasting.rs",
                "a_chain_that_does_not_reach_todays_version_is_found_at_start_up",
            ),
        ],
    ),
    row(
        Integrity,
        "POST /v1/schemas/{type}/versions",
        Http,
        "a schema that breaks an earlier one is refused with the path; a hostile one costs next to nothing",
        &[
            test(SCHEMAS, "an_incompatible_schema_is_refused_with_its_path_and_a_check_says_so_beforehand"),
            test(SCHEMAS, "hostile_schemas_are_refused_and_the_node_goes_on"),
        ],
    ),
    row(
        Integrity,
        "view",
        Library,
        "a missed or doubled event is found by a recount; changed code under one version is refused",
        &[
            test(
                "crates/data/src/materialized_view/tests/poison.rs",
                "poison_is_parked_with_what_follows_in_its_key_and_other_keys_go_on",
            ),
            test(
                "crates/data/src/materialized_view/tests/rebuilding.rs",
                "changed_code_under_the_same_version_is_noticed",
            ),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::{Proof, Surface, TABLE};
    use quorate_data::store::conformance::CASES;

    #[test]
    fn every_row_is_backed_by_tests_that_exist() {
        for row in TABLE {
            assert!(!row.proofs.is_empty(), "`{}` is backed by nothing", row.holds);
            for proof in row.proofs {
                assert!(exists(*proof), "`{}` names the test {proof:?}, which is not there", row.holds);
            }
        }
    }

    fn exists(proof: Proof) -> bool {
        match proof {
            Proof::Conformance(name) => CASES.iter().any(|case| case.name == name),
            Proof::Test { file, name } => {
                let path = format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"));
                std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("fn {name}(")))
            }
        }
    }

    #[test]
    fn the_conformance_suite_proves_only_what_the_library_promises() {
        let by_suite = TABLE.iter().filter(|row| row.proofs.iter().any(|proof| matches!(proof, Proof::Conformance(_))));
        assert!(by_suite.into_iter().all(|row| row.surface == Surface::Library));
    }

    #[test]
    fn rows_stand_together_by_what_they_are_about() {
        assert!(TABLE.is_sorted_by_key(|row| row.about));
    }
}
