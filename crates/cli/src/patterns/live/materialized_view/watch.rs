//! Who asks while the view is made anew: readers.

use std::time::Duration;

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use tokio_util::sync::CancellationToken;

use super::shop::{Row, Rows};
use crate::{
    client::{Call, Reply},
    exit::Failure,
    patterns::live::node::{client, position},
};

/// How long a reader rests between two questions.
const PAUSE: Duration = Duration::from_millis(15);

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
