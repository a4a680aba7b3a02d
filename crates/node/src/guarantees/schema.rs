//! What holds of schemas.

use super::{
    About::{Delivery, Durability, Integrity, Order},
    Guarantee,
    Proof::Conformance,
    Surface::{Http, Library},
    on_both, row, test,
};

const SCHEMAS: &str = "crates/node/tests/http/schemas.rs";
const STORED: &str = "crates/data/tests/sqlite/schemas.rs";
const UPCASTING: &str = "crates/consistency/src/event_sourcing/tests/upcasting.rs";
const REGISTRY: &str = "crates/data/src/schema/registry/tests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    on_both(
        Durability,
        "register a schema",
        Library,
        "a registered schema, and the mode of its type, survive a kill of the process",
        &[Conformance("schemas_and_modes_outlive_reopening_and_a_crash")],
    ),
    on_both(
        Order,
        "register a schema",
        Library,
        "whatever is appended behind a registration was held against it; of racing ones each version is given once",
        &[
            Conformance("nothing_is_appended_behind_a_registration_that_does_not_fit_it"),
            Conformance("of_racing_registrations_each_gets_its_due"),
        ],
    ),
    on_both(
        Integrity,
        "append",
        Library,
        "an event that does not fit the schema of its type is refused, also in a transaction",
        &[Conformance("what_does_not_fit_its_schema_is_refused_on_every_road")],
    ),
    on_both(
        Integrity,
        "append",
        Library,
        "an event is held against the version that it names, the first if it names none, and is read as that version",
        &[test(UPCASTING, "whatever_the_schemas_let_in_is_read_as_the_version_that_it_was_held_against")],
    ),
    row(
        Integrity,
        "append",
        Http,
        "an event that does not fit the schema of its type is refused with the path, on every road",
        &[test(SCHEMAS, "what_does_not_fit_is_refused_with_its_path_on_every_road")],
    ),
    on_both(
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
        "open",
        Library,
        "schemas that were lost or changed are missed at the door, and rows written behind our back are followed",
        &[
            test(STORED, "schemas_that_were_lost_or_changed_are_missed_at_the_door"),
            test(STORED, "a_row_written_behind_our_back_is_followed_not_overwritten"),
        ],
    ),
    on_both(
        Integrity,
        "POST /v1/schemas/{type}/versions",
        Http,
        "a schema in which a member stands twice is refused with its path",
        &[test(SCHEMAS, "a_schema_in_which_a_member_stands_twice_is_refused_with_its_path")],
    ),
    row(
        Integrity,
        "append",
        Library,
        "however many schemas there are, each is held against its events, and no more than the limit are kept compiled",
        &[test(REGISTRY, "no_more_schemas_are_kept_compiled_than_the_limit_allows_and_all_are_checked")],
    ),
    row(
        Integrity,
        "POST /v1/schemas/{type}/check",
        Http,
        "comparing with every version has one effort for all, and a place among few that is kept to its end",
        &[
            test(REGISTRY, "all_versions_together_have_one_effort_and_a_schema_that_outlasts_it_is_refused"),
            test(REGISTRY, "a_comparison_that_nobody_waits_for_any_more_keeps_its_place_to_its_end"),
        ],
    ),
    row(
        Delivery,
        "register a schema",
        Library,
        "a registration that nobody waits for any more is carried out, and answered alike when it is repeated",
        &[
            test(STORED, "a_registration_that_nobody_waits_for_is_carried_out"),
            test(REGISTRY, "versions_count_from_one_and_the_same_schema_is_not_registered_twice"),
        ],
    ),
];
