//! What any store must do, as claims that can be run.
//!
//! A store that passes this suite can stand under everything else in quorate. The suite knows nothing of any engine: it
//! is told how to open a store at a [`Place`], how to close it and how to crash it, and asks only through [`Store`].
//! Whoever writes a backend runs it with one line, which becomes one test per claim:
//!
//! ```text
//! quorate_data::store_conformance!(MyPlace::new().await);
//! ```
//!
//! The expression is evaluated once per claim and must give a new, empty [`Place`]. The caller's crate needs `tokio` with
//! `macros` and `rt-multi-thread`. To run the claims otherwise (in a simulation, say), walk through [`CASES`].

mod appending;
mod application_sql;
mod archives;
mod conditions;
mod endings;
mod erasure;
mod histories;
mod hybrid_clock;
mod idempotence;
mod inbox;
mod lifecycle;
mod limits;
mod metadata;
mod needs;
mod queries;
mod reading;
mod retention;
mod schemas;
mod transactions;
mod vocabulary;

use quorate_runtime::BoxFuture;

use std::path::PathBuf;

pub use self::needs::Need;

use super::{Limits, Store};

/// Where one store lives. It is empty at first; what was written outlives closing and crashing.
pub trait Place: Send + Sync {
    /// Opens the store that lives here, making it the first time. The store before was closed or crashed.
    fn open(&self, limits: Limits) -> BoxFuture<'_, Store>;

    /// Ends `store` as a kill of its process would: nothing is finished, flushed or said goodbye to.
    fn crash(&self, store: Store) -> BoxFuture<'_, ()>;

    /// Where a file called `name` can be made, in a folder that is there and goes away with the place.
    fn file(&self, name: &str) -> PathBuf;
}

/// How a claim was met, or why it was not. A claim that does not hold may also panic.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// One claim about stores.
#[derive(Clone, Copy)]
pub struct Case {
    /// The claim.
    pub name: &'static str,
    /// What the store must be able to do for it. One that cannot has to refuse it instead.
    pub needs: Option<Need>,
    /// Tries it at an empty place.
    pub run: for<'p> fn(&'p dyn Place) -> BoxFuture<'p, Outcome>,
}

/// Tries the claim `name` at an empty place; where the store says that it cannot do what the claim is about, that it
/// refuses to.
///
/// # Panics
/// When the claim does not hold, saying why, or when there is no such claim.
pub async fn check(name: &str, place: &dyn Place) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("there is no claim `{name}`"));
    let tried = match needs::missing(case.needs, place).await {
        Ok(None) => (case.run)(place).await,
        Ok(Some(missing)) => missing.is_refused(place).await,
        Err(why) => Err(why),
    };
    if let Err(why) = tried {
        panic!("{name}: {why} ({why:?})");
    }
}

/// Lists the claims once, as data and as the macro that makes tests of them.
macro_rules! suite {
    (@need []) => { None };
    (@need [$need:ident]) => { Some(Need::$need) };
    ($dollar:tt $($room:ident $need:tt: $($case:ident),+;)+) => {
        /// Every claim.
        pub const CASES: &[Case] = &[
            $($(Case {
                name: stringify!($case),
                needs: suite!(@need $need),
                run: |place| Box::pin($room::$case(place)),
            },)+)+
        ];

        suite!(@tests $dollar $($($case),+),+);
    };
    (@tests $dollar:tt $($case:ident),+) => {
        /// Makes a test of every claim that [`conformance`](crate::store::conformance) has about a store. The argument
        /// is an expression that gives a new, empty [`Place`](crate::store::conformance::Place).
        #[macro_export]
        macro_rules! store_conformance {
            ($dollar place:expr) => {
                $(
                    #[tokio::test(flavor = "multi_thread")]
                    async fn $case() {
                        let place = $dollar place;
                        $dollar crate::store::conformance::check(stringify!($case), &place).await;
                    }
                )+
            };
        }
    };
}

suite! {
    $
    appending []:
        each_expectation_accepts_exactly_its_states,
        of_two_writers_at_the_same_version_one_wins,
        several_streams_are_appended_together_or_not_at_all,
        a_malformed_batch_changes_nothing,
        positions_stay_dense_through_refusals_and_rollbacks,
        concurrent_writers_lose_nothing_and_keep_their_order,
        an_event_comes_back_as_it_went_in,
        a_huge_batch_is_one_append,
        any_utf_8_can_name_a_stream,
        a_rooms_own_stream_is_appended_to_by_the_room_alone;
    idempotence []:
        a_repeated_append_answers_as_the_first_time,
        a_repeat_is_known_after_reopening_and_after_a_crash,
        an_id_used_for_other_content_is_refused,
        a_partly_known_batch_is_refused,
        the_same_id_in_another_stream_is_another_event,
        concurrent_repeats_write_once;
    idempotence [Retention]:
        a_repeat_is_known_after_truncate_and_tombstone;
    conditions []:
        a_condition_sees_types_tags_and_categories,
        a_condition_looks_only_behind_its_position, a_condition_behind_the_end_of_the_log_is_refused,
        a_condition_sees_old_events_as_well_as_new_ones,
        of_concurrent_overlapping_decisions_exactly_one_wins,
        disjoint_decisions_do_not_disturb_each_other,
        any_of_several_conditions_can_refuse;
    reading []:
        a_small_stream_reads_from_anywhere_in_both_directions,
        a_large_stream_reads_from_anywhere_in_both_directions,
        an_unknown_stream_is_empty,
        streams_are_listed_in_order_of_their_names,
        following_next_reads_a_stream_once_from_end_to_end;
    queries []:
        a_sparse_query_advances_beyond_what_it_skips,
        a_query_of_many_words_finds_each_event_once,
        a_query_that_breaks_a_rule_is_refused,
        reading_behind_the_end_waits_there;
    histories []:
        random_histories_read_like_a_naive_log;
    transactions [Tables]:
        a_transaction_commits_events_and_tables_together,
        a_transaction_that_says_no_leaves_nothing,
        others_see_nothing_before_the_commit,
        a_failing_transaction_leaves_its_neighbours_alone,
        a_refused_append_does_not_end_the_transaction,
        a_panic_rolls_back_and_the_store_goes_on,
        a_transaction_that_waits_for_something_else_is_rolled_back_or_served,
        a_transaction_that_takes_too_long_is_rolled_back,
        a_statement_that_takes_too_long_is_rolled_back,
        a_deferred_constraint_fails_only_its_own_transaction,
        committed_transactions_survive_a_crash;
    transactions []:
        a_transaction_reads_its_own_appends;
    application_sql [Tables]:
        values_of_every_type_come_back,
        a_wrong_statement_fails_and_the_transaction_goes_on,
        an_application_cannot_end_the_transaction,
        an_application_cannot_reach_reserved_tables,
        triggers_and_views_open_no_way_around,
        a_statement_that_was_allowed_is_judged_again_when_the_tables_change,
        a_rooms_rows_are_not_bound_by_the_applications_page,
        a_rooms_statement_is_not_an_applications,
        one_call_runs_one_statement,
        a_read_only_query_writes_nothing,
        rooms_upgrade_their_tables_step_by_step;
    endings [Tables]:
        a_conflict_clause_cannot_end_the_transaction_for_others,
        what_follows_a_lost_transaction_is_not_written;
    inbox [Tables]:
        a_message_takes_effect_once_with_all_its_transaction_does,
        of_concurrent_deliveries_one_takes_effect,
        what_was_taken_is_known_after_reopening_and_after_a_crash,
        each_consumer_takes_a_message_for_itself,
        an_inbox_forgets_what_is_old_enough_and_only_its_own,
        an_id_that_cannot_be_kept_is_refused;
    hybrid_clock [Tables]:
        stamps_grow_through_reopening_and_crashes,
        stamps_asked_for_at_once_are_all_different,
        a_mark_is_written_for_many_stamps,
        a_stamp_from_too_far_ahead_is_refused,
        of_two_openers_of_a_clock_the_later_one_goes_on,
        openers_that_race_share_no_stamp,
        a_tick_that_is_dropped_repeats_no_stamp,
        each_clock_has_a_mark_of_its_own;
    retention [Retention]:
        truncated_events_leave_stubs_at_their_positions,
        a_tombstoned_stream_is_closed_for_good,
        retention_survives_reopening_and_still_verifies,
        truncating_twice_and_beyond_the_end_is_harmless,
        appending_goes_on_after_a_truncate,
        a_transaction_forgets_events_with_what_else_it_does,
        events_that_are_being_forgotten_are_never_seen_whole;
    metadata [Metadata]:
        metadata_is_set_on_the_condition_of_its_version,
        values_commit_with_their_transaction,
        of_those_who_set_metadata_at_once_each_sees_the_one_before;
    metadata [Retention]:
        metadata_beyond_a_limit_or_of_a_closed_stream_is_refused,
        metadata_commits_with_its_transaction,
        only_the_newest_events_that_max_count_allows_are_read,
        events_older_than_max_age_are_not_read,
        a_scavenge_forgets_what_rules_no_longer_keep;
    archives [Retention]:
        archived_events_are_in_the_file_and_leave_stubs,
        an_archive_is_made_once_and_never_overwritten,
        a_finished_archive_order_is_known_when_the_stream_has_grown,
        archiving_and_other_retention_go_together,
        an_archive_takes_events_that_rules_hide,
        an_archive_keeps_sealed_data_sealed;
    erasure [Erasure]:
        sealed_data_reads_in_the_clear_everywhere,
        an_erased_subject_leaves_events_without_data,
        a_repeat_is_known_before_and_after_an_erasure,
        a_stub_of_sealed_data_still_knows_its_repeats,
        appending_again_begins_a_new_generation,
        erasing_twice_and_erasing_nobody_is_harmless,
        a_data_subject_says_whether_it_was_erased,
        the_ledger_is_read_page_by_page,
        what_was_forgotten_is_counted_before_it_is_answered,
        a_transaction_seals_and_reads_what_it_sealed,
        appends_beside_an_erasure_are_lost_only_if_they_came_before,
        rooms_are_asked_to_forget_until_they_did,
        many_subjects_at_once_each_have_their_own_key;
    schemas [Tables]:
        what_does_not_fit_its_schema_is_refused_on_every_road,
        schemas_and_modes_outlive_reopening_and_a_crash,
        a_repeat_is_known_whatever_was_registered_since,
        of_racing_registrations_each_gets_its_due,
        nothing_is_appended_behind_a_registration_that_does_not_fit_it;
    limits []:
        each_limit_of_an_append_is_named,
        a_page_ends_early_when_it_is_full_of_bytes,
        waiting_writes_beyond_the_limit_are_refused_and_nothing_else,
        a_busy_store_can_be_closed;
    limits [Tables]:
        a_transaction_that_writes_too_much_is_rolled_back_alone,
        pages_and_rows_beyond_the_limit_are_refused,
        a_query_that_takes_too_long_is_ended;
    lifecycle []:
        tokens_follow_appends,
        the_head_announces_every_append,
        a_closed_store_says_so,
        closing_finishes_what_was_accepted,
        an_acknowledged_append_survives_a_crash,
        the_timeline_outlives_reopening,
        a_sound_store_verifies;
    lifecycle [Retention]:
        whoever_follows_a_stream_is_woken_by_it_and_by_its_end;
}
