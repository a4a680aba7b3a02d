//! Following server-sent events: parsed as they come, resumed behind the last one when the connection breaks.
//!
//! Source: WHATWG HTML, section 9.2, "Server-sent events".

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{HeaderName, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use quorate_runtime::random::Rng;

use super::{Call, Client, ClientError};
use crate::exit::Failure;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The longest line, in bytes: an event's data comes in one.
const MAX_LINE: usize = 64 << 20;

/// What to follow.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    /// The route, with its query.
    pub(crate) target: String,
    /// Silence after which the connection counts as dead: several heartbeats.
    pub(crate) silence: Duration,
    /// How long to keep dialling a node that cannot be reached before giving up.
    pub(crate) patience: Duration,
}

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its kind; empty for plain messages.
    pub(crate) event: String,
    /// Its data.
    pub(crate) data: String,
}

/// Follows a route across broken connections.
pub(crate) struct Follower {
    client: Client,
    follow: Follow,
    rng: Rng,
    last_id: Option<String>,
    body: Option<(Incoming, Parser)>,
    failures: u32,
}

impl Follower {
    /// Begins to follow; nothing is dialled yet.
    pub(crate) fn new(client: &Client, follow: Follow) -> Self {
        let rng = client.env().random("tail");
        Self { client: client.clone(), follow, rng, last_id: None, body: None, failures: 0 }
    }

    /// The next message. Broken connections are mended, resuming behind the last message seen; `notice` is told.
    ///
    /// # Errors
    /// A problem that repeating does not solve, or a node that stays away for longer than the patience.
    pub(crate) async fn next(&mut self, notice: &mut (dyn FnMut(&str) + Send)) -> Result<Told, Failure> {
        let env = self.client.env().clone();
        let mut lost_at = None;
        loop {
            match self.step().await {
                Ok(Some(told)) => {
                    self.failures = 0;
                    return Ok(told);
                }
                Ok(None) => {}
                Err(Failure::Problem(problem)) if problem.retry().is_none() => return Err(problem.into()),
                Err(failure) => {
                    let since = *lost_at.get_or_insert_with(|| env.mono());
                    if env.mono().saturating_since(since) > self.follow.patience {
                        return Err(failure);
                    }
                    if self.failures == 0 {
                        notice("connection lost; reconnecting");
                    }
                    env.sleep(self.pause()).await;
                }
            }
        }
    }

    /// Exponential from 50 ms to 2 s, jittered so that many followers do not return together.
    fn pause(&mut self) -> Duration {
        let base = Duration::from_millis(50).saturating_mul(1 << self.failures.min(5)).min(Duration::from_secs(2));
        self.failures += 1;
        base.mul_f64(0.5 + self.rng.unit() / 2.0)
    }

    async fn step(&mut self) -> Result<Option<Told>, Failure> {
        let Some((body, parser)) = &mut self.body else {
            self.connect().await?;
            return Ok(None);
        };
        let told = parser.next();
        self.last_id.clone_from(&parser.last_id);
        if told.is_some() {
            return Ok(told);
        }
        let frame = self.client.env().timeout(self.follow.silence, body.frame()).await;
        let more = match frame {
            Some(Some(Ok(frame))) => frame.data_ref().is_none_or(|data| parser.feed(data)),
            _ => false,
        };
        if !more {
            self.body = None;
            return Err(self.broken().into());
        }
        Ok(None)
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let mut call = Call::get(self.follow.target.clone()).header(header::ACCEPT, "text/event-stream")?;
        if let Some(id) = &self.last_id {
            call = call.header(LAST_EVENT_ID, id)?;
        }
        let mut connection = self.client.connection();
        match connection.open(&call).await? {
            Ok(body) => {
                self.body = Some((body, Parser { last_id: self.last_id.clone(), ..Parser::default() }));
                Ok(())
            }
            Err(problem) => Err(connection.advise(problem).await.into()),
        }
    }

    fn broken(&self) -> ClientError {
        let cause = "the subscription ended".into();
        ClientError::Broken { server: self.client.server().clone(), unsafe_call: false, cause }
    }
}

/// Turns bytes into messages.
#[derive(Default)]
struct Parser {
    buffer: BytesMut,
    searched: usize,
    /// The id of the last whole message; comments may carry one, too.
    last_id: Option<String>,
    id: Option<String>,
    event: String,
    data: String,
}

impl Parser {
    /// Takes bytes; `false` when a line is longer than any the node writes.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        self.buffer.extend_from_slice(bytes);
        self.buffer.len() <= MAX_LINE
    }

    /// The next whole message.
    fn next(&mut self) -> Option<Told> {
        while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            let line = String::from_utf8_lossy(&line);
            if let Some(told) = self.line(line.trim_end_matches('\r')) {
                return Some(told);
            }
        }
        self.searched = self.buffer.len();
        None
    }

    fn line(&mut self, line: &str) -> Option<Told> {
        if line.is_empty() {
            self.last_id = self.id.take().or_else(|| self.last_id.take());
            let told = Told { event: std::mem::take(&mut self.event), data: std::mem::take(&mut self.data) };
            return (told != Told::default()).then_some(told);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event),
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => self.data = format!("{}\n{value}", self.data),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Parser, Told};

    fn told(event: &str, data: &str) -> Told {
        Told { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        let text = ": hello\r\n\nid: 4\nevent: event\ndata: {\"a\":1}\n\nid: 5\ndata: x\ndata:y\n\nevent: caught-up\ndata: {}\n\n";
        let expected = [told("event", "{\"a\":1}"), told("", "x\ny"), told("caught-up", "{}")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                assert!(parser.feed(chunk));
                seen.extend(std::iter::from_fn(|| parser.next()));
            }
            assert_eq!(seen, expected, "cut every {size} bytes");
            assert_eq!(parser.last_id.as_deref(), Some("5"));
        }
    }

    #[test]
    fn a_message_that_was_cut_off_is_not_told() {
        let mut parser = Parser::default();
        parser.feed(b": heartbeat\nid: 8\n\nid: 9\ndata: half");
        assert_eq!((parser.next(), parser.last_id.as_deref()), (None, Some("8")));
    }
}
