//! What holds of message queues.

use super::{
    About::{Atomicity, Delivery, Durability, Load, Order, Visibility},
    Guarantee,
    Surface::{Http, Library},
    row, test,
};

const SENDING: &str = "crates/communication/src/message_queue/tests/sending.rs";
const CONSUMING: &str = "crates/communication/src/message_queue/tests/consuming.rs";
const CRASHES: &str = "crates/communication/src/message_queue/tests/crashes.rs";
const DEAD: &str = "crates/communication/src/message_queue/tests/dead_letters.rs";
const AMOUNTS: &str = "crates/communication/src/message_queue/tests/amounts.rs";
const DAMAGE: &str = "crates/communication/src/message_queue/tests/damage.rs";
const REPLIES: &str = "crates/node/tests/http/reply_memory.rs";
const RULES: &str = "crates/communication/src/message_queue/machine/tests.rs";
const WORKERS: &str = "crates/communication/src/message_queue/tests/workers.rs";
const KILLED: &str = "crates/communication/tests/killed.rs";
const FULL_DISK: &str = "crates/communication/tests/full_disk.rs";
const SUBSCRIBE: &str = "crates/node/src/http/queues/subscribe.rs";
const SCHEDULES: &str = "crates/communication/src/message_queue/tests/schedules.rs";
const CALENDAR: &str = "crates/communication/src/message_queue/schedule/calendar.rs";
const UNIQUE: &str = "crates/communication/src/message_queue/tests/unique.rs";
const WINDOWS: &str = "crates/communication/src/message_queue/tests/windows.rs";
const CONSUMERS: &str = "crates/node/tests/http/queue_consumers.rs";
const SCHEDULES_HTTP: &str = "crates/node/tests/http/queue_schedules.rs";
const HTTP: &str = "crates/node/tests/http/queues.rs";
const EMBEDDED: &str = "crates/node/tests/http/queues_embedded.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "send a message, receive it, settle it",
        Library,
        "a message, an attempt and an acknowledgement are durable before they are answered, over a restart as well",
        &[
            test(CONSUMING, "what_is_acknowledged_does_not_come_again_and_what_is_not_does"),
            test(CRASHES, "whichever_boundary_a_process_dies_at_the_work_is_done_once"),
            test(KILLED, "a_process_that_is_killed_loses_no_message_and_does_none_twice"),
            test(CONSUMING, "an_extended_lease_outlasts_a_restart_and_its_first_time"),
        ],
    ),
    row(
        Durability,
        "send a message, settle it",
        Http,
        "what was answered is so after a restart of the node",
        &[test(HTTP, "messages_are_sent_received_and_settled_for_good_also_over_a_restart")],
    ),
    row(
        Durability,
        "queues on a full disk",
        Library,
        "they are opened and tell what they hold; what cannot be written is refused, has not happened, and can be repeated",
        &[
            test(FULL_DISK, "queues_that_are_there_are_opened_on_a_full_disk_and_go_on_when_there_is_space"),
            test(FULL_DISK, "queues_that_find_no_space_for_their_tables_are_opened_when_there_is_some"),
        ],
    ),
    row(
        Durability,
        "queues on a full disk",
        Http,
        "the node comes up, everything else goes on, and queues answer `disk-full` until there is space",
        &[test(EMBEDDED, "a_node_comes_up_on_a_full_disk_and_has_queues_once_there_is_space")],
    ),
    row(
        Atomicity,
        "delete a queue",
        Library,
        "it is gone for everybody at once, whatever a crash leaves of its rows; nothing sent meanwhile stays behind or comes back",
        &[
            test(SENDING, "a_transaction_that_sends_while_a_queue_is_deleted_leaves_nothing_behind"),
            test(SENDING, "a_queue_whose_deletion_a_crash_cut_short_is_gone_and_makes_room_for_another"),
        ],
    ),
    row(
        Load,
        "open queues",
        Library,
        "a row per queue is read, and no message; one whose row is damaged is refused by name until it is declared again or deleted, and harms no other",
        &[
            test(SENDING, "a_queue_is_read_when_it_is_asked_for_and_a_damaged_one_harms_no_other"),
            test(AMOUNTS, "many_queues_are_opened_again_whatever_the_page"),
            test(DAMAGE, "a_queue_whose_row_is_damaged_is_named_and_the_others_go_on"),
            test(DAMAGE, "a_queue_whose_row_is_damaged_can_be_deleted"),
            test(DAMAGE, "a_queue_whose_name_cannot_be_read_keeps_its_number_and_its_messages"),
        ],
    ),
    row(
        Delivery,
        "receive messages some of which are damaged",
        Library,
        "one that cannot be read becomes a dead letter that says why, and everything else goes on",
        &[
            test(DAMAGE, "a_message_that_cannot_be_read_becomes_a_dead_letter_and_the_others_come"),
            test(DAMAGE, "who_waits_for_a_message_gets_the_one_behind_one_that_cannot_be_read"),
            test(DAMAGE, "a_message_of_which_nothing_says_whose_it_is_becomes_a_dead_letter_that_can_be_replayed"),
            test(DAMAGE, "what_happened_to_a_message_may_be_unreadable_and_it_is_handed_out_all_the_same"),
        ],
    ),
    row(
        Load,
        "hand out much",
        Library,
        "what is handed out at once to all consumers of a queue, and a page of dead letters, takes four mebibytes and at most one message more",
        &[
            test(AMOUNTS, "one_round_hands_out_so_much_and_no_more_to_all_its_consumers"),
            test(AMOUNTS, "a_page_of_dead_letters_ends_where_it_is_large_enough"),
            test(AMOUNTS, "a_queue_of_many_messages_is_read_again_whatever_the_page"),
            test(AMOUNTS, "a_large_message_is_handed_out_again_and_set_aside_whatever_the_page"),
        ],
    ),
    row(
        Load,
        "receive messages while others hold the memory for replies",
        Http,
        "it is refused with `overloaded`, and the messages are given back as if they had not been handed out",
        &[test(REPLIES, "a_receive_that_finds_no_memory_for_its_reply_has_received_nothing")],
    ),
    row(
        Atomicity,
        "send or settle a message in a transaction",
        Library,
        "work, the messages it sends, and the acknowledgement of the one it is done for commit together, or none does",
        &[
            test(SENDING, "messages_of_a_transaction_are_there_if_it_commits_and_not_otherwise"),
            test(CONSUMING, "work_and_its_acknowledgement_commit_together_or_not_at_all"),
        ],
    ),
    row(
        Atomicity,
        "send several messages",
        Library,
        "all of a call's messages are sent, or none is",
        &[test(SENDING, "the_same_id_with_other_content_is_refused_and_nothing_of_its_call_is_sent")],
    ),
    row(
        Order,
        "receive messages of a group",
        Library,
        "messages of a group come one at a time and in the order of sending, whatever fails; other groups go on",
        &[
            test(RULES, "whatever_happens_groups_stay_in_order_and_each_message_has_one_holder"),
            test(RULES, "a_failed_head_blocks_its_group_and_no_other"),
            test(CONSUMING, "of_one_group_only_one_message_is_out_and_they_come_in_order"),
            test(DEAD, "a_dead_letter_holds_back_its_group_alone_and_is_replayed_in_its_place"),
        ],
    ),
    row(
        Visibility,
        "wait for a message",
        Library,
        "who waits is woken by the message itself, also by one that a transaction sent, or by the end of a rest: nobody polls",
        &[
            test(SENDING, "a_message_of_a_transaction_wakes_who_waits_without_a_poll"),
            test(CONSUMING, "who_waits_is_woken_by_a_message_and_by_the_end_of_a_rest"),
        ],
    ),
    row(
        Visibility,
        "how queues stand",
        Http,
        "depth, age, what is in flight and parked are measured for the first thousand queues by name: for each once its messages were read after a start, which asking begins and does not wait for",
        &[
            test(HTTP, "depth_age_and_what_is_in_flight_are_measured_for_each_queue"),
            test(EMBEDDED, "the_first_thousand_queues_are_measured_as_soon_as_they_were_read"),
            test(AMOUNTS, "how_a_queue_stands_is_told_without_waiting_for_its_messages_to_be_read"),
        ],
    ),
    row(
        Delivery,
        "send a message again",
        Library,
        "a message of the same source and id is not sent again, for the horizon and as long as it is in the queue, dead letters included",
        &[
            test(SENDING, "a_message_is_sent_once_however_often_it_is_sent"),
            test(SENDING, "an_id_is_remembered_for_the_horizon_and_as_long_as_its_message_is_here"),
        ],
    ),
    row(
        Delivery,
        "do a message's work in the transaction that settles it",
        Library,
        "the work is done exactly once: a late consumer's transaction rolls back",
        &[
            test(CONSUMING, "a_late_acknowledgement_rolls_its_transaction_back"),
            test(CRASHES, "a_lease_of_an_earlier_process_is_fenced_like_any_other"),
            test(CRASHES, "a_lease_never_stands_for_a_message_of_another_life"),
            test(CONSUMING, "many_consumers_share_the_work_and_none_of_it_is_done_twice"),
        ],
    ),
    row(
        Delivery,
        "receive a message that fails",
        Library,
        "attempts are counted before a consumer sees the message; after the last one it is a dead letter with its history",
        &[
            test(DEAD, "a_message_that_fails_each_time_is_set_aside_with_its_history"),
            test(CONSUMING, "a_consumer_that_left_costs_no_attempt_and_holds_nothing"),
        ],
    ),
    row(
        Delivery,
        "workers",
        Library,
        "a message is held for as long as its handler runs, and settled by what came of it; draining redelivers nothing that is done in time",
        &[
            test(WORKERS, "handlers_do_typed_work_and_it_is_acknowledged_with_it"),
            test(WORKERS, "what_fails_comes_again_and_what_nobody_can_read_is_set_aside"),
            test(WORKERS, "a_message_is_held_for_as_long_as_its_handler_runs"),
            test(WORKERS, "a_handler_whose_message_is_lost_or_that_takes_too_long_is_stopped"),
            test(WORKERS, "draining_waits_for_handlers_takes_nothing_and_gives_back_what_is_not_done_in_time"),
        ],
    ),
    row(
        Delivery,
        "delay a message, hold it",
        Library,
        "no lease ends early and no message comes early or never because somebody sets the wall clock",
        &[test(SENDING, "a_delayed_message_comes_in_time_whatever_the_wall_clock_says")],
    ),
    row(
        Load,
        "limit a queue",
        Library,
        "no more messages are in a queue, or in consumers' hands, and none come faster than its configuration allows",
        &[
            test(SENDING, "a_full_queue_refuses_and_says_how_full_it_is"),
            test(SENDING, "a_queue_that_only_transactions_send_to_holds_its_limit_after_a_restart"),
            test(RULES, "no_more_are_out_than_the_limit_and_no_faster_than_the_rate"),
        ],
    ),
    row(
        Delivery,
        "send a message by a schedule",
        Library,
        "one message for each moment, whatever happens in between; those that could not be sent within a minute are left out, made up for once, or all, as the schedule says",
        &[
            test(KILLED, "a_process_that_is_killed_loses_no_message_and_does_none_twice"),
            test(SCHEDULES, "a_message_is_sent_at_each_moment_and_wakes_who_waits"),
            test(SCHEDULES, "missed_moments_are_made_up_for_as_the_schedule_says_also_after_a_restart"),
            test(SCHEDULES, "a_moment_that_finds_the_queue_full_is_sent_once_there_is_room"),
            test(SCHEDULES, "missed_moments_that_do_not_all_fit_in_the_queue_are_sent_as_there_is_room"),
            test(CALENDAR, "no_more_moments_are_made_up_for_than_the_limit_however_long_nobody_looked"),
        ],
    ),
    row(
        Delivery,
        "set the clock that schedules go by",
        Library,
        "a clock that is set back repeats no moment, by as much as the queue remembers ids; moments are those of the time zone, also when its clocks are changed",
        &[
            test(
                SCHEDULES,
                "a_clock_that_is_set_back_repeats_no_moment_and_one_that_is_set_forward_and_back_leaves_none_out",
            ),
            test(CALENDAR, "what_has_one_single_hour_runs_once_a_day_also_when_clocks_are_changed"),
            test(CALENDAR, "forwards_and_backwards_find_the_same_moments_all_year"),
        ],
    ),
    row(
        Durability,
        "declare a schedule",
        Http,
        "a schedule that was answered is there after a restart of the node, and goes with its queue",
        &[
            test(SCHEDULES_HTTP, "a_schedule_is_declared_listed_changed_and_deleted_also_over_a_restart"),
            test(SCHEDULES, "schedules_are_declared_changed_listed_and_deleted_with_their_queue"),
            test(SCHEDULES, "a_schedule_whose_row_is_damaged_is_listed_as_such_and_in_nobodys_way"),
        ],
    ),
    row(
        Delivery,
        "send a message with a unique key",
        Library,
        "of one key at most one message waits, rests or is worked on; the second is not sent, and its sender is told which one has the key",
        &[
            test(UNIQUE, "of_one_key_no_second_message_is_sent_while_one_waits_rests_or_is_worked_on"),
            test(UNIQUE, "transactions_that_race_for_a_key_send_one_message_and_a_rolled_back_one_holds_none"),
            test(UNIQUE, "a_dead_letter_holds_no_key_and_is_not_replayed_while_another_message_has_it"),
            test(UNIQUE, "dead_letters_of_a_key_are_in_no_senders_way_and_one_of_them_is_replayed"),
            test(SCHEDULES, "a_schedule_whose_last_message_is_not_done_passes_its_moment_over_if_it_has_a_unique_key"),
        ],
    ),
    row(
        Load,
        "consume with a window",
        Library,
        "a consumer holds no more messages than its window has room for, and is handed others as it settles them or their leases run out",
        &[
            test(WINDOWS, "a_consumer_is_handed_what_its_window_has_room_for_and_more_once_it_settled_some"),
            test(WINDOWS, "leases_that_run_out_make_room_and_their_messages_come_again"),
            test(WINDOWS, "one_whose_window_is_full_is_in_nobodys_way"),
        ],
    ),
    row(
        Delivery,
        "subscribe to a queue",
        Http,
        "messages come as events under leases; who leaves, or does not read, loses none: what it was not sent is given back, and what it holds is handed out again when its lease has run out",
        &[
            test(CONSUMERS, "messages_come_as_events_under_leases_and_no_more_than_the_window_has_room_for"),
            test(CONSUMERS, "leases_run_out_and_their_messages_come_again_on_this_connection_or_the_next"),
            test(CONSUMERS, "a_consumer_that_never_reads_is_let_go_and_what_it_was_not_sent_is_others"),
            test(SUBSCRIBE, "what_a_connection_that_went_away_never_asked_for_is_others_at_once"),
            test(WINDOWS, "what_was_handed_to_one_who_left_before_looking_is_others_at_once"),
            test(CONSUMERS, "a_consumer_is_told_why_it_ends"),
        ],
    ),
];
