//! Following a table of a view by server-sent events.
//!
//! `event: reset` says that rows told before hold no longer, and why; `event: row` tells one that is there, was inserted or was
//! updated; `event: gone` the key of one that is not there any more; `event: caught-up` that all of it together is the view as
//! of a position. `id:` is where to come back to. It is empty while all rows are being told: who loses the connection then
//! begins again. Heartbeats, `event: closing` and slow clients are as for [events](super::super::sse).

use axum::extract::{Request, State};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_data::materialized_view::{
    AnswerColumn, Batch, Change, ChangeKind, FollowQuery, Follower, ViewError, ViewName,
};
use serde_json::{Value as Json, json};

use super::{
    Reply, named,
    query::{about, freshness, rows_query, segment},
};
use crate::http::{
    Node, Shared,
    body_out::{Gone, Pieces, cut},
    memory::{Share, Shares},
    page::PIECE,
    request::{self, Params},
    sse::{LAST_EVENT_ID, OPENING, answer, closing},
};

/// `GET /v1/views/{name}/tables/{table}/follow`
pub(in crate::http) async fn follow(State(node): State<Shared>, request: Request) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let (name, table) = (named(uri)?, segment(uri, 5)?.into_owned());
    let params = Params::of(uri, &["where", "columns", "after"])?;
    let query = rows_query(&params, &table, 1)?;
    let query = FollowQuery { table: query.table, columns: query.columns, conditions: query.conditions };
    let cursor = match request::header(headers, &LAST_EVENT_ID)?.filter(|text| !text.is_empty()) {
        Some(last) => Some(last.to_owned()),
        None => params.one("after")?.map(str::to_owned),
    };
    let fresh = freshness(&node, &params, headers)?;
    if let Some(token) = fresh.at_least {
        node.views.wait(&name, token, fresh.wait).await?;
    }
    let follower = node.views.follow(&name, query, cursor.as_deref()).await?;
    Ok(answer(&node, "view follower", |node, pieces| async move { run(&node, &name, &table, follower, pieces).await }))
}

/// What one turn brought.
enum Turn {
    Batch(Box<Batch>),
    Silence,
    Over(&'static str),
    Gone,
}

async fn run(
    node: &Node,
    name: &ViewName,
    table: &str,
    mut follower: Follower,
    pieces: Pieces,
) -> Result<Pieces, Gone> {
    pieces.send(Bytes::from_static(OPENING)).await?;
    let mut heartbeat_due = node.env.mono() + node.config.http.heartbeat;
    let mut shares = Shares::of(node);
    loop {
        let turn = tokio::select! {
            biased;
            () = node.env.tasks().stop().cancelled() => Turn::Over("shutting-down"),
            () = pieces.gone() => Turn::Gone,
            next = follower.next_batch() => match next {
                Ok(batch) => Turn::Batch(Box::new(batch)),
                Err(ViewError::NotFound { .. } | ViewError::NotBuilt { .. } | ViewError::NoTable { .. }) => Turn::Over("view-gone"),
                // Its columns became others with another version: whoever comes back is told which there are.
                Err(ViewError::InvalidQuery { .. }) => Turn::Over("view-changed"),
                Err(cause) => {
                    tracing::warn!(%cause, "following a view ended");
                    Turn::Over("store-failed")
                }
            },
            () = node.env.sleep_until(heartbeat_due) => Turn::Silence,
        };
        match turn {
            Turn::Gone => return Err(Gone),
            Turn::Over(reason) => {
                pieces.send(closing(reason)).await?;
                return Ok(pieces);
            }
            Turn::Silence => pieces.send(Bytes::from_static(b": heartbeat\n\n")).await?,
            Turn::Batch(batch) => {
                // Twice: as values, and as the JSON that is written of them.
                let weight = 2 * batch.bytes();
                let Some(share) = shares.now(weight) else {
                    follower.go_back(&batch);
                    drop(batch);
                    if shares.wait(weight, &pieces).await? {
                        continue;
                    }
                    return Ok(pieces);
                };
                tell(&mut follower, &batch, &share, (name, table), &pieces).await?;
            }
        }
        heartbeat_due = node.env.mono() + node.config.http.heartbeat;
        if node.env.buggify("views: a follower is let go") {
            pieces.send(closing("too-slow")).await?;
            return Ok(pieces);
        }
    }
}

/// Tells a batch, a piece at a time. What was erased meanwhile is read again before it leaves.
async fn tell(
    follower: &mut Follower,
    batch: &Batch,
    share: &Share,
    of: (&ViewName, &str),
    pieces: &Pieces,
) -> Result<(), Gone> {
    let mut frames = Frames(BytesMut::new());
    if let Some(reset) = batch.reset {
        let columns = |columns: &[AnswerColumn]| {
            let column = |column: &AnswerColumn| json!({ "name": column.name, "type": column.kind.map(|kind| kind.to_string()) });
            columns.iter().map(column).collect::<Json>()
        };
        let what = json!({
            "reason": reset.name(), "view": of.0.as_str(), "table": of.1,
            "columns": columns(&batch.columns), "key": columns(&batch.key),
        });
        frames.put("reset", Some(""), &what);
    }
    let mut changes = batch.changes.iter();
    loop {
        let is_over = loop {
            if frames.0.len() >= PIECE {
                break false;
            }
            match changes.next() {
                Some(change) => frames.change(batch, change),
                None => break true,
            }
        };
        if is_over && let Some(as_of) = &batch.caught_up {
            let mut what = about(of.0, Some(of.1), as_of);
            // Nothing says how old they are: that changes while nothing is told.
            what.remove("lag-seconds");
            what.remove("stale");
            frames.put("caught-up", batch.cursor.as_deref(), &Json::Object(what));
        }
        if !frames.0.is_empty() {
            let asked = pieces.asked().await?;
            if follower.is_stale(batch) {
                follower.go_back(batch);
                return Ok(());
            }
            asked.send(share.with(cut(&mut frames.0)))?;
        }
        if is_over {
            return Ok(());
        }
    }
}

struct Frames(BytesMut);

impl Frames {
    fn change(&mut self, batch: &Batch, change: &Change) {
        let event = if change.kind == ChangeKind::Deleted { "gone" } else { "row" };
        self.begin(event, change.cursor.as_deref());
        self.0.put_slice(b"data: {\"change\":\"");
        self.0.put_slice(change.kind.name().as_bytes());
        self.0.put_slice(b"\",\"key\":");
        self.write(&batch.shown_key(&change.key));
        if change.kind != ChangeKind::Deleted {
            self.0.put_slice(b",\"row\":");
            self.write(&batch.shown(&change.row));
        }
        self.0.put_slice(b"}\n\n");
    }

    fn write(&mut self, row: &impl serde::Serialize) {
        let written = serde_json::to_writer((&mut self.0).writer(), row);
        written.unwrap_or_else(|wrong| unreachable!("rows have a JSON form: {wrong}"));
    }

    fn put(&mut self, event: &str, id: Option<&str>, data: &Json) {
        self.begin(event, id);
        self.0.put_slice(b"data: ");
        self.0.put_slice(data.to_string().as_bytes());
        self.0.put_slice(b"\n\n");
    }

    fn begin(&mut self, event: &str, id: Option<&str>) {
        self.0.put_slice(b"event: ");
        self.0.put_slice(event.as_bytes());
        self.0.put_u8(b'\n');
        if let Some(id) = id {
            self.0.put_slice(b"id: ");
            self.0.put_slice(id.as_bytes());
            self.0.put_u8(b'\n');
        }
    }
}
