//! What holds of messages between services: transports, relays and inboxes.

use super::{
    About::{Atomicity, Delivery, Durability, Load, Order},
    Guarantee,
    Surface::{Cli, Http, Library},
    row, test,
};

const EMBEDDED: &str = "crates/communication/tests/transports/embedded.rs";
const NATS: &str = "crates/communication/tests/transports/nats.rs";
const RABBITMQ: &str = "crates/communication/tests/transports/rabbitmq.rs";
const SERVED: &str = "crates/node/tests/http/served.rs";
const SHOP: &str = "examples/tests/processes/mod.rs";
const OUTBOX: &str = "crates/communication/src/outbox/tests.rs";
const BINDING: &str = "crates/communication/src/transports/binding.rs";
const OVER_HTTP: &str = "crates/node/tests/http/relays.rs";
const AT_THE_COMMAND_LINE: &str = "crates/cli/tests/cli/relays.rs";
const INBOXES_OVER_HTTP: &str = "crates/node/tests/http/inboxes.rs";
const INBOXES_AT_THE_COMMAND_LINE: &str = "crates/cli/tests/cli/inboxes.rs";
const INBOX: &str = "crates/communication/src/inbox/tests.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "publish over the embedded transport, a node, NATS JetStream or RabbitMQ",
        Library,
        "what is confirmed stays until every group has acknowledged it, through the death of the broker's process",
        &[
            test(EMBEDDED, "the_embedded_transport_keeps_the_promises_of_transports"),
            test(SERVED, "a_node_keeps_the_promises_of_transports_over_http"),
            test(NATS, "nats_jetstream_keeps_the_promises_of_transports"),
            test(RABBITMQ, "rabbitmq_keeps_the_promises_of_transports"),
        ],
    ),
    row(
        Delivery,
        "publish where a topic is full, nobody listens or the confirm is lost",
        Library,
        "full and unroutable are refused; a lost confirm is unknown, and the copy that is published again has the same identity",
        &[
            test(EMBEDDED, "the_embedded_transport_keeps_the_promises_of_transports"),
            test(SERVED, "a_node_keeps_the_promises_of_transports_over_http"),
            test(NATS, "nats_jetstream_keeps_the_promises_of_transports"),
            test(RABBITMQ, "rabbitmq_keeps_the_promises_of_transports"),
        ],
    ),
    row(
        Delivery,
        "join over the embedded transport or a node",
        Library,
        "a new group's queue is as the topic says; one that is there stays as it was declared, paused or limited otherwise",
        &[
            test(EMBEDDED, "whoever_joins_a_group_leaves_its_queue_as_others_have_declared_it"),
            test(SERVED, "whoever_joins_a_group_at_a_node_leaves_its_queue_as_others_have_declared_it"),
        ],
    ),
    row(
        Delivery,
        "publish a batch of which RabbitMQ returns some",
        Library,
        "exactly what has no queue is unroutable, and what is confirmed is there",
        &[test(RABBITMQ, "of_one_batch_exactly_what_rabbitmq_returns_is_unroutable")],
    ),
    row(
        Order,
        "receive over the embedded transport, a node, NATS JetStream or RabbitMQ",
        Library,
        "of a key one message at a time is out, also when one comes again",
        &[
            test(EMBEDDED, "the_embedded_transport_keeps_the_promises_of_transports"),
            test(SERVED, "a_node_keeps_the_promises_of_transports_over_http"),
            test(NATS, "nats_jetstream_keeps_the_promises_of_transports"),
            test(RABBITMQ, "rabbitmq_keeps_the_promises_of_transports"),
        ],
    ),
    row(
        Atomicity,
        "relay what is committed to a broker",
        Library,
        "every event that was committed is published and none that was rolled back; the bookmark moves behind the confirm",
        &[
            test(OUTBOX, "what_is_committed_is_published_in_order_and_what_is_rolled_back_is_not"),
            test(NATS, "over_nats_an_effect_is_once_per_message_and_in_order_whoever_is_killed"),
            test(RABBITMQ, "over_rabbitmq_an_effect_is_once_per_message_and_in_order_whoever_is_killed"),
        ],
    ),
    row(
        Order,
        "relay what is committed to a broker",
        Library,
        "of each key the first copies are in order, whatever fails; an event that is parked stops its key and no other",
        &[
            test(OUTBOX, "lost_confirms_and_absent_brokers_lose_nothing_reorder_no_key_and_cost_no_attempt"),
            test(OUTBOX, "an_event_about_a_data_subject_is_parked_with_what_is_behind_it_and_other_keys_go_on"),
            test(OUTBOX, "two_relays_of_one_name_share_the_events_and_skip_none"),
        ],
    ),
    row(
        Load,
        "relay to a broker that is away or full",
        Library,
        "the relay rests and tries again; no attempt is spent and nothing is parked",
        &[test(OUTBOX, "a_full_topic_holds_the_relay_and_costs_no_attempt")],
    ),
    row(
        Delivery,
        "relay events of several streams that share their source and id",
        Library,
        "each is published: the aggregate tells them apart",
        &[test(OUTBOX, "two_streams_may_have_events_of_one_source_and_id")],
    ),
    row(
        Delivery,
        "relay events that an inbox took in",
        Library,
        "each goes on as the message that it was, under its own id",
        &[test(OUTBOX, "what_an_inbox_took_in_goes_on_as_the_message_that_it_was")],
    ),
    row(
        Durability,
        "pause and resume a relay",
        Library,
        "a relay that is paused publishes nothing, also after a restart and in every process over the store, and goes on from where it was",
        &[
            test(
                OUTBOX,
                "a_relay_that_is_paused_publishes_nothing_until_it_is_resumed_also_after_a_restart_and_elsewhere",
            ),
            test(
                OUTBOX,
                "a_relay_that_is_paused_ends_when_its_subscription_is_deleted_and_is_paused_when_it_is_started_again",
            ),
        ],
    ),
    row(
        Durability,
        "pause and resume a relay",
        Http,
        "the same for the relays of a node's configuration",
        &[test(OVER_HTTP, "a_relay_of_the_configuration_publishes_and_is_paused_and_resumed")],
    ),
    row(
        Durability,
        "pause and resume a relay",
        Cli,
        "the same for the relays of a node's configuration",
        &[test(AT_THE_COMMAND_LINE, "relays_of_the_file_are_listed_paused_and_resumed_and_go_on_after_kill_9")],
    ),
    row(
        Load,
        "a relay of the configuration that cannot be started",
        Http,
        "the node works, the relay says what is in the way, and is tried again until it starts",
        &[test(OVER_HTTP, "a_relay_that_cannot_be_started_says_why_and_starts_once_it_can")],
    ),
    row(
        Delivery,
        "take events from a relay's subscription",
        Http,
        "is refused; deleting it has the relay begin anew, under the same ids",
        &[test(OVER_HTTP, "nobody_else_takes_a_relays_events_and_one_whose_subscription_is_deleted_begins_anew")],
    ),
    row(
        Load,
        "a relay that rests",
        Library,
        "what it holds is handed to no other relay of its name, and what another has is dropped",
        &[test(OUTBOX, "what_is_held_is_handed_to_nobody_during_a_rest_and_what_is_lost_is_dropped")],
    ),
    row(
        Delivery,
        "receive into an inbox",
        Library,
        "the handler's transaction takes effect once per source, id and aggregate, in order of the key, whoever is killed, the broker included",
        &[
            test(INBOX, "lost_acknowledgements_and_broken_connections_make_no_second_effect_and_reorder_no_key"),
            test(NATS, "over_nats_an_effect_is_once_per_message_and_in_order_whoever_is_killed"),
            test(RABBITMQ, "over_rabbitmq_an_effect_is_once_per_message_and_in_order_whoever_is_killed"),
        ],
    ),
    row(
        Delivery,
        "relay from one node to the queues of another",
        Http,
        "each event comes to every group there, in order of its key, as one that the other node relays itself would",
        &[test(SERVED, "a_relay_of_one_node_publishes_to_the_queues_of_another")],
    ),
    row(
        Delivery,
        "the same application over three transports: orders, inventory and billing as processes with stores of their own",
        Library,
        "one address is all that differs; every message takes effect once, in order of its key, and money and stock add up, whoever is killed, the bus included",
        &[
            test(SHOP, "the_shop_over_a_node_loses_and_doubles_nothing_whoever_is_killed"),
            test(SHOP, "the_shop_over_nats_loses_and_doubles_nothing_whoever_is_killed"),
            test(SHOP, "the_shop_over_rabbitmq_loses_and_doubles_nothing_whoever_is_killed"),
        ],
    ),
    row(
        Delivery,
        "a message that an inbox cannot handle",
        Library,
        "it is parked in sight with what is behind it in its key, replayed in order, and never takes effect once discarded; also one that ends its process each time",
        &[
            test(INBOX, "a_message_that_fails_for_the_last_time_is_parked_with_its_key_and_replayed_in_order"),
            test(INBOX, "a_handler_that_panics_has_failed_and_one_that_ends_its_process_each_time_is_parked"),
            test(INBOX, "a_message_that_may_have_ended_the_process_is_tried_alone"),
            test(INBOX, "what_is_discarded_never_takes_effect_also_when_it_comes_again"),
            test(INBOX, "when_too_many_are_parked_further_ones_stay_with_the_broker"),
        ],
    ),
    row(
        Load,
        "take in where the handler, or the queue that messages are sent to, is not ready",
        Library,
        "messages are held and tried again; no attempt is spent and nothing is parked",
        &[test(INBOX, "what_a_handler_has_to_wait_for_costs_no_attempt")],
    ),
    row(
        Load,
        "take in where the handler, or the queue that messages are sent to, is not ready",
        Http,
        "the same for the inboxes of a node's configuration while their queue is full or gone",
        &[test(INBOXES_OVER_HTTP, "a_queue_that_is_full_or_gone_holds_messages_and_parks_none")],
    ),
    row(
        Delivery,
        "messages that wait for their turn in an inbox",
        Library,
        "they are held for as long as that takes, and an inbox whose consumer the broker ended joins anew",
        &[
            test(INBOX, "messages_that_wait_for_their_turn_are_held_for_as_long_as_that_takes"),
            test(RABBITMQ, "an_inbox_goes_on_when_rabbitmq_has_ended_one_of_its_consumers"),
        ],
    ),
    row(
        Delivery,
        "erase a data subject that an inbox keeps messages about",
        Library,
        "their data and what was said of them is gone, also of those that could not be read; data about one that cannot be named is never kept",
        &[
            test(INBOX, "what_is_parked_about_a_data_subject_goes_when_it_is_erased"),
            test(INBOX, "what_is_said_of_a_message_that_fails_goes_with_its_data_subject"),
            test(BINDING, "what_cannot_be_read_keeps_whom_it_is_about_or_not_its_data"),
        ],
    ),
    row(
        Delivery,
        "take messages of a topic in, into a stream or a queue of a node",
        Http,
        "each takes effect once, in order of its key, also over a restart and where it is published anew",
        &[
            test(INBOXES_OVER_HTTP, "messages_are_appended_once_and_in_order_also_over_a_restart"),
            test(INBOXES_OVER_HTTP, "what_one_node_relays_another_inbox_sends_to_a_queue_each_event_once"),
        ],
    ),
    row(
        Delivery,
        "a message that an inbox of a node cannot take in",
        Http,
        "it is parked in sight with what is behind it in its key, replayed in order, and never takes effect once discarded",
        &[test(INBOXES_OVER_HTTP, "what_cannot_be_taken_in_is_parked_with_its_key_replayed_and_discarded")],
    ),
    row(
        Delivery,
        "take messages of a topic in, into a stream or a queue of a node",
        Cli,
        "each takes effect once, whenever the node is killed",
        &[test(
            INBOXES_AT_THE_COMMAND_LINE,
            "an_inbox_of_the_file_takes_each_message_in_once_whenever_its_node_is_killed",
        )],
    ),
];
