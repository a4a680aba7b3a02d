//! What the log holds: appends, transactions, reads and the import.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Load, Order, Visibility},
    Guarantee,
    Proof::Conformance,
    Surface::{Cli, Http, Library},
    on_both, row, test,
};

const APPENDING: &str = "crates/node/tests/http/append.rs";
const IDEMPOTENCY: &str = "crates/node/tests/http/keys.rs";
const BIT_ROT: &str = "crates/data/tests/sqlite/bit_rot.rs";
const PAGES: &str = "crates/data/tests/sqlite/pages.rs";
const LOG_ROT: &str = "crates/data/tests/sqlite/log_rot.rs";
const BACKLOG: &str = "crates/data/tests/sqlite/backlog.rs";
const PARTLY: &str = "crates/data/tests/sqlite/partly.rs";
const FAULTS: &str = "crates/data/tests/sqlite/faults.rs";
const POWER: &str = "crates/scenarios/tests/store/main.rs";
const FULL_DISK: &str = "crates/data/tests/sqlite/full_disk.rs";
const SIMULATED: &str = "crates/scenarios/tests/store/main.rs";
const PROCESS: &str = "crates/data/tests/sqlite/process.rs";
const BACKUP: &str = "crates/data/tests/sqlite/backup.rs";
const OPENING: &str = "crates/data/tests/sqlite/opening.rs";
const REMOTE: &str = "crates/data/tests/sqlite/remote.rs";
const CONDITIONS: &str = "crates/data/tests/sqlite/conditions.rs";
const HTTP2: &str = "crates/node/tests/http/http2.rs";
const MEMORY: &str = "crates/node/tests/memory/main.rs";
const EMBEDDED: &str = "crates/node/tests/http/embedded.rs";
const PEERS: &str = "crates/node/tests/http/peers.rs";
const REPLY_MEMORY: &str = "crates/node/tests/http/reply_memory.rs";
const INSPECTING: &str = "crates/cli/tests/cli/inspecting.rs";
const STORE: &str = "crates/node/tests/http/store.rs";

pub(super) const ROWS: &[Guarantee] = &[
    on_both(
        Durability,
        "append",
        Library,
        "an acknowledged append survives a kill of the process",
        &[Conformance("an_acknowledged_append_survives_a_crash")],
    ),
    on_both(
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
    on_both(
        Atomicity,
        "append to several streams",
        Library,
        "all of it is written, or nothing",
        &[
            Conformance("several_streams_are_appended_together_or_not_at_all"),
            Conformance("a_malformed_batch_changes_nothing"),
        ],
    ),
    on_both(
        Atomicity,
        "transact",
        Library,
        "events and the application's tables commit together, or nothing does",
        &[
            Conformance("a_transaction_commits_events_and_tables_together"),
            Conformance("a_transaction_that_says_no_leaves_nothing"),
        ],
    ),
    on_both(
        Atomicity,
        "transact",
        Library,
        "a transaction that fails leaves those committed with it alone",
        &[
            Conformance("a_failing_transaction_leaves_its_neighbours_alone"),
            Conformance("a_deferred_constraint_fails_only_its_own_transaction"),
        ],
    ),
    on_both(
        Atomicity,
        "POST /v1/events",
        Http,
        "several streams are written together, or none is",
        &[test("crates/node/tests/http/several.rs", "several_streams_are_written_together_or_not_at_all")],
    ),
    on_both(
        Order,
        "append",
        Library,
        "positions are dense and in commit order, whatever was refused or rolled back",
        &[
            Conformance("positions_stay_dense_through_refusals_and_rollbacks"),
            Conformance("concurrent_writers_lose_nothing_and_keep_their_order"),
        ],
    ),
    on_both(
        Order,
        "append with an expected version",
        Library,
        "of writers that expect the same version one wins",
        &[
            Conformance("of_two_writers_at_the_same_version_one_wins"),
            Conformance("each_expectation_accepts_exactly_its_states"),
        ],
    ),
    on_both(
        Order,
        "append on a condition",
        Library,
        "of concurrent decisions that overlap exactly one wins",
        &[
            Conformance("of_concurrent_overlapping_decisions_exactly_one_wins"),
            Conformance("disjoint_decisions_do_not_disturb_each_other"),
        ],
    ),
    on_both(
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
    on_both(
        Visibility,
        "transact",
        Library,
        "nobody sees a transaction before it commits; it sees its own appends",
        &[Conformance("others_see_nothing_before_the_commit"), Conformance("a_transaction_reads_its_own_appends")],
    ),
    on_both(
        Visibility,
        "read",
        Library,
        "reads agree with a naive log, whatever was written before",
        &[Conformance("random_histories_read_like_a_naive_log")],
    ),
    on_both(
        Visibility,
        "read with a token",
        Http,
        "a read includes the write its token names, or says why not",
        &[test("crates/node/tests/http/read.rs", "a_token_makes_a_read_include_its_write_or_say_why_not")],
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
        "DynTx::once",
        Library,
        "a message takes effect once, in the transaction that takes it, for as long as its id is kept",
        &[
            Conformance("a_message_takes_effect_once_with_all_its_transaction_does"),
            Conformance("of_concurrent_deliveries_one_takes_effect"),
            Conformance("what_was_taken_is_known_after_reopening_and_after_a_crash"),
            Conformance("an_inbox_forgets_what_is_old_enough_and_only_its_own"),
            test("crates/data/tests/sqlite/clock.rs", "a_clock_that_jumps_ahead_and_is_set_right_has_no_inbox_forget"),
        ],
    ),
    on_both(
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
        Integrity,
        "verify",
        Library,
        "one changed byte in any column of any table is named",
        &[test(BIT_ROT, "one_changed_byte_in_any_column_of_any_table_is_named")],
    ),
    row(
        Integrity,
        "verify a file",
        Cli,
        "a backup, and the store of a node that was stopped or killed, are checked and not changed; damage is told",
        &[
            test(INSPECTING, "a_backup_and_the_store_of_a_node_that_is_not_running_are_checked_and_not_changed"),
            test(INSPECTING, "a_file_that_is_damaged_or_no_store_is_told_from_one_that_is_sound"),
        ],
    ),
    row(
        Load,
        "verify",
        Library,
        "however many streams there are, so many are remembered at a time, and the same is found",
        &[
            test(
                "crates/data/src/store/sqlite/verify/tests.rs",
                "a_store_of_more_streams_than_a_pass_remembers_is_checked_like_any_other",
            ),
            test(
                "crates/data/src/store/chains.rs",
                "however_many_streams_there_are_a_pass_remembers_no_more_than_it_may_and_all_are_looked_at_whole",
            ),
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
            test(LOG_ROT, "a_flipped_byte_in_the_log_of_a_live_store_is_noticed_and_never_reaches_the_file"),
        ],
    ),
    row(
        Integrity,
        "open",
        Library,
        "a store whose log lost to rot what was acknowledged is refused, as often as it is opened, and left as it is",
        &[
            test(LOG_ROT, "a_log_that_rotted_in_its_middle_is_refused_and_not_cut_off_there"),
            test(LOG_ROT, "a_log_whose_header_rotted_is_refused_and_not_taken_for_an_empty_one"),
            test(LOG_ROT, "a_log_whose_newest_transaction_rotted_after_it_was_written_back_is_refused"),
        ],
    ),
    row(
        Load,
        "append, transact",
        Library,
        "while damage keeps the index or the log from being written, writes are refused with the reason and memory stays bounded",
        &[
            test(BACKLOG, "appends_are_refused_before_memory_runs_out_while_damage_keeps_the_index_from_being_written"),
            test(LOG_ROT, "nothing_more_is_put_behind_a_log_that_rotted"),
        ],
    ),
    row(
        Atomicity,
        "scavenge",
        Library,
        "a scavenge that meets a full disk says how many events of how many streams it has forgotten",
        &[test(PARTLY, "a_scavenge_that_meets_a_full_disk_says_what_it_has_forgotten")],
    ),
    on_both(
        Integrity,
        "append",
        Library,
        "an event comes back byte for byte; its id is refused for other content",
        &[Conformance("an_event_comes_back_as_it_went_in"), Conformance("an_id_used_for_other_content_is_refused")],
    ),
    row(
        Durability,
        "append, transact",
        Library,
        "a full disk is an error, loses nothing acknowledged, and while the store stays open it is read and goes on when there is space again",
        &[
            test(FULL_DISK, "a_full_disk_refuses_writes_and_loses_nothing"),
            test(FULL_DISK, "a_full_disk_while_indexing_loses_nothing"),
            test(FULL_DISK, "a_file_that_may_not_grow_refuses_writes_and_loses_nothing"),
        ],
    ),
    row(
        Durability,
        "open a store",
        Library,
        "a store that was closed opens where 32 KiB are free; with less, that is said, and nothing is lost",
        &[test(SIMULATED, "a_store_that_was_closed_opens_with_room_for_the_index_of_its_log_or_says_what_it_needs")],
    ),
    row(
        Durability,
        "append, transact",
        Library,
        "what was acknowledged before kill -9 is there once and in order, and a repeat is answered as the first time",
        &[test(PROCESS, "what_was_acknowledged_survives_kill_9_once_and_in_order")],
    ),
    row(
        Durability,
        "backup, restore",
        Library,
        "a copy taken under load restores, readers go on from it without a gap, and nothing is overwritten; what is no whole backup is refused",
        &[
            test(BACKUP, "a_backup_under_load_restores_and_readers_go_on_without_a_gap"),
            test(BACKUP, "a_backup_and_a_restore_overwrite_nothing"),
            test(BACKUP, "a_backup_whose_caller_went_away_is_not_torn_by_another_of_its_name"),
            test(OPENING, "what_a_failed_restore_left_does_not_spoil_the_next"),
            test(OPENING, "restoring_something_else_is_refused_and_leaves_nothing"),
            test(OPENING, "a_store_in_use_or_one_that_did_not_end_well_is_no_backup"),
            test(BACKUP, "a_backup_of_which_a_bit_changed_is_refused_with_its_page"),
        ],
    ),
    row(
        Durability,
        "POST /v1/store/backup",
        Http,
        "a copy taken while writing can be served by another node",
        &[test(STORE, "a_backup_taken_while_writing_can_be_served")],
    ),
    row(
        Integrity,
        "open",
        Library,
        "a store has one writer; what is damaged, foreign, of another version, or on a disk of another machine is refused and left alone",
        &[
            test(PROCESS, "a_second_process_is_refused_until_the_first_has_ended"),
            test(OPENING, "a_store_has_one_writer_whatever_name_it_is_opened_by"),
            test(REMOTE, "a_store_on_a_network_file_system_is_refused_and_nothing_is_made_there"),
            test(OPENING, "a_database_that_is_not_ours_is_refused_and_left_alone"),
            test(OPENING, "a_newer_schema_is_refused_by_its_number"),
            test(OPENING, "a_schema_from_before_the_first_release_is_refused_with_what_to_do"),
            test(OPENING, "a_file_that_lost_its_end_is_refused"),
            test(OPENING, "a_store_whose_file_is_gone_or_empty_is_not_begun_anew_over_what_is_left_of_it"),
        ],
    ),
    row(
        Load,
        "append on a condition",
        Library,
        "all conditions of an append share what they may look at; most of it before the writer's turn, and nothing is missed between",
        &[
            test(CONDITIONS, "all_conditions_of_an_append_share_what_they_may_look_at"),
            test(CONDITIONS, "the_writer_looks_only_at_what_came_since_a_batch_was_checked"),
            test(CONDITIONS, "an_event_that_comes_after_a_batch_was_checked_is_found"),
        ],
    ),
    row(
        Load,
        "any reply",
        Http,
        "a client that takes too little of it loses it, and its place and memory are given back; probes are answered meanwhile",
        &[
            test(HTTP2, "connections_that_open_no_window_take_no_place_for_long_and_probes_are_answered_meanwhile"),
            test(HTTP2, "a_window_that_opens_by_a_byte_now_and_then_does_not_keep_a_reply_alive"),
            test(MEMORY, "three_hundred_readers_of_the_largest_events_that_never_read_cost_little"),
        ],
    ),
    row(
        Load,
        "any request",
        Http,
        "no peer takes all places, connections or probes alone; whoever stands for many is named and has no share",
        &[
            test(PEERS, "a_peer_that_fills_its_share_leaves_the_rest_to_others"),
            test(PEERS, "a_peer_that_fills_its_share_of_the_probes_keeps_none_from_others"),
            test(PEERS, "a_peer_has_a_share_of_the_connections"),
            test(PEERS, "who_stands_for_many_has_no_share"),
        ],
    ),
    row(
        Atomicity,
        "any unsafe request",
        Http,
        "one whose reply finds no memory was not done, or says that it was: its outcome is never unknown for that",
        &[
            test(REPLY_MEMORY, "an_append_whose_reply_finds_no_memory_was_not_done"),
            test(REPLY_MEMORY, "a_pull_that_finds_no_memory_for_its_reply_has_pulled_nothing"),
            test(REPLY_MEMORY, "what_was_done_and_finds_no_memory_for_its_reply_says_that_it_was_done"),
        ],
    ),
    row(
        Load,
        "any reply",
        Http,
        "small replies get past large ones that wait for memory, and take nothing of what those wait for",
        &[
            test(REPLY_MEMORY, "small_replies_get_past_large_ones_that_wait"),
            test(
                "crates/node/src/http/memory.rs",
                "small_replies_get_past_a_large_one_that_waits_and_do_not_starve_it",
            ),
        ],
    ),
    row(
        Visibility,
        "follow by server-sent events",
        Http,
        "a reader that comes back after a restore is told that positions may hold other events now",
        &[test(EMBEDDED, "a_reader_that_comes_back_after_a_restore_is_told_so_for_the_log_and_for_a_stream")],
    ),
    row(
        Visibility,
        "token of a restored store",
        Library,
        "each restore begins a timeline of its own, and a token of before is refused, not misread",
        &[
            test(BACKUP, "a_restored_backup_of_a_backup_is_a_later_timeline_still"),
            test(BACKUP, "the_same_backup_restored_twice_gives_two_timelines"),
        ],
    ),
];
