//! What holds of schemas.

use super::{
    About::{Durability, Integrity, Order},
    Guarantee,
    Proof::Conformance,
    Surface::{Http, Library},
    row, test,
};

const SCHEMAS: &str = "crates/node/tests/http/schemas.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "register a schema",
        Library,
        "a registered schema, and the mode of its type, survive a kill of the process",
        &[Conformance("schemas_and_modes_outlive_reopening_and_a_crash")],
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
        "POST /v1/schemas/{type}/versions",
        Http,
        "a schema that breaks an earlier one is refused with the path; a hostile one costs next to nothing",
        &[
            test(SCHEMAS, "an_incompatible_schema_is_refused_with_its_path_and_a_check_says_so_beforehand"),
            test(SCHEMAS, "hostile_schemas_are_refused_and_the_node_goes_on"),
        ],
    ),
];
