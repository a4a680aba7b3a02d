//! What holds of subscriptions: a live read of the log, and the durable ones that share work.

use super::{
    About::{Atomicity, Delivery, Durability, Order, Visibility},
    Guarantee,
    Surface::{Http, Library},
    on_both, row, test,
};

const SUBSCRIBING: &str = "crates/node/tests/http/subscribe.rs";
const CONSUMING: &str = "crates/data/src/subscription/tests/consuming.rs";
const SHARING: &str = "crates/data/src/subscription/tests/processes.rs";
const DISPATCHER: &str = "crates/data/src/subscription/machine/tests.rs";
const HISTORIES: &str = "crates/data/src/subscription/machine/tests/histories.rs";
const WORKERS: &str = "crates/node/tests/http/subscriptions.rs";
const CATCHING_UP: &str = "crates/data/src/subscription/tests/catching_up.rs";
const LETTING_GO: &str = "crates/data/src/subscription/tests/erasing.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Atomicity,
        "settle an event in a transaction",
        Library,
        "a consumer's work and its acknowledgement commit together, or neither does",
        &[
            test(CONSUMING, "work_and_its_acknowledgement_commit_together_or_not_at_all"),
            test(CONSUMING, "an_acknowledgement_whose_transaction_rolled_back_was_none"),
            test(CONSUMING, "an_event_settled_in_a_transaction_stays_settled_after_a_restart"),
        ],
    ),
    row(
        Order,
        "pull from a durable subscription",
        Library,
        "events of one key come one at a time and in their order, however many processes share the work",
        &[
            test(DISPATCHER, "of_one_key_only_the_first_event_is_out_and_other_keys_go_on"),
            test(HISTORIES, "keys_stay_in_order_fences_decide_and_everything_is_settled_in_the_end"),
            test(SHARING, "competing_consumers_of_three_processes_share_the_work_and_keep_the_order_of_each_key"),
            test(SHARING, "whatever_happens_to_two_processes_every_event_is_settled_in_the_order_of_its_key"),
        ],
    ),
    row(
        Delivery,
        "pull from a durable subscription",
        Library,
        "every event comes at least once: what is acknowledged stays settled over a restart, what is not comes again",
        &[
            test(CONSUMING, "what_is_acknowledged_does_not_come_again_and_what_is_not_does"),
            test(CONSUMING, "a_pull_that_is_dropped_costs_no_attempt_and_holds_nothing"),
            test(DISPATCHER, "what_was_settled_ahead_is_not_handed_out_again_after_a_restart"),
            test(LETTING_GO, "a_subscription_hands_out_what_it_can_while_others_are_forgotten_and_no_attempt_is_lost"),
            test(CONSUMING, "a_window_of_leases_that_expire_together_for_the_last_time_is_parked"),
            test(SHARING, "whatever_happens_to_two_processes_every_event_is_settled_in_the_order_of_its_key"),
        ],
    ),
    row(
        Delivery,
        "settle an event by its lease",
        Library,
        "leases are fenced: a consumer whose event somebody else has by now changes nothing and is told so",
        &[
            test(SHARING, "a_process_that_was_away_is_fenced"),
            test(DISPATCHER, "an_expired_lease_stands_until_someone_else_has_the_event"),
            test(DISPATCHER, "what_a_stranger_claims_changes_nothing"),
            test(CONSUMING, "a_lost_lease_does_not_spoil_the_others_of_its_call"),
        ],
    ),
    row(
        Delivery,
        "park, replay",
        Library,
        "an event that fails too often is parked with what stands behind it, and a replay hands both out in order",
        &[
            test(DISPATCHER, "the_last_failure_parks_the_event_and_what_stands_behind_it_and_nobody_else"),
            test(DISPATCHER, "what_arrives_for_a_parked_key_is_parked_behind_it"),
            test(CONSUMING, "a_poisonous_event_parks_its_key_and_a_replay_hands_it_out_in_order"),
            test(CONSUMING, "a_replayed_event_survives_a_restart_although_the_checkpoint_passed_it"),
        ],
    ),
    on_both(
        Delivery,
        "/v1/subscriptions",
        Http,
        "events settled over HTTP stay settled over a restart, and a lost lease is named",
        &[
            test(WORKERS, "events_are_pulled_as_the_log_serves_them_and_settled_for_good_also_over_a_restart"),
            test(WORKERS, "a_lost_lease_is_named_and_the_reply_says_whether_others_were_settled"),
            test(WORKERS, "parked_events_are_listed_page_by_page_and_replayed_or_discarded_by_key"),
        ],
    ),
    on_both(
        Delivery,
        "subscribe",
        Http,
        "what was there comes first, then what happens: no gap and no repetition",
        &[
            test(SUBSCRIBING, "what_was_there_comes_first_then_what_happens_without_a_seam"),
            test(SUBSCRIBING, "a_reader_that_comes_back_resumes_where_it_was"),
        ],
    ),
    on_both(
        Delivery,
        "subscribe",
        Http,
        "a reader that does not read is let go and can come back to where it was",
        &[test(SUBSCRIBING, "a_reader_that_never_reads_is_let_go_and_can_come_back")],
    ),
    row(
        Delivery,
        "follow the log or a stream",
        Library,
        "each matching event comes once and in order, from the past into the present without a seam",
        &[
            test(CATCHING_UP, "each_matching_event_comes_once_and_in_order_while_others_append"),
            test(CATCHING_UP, "a_stream_is_followed_without_a_seam"),
            test(CATCHING_UP, "a_reader_that_is_dropped_mid_wait_again_and_again_loses_nothing"),
        ],
    ),
    row(
        Delivery,
        "a lease that expires",
        Library,
        "an expiry is timed from when the observer first saw the lease: no clock of another process decides it",
        &[
            test(SHARING, "an_expiry_is_timed_from_when_the_observer_first_saw_the_lease"),
            test(CONSUMING, "a_lease_can_be_held_for_as_long_as_the_work_takes"),
        ],
    ),
    row(
        Visibility,
        "pull from a durable subscription",
        Library,
        "what was truncated is not handed out, although it had been read ahead",
        &[
            test(CONSUMING, "a_retired_event_is_not_handed_out"),
            test(LETTING_GO, "a_subscription_hands_out_no_data_that_was_truncated_although_it_had_read_ahead"),
            test(LETTING_GO, "a_reader_hands_out_nothing_of_a_stream_that_was_truncated_meanwhile"),
        ],
    ),
    row(
        Durability,
        "create, delete a durable subscription",
        Library,
        "creating is repeatable, deleting is for good and for every process, and a checkpoint survives a restart",
        &[
            test(CONSUMING, "creating_is_repeatable_and_deleting_is_final"),
            test(SHARING, "a_deleted_subscription_is_gone_for_everybody"),
            test(CONSUMING, "the_checkpoint_of_a_sparse_filter_is_kept_over_a_restart"),
        ],
    ),
    on_both(
        Delivery,
        "POST /v1/subscriptions/{name}/ack",
        Http,
        "a repeated request with a key settles once and is answered alike",
        &[test(WORKERS, "a_repeated_request_with_a_key_settles_once_and_is_answered_alike")],
    ),
];
