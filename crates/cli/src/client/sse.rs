//! Following server-sent events: parsed as they come, resumed behind the last one when the connection breaks.
//!
//! Source: WHATWG HTML, section 9.2, "Server-sent events".

pub(crate) mod parser;

use std::time::Duration;

use http::{HeaderName, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use quorate_runtime::random::Rng;

use self::parser::Parser;
pub(crate) use self::parser::Told;
use super::{Call, Client, ClientError};
use crate::exit::Failure;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

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
        self.last_id = parser.last_id().map(ToOwned::to_owned);
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
                self.body = Some((body, Parser::behind(self.last_id.clone())));
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
