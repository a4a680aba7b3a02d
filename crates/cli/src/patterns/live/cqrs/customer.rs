//! Who comes to the desk: a customer sends one command after the other, each with a key of its own until it is answered.

use std::time::Duration;

use http::HeaderName;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::desk::{Command, TooLittle};
use crate::{
    client::{Call, Connection, JSON, Problem},
    exit::{Exit, Failure},
    patterns::live::node::{PATIENCE, client},
};

/// How long a customer thinks between two commands.
const PAUSE: Duration = Duration::from_millis(40);
/// How long is rested where nobody answered.
const REST: Duration = Duration::from_millis(50);
/// One command in so many asks for more than there can be.
const GREED: u32 = 6;
/// That much.
const TOO_MUCH: u32 = 1_000_000_000;

/// What the desk said.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// A yes, or the rule that forbids it.
    pub(super) ruling: Result<(), TooLittle>,
    /// Whether it was decided when the command came for the first time.
    pub(super) repeated: bool,
    /// As of when.
    pub(super) token: String,
}

impl Said {
    fn read(ruling: Result<(), TooLittle>, told: &impl Fn(&str) -> Value) -> Option<Self> {
        let (repeated, token) = (told("repeated").as_bool()?, told("token").as_str()?.to_owned());
        Some(Self { ruling, repeated, token })
    }

    fn no(problem: &Problem) -> Option<Self> {
        let told = |name: &str| problem.members.get(name).cloned().unwrap_or_default();
        let rule = serde_json::from_value(told("rejection")).ok()?;
        Self::read(Err(rule), &told)
    }
}

/// A way to the desk.
pub(super) struct Way {
    env: Env,
    connection: Connection,
    /// How often it was not known what had become of a command.
    pub(super) unknown: Vec<Mono>,
    /// How often nobody was there, so that nothing had become of it.
    pub(super) undone: usize,
}

impl Way {
    pub(super) fn to(env: &Env, desk: &str) -> Result<Self, Failure> {
        let connection = client(env, desk)?.connection();
        Ok(Self { env: env.clone(), connection, unknown: Vec::new(), undone: 0 })
    }

    /// Sends a command with its key, again as long as there is neither a yes nor a no.
    ///
    /// # Errors
    /// What is neither, and that repeating does not help: the key was used for another command.
    pub(super) async fn send(&mut self, purse: &str, command: Command, key: &str) -> Result<Said, Failure> {
        let body = serde_json::to_string(&command).map_err(|cause| Failure::of(Exit::Failed, &cause))?;
        let call = Call::post(format!("/purses/{purse}"), JSON, body);
        let call = call.header(HeaderName::from_static("idempotency-key"), &format!("\"{key}\""))?;
        let by = self.env.mono() + PATIENCE;
        loop {
            let failed: Failure = match self.connection.call(&call).await {
                Ok(Ok(reply)) => {
                    let told: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                    let strange = || Failure::new(Exit::Failed, "the desk's answer cannot be read");
                    return Said::read(Ok(()), &|name| told[name].clone()).ok_or_else(strange);
                }
                Ok(Err(problem)) => match Said::no(&problem) {
                    Some(no) => return Ok(no),
                    None if problem.status.is_server_error() => problem.into(),
                    None => return Err(problem.into()),
                },
                Err(broken) => broken.into(),
            };
            if self.env.mono() >= by {
                return Err(failed);
            }
            if failed.is_unknown() {
                self.unknown.push(self.env.mono());
            } else {
                self.undone += 1;
            }
            self.env.sleep(REST).await;
        }
    }
}

/// A customer with a purse, and what has to be in it by all that was said.
#[derive(Default)]
pub(super) struct Customer {
    pub(super) purse: String,
    pub(super) cents: i64,
    pub(super) moves: i64,
    /// When each command was answered.
    pub(super) answered: Vec<Mono>,
    pub(super) rejected: usize,
    /// When it was not known what had become of a command.
    pub(super) unknown: Vec<Mono>,
    /// Commands that had been carried out, or rejected, although their answer had been lost.
    pub(super) repeated: usize,
    /// Answers that are not what the rule says.
    pub(super) wrong: usize,
    /// The token of the last answer.
    pub(super) token: String,
}

impl Customer {
    /// Sends commands until `stop`. What was begun is ended.
    pub(super) async fn come(env: &Env, desk: &str, number: u32, stop: &CancellationToken) -> Result<Self, Failure> {
        let mut customer = Self { purse: number.to_string(), ..Self::default() };
        let mut way = Way::to(env, desk)?;
        for nth in 0.. {
            if stop.is_cancelled() {
                break;
            }
            let command = match nth {
                _ if (nth + number) % GREED == GREED - 1 => Command::Take(TOO_MUCH),
                _ if nth % 3 == 2 => Command::Take(10),
                _ => Command::Add(10 + nth % 7),
            };
            let said = way.send(&customer.purse, command, &format!("{number}-{nth}")).await?;
            customer.heard(command, said);
            customer.answered.push(env.mono());
            env.sleep(PAUSE).await;
        }
        customer.unknown = way.unknown;
        Ok(customer)
    }

    fn heard(&mut self, command: Command, said: Said) {
        let change = match command {
            Command::Add(cents) => i64::from(cents),
            Command::Take(cents) => -i64::from(cents),
        };
        let left = self.cents + change;
        let ruling = if left < 0 { Err(TooLittle { missing: -left }) } else { Ok(()) };
        self.wrong += usize::from(said.ruling != ruling);
        match said.ruling {
            Ok(()) => (self.cents, self.moves) = (left, self.moves + 1),
            Err(_) => self.rejected += 1,
        }
        self.repeated += usize::from(said.repeated);
        self.token = said.token;
    }
}
