//! Message queues.

use serde_json::{Value, json};

use super::{content, json_reply, operation, parameter, reference, with_body};
use crate::http::{
    cloud_events::{BATCH, STRUCTURED},
    queues::{MAX_LEASES, MAX_RECEIVE},
    reply,
};

/// The largest window of a consumer.
pub(super) const MAX_WINDOW: usize = MAX_RECEIVE;

pub(super) fn paths() -> Value {
    let action = |id: &str, summary: &str, body: &str, reply: &str| {
        let replies = [("200", json_reply("It was done", reply, &[]))];
        let post = operation("queues", id, summary, &["idempotencyKey"], &replies);
        json!({ "parameters": [parameter("queue")], "post": with_body(post, body) })
    };
    let described = [("200", json_reply("The queue", "Queue", &[]))];
    let planned = [("200", json_reply("The schedule", "Schedule", &[]))];
    let received = [(
        "200",
        json_reply("Messages, each under a lease; none if there was none for the whole wait", "QueueDeliveries", &[]),
    )];
    let receive =
        operation("queues", "receiveMessages", "Hands out messages, and waits for the first one", &[], &received);
    json!({
        "/v1/queues": {
            "get": operation("queues", "listQueues", "Lists queues in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Queues", "QueueList", &["Link"]))]),
        },
        "/v1/queues/{name}": {
            "parameters": [parameter("queue")],
            "put": with_body(operation("queues", "declareQueue", "Declares a queue, or changes how it is; the same again changes nothing", &["idempotencyKey"], &described), "QueueConfig"),
            "get": operation("queues", "describeQueue", "Says how a queue stands", &[], &described),
            "delete": operation("queues", "deleteQueue", "Deletes a queue with all its messages", &["idempotencyKey"],
                &[("200", json_reply("It is gone", "QueueDeleted", &[]))]),
        },
        "/v1/queues/{name}/messages": { "parameters": [parameter("queue")], "post": send() },
        "/v1/queues/{name}/receive": { "parameters": [parameter("queue")], "post": with_body(receive, "Receive") },
        "/v1/queues/{name}/subscribe": {
            "parameters": [parameter("queue")],
            "get": operation("queues", "subscribeToQueue", "Hands out messages by server-sent events as they come, no more than the window has room for", &["window", "leaseTtl"],
                &[("200", content("`event: message` with what a delivery of `receive` holds; `event: closing` before the node ends it", &[], &[("text/event-stream", json!({ "type": "string" }))]))]),
        },
        "/v1/queues/{name}/schedules": {
            "parameters": [parameter("queue")],
            "get": operation("queues", "listSchedules", "Lists a queue's schedules in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Schedules, without their messages", "ScheduleList", &["Link"]))]),
        },
        "/v1/queues/{name}/schedules/{schedule}": {
            "parameters": [parameter("queue"), parameter("schedule")],
            "put": with_body(operation("queues", "declareSchedule", "Declares a schedule, or changes it: it counts from now on; the same again changes nothing", &["idempotencyKey"], &planned), "ScheduleConfig"),
            "get": operation("queues", "describeSchedule", "Says what a schedule sends, and when it is due next", &[], &planned),
            "delete": operation("queues", "deleteSchedule", "Deletes a schedule; messages that it sent stay", &["idempotencyKey"],
                &[("200", json_reply("It is gone", "ScheduleDeleted", &[]))]),
        },
        "/v1/queues/{name}/ack": action("ackMessages", "Settles messages: they are not handed out again", "Ack", "Settled"),
        "/v1/queues/{name}/nack": action("nackMessages", "Gives messages back after a failure, to be handed out again later", "Nack", "Settled"),
        "/v1/queues/{name}/extend": action("extendMessages", "Holds messages for longer", "Extend", "Settled"),
        "/v1/queues/{name}/park": action("parkMessages", "Sets messages aside as dead letters; what stands in their groups behind them waits", "Park", "Settled"),
        "/v1/queues/{name}/parked": {
            "parameters": [parameter("queue")],
            "get": operation("queues", "listDeadLetters", "Lists dead letters in the order in which they were sent", &["after", "limit"],
                &[("200", json_reply("Dead letters", "DeadLetterList", &["Link"]))]),
        },
        "/v1/queues/{name}/replay": action("replayDeadLetters", "Lets dead letters be handed out again, in their old places; one may say something else", "QueueReplay", "QueueSelected"),
        "/v1/queues/{name}/discard": action("discardDeadLetters", "Gives dead letters up", "QueueSelect", "QueueSelected"),
    })
}

fn send() -> Value {
    let sent = [("201", json_reply("All messages are in the queue, or were sent before", "MessagesSent", &[]))];
    let what = "Sends messages, all or none; those that were sent before are not sent again";
    let mut operation = operation("queues", "sendMessages", what, &["idempotencyKey"], &sent);
    operation["requestBody"] = json!({
        "required": true,
        "content": {
            reply::JSON: { "schema": reference("Messages") },
            STRUCTURED: { "schema": reference("Event") },
            BATCH: { "schema": { "type": "array", "minItems": 1, "items": reference("Event") } },
        },
    });
    operation
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let span = json!({ "type": "string", "description": "A span such as `500ms`, `30s`, `7days`" });
    let time = json!({ "type": "string", "format": "date-time" });
    let group = json!({ "type": "string", "description": "Messages of a group are handed out in the order of sending, one at a time" });
    let unique = json!({ "type": "string", "description": "While a message with this key waits, rests or is worked on, no other one is sent" });
    let priority = json!({ "type": "integer", "minimum": 0, "maximum": 9, "default": 4 });
    let cron = json!({ "type": "string", "maxLength": 256, "description": "Minute, hour, day of the month, month, day of the week; a sixth field in front counts seconds, a seventh behind is the year; or @daily and its like" });
    let zone = json!({ "type": "string", "default": "UTC", "description": "The IANA name of the time zone whose wall clock counts" });
    let missed = json!({ "enum": ["skip", "once", "all"], "default": "once", "description": "What becomes of moments whose messages could not be sent within a minute" });
    let open = super::schemas::object;
    let closed = super::schemas::closed;
    let selected = json!({ "id": text, "group": text, "type": text });
    let all = closed(&["all"], json!({ "all": { "const": true } }));
    let with_message = |mut own: Value| {
        own["event"] = reference("Event");
        own["group"] = group.clone();
        own["unique"] = unique.clone();
        own["priority"] = priority.clone();
        own["sent"] = time.clone();
        own
    };
    json!({
        "QueueConfig": closed(&[], json!({
            "lease-ttl": span,
            "max-attempts": { "type": "integer", "minimum": 1, "maximum": 1_000 },
            "backoff": closed(&[], json!({ "first": span, "max": span })),
            "dedupe": { "type": "string", "description": "How long an id is remembered after its message was sent, at least" },
            "max-messages": { "type": "integer", "minimum": 1, "maximum": 5_000_000 },
            "max-in-flight": { "type": ["integer", "null"], "minimum": 1 },
            "rate": { "oneOf": [{ "type": "null" }, closed(&["count", "per"], json!({ "count": { "type": "integer", "minimum": 1 }, "per": span }))] },
            "paused": { "type": "boolean", "description": "While it is so, nothing is handed out" },
        })),
        "QueueSummary": open(&["queue", "config"], json!({
            "queue": text,
            "config": { "oneOf": [{ "type": "null" }, reference("QueueConfig")] },
            "damaged": { "type": "string", "description": "What is wrong with the queue's row: it can be declared again or deleted, and nothing else" },
        })),
        "Queue": { "allOf": [reference("QueueSummary"), open(&["messages", "ready", "waiting", "in-flight", "parked", "consumers"], json!({
            "messages": number,
            "ready": number,
            "waiting": { "type": "integer", "description": "Those that rest, or wait behind the first of their group" },
            "in-flight": number,
            "parked": number,
            "age-seconds": { "type": ["number", "null"], "description": "How long ago the oldest message that is no dead letter was sent" },
            "consumers": { "type": "integer", "description": "How many wait for a message" },
        }))] },
        "QueueList": open(&["queues"], json!({ "queues": { "type": "array", "items": reference("QueueSummary") } })),
        "QueueDeleted": open(&["queue", "deleted"], json!({ "queue": text, "deleted": { "const": true } })),
        "Messages": closed(&["messages"], json!({
            "messages": { "type": "array", "minItems": 1, "maxItems": MAX_LEASES, "items": reference("Message") },
        })),
        "Message": closed(&["event"], json!({
            "event": reference("Event"),
            "group": group,
            "priority": priority,
            "delay": span,
            "ttl": span,
            "unique": unique,
        })),
        "ScheduleConfig": closed(&["cron", "message"], json!({ "cron": cron, "time-zone": zone, "missed": missed, "message": reference("Message") })),
        "Schedule": open(&["queue", "schedule", "next"], json!({
            "queue": text,
            "schedule": text,
            "next": { "type": ["string", "null"], "format": "date-time", "description": "When it is due next" },
            "cron": cron,
            "time-zone": zone,
            "missed": missed,
            "message": reference("Message"),
            "damaged": { "type": "string", "description": "What is wrong with the schedule's row: it sends nothing until it is declared again" },
        })),
        "ScheduleList": open(&["schedules"], json!({ "schedules": { "type": "array", "items": reference("Schedule") } })),
        "ScheduleDeleted": open(&["queue", "schedule", "deleted"], json!({ "queue": text, "schedule": text, "deleted": { "const": true } })),
        "MessagesSent": open(&["messages"], json!({
            "messages": { "type": "array", "items": open(&["id", "repeated"], json!({
                "id": text,
                "repeated": { "type": "boolean", "description": "It had been sent before: nothing changed" },
                "held-by": { "type": "string", "description": "The id of the message that has its unique key: this one was not sent" },
            })) },
        })),
        "Receive": closed(&[], json!({
            "max": { "type": "integer", "minimum": 1, "maximum": MAX_RECEIVE, "default": 1 },
            "wait": span,
            "ttl": span,
            "data": { "type": "string", "enum": ["plain", "base64"], "default": "plain", "description": "`plain`: JSON and text as `data`, anything else as `data_base64`. `base64`: all as `data_base64`, byte for byte" },
        })),
        "QueueDeliveries": open(&["deliveries"], json!({
            "deliveries": { "type": "array", "items": open(&["event", "priority", "sent", "lease", "attempt", "ttl"], with_message(json!({
                "lease": text,
                "attempt": { "type": "integer", "minimum": 1 },
                "ttl": span,
            }))) },
        })),
        "DeadLetterList": open(&["parked"], json!({
            "parked": { "type": "array", "items": open(&["event", "priority", "sent", "attempts", "failures"], with_message(json!({
                "attempts": number,
                "failures": { "type": "array", "items": open(&["attempt", "time", "cause", "reason"], json!({
                    "attempt": number,
                    "time": time,
                    "cause": { "enum": ["nacked", "expired", "parked", "replayed"] },
                    "reason": text,
                })) },
            }))) },
        })),
        "QueueSelect": { "oneOf": [all, { "minProperties": 1, "allOf": [closed(&[], selected)] }] },
        "QueueReplay": { "oneOf": [reference("QueueSelect"), closed(&["event"], json!({ "event": reference("Event") }))] },
        "QueueSelected": open(&["messages"], json!({ "messages": { "type": "integer", "description": "How many" } })),
    })
}
