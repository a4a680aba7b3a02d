//! What holds over PostgreSQL, where the database and the other nodes have a say.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Load, Order, Visibility},
    Guarantee,
    Surface::{Cli, Http, Library},
    on_postgres, test,
};

const LOG: &str = "crates/data/tests/postgres/log.rs";
const APPENDS: &str = "crates/data/tests/postgres/appends.rs";
const MOVING: &str = "crates/data/src/store/moving/tests.rs";
const NET: &str = "crates/runtime/src/net.rs";
const SQL: &str = "crates/data/tests/postgres/sql.rs";
const OUTCOMES: &str = "crates/node/tests/postgres/outcomes.rs";
const NODES: &str = "crates/node/tests/postgres/several_nodes.rs";
const IDENTICAL: &str = "crates/node/tests/postgres/identical.rs";
const UNSUPPORTED: &str = "crates/node/tests/postgres/unsupported.rs";
const DECIDERS: &str = "crates/consistency/tests/postgres/main.rs";
const PROCESS: &str = "crates/cli/tests/cli/postgres.rs";
const RING: &str = "crates/cli/tests/ring/main.rs";
const LEMMAS: &str = "crates/data/src/store/postgres/sequencer/tests.rs";
const QUEUES: &str = "crates/communication/tests/queues_postgres/several.rs";
const QUEUES_RUNS: &str = "crates/communication/tests/queues_postgres/runs.rs";
const QUEUES_KILLED: &str = "crates/communication/tests/queues_postgres/killed.rs";
const QUEUES_RULES: &str = "crates/communication/tests/queues/rules.rs";
const QUEUES_HTTP: &str = "crates/node/tests/postgres/several_nodes_queues.rs";
const QUEUES_BUS: &str = "crates/communication/tests/queues_postgres/transport.rs";
const SAGAS: &str = "crates/cli/tests/cli/postgres_sagas.rs";
const POOLED: &str = "crates/data/tests/postgres/pooled.rs";
const TLS: &str = "crates/data/tests/postgres/tls.rs";
const DOCTOR: &str = "crates/data/tests/postgres/doctor.rs";

pub(super) const ROWS: &[Guarantee] = &[
    on_postgres(
        Durability,
        "append",
        Cli,
        "what was acknowledged before the server or the node was killed is there afterwards, once",
        &[test(PROCESS, "a_node_over_postgres_goes_on_after_its_server_was_killed_and_after_it_was_itself")],
    ),
    on_postgres(
        Durability,
        "append",
        Http,
        "a write whose answer the database lost is told to be unknown or looked up, and repeated with its key or id it is there once",
        &[test(OUTCOMES, "a_write_whose_answer_was_lost_is_known_by_its_key_or_its_event")],
    ),
    on_postgres(
        Integrity,
        "connect to the database",
        Cli,
        "with `sslmode=verify-full` nothing is said to anybody but a server whose certificate names the address's host, by an authority that is trusted; what is wrong with a certificate is told",
        &[
            test(TLS, "each_mode_connects_to_whom_it_trusts_and_to_nobody_else"),
            test(TLS, "a_certificate_that_is_out_of_date_or_an_authoritys_own_is_named_as_such"),
            test(TLS, "a_server_without_tls_is_spoken_to_in_the_clear_only_by_whoever_allows_it"),
            test(TLS, "every_connection_of_a_store_is_encrypted_and_so_is_the_doctors"),
            test(TLS, "a_password_is_proved_beside_the_certificate_that_the_server_showed"),
            test(PROCESS, "a_node_reaches_its_database_as_its_address_says_or_says_why_not"),
        ],
    ),
    on_postgres(
        Durability,
        "append",
        Http,
        "while the database is out of reach, out of connections or read-only a write is refused unchanged, and the node goes on by itself afterwards",
        &[
            test(OUTCOMES, "a_server_that_is_killed_is_told_of_and_found_again_and_nothing_is_lost"),
            test(OUTCOMES, "a_server_without_connections_left_says_so_and_gives_some_later"),
            test(OUTCOMES, "a_standby_is_read_and_says_that_it_takes_no_writes_until_it_is_promoted"),
            test(OUTCOMES, "a_database_that_somebody_made_read_only_says_so_and_is_written_again_afterwards"),
        ],
    ),
    on_postgres(
        Durability,
        "append to a server that falls silent",
        Library,
        "answered a second after its patience at the latest, as not reached or with an unknown outcome; repeated it is there once. On Linux \
         connections end within half a minute where the other machine is gone",
        &[
            test(APPENDS, "a_server_that_falls_silent_is_waited_for_as_long_as_patience_is"),
            test(NET, "what_is_dialled_is_asked_for_signs_of_life"),
        ],
    ),
    on_postgres(
        Integrity,
        "move of a store whose tables are older",
        Cli,
        "refused, and nothing changed, until a node was started there; one that is on its way goes on",
        &[test(MOVING, "a_move_upgrades_no_tables_but_those_of_a_store_that_is_on_its_way")],
    ),
    on_postgres(
        Atomicity,
        "decide",
        Library,
        "nodes that decide about one aggregate, or one boundary of tags, decide one after the other",
        &[
            test(DECIDERS, "nodes_that_decide_about_one_aggregate_decide_one_after_the_other"),
            test(DECIDERS, "decisions_over_tags_do_not_overlook_each_other_across_nodes"),
        ],
    ),
    on_postgres(
        Atomicity,
        "request with an idempotency key",
        Http,
        "whichever nodes it is sent to, it is done once",
        &[test(NODES, "equal_requests_with_one_key_to_two_nodes_at_once_are_done_once")],
    ),
    on_postgres(
        Atomicity,
        "transact",
        Library,
        "of transactions on several nodes that are in each other's way none loses what it wrote",
        &[test(SQL, "of_nodes_that_are_in_each_others_way_none_loses_what_it_wrote")],
    ),
    on_postgres(
        Order,
        "append on several nodes",
        Library,
        "positions are dense and every reader sees a prefix of the log, whatever transactions hold, roll back or vanish",
        &[
            test(LOG, "every_committed_event_is_seen_once_whatever_transactions_do"),
            test(LOG, "an_open_transaction_delays_itself_alone"),
            test(LOG, "conditions_hold_in_the_order_of_the_log"),
            test(LEMMAS, "the_lemmas_hold_in_every_course_of_transactions_and_runs"),
        ],
    ),
    on_postgres(
        Durability,
        "append on several nodes",
        Http,
        "while nodes are killed and paused at random, clients of three of them lose nothing, see nothing twice, and keys are honoured",
        &[
            test(RING, "clients_of_three_nodes_over_one_database_lose_no_append"),
            test(RING, "followers_of_three_nodes_over_one_database_see_every_event_once"),
            test(RING, "a_key_is_honoured_by_each_of_three_nodes_over_one_database"),
        ],
    ),
    on_postgres(
        Delivery,
        "pull from a durable subscription",
        Http,
        "workers on several nodes share it, and each event comes to one of them",
        &[test(NODES, "workers_on_two_nodes_share_a_subscription_and_each_event_comes_to_one_of_them")],
    ),
    on_postgres(
        Delivery,
        "ack on a durable subscription",
        Http,
        "a lease that ran out is given to a worker on another node, and the first holder is refused",
        &[
            test(NODES, "a_lease_that_ran_out_is_given_to_a_worker_on_another_node_and_the_first_one_is_refused"),
            test(PROCESS, "what_a_paused_node_held_goes_to_another_and_its_late_writes_are_refused"),
            test(RING, "workers_of_three_nodes_over_one_database_hold_each_event_alone"),
        ],
    ),
    on_postgres(
        Delivery,
        "restore of a dump",
        Cli,
        "a dump restored into another cluster continues every subscription, without replay or silence, at the positions it had",
        &[test(PROCESS, "a_dump_restored_into_a_fresh_cluster_continues_every_subscription_without_replay_or_silence")],
    ),
    on_postgres(
        Visibility,
        "read with a token",
        Http,
        "a token of one node makes a read of another include its write",
        &[test(NODES, "a_token_of_one_node_makes_a_read_of_another_include_its_write")],
    ),
    on_postgres(
        Visibility,
        "follow",
        Http,
        "who follows one node hears what is appended on another, in the order of the log, without having to look",
        &[
            test(NODES, "who_follows_one_node_hears_what_is_appended_on_another_in_the_order_of_the_log"),
            test(LOG, "a_node_is_told_of_what_another_one_appended"),
        ],
    ),
    on_postgres(
        Visibility,
        "append on several nodes",
        Library,
        "positions are given also where the server has no room for notifications, others notify for nothing, or this node listens to none",
        &[
            test(LOG, "positions_are_given_where_the_server_has_no_room_for_notifications"),
            test(LOG, "who_notifies_for_nothing_keeps_no_node_from_giving_positions"),
            test(LOG, "a_node_without_notifications_listens_to_none_and_sees_what_others_appended"),
        ],
    ),
    on_postgres(
        Order,
        "append and read behind a proxy that pools transactions",
        Cli,
        "with `store.notifications` off nodes behind PgBouncer are nodes of one store: what was appended is there once, in one order, though their sessions are handed to others between transactions",
        &[
            test(PROCESS, "nodes_behind_a_proxy_that_pools_transactions_are_nodes_of_one_store"),
            test(POOLED, "appends_on_sessions_that_others_are_given_in_between_are_each_there_once"),
        ],
    ),
    on_postgres(
        Integrity,
        "verify",
        Library,
        "a changed byte or a missing row of the log, of streams or of their metadata is found, and metadata that rotted are served to nobody",
        &[test(LOG, "damage_is_named")],
    ),
    on_postgres(
        Integrity,
        "doctor",
        Cli,
        "what endangers or holds up the store from outside is named with what to do about it, and no longer once that was done",
        &[
            test(PROCESS, "the_doctor_says_what_ails_a_database_and_its_exit_code_says_whether_anything_does"),
            test(DOCTOR, "settings_that_endanger_what_was_acknowledged_are_named"),
            test(DOCTOR, "an_open_transaction_is_named_with_what_it_holds_until_it_is_ended"),
            test(DOCTOR, "a_prepared_transaction_of_any_database_is_named_with_what_it_holds_until_it_is_ended"),
            test(DOCTOR, "committed_events_without_a_position_are_named_with_who_holds_them_up"),
            test(DOCTOR, "a_table_that_is_locked_is_said_to_be_with_who_locked_it"),
            test(DOCTOR, "a_queue_of_notifications_that_somebody_keeps_is_named_until_it_is_empty"),
            test(SAGAS, "the_doctor_names_sagas_that_no_node_goes_on_with_until_their_version_is_declared_again"),
            test(DOCTOR, "what_others_put_into_the_schema_is_named_and_gone_when_the_advice_was_followed"),
        ],
    ),
    on_postgres(
        Visibility,
        "follow",
        Cli,
        "a tail misses nothing and repeats nothing while the database is killed and started again",
        &[test(PROCESS, "a_tail_misses_nothing_and_repeats_nothing_while_the_server_is_killed")],
    ),
    on_postgres(
        Visibility,
        "any request",
        Http,
        "it is answered with the bytes that the embedded store answers with, tokens apart",
        &[test(IDENTICAL, "the_same_requests_are_answered_with_the_same_bytes_over_either_store")],
    ),
    on_postgres(
        Visibility,
        "any request",
        Http,
        "what the store cannot do is refused by name before anything is begun",
        &[
            test(UNSUPPORTED, "what_the_store_cannot_do_is_refused_by_name_and_changes_nothing"),
            test(PROCESS, "what_the_database_cannot_do_is_refused_at_the_command_line"),
        ],
    ),
    on_postgres(
        Delivery,
        "send a message, receive it, settle it",
        Library,
        "a message has one holder, whichever process handed it out, and is settled at any of them; of a process that is killed or stands still others hand out what it held once the lease has run out by their own clocks, and its late word is refused; one that stands still inside a transaction keeps its queue for some 6 s, in which others are told to try again",
        &[
            test(QUEUES, "who_finds_another_inside_a_transaction_for_too_long_may_try_again"),
            test(QUEUES_KILLED, "processes_that_are_killed_and_stopped_lose_no_message_and_do_none_twice"),
            test(QUEUES, "what_a_dead_process_held_is_handed_out_by_another_and_its_late_word_is_refused"),
            test(QUEUES_RUNS, "leases_that_run_out_at_several_processes_at_once_go_to_one_holder_each"),
            test(QUEUES, "a_lease_of_one_process_is_good_and_settled_at_any"),
            test(QUEUES, "a_lease_that_is_renewed_at_one_process_holds_at_another"),
            test(QUEUES_RUNS, "a_process_that_was_away_for_long_reads_what_changed_or_the_queue_anew"),
            test(QUEUES_RULES, "work_and_acknowledgement_commit_together_and_of_two_holders_one_has_done_it"),
        ],
    ),
    on_postgres(
        Order,
        "send messages of a group",
        Library,
        "messages of a group are handed out one at a time over all processes, and in the order of sending: what is sent after another one was acknowledged comes behind it, at whichever process",
        &[
            test(
                QUEUES_RUNS,
                "producers_and_consumers_at_three_processes_share_the_work_and_keep_the_order_of_each_group",
            ),
            test(QUEUES, "a_message_that_is_committed_late_is_not_out_beside_another_of_its_group"),
            test(QUEUES_RULES, "a_group_goes_in_order_one_at_a_time_and_others_by_priority"),
        ],
    ),
    on_postgres(
        Delivery,
        "send a message again, or with a unique key",
        Library,
        "ids and unique keys are those of all processes: of several that send at once one is first",
        &[
            test(QUEUES, "ids_and_unique_keys_are_one_for_all_processes_also_at_once"),
            test(QUEUES_RULES, "an_id_is_sent_once_and_never_with_other_content"),
        ],
    ),
    on_postgres(
        Delivery,
        "let messages go out of date, replay dead letters and give them up",
        Library,
        "nothing is handed out whose time to live is over; of two processes that replay and give up the same dead letter one is first",
        &[
            test(QUEUES, "nothing_is_handed_out_whose_time_to_live_is_over_however_much_that_is"),
            test(QUEUES, "a_dead_letter_that_was_replayed_meanwhile_is_not_given_up"),
        ],
    ),
    on_postgres(
        Load,
        "limit a queue",
        Library,
        "what may be in consumers' hands, and how fast it is handed out, is one limit for all processes; messages beyond `max-messages` are refused as far as the process has heard of them",
        &[
            test(QUEUES, "what_may_be_in_hands_and_how_fast_is_one_limit_for_all_processes"),
            test(QUEUES_RULES, "a_queue_holds_its_limits"),
        ],
    ),
    on_postgres(
        Delivery,
        "send a message by a schedule",
        Library,
        "one message for each moment, though every process has the schedule; whoever declared it may be gone; a process whose clock is behind by more than ids are remembered sends nothing",
        &[
            test(QUEUES_RUNS, "a_process_whose_clock_is_far_behind_a_schedule_leaves_it_alone"),
            test(QUEUES_RUNS, "a_schedule_sends_each_moment_once_whichever_process_dies"),
            test(QUEUES_KILLED, "processes_that_are_killed_and_stopped_lose_no_message_and_do_none_twice"),
        ],
    ),
    on_postgres(
        Visibility,
        "declare a queue or a schedule, change it, delete it",
        Http,
        "what one node answered holds at every other at once; who waits at one node is handed what comes in at another",
        &[
            test(QUEUES, "what_one_process_declares_and_deletes_holds_for_all"),
            test(QUEUES, "what_was_declared_is_declared_though_the_queue_cannot_be_looked_at"),
            test(QUEUES, "who_waits_at_one_process_is_woken_by_what_another_does"),
            test(QUEUES, "a_message_that_is_committed_behind_a_later_one_wakes_who_waits"),
            test(QUEUES_HTTP, "a_queue_is_one_whichever_node_is_asked"),
            test(QUEUES_HTTP, "who_follows_a_queue_at_one_node_is_sent_what_comes_in_at_another"),
            test(QUEUES_HTTP, "what_a_stopped_node_held_is_handed_out_by_another"),
            test(QUEUES_HTTP, "a_message_sent_again_under_its_key_or_id_at_another_node_is_sent_once"),
            test(QUEUES_HTTP, "a_schedule_that_was_declared_at_one_node_is_known_at_another"),
        ],
    ),
    on_postgres(
        Delivery,
        "receive a message, settle it",
        Cli,
        "what a node held that was killed or stopped is handed out by another, and what it says late is refused",
        &[test(PROCESS, "what_a_paused_or_killed_node_held_of_a_queue_goes_to_another_and_its_late_word_is_refused")],
    ),
    on_postgres(
        Delivery,
        "publish on the transport over queues",
        Library,
        "it promises what the embedded one does, with its members at several processes",
        &[test(QUEUES_BUS, "the_transport_over_queues_keeps_the_promises_of_transports_at_several_processes")],
    ),
];
