//! Who goes on while the view is made anew: customers who order, and readers who ask.

use std::time::Duration;

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use tokio_util::sync::CancellationToken;

use super::shop::{self, HISTORY, Row, Rows};
use crate::{
    client::{Call, Reply},
    exit::Failure,
    patterns::live::node::{PATIENCE, client, position},
};

/// How long a reader rests between two questions, and the customers between two appends.
const PAUSE: Duration = Duration::from_millis(15);
/// How many orders come at once.
const AT_ONCE: u64 = 3;
/// How long is rested where nobody answered.
const REST: Duration = Duration::from_millis(50);

/// Every row of the view, as its readers ask for them.
pub(super) fn question() -> Call {
    Call::get("/v1/views/customers/tables/customer/rows?limit=100")
}

/// What a reader was answered.
pub(super) struct Answer {
    pub(super) at: Mono,
    pub(super) build: u64,
    pub(super) version: u64,
    pub(super) position: u64,
    pub(super) parked: usize,
    pub(super) rows: Rows,
}

impl Answer {
    fn read(at: Mono, reply: &Reply) -> Option<Self> {
        let told: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
        Some(Self {
            at,
            build: told["build"].as_u64()?,
            version: told["version"].as_u64()?,
            position: position(&told["logposition"])?,
            parked: usize::try_from(told["parked"].as_u64()?).ok()?,
            rows: told["rows"].as_array()?.iter().map(Row::read).collect::<Option<_>>()?,
        })
    }
}

/// A reader: what it was answered, and how often it was not.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) answers: Vec<Answer>,
    pub(super) unanswered: usize,
    /// Answers that could not be read.
    pub(super) strange: usize,
}

impl Reader {
    /// Asks until `stop`.
    pub(super) async fn ask(env: &Env, url: &str, stop: &CancellationToken) -> Result<Self, Failure> {
        let (mut reader, mut connection) = (Self::default(), client(env, url)?.connection());
        while !stop.is_cancelled() {
            match connection.call(&question()).await {
                Ok(Ok(reply)) => match Answer::read(env.mono(), &reply) {
                    Some(answer) => reader.answers.push(answer),
                    None => reader.strange += 1,
                },
                Ok(Err(_)) | Err(_) => reader.unanswered += 1,
            }
            env.sleep(PAUSE).await;
        }
        Ok(reader)
    }

    /// Whether it was never shown less than before.
    pub(super) fn saw_no_less(&self) -> bool {
        let is_less =
            |(earlier, later): (&Answer, &Answer)| later.build < earlier.build || later.position < earlier.position;
        !self.answers.iter().zip(self.answers.iter().skip(1)).any(is_less)
    }
}

/// What was ordered meanwhile.
pub(super) struct Ordered {
    /// When each order was known to be written down.
    pub(super) at: Vec<Mono>,
    /// How many orders there are, history included, if all were acknowledged.
    pub(super) all: Option<u64>,
    /// The token of the last of them.
    pub(super) token: String,
    /// Appends that were sent again, because what became of them was not known.
    pub(super) again: usize,
}

impl Ordered {
    /// Orders until `stop`. What was begun is ended: an append without an answer is sent again, as it was.
    pub(super) async fn go_on(env: &Env, url: &str, stop: &CancellationToken) -> Result<Self, Failure> {
        let (mut nth, mut connection) = (HISTORY, client(env, url)?.connection());
        let mut ordered = Self { at: Vec::new(), all: None, token: String::new(), again: 0 };
        while !stop.is_cancelled() {
            let (append, by) = (shop::orders(nth..nth + AT_ONCE), env.mono() + PATIENCE);
            let reply = loop {
                match connection.call(&append).await {
                    Ok(Ok(reply)) => break reply,
                    Ok(Err(_)) | Err(_) if env.mono() < by => ordered.again += 1,
                    Ok(Err(refused)) => return Err(refused.into()),
                    Err(broken) => return Err(broken.into()),
                }
                env.sleep(REST).await;
            };
            nth += AT_ONCE;
            ordered.at.extend((0..AT_ONCE).map(|_| env.mono()));
            ordered.token = reply.header(&crate::client::TOKEN).unwrap_or_default().to_owned();
            env.sleep(PAUSE).await;
        }
        ordered.all = Some(nth);
        Ok(ordered)
    }
}
