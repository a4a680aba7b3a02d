//! What holds of hybrid clocks whose mark lies in a store.

use super::{
    About::{Durability, Order},
    Guarantee,
    Proof::Conformance,
    Surface::Library,
    on_both, row, test,
};

pub(super) const ROWS: &[Guarantee] = &[
    on_both(
        Durability,
        "stamp with a hybrid clock",
        Library,
        "no stamp comes again: after a crash, after a restart, or for one of several openers at once",
        &[
            Conformance("stamps_grow_through_reopening_and_crashes"),
            Conformance("openers_that_race_share_no_stamp"),
            Conformance("a_tick_that_is_dropped_repeats_no_stamp"),
        ],
    ),
    row(
        Durability,
        "stamp with a hybrid clock",
        Library,
        "no stamp comes again after kill -9, and none is given that a full disk could not keep",
        &[
            test("crates/data/tests/sqlite/process.rs", "no_stamp_of_a_hybrid_clock_comes_again_after_kill_9"),
            test(
                "crates/data/tests/sqlite/full_disk.rs",
                "a_hybrid_clock_gives_no_stamp_that_a_full_disk_could_not_keep",
            ),
        ],
    ),
    on_both(
        Order,
        "stamp with a hybrid clock",
        Library,
        "stamps grow, a receipt is later than the sending, and a stamp from beyond the bound leaves no trace",
        &[
            Conformance("stamps_asked_for_at_once_are_all_different"),
            Conformance("a_stamp_from_too_far_ahead_is_refused"),
        ],
    ),
    on_both(
        Order,
        "open a hybrid clock",
        Library,
        "of several openers of a name the last goes on, above all that the others were and still are given",
        &[Conformance("of_two_openers_of_a_clock_the_later_one_goes_on")],
    ),
    row(
        Order,
        "open a hybrid clock",
        Library,
        "stamps grow over restarts, however far the wall clock was set back",
        &[test(
            "crates/data/tests/sqlite/clock.rs",
            "a_hybrid_clock_hands_out_larger_stamps_after_restarts_however_far_the_wall_clock_is_set_back",
        )],
    ),
];
