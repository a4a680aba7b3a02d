//! Schedules of a queue in JSON: declare, look, list, delete.

use std::time::Duration;

use axum::extract::{Request, State};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use quorate_communication::message_queue::{Missed, Planned, Schedule};
use quorate_data::event::Timestamp;
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Item, Reply, message_of, page, show};
use crate::http::{
    Shared, document, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};

/// As it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document<'b> {
    cron: String,
    #[serde(default = "utc")]
    time_zone: String,
    #[serde(default)]
    missed: Missed,
    #[serde(borrow)]
    message: Item<'b>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// `PUT /v1/queues/{name}/schedules/{schedule}`
pub(in crate::http) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let (queue, name) = (request::queue(&head.uri)?, schedule_in(&head.uri)?);
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Document { cron, time_zone, missed, message } = document::envelope(&received.bytes)?;
    let message = message_of(&received.bytes, message)?;
    let schedule = Schedule { cron: cron.into(), time_zone: time_zone.into(), missed, message };
    let effect = async {
        let planned = node.queues.schedule(&queue, &name, schedule).await?;
        Ok(reply::bytes(StatusCode::OK, reply::JSON, shown(&queue, &planned)))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/queues/{name}/schedules/{schedule}`
pub(in crate::http) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let (queue, name) = (request::queue(request.uri())?, schedule_in(request.uri())?);
    Params::of(request.uri(), &[])?;
    let planned = node.queues.scheduled(&queue, &name).await?;
    Ok(reply::whole(reply::bytes(StatusCode::OK, reply::JSON, shown(&queue, &planned))))
}

/// `DELETE /v1/queues/{name}/schedules/{schedule}`
pub(in crate::http) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let (queue, name) = (request::queue(&head.uri)?, schedule_in(&head.uri)?);
    Params::of(&head.uri, &[])?;
    let effect = async {
        node.queues.unschedule(&queue, &name).await?;
        let gone = json!({ "queue": queue.as_str(), "schedule": name.as_str(), "deleted": true });
        Ok(reply::json(StatusCode::OK, &gone))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/queues/{name}/schedules`
pub(in crate::http) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let queue = request::queue(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = page(&node, &params)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.queues.schedules(&queue, after.as_ref(), limit).await?;
    let shown: Vec<Value> = found.iter().map(|one| outline(&queue, one)).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "schedules": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut address = "/v1/queues/".to_owned();
        percent::encode(queue.as_str(), &mut address);
        address.push_str(&format!("/schedules?limit={limit}&after="));
        percent::encode(last.name.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// The schedule that a path names.
fn schedule_in(uri: &http::Uri) -> Result<Name, Problem> {
    let text = percent::decode(uri.path().split('/').nth(5).unwrap_or_default())
        .map_err(|wrong| Problem::new(Code::InvalidName, format!("the schedule's name cannot be read: {wrong}")))?;
    Ok(Name::new(&*text)?)
}

/// Without its message, which may be large.
fn outline(queue: &Name, one: &Planned) -> Value {
    let mut shown = json!({
        "queue": queue.as_str(),
        "schedule": one.name.as_str(),
        "next": one.next.map(|next| Timestamp::from(next).as_str().to_owned()),
    });
    match &one.schedule {
        Ok(schedule) => {
            shown["cron"] = (&*schedule.cron).into();
            shown["time-zone"] = (&*schedule.time_zone).into();
            shown["missed"] = json!(schedule.missed);
        }
        Err(damaged) => shown["damaged"] = damaged.to_string().into(),
    }
    shown
}

/// With its message, whose data stands there as it was sent.
fn shown(queue: &Name, one: &Planned) -> Bytes {
    let outline = outline(queue, one).to_string();
    let Ok(schedule) = &one.schedule else { return outline.into() };
    let mut buffer = BytesMut::from(outline.trim_end_matches('}'));
    let span = |span: Duration| humantime_serde::re::humantime::format_duration(span).to_string();
    let message = &schedule.message;
    let mut how = json!({ "priority": message.priority });
    for (member, value) in [
        ("group", message.group.as_deref().map(Value::from)),
        ("unique", message.unique.as_deref().map(Value::from)),
        ("delay", (!message.delay.is_zero()).then(|| span(message.delay).into())),
        ("ttl", message.ttl.map(|ttl| span(ttl).into())),
    ] {
        if let Some(value) = value {
            how[member] = value;
        }
    }
    buffer.extend_from_slice(b",\"message\":{\"event\":");
    show::event(&mut buffer, &message.event);
    buffer.extend_from_slice(b",");
    buffer.extend_from_slice(how.to_string().trim_start_matches('{').as_bytes());
    buffer.extend_from_slice(b"}");
    buffer.freeze()
}
