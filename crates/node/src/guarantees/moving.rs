//! What holds while a store moves, and after.

use super::{
    About::{Atomicity, Durability, Integrity, Order, Visibility},
    Guarantee,
    Surface::{Cli, Library},
    on_both, on_postgres, test,
};

const MOVING: &str = "crates/data/src/store/moving/tests.rs";
const PROCESS: &str = "crates/cli/tests/cli/moving.rs";

pub(super) const ROWS: &[Guarantee] = &[
    on_both(
        Order,
        "move",
        Cli,
        "events keep their positions, versions, ids, times and chains, also on the way back; what is appended goes on behind",
        &[
            test(MOVING, "a_store_moves_to_a_database_and_back_with_everything_at_its_place"),
            test(PROCESS, "a_store_moves_to_a_database_and_back_and_its_node_goes_on"),
        ],
    ),
    on_both(
        Durability,
        "move",
        Cli,
        "killed at any moment, the same command goes on; until it ends the destination opens for nobody",
        &[
            test(MOVING, "wherever_a_move_dies_the_same_call_goes_on"),
            test(PROCESS, "a_move_that_is_killed_again_and_again_ends_with_everything"),
        ],
    ),
    on_both(
        Atomicity,
        "move",
        Library,
        "at no moment do both stores take writes; one that was left goes where it was left for, and nowhere else",
        &[test(MOVING, "a_store_that_was_left_goes_where_it_was_left_for_and_nowhere_else")],
    ),
    on_postgres(
        Visibility,
        "move of a database's store",
        Library,
        "nodes write until it is left, whatever they were told was appended arrives, and from then on every write is refused, rows alone as well",
        &[test(MOVING, "nodes_over_a_database_write_until_it_is_left_and_are_refused_then")],
    ),
    on_both(
        Integrity,
        "move",
        Library,
        "what the other engine cannot hold is named before anything is begun; a taken place, or one that took in something else, is refused",
        &[
            test(MOVING, "what_cannot_go_is_named_before_anything_is_begun"),
            test(MOVING, "views_stay_where_they_are"),
            test(MOVING, "a_place_that_is_taken_or_empty_is_refused"),
            test(MOVING, "a_destination_that_took_in_something_else_is_refused"),
        ],
    ),
];
