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
const POWER: &str = "crates/scenarios/tests/store/main.rs";
const RETENTION: &str = "crates/data/tests/sqlite_retention.rs";

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
        "register a schema",
        Library,
        "a registered schema, and the mode of its type, survive a kill of the process",
        &[Conformance("schemas_and_modes_outlive_reopening_and_a_crash")],
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
        "POST /v1/events",
        Http,
        "several streams are written together, or none is",
        &[test("crates/node/tests/http/several.rs", "several_streams_are_written_together_or_not_at_all")],
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
        "tombstone",
        Library,
        "a tombstoned stream takes no events and shows none, for good",
        &[Conformance("a_tombstoned_stream_is_closed_for_good")],
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
