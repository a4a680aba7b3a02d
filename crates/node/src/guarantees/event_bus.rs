//! What holds of the bus and of webhooks.

use super::{
    About::{Atomicity, Delivery, Integrity, Load, Order, Visibility},
    Guarantee,
    Surface::{Cli, Http, Library},
    on_postgres, row, test,
};

const BUS: &str = "crates/communication/src/event_bus/bus/tests.rs";
const DELIVERING: &str = "crates/communication/src/event_bus/webhook/tests/delivering.rs";
const FAILING: &str = "crates/communication/src/event_bus/webhook/tests/failing.rs";
const CHANGING: &str = "crates/communication/src/event_bus/webhook/tests/changing.rs";
const PLACES: &str = "crates/communication/src/event_bus/webhook/tests/places.rs";
const EDGES: &str = "crates/communication/src/event_bus/bus/tests/edges.rs";
const DECLARING: &str = "crates/communication/src/event_bus/webhook/tests/declaring.rs";
const MACHINE: &str = "crates/communication/src/event_bus/webhook/machine/tests.rs";
const ERASING: &str = "crates/data/src/subscription/tests/erasing.rs";
const ADDRESSES: &str = "crates/communication/src/event_bus/webhook/address.rs";
const SIGNATURES: &str = "crates/communication/src/event_bus/webhook/signature.rs";
const SECRETS: &str = "crates/communication/src/event_bus/webhook/secret.rs";
const CATALOGUE: &str = "crates/communication/src/event_bus/catalogue/tests.rs";
const FULL_DISK: &str = "crates/communication/tests/full_disk.rs";
const EVENT_TYPES: &str = "crates/node/tests/http/event_types.rs";
const OVER_HTTP: &str = "crates/node/tests/http/webhooks.rs";
const KILLED: &str = "crates/cli/tests/cli/webhooks.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Atomicity,
        "publish events on the bus",
        Library,
        "what a transaction publishes is heard once it commits, and not otherwise",
        &[test(BUS, "what_a_transaction_publishes_is_heard_once_it_commits_and_not_otherwise")],
    ),
    row(
        Atomicity,
        "handle an event of the bus",
        Library,
        "a handler that settles the event in its transaction does its work exactly once, also over a restart",
        &[test(BUS, "work_and_its_acknowledgement_commit_together_and_a_restart_does_nothing_twice")],
    ),
    row(
        Order,
        "handle an event of the bus",
        Library,
        "each group hears everything, its members share it, and of a key one event is told at a time and in order; a handler that fails holds up its key alone",
        &[
            test(BUS, "groups_hear_everything_each_and_members_of_one_share_it"),
            test(BUS, "a_handler_that_fails_or_panics_holds_up_its_key_alone_and_is_parked_after_its_last_attempt"),
            test(BUS, "of_an_event_that_is_split_no_part_is_lost_when_a_later_one_fails"),
        ],
    ),
    row(
        Visibility,
        "handle an event of the bus",
        Library,
        "a handler reads the version it names, whatever version is stored; where no way leads there, or an upcaster fails or panics, the event is parked, never skipped, and the group goes on",
        &[
            test(EDGES, "an_upcaster_or_a_reader_that_panics_parks_its_event_and_the_group_goes_on"),
            test(BUS, "each_consumer_reads_the_version_it_names_and_both_versions_are_told_to_both"),
            test(BUS, "an_event_to_whose_version_no_way_leads_is_parked_and_says_so"),
        ],
    ),
    row(
        Visibility,
        "handle an event of the bus",
        Library,
        "user, tenant, trace, correlation and causation of a request reach the handler and what it publishes",
        &[test(BUS, "what_a_request_brings_along_reaches_handlers_and_what_they_publish")],
    ),
    row(
        Visibility,
        "open a group of the bus",
        Library,
        "a group begins at a position or a moment, and is found again wherever it began",
        &[test(BUS, "a_group_begins_at_a_moment_and_is_found_again_wherever_it_began")],
    ),
    row(
        Integrity,
        "list event types",
        Library,
        "each event of the log counts once for its type, producer and schema, whoever reads on at one time, restarts or truncates; what is named is bounded, and the rest is counted; while the disk is full what is known is told, and how far that goes",
        &[
            test(CATALOGUE, "every_type_is_counted_once_by_producer_and_schema_also_over_restarts"),
            test(CATALOGUE, "processes_that_read_on_at_one_time_count_every_event_once"),
            test(CATALOGUE, "what_was_truncated_before_anybody_asked_is_counted_all_the_same"),
            test(CATALOGUE, "producers_beyond_the_bound_are_counted_and_not_named"),
            test(CATALOGUE, "types_beyond_the_bound_are_counted_and_not_named"),
            test(CATALOGUE, "one_question_reads_no_more_than_it_may_and_the_next_goes_on"),
            test(FULL_DISK, "the_catalogue_of_events_tells_what_it_knows_and_goes_on_when_there_is_space"),
        ],
    ),
    row(
        Visibility,
        "describe events as AsyncAPI",
        Http,
        "the document is valid by the official schema of AsyncAPI 3.0, and each event that is served fits one message of its channel",
        &[
            test(
                EVENT_TYPES,
                "the_asyncapi_document_is_valid_by_its_official_schema_and_every_reference_leads_somewhere",
            ),
            test(EVENT_TYPES, "each_event_that_is_served_is_one_message_of_its_channel_and_only_one"),
        ],
    ),
    row(
        Order,
        "send events to a webhook",
        Library,
        "of a key one event is under way at a time and the first arrivals are in order, also where some fail or take long; a key that fails and an endpoint that does not answer keep no other waiting",
        &[
            test(PLACES, "places_hold_events_of_different_keys_and_each_key_keeps_its_order"),
            test(PLACES, "the_failing_first_of_a_key_holds_up_its_key_alone"),
            test(PLACES, "an_endpoint_that_does_not_answer_keeps_no_other_waiting"),
            test(PLACES, "an_event_is_kept_for_as_long_as_its_delivery_takes"),
            test(DELIVERING, "events_arrive_signed_in_the_order_of_their_keys_and_are_settled"),
            test(FAILING, "what_fails_comes_again_under_the_same_id_before_what_follows_it_and_others_go_on"),
        ],
    ),
    row(
        Delivery,
        "send events to a webhook",
        Cli,
        "a node that is killed between any two steps skips no event, and keeps the order of each key",
        &[test(KILLED, "whichever_moment_a_node_is_killed_at_a_webhook_skips_nothing_and_keeps_the_order_of_its_keys")],
    ),
    on_postgres(
        Delivery,
        "send events to a webhook",
        Cli,
        "nodes over one database share a webhook, and the others send what one that is killed had in hand, in order",
        &[test(KILLED, "nodes_over_one_database_share_a_webhook_and_one_that_is_killed_takes_nothing_with_it")],
    ),
    row(
        Delivery,
        "send events to a webhook",
        Library,
        "an event is settled by the endpoint's 2xx and by nothing else; each attempt carries the same id",
        &[
            test(MACHINE, "every_attempt_ends_in_one_way"),
            test(FAILING, "an_endpoint_that_never_answers_is_unknown_and_sent_it_again"),
            test(FAILING, "what_fails_comes_again_under_the_same_id_before_what_follows_it_and_others_go_on"),
            test(DELIVERING, "what_is_appended_while_nobody_runs_them_is_sent_later_and_nothing_twice"),
        ],
    ),
    row(
        Delivery,
        "fail to send an event",
        Library,
        "after its last attempt an event is parked with its key and its history and a replay keeps the order; until then other keys go on within the window",
        &[
            test(FAILING, "a_poisonous_event_is_parked_with_its_key_and_its_history_and_replayed_in_order"),
            test(FAILING, "what_rests_holds_up_others_only_beyond_the_window_and_that_is_seen"),
        ],
    ),
    row(
        Delivery,
        "fail to send an event",
        Library,
        "an endpoint that is gone, or has taken nothing for too long, is disabled with its reason, and goes on where it was when it is enabled",
        &[
            test(FAILING, "an_endpoint_that_is_gone_is_disabled_and_goes_on_where_it_was_when_it_is_enabled"),
            test(FAILING, "an_endpoint_that_takes_nothing_for_too_long_is_disabled_and_says_why"),
            test(FAILING, "an_endpoint_that_others_reach_is_not_disabled_by_a_process_that_does_not"),
            test(MACHINE, "time_in_which_no_process_looked_is_not_the_endpoints"),
            test(MACHINE, "time_in_which_nothing_was_sent_is_not_the_endpoints"),
            test(DECLARING, "a_webhook_whose_subscription_somebody_deleted_is_disabled_and_does_not_begin_anew"),
        ],
    ),
    row(
        Delivery,
        "send events to a webhook",
        Library,
        "an event that was truncated or archived before its turn is passed over and counted, once, also over restarts",
        &[
            test(PLACES, "what_was_truncated_before_its_turn_is_passed_over_and_counted"),
            test(ERASING, "what_was_truncated_before_its_turn_is_counted_once_also_over_restarts"),
        ],
    ),
    row(
        Atomicity,
        "change a webhook",
        Library,
        "with another address or secret, or when it is enabled, an endpoint's failures and what disabled it by itself are forgotten in the transaction of the change and not without it; what a person disabled stays so until a person enables it",
        &[
            test(CHANGING, "failures_are_forgiven_with_the_change_and_only_with_it"),
            test(CHANGING, "an_endpoint_that_is_enabled_begins_anew_also_in_the_memory_of_who_serves_it"),
            test(CHANGING, "one_that_disabled_itself_is_sent_to_again_under_another_address_or_secret"),
            test(CHANGING, "what_a_person_disabled_stays_so_whatever_is_changed_until_a_person_enables_it"),
            test(CHANGING, "what_an_endpoint_asks_for_while_its_places_change_is_heeded_all_the_same"),
        ],
    ),
    row(
        Integrity,
        "declare a webhook",
        Library,
        "of two who make a webhook of one name the second is told, and changes nothing",
        &[test(PLACES, "of_two_who_make_a_webhook_of_one_name_the_second_is_told_and_changes_nothing")],
    ),
    row(
        Load,
        "send events to a webhook",
        Library,
        "an endpoint that is down is sent no more than probes, one that asks for time is left alone for so long (up to an hour), also by who serves it next, and neither costs an event an attempt that was not made",
        &[
            test(FAILING, "while_the_breaker_is_open_nothing_is_sent_and_no_event_loses_an_attempt"),
            test(FAILING, "an_endpoint_that_asks_for_time_is_left_alone_for_so_long"),
            test(CHANGING, "an_endpoint_that_asks_for_time_is_left_alone_also_by_who_serves_it_next"),
            test(MACHINE, "what_our_own_policies_refuse_is_no_attempt_and_no_failure"),
        ],
    ),
    row(
        Integrity,
        "send events to a webhook",
        Library,
        "the body of every attempt is signed with each secret that holds; a rotation overlaps, and then the old one signs no more",
        &[
            test(DELIVERING, "after_a_rotation_both_secrets_verify_and_then_the_new_one_alone"),
            test(SIGNATURES, "body_id_and_time_are_signed"),
            test(SIGNATURES, "while_secrets_overlap_each_of_them_verifies"),
            test(SECRETS, "old_secrets_sign_until_their_time_and_no_longer"),
        ],
    ),
    row(
        Integrity,
        "send events to a webhook",
        Library,
        "no address, no name and no redirection leads a webhook to an address that is not public and not allowed",
        &[
            test(FAILING, "no_name_and_no_redirection_leads_to_an_address_that_may_not_be_called"),
            test(ADDRESSES, "addresses_that_are_not_public_are_refused_however_they_are_written"),
        ],
    ),
    row(
        Integrity,
        "declare or delete a webhook",
        Library,
        "what a crash left of a declaration or a deletion is finished, and one that is half there sends nothing",
        &[
            test(DECLARING, "what_a_crash_left_of_a_declaration_is_finished_by_whoever_runs_them"),
            test(DECLARING, "what_a_crash_left_of_a_deletion_is_finished_and_sends_nothing"),
            test(DECLARING, "a_deleted_webhook_leaves_nothing_and_one_of_its_name_begins_anew"),
            test(DECLARING, "a_second_deletion_takes_nothing_from_the_next_webhook_of_the_name"),
        ],
    ),
    row(
        Integrity,
        "declare a webhook",
        Http,
        "a secret is told when it is drawn and never again",
        &[test(OVER_HTTP, "a_webhook_is_declared_described_and_deleted_and_its_secret_is_told_once")],
    ),
];
