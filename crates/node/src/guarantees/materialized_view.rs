//! What holds of views.

use super::{
    About::{Atomicity, Delivery, Integrity, Order, Visibility},
    Guarantee,
    Surface::{Http, Library},
    row, test,
};

const KEEPING_UP: &str = "crates/data/src/materialized_view/tests/keeping_up.rs";
const REBUILDING: &str = "crates/data/src/materialized_view/tests/rebuilding.rs";
const POISON: &str = "crates/data/src/materialized_view/tests/poison.rs";
const QUERYING: &str = "crates/data/src/materialized_view/tests/querying.rs";
const FOLLOWING: &str = "crates/data/src/materialized_view/tests/following.rs";
const QUERIES: &str = "crates/node/tests/http/view_queries.rs";
const MANY: &str = "crates/data/src/materialized_view/tests/many.rs";
const ERASING: &str = "crates/data/src/materialized_view/tests/erasing.rs";
const INLINE: &str = "crates/data/src/materialized_view/tests/inline.rs";
const ACCOUNTS: &str = "crates/data/src/materialized_view/tests/accounts.rs";
const RULES: &str = "crates/data/src/materialized_view/machine/tests.rs";
const OVER_HTTP: &str = "crates/node/tests/http/views.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Atomicity,
        "view",
        Library,
        "rows, checkpoint, parked events and effects commit together: a view is the fold of the log",
        &[
            test(KEEPING_UP, "a_restart_goes_on_at_the_checkpoint_and_applies_nothing_twice"),
            test(KEEPING_UP, "shards_together_are_the_fold_of_the_log"),
        ],
    ),
    row(
        Integrity,
        "view",
        Library,
        "statements handed over together run in order up to the first that fails, which is named; what is worked out ahead never replaces what the transaction sees",
        &[
            test(MANY, "statements_are_run_in_order_up_to_the_first_that_fails"),
            test(MANY, "events_are_worked_out_beside_the_writer_and_ahead_of_their_transaction"),
        ],
    ),
    row(
        Atomicity,
        "inline view",
        Library,
        "events and rows commit together; what the view cannot take is refused alone",
        &[
            test(INLINE, "an_append_and_its_rows_are_there_together"),
            test(INLINE, "an_event_that_the_view_cannot_take_is_refused_and_others_are_not"),
        ],
    ),
    row(
        Visibility,
        "inline view whose code began later than appends",
        Library,
        "no event is lost, and until it has caught up it says how far it is",
        &[
            test(INLINE, "appends_before_the_first_claim_are_not_lost"),
            test(INLINE, "appends_behind_the_first_claim_are_not_lost"),
            test(INLINE, "an_inline_view_whose_code_does_not_run_says_how_far_it_is"),
            test(INLINE, "a_first_build_with_parked_events_is_read_until_appends_can_keep_it"),
        ],
    ),
    row(
        Order,
        "view",
        Library,
        "of two owners of a shard the later one alone writes",
        &[test(KEEPING_UP, "an_owner_who_comes_back_late_writes_nothing")],
    ),
    row(
        Order,
        "view, parked events",
        Library,
        "events of a key are applied in order, also through parking and replay",
        &[test(POISON, "poison_is_parked_with_what_follows_in_its_key_and_other_keys_go_on")],
    ),
    row(
        Visibility,
        "view, skipped events",
        Library,
        "each is on record with who left it out: the policy, or whoever said so, also of one that a shard had stopped before",
        &[
            test(POISON, "what_stops_a_view_can_be_left_out_by_somebody_and_is_on_record"),
            test(POISON, "a_policy_of_skipping_leaves_a_record"),
        ],
    ),
    row(
        Integrity,
        "statement of a projection",
        Library,
        "it reaches the tables of its own build, and no clock and no chance: a view that is made again comes out the same",
        &[
            test(KEEPING_UP, "statements_of_a_view_reach_its_own_tables_and_no_others"),
            test(KEEPING_UP, "statements_that_change_a_view_tell_no_time"),
        ],
    ),
    row(
        Visibility,
        "query of a view",
        Library,
        "with a token it shows that write, or says how far the view is",
        &[test(KEEPING_UP, "a_read_waits_for_its_own_write_or_is_told_how_far_the_view_is")],
    ),
    row(
        Visibility,
        "rebuild a view",
        Library,
        "readers see no half-built view, and never less than before",
        &[
            test(REBUILDING, "a_rebuild_under_writes_ends_with_the_fold_of_the_log"),
            test(REBUILDING, "a_build_that_has_not_caught_up_is_not_given_to_readers"),
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
        "effect of a view",
        Library,
        "carried out at least once, under one key; a rebuild sends nothing again and loses nothing",
        &[
            test(REBUILDING, "a_rebuild_sends_nothing_again_and_goes_on_at_the_next_position"),
            test(REBUILDING, "what_the_old_build_never_came_to_is_carried_out_by_the_new_one"),
            test(REBUILDING, "what_was_parked_on_both_sides_of_a_switch_is_carried_out_once_it_is_replayed"),
            test(REBUILDING, "what_only_the_new_build_parked_was_carried_out_by_the_old_one"),
            test(POISON, "an_effect_that_was_given_up_is_on_record_and_tried_anew_or_left_out_when_somebody_says_so"),
            test(REBUILDING, "effects_of_an_inline_view_are_carried_out_without_anything_else_to_wake_for"),
        ],
    ),
    row(
        Delivery,
        "effect of a view with several versions",
        Library,
        "one of their handlers carries it out, and none of code that was deleted",
        &[
            test(REBUILDING, "versions_side_by_side_carry_each_effect_out_once"),
            test(REBUILDING, "a_build_that_readers_have_left_repeats_no_effect"),
            test(REBUILDING, "what_a_build_beside_holds_is_let_go_of_once_the_live_one_has_come_to_it"),
            test(REBUILDING, "the_handler_of_a_deleted_view_carries_nothing_out_for_the_next_one_of_its_name"),
        ],
    ),
    row(
        Visibility,
        "reason for which a view stopped",
        Library,
        "once a data subject's erasure is answered, no reason of before is shown or written down",
        &[
            test(ERASING, "what_stopped_a_view_is_quoted_no_more_once_it_was_erased"),
            test(ERASING, "a_reason_of_before_an_erasure_is_not_written_down_behind_it"),
        ],
    ),
    row(
        Integrity,
        "view",
        Library,
        "a missed or doubled event is found by a recount; code whose fingerprint changed under one version is refused",
        &[
            test(POISON, "poison_is_parked_with_what_follows_in_its_key_and_other_keys_go_on"),
            test(REBUILDING, "changed_code_under_the_same_version_is_noticed"),
        ],
    ),
    row(
        Integrity,
        "view, `unaccounted`",
        Library,
        "what a build was handed and what was done are counted apart, each in the transaction of what it counts: what was lost on the way, or taken twice, is a number other than 0 from then on",
        &[
            test(ACCOUNTS, "what_was_lost_or_taken_twice_shows_without_a_recount_and_does_not_go_away"),
            test(ACCOUNTS, "what_was_handed_is_what_was_done_through_poison_replays_restarts_and_rebuilds"),
            test(ACCOUNTS, "counting_begins_where_a_view_of_an_older_store_is"),
            test(RULES, "positions_that_a_page_passes_over_or_gives_twice_are_not_counted_as_looked_at_once"),
        ],
    ),
    row(
        Integrity,
        "GET /v1/views/{name}, /metrics",
        Http,
        "what a view has unaccounted for is shown at any time, also of a build on its way to readers",
        &[test(OVER_HTTP, "what_a_view_lost_is_measured_and_shown_without_anybody_asking_for_a_recount")],
    ),
    row(
        Visibility,
        "answer of a view",
        Library,
        "a position that readers were told of is never taken back",
        &[test(
            "crates/data/src/materialized_view/shared.rs",
            "a_position_that_readers_were_told_of_is_not_taken_back",
        )],
    ),
    row(
        Visibility,
        "answer of a view",
        Library,
        "it is of one build and one moment, and the position it says is exact; of several shards it is the last one's",
        &[test(QUERYING, "an_answer_is_of_one_build_and_of_the_position_it_says")],
    ),
    row(
        Visibility,
        "GET /v1/views/{name}/tables/{table}/rows",
        Http,
        "pages hold every row once; a cursor is good for its query and its version of the view only",
        &[
            test(QUERYING, "pages_in_any_order_and_of_any_size_hold_every_row_once"),
            test(QUERYING, "a_cursor_outlives_a_rebuild_and_no_new_version"),
            test(QUERIES, "rows_are_filtered_ordered_and_read_page_by_page"),
        ],
    ),
    row(
        Visibility,
        "POST /v1/views/{name}/query",
        Http,
        "it reads the view's own tables and nothing else, within limits of time, rows, bytes and memory",
        &[
            test(QUERYING, "sql_names_the_tables_as_the_view_does_and_reaches_nothing_else"),
            test(QUERYING, "a_query_that_takes_too_much_is_stopped_and_says_of_what"),
            test(QUERYING, "one_step_of_a_query_takes_no_longer_than_its_values_are_long"),
            test(QUERIES, "a_query_that_takes_too_much_is_told_which_limit_and_how_to_raise_it"),
            test(QUERIES, "a_query_ends_when_its_client_goes"),
        ],
    ),
    row(
        Visibility,
        "read of a view with `maxlag`",
        Http,
        "an older answer is refused, or says that it is old where that is asked for",
        &[test(QUERIES, "a_view_that_is_behind_is_refused_or_flagged")],
    ),
    row(
        Delivery,
        "GET /v1/views/{name}/tables/{table}/follow",
        Http,
        "who comes back is told every row that changed meanwhile, deletions included, or to start over",
        &[
            test(FOLLOWING, "deletes_are_not_lost_on_who_was_away"),
            test(FOLLOWING, "who_was_away_for_too_long_starts_over"),
            test(
                "crates/node/tests/http/view_following.rs",
                "a_follower_that_comes_back_misses_nothing_and_is_told_nothing_twice",
            ),
            test("crates/node/tests/http/view_following.rs", "a_follower_that_never_reads_is_let_go_and_can_come_back"),
        ],
    ),
];
