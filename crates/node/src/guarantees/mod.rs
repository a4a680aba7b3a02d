//! What holds, operation by operation, and the tests that say so: the table behind `quorate guarantees`.
//!
//! A row promises nothing that its proofs do not try, and names the backends they try it on. A claim of the conformance
//! suite is tried on every backend there is.
//!
//! Each family keeps its rows in a file of its own, `ROWS`, and is named once in [`FAMILIES`]; [`table`] puts the rows of
//! all of them together by what they are about.

mod calls;
mod choreography;
mod cqrs;
mod declared_view;
mod erasure;
mod event_bus;
mod event_sourcing;
mod log;
mod materialized_view;
mod matrix;
mod message_queue;
mod moving;
mod postgres;
mod request;
mod resilience;
mod retention;
mod saga;
mod schema;
mod stamps;
mod subscription;
mod transports;
mod two_phase_commit;
mod vocabulary;

use self::vocabulary::{in_memory, on_both, on_postgres, row, test};
pub use self::{
    matrix::{Ability, STORES, matrix},
    vocabulary::{About, Backend, Guarantee, Proof, Surface},
};

/// The rows of each family, in the order in which they are shown.
pub const FAMILIES: &[&[Guarantee]] = &[
    log::ROWS,
    postgres::ROWS,
    moving::ROWS,
    retention::ROWS,
    erasure::ROWS,
    schema::ROWS,
    event_sourcing::ROWS,
    subscription::ROWS,
    message_queue::ROWS,
    request::ROWS,
    transports::ROWS,
    event_bus::ROWS,
    materialized_view::ROWS,
    declared_view::ROWS,
    cqrs::ROWS,
    two_phase_commit::ROWS,
    saga::ROWS,
    choreography::ROWS,
    stamps::ROWS,
    calls::ROWS,
    resilience::ROWS,
];

/// Every row, by what it is about, and within that by family.
pub fn table() -> Vec<&'static Guarantee> {
    let mut rows: Vec<&Guarantee> = FAMILIES.iter().copied().flatten().collect();
    rows.sort_by_key(|row| row.about);
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FAMILIES, Proof, Surface, table};
    use quorate_data::store::conformance::CASES;

    #[test]
    fn every_row_is_backed_by_tests_that_exist() {
        for row in table() {
            assert!(!row.proofs.is_empty(), "`{}` is backed by nothing", row.holds);
            for proof in row.proofs {
                assert!(exists(*proof), "`{}` names the test {proof:?}, which is not there", row.holds);
            }
        }
    }

    pub(super) fn exists(proof: Proof) -> bool {
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
        let mut by_suite =
            table().into_iter().filter(|row| row.proofs.iter().any(|proof| matches!(proof, Proof::Conformance(_))));
        assert!(by_suite.all(|row| row.surface == Surface::Library));
    }

    #[test]
    fn rows_stand_together_by_what_they_are_about() {
        let table = table();
        assert!(table.is_sorted_by_key(|row| row.about));
        assert_eq!(table.len(), FAMILIES.iter().map(|rows| rows.len()).sum::<usize>());
    }

    #[test]
    fn nothing_is_promised_twice() {
        let mut seen = BTreeSet::new();
        for row in table() {
            assert!(seen.insert((row.operation, row.surface.word(), row.holds)), "`{}` stands there twice", row.holds);
        }
    }
}
