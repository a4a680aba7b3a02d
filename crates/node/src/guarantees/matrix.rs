//! What each store can do, and the tests that try it: that it can, and that it refuses where it cannot.

use quorate_data::store::{Capabilities, postgres, sqlite};

use super::{Proof, Proof::Conformance, test};

/// What the stores can do, in the order of the matrix's columns.
pub const STORES: [Capabilities; 2] = [sqlite::CAPABILITIES, postgres::CAPABILITIES];

/// One row of the matrix: a capability, and which of the [`STORES`] have it.
#[derive(Clone, Copy, Debug)]
pub struct Ability {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub means: &'static str,
    /// Which of the stores have it.
    pub stores: [bool; STORES.len()],
    /// The tests that try it; at least one.
    pub proofs: &'static [Proof],
}

const UNSUPPORTED: Proof = test(
    "crates/node/tests/postgres/unsupported.rs",
    "what_the_store_cannot_do_is_refused_by_name_and_changes_nothing",
);

/// The matrix, in the order in which [`Capabilities::list`] tells them.
pub fn matrix() -> Vec<Ability> {
    let lists = STORES.map(|store| store.list());
    let row = |(n, (name, _)): (usize, (&'static str, bool))| {
        let (means, proofs) = told(name);
        Ability { name, means, stores: lists.map(|list| list[n].1), proofs }
    };
    lists[0].into_iter().enumerate().map(row).collect()
}

/// What each capability means, by its name, and the tests that try it.
const TOLD: &[(&str, &str, &[Proof])] = &[
    (
        "durable-before-reply",
        "a write is on disk before it is acknowledged",
        &[Conformance("an_acknowledged_append_survives_a_crash")],
    ),
    (
        "several-writers",
        "several processes may write at once",
        &[
            test("crates/data/tests/postgres/log.rs", "every_committed_event_is_seen_once_whatever_transactions_do"),
            test("crates/cli/tests/cli/serve.rs", "a_second_node_on_the_same_data_is_refused_with_a_clear_message"),
        ],
    ),
    (
        "application-tables",
        "the application's tables share the transaction",
        &[Conformance("a_transaction_commits_events_and_tables_together")],
    ),
    (
        "view-tables",
        "views have tables of their own",
        &[
            test("crates/node/tests/http/declared.rs", "a_view_is_declared_filled_and_goes_on_after_a_restart"),
            UNSUPPORTED,
        ],
    ),
    (
        "inline-views",
        "a view is kept in the transaction of the append",
        &[
            test("crates/node/tests/http/embedded.rs", "a_view_that_refuses_an_event_refuses_it_under_a_key_as_well"),
            UNSUPPORTED,
        ],
    ),
    (
        "metadata",
        "streams have metadata: values of their users' own",
        &[Conformance("metadata_is_set_on_the_condition_of_its_version")],
    ),
    (
        "retention",
        "streams have rules in their metadata, and are truncated, closed and archived",
        &[Conformance("a_tombstoned_stream_is_closed_for_good"), UNSUPPORTED],
    ),
    (
        "erasure",
        "a data subject can be erased, and events are sealed with its key",
        &[Conformance("an_erased_subject_leaves_events_without_data"), UNSUPPORTED],
    ),
    (
        "online-backup",
        "a consistent copy is taken while the store is in use",
        &[
            test("crates/data/tests/sqlite/backup.rs", "a_backup_under_load_restores_and_readers_go_on_without_a_gap"),
            UNSUPPORTED,
        ],
    ),
    (
        "tokens-are-positions",
        "a token carries the position of its append; elsewhere it carries the append's number",
        &[
            test("crates/node/tests/http/read.rs", "a_token_makes_a_read_include_its_write_or_say_why_not"),
            test(
                "crates/node/tests/postgres/several_nodes.rs",
                "a_token_of_one_node_makes_a_read_of_another_include_its_write",
            ),
        ],
    ),
    (
        "own-log-in-transaction",
        "inside a transaction the log ends with the transaction's own appends",
        &[Conformance("a_transaction_reads_its_own_appends")],
    ),
];

fn told(name: &str) -> (&'static str, &'static [Proof]) {
    let found = TOLD.iter().find(|(of, ..)| *of == name);
    found.map_or_else(|| unreachable!("`{name}` is a capability without a row"), |(_, means, proofs)| (*means, *proofs))
}

#[cfg(test)]
mod tests {
    use super::matrix;

    #[test]
    fn every_capability_has_a_row_whose_tests_exist() {
        for row in matrix() {
            assert!(!row.proofs.is_empty() && !row.means.is_empty(), "`{}`", row.name);
            for proof in row.proofs {
                assert!(super::super::tests::exists(*proof), "`{}` names {proof:?}, which is not there", row.name);
            }
        }
    }
}
