//! Sagas as documents, for every language: steps that are HTTP requests or messages, and what makes up for them.
//!
//! A document says what a [`Definition`] says in Rust: steps in order, side by side (`together`), on a condition (`when`), a pivot, attempts, times,
//! waiting for a signal. What goes into a request is worked out by [jq](quorate_foundations::jq) from what happened so far. A document is checked when it is read, and
//! every fault is told with its line, column and field.
//!
//! What programs see is one object:
//!
//! ```json
//! { "saga": "order", "id": "17", "key": "customer-5", "input": {}, "steps": { "reserve": {} }, "refused": ["gift"], "signals": { "approval": true } }
//! ```
//!
//! `id` is there for requests and messages, not for conditions; `output`, what the step itself answered, for what makes up for it. A message is sent, and a saga started, in the transaction of the step's record. A request carries its key as `Idempotency-Key`; how answers are understood: [`Caller`].
//!
//! # Example
//! ```
//! use quorate_consistency::saga::declared::Document;
//! use quorate_foundations::document::Format;
//! let text = r#"
//! saga: order
//! version: 1
//! steps:
//!   - step: reserve
//!     http: { method: POST, url: "http://127.0.0.1:9001/reservations/{.id}", body: "{item: .input.item}" }
//!     undo: { http: { method: DELETE, url: "http://127.0.0.1:9001/reservations/{.id}" } }
//!   - step: tell
//!     kind: pivot
//!     queue: { name: mails, type: mail.due, data: "{to: .input.mail}" }
//! "#;
//! assert_eq!(Document::read(text, Format::Yaml).unwrap().steps(), ["reserve", "tell"]);
//!
//! let faults = Document::read(&text.replace("kind: pivot", "kind: pivots"), Format::Yaml).unwrap_err();
//! assert_eq!(faults.to_string(), "line 9, column 11: `steps[1].kind`: `pivots` is none of compensatable, pivot, retriable");
//! ```

mod build;
mod plan;
mod read;
mod template;

use std::{sync::Arc, time::Duration};

use quorate_communication::message_queue::Queues;
use quorate_foundations::{
    document::{Faults, Format},
    jq::Program,
    name::Name,
};
use quorate_resilience::retry::Backoff;
use quorate_runtime::BoxFuture;
use serde_json::Value;

use self::template::Template;
use super::{
    definition::{Definition, Kind, Output},
    event::Failure,
};

/// A saga's document.
#[derive(Clone, Debug)]
pub struct Document {
    name: Name,
    version: u32,
    description: String,
    format: Format,
    text: Arc<str>,
    deadline: Option<Duration>,
    key: Option<Arc<Program>>,
    output: Option<Arc<Program>>,
    stages: Arc<[Stage]>,
}

/// A part of a document that is over before the next one begins.
#[derive(Clone, Debug)]
enum Stage {
    Steps(Vec<Declared>),
    Wait(Waiting),
}

#[derive(Clone, Debug)]
struct Waiting {
    /// Which signal; `None`: only the time.
    signal: Option<Arc<str>>,
    at_most: Option<Duration>,
    /// Whether the saga turns back when the time is over.
    aborts: bool,
    timer: Arc<str>,
}

#[derive(Clone, Debug)]
struct Declared {
    name: Arc<str>,
    when: Option<Arc<Program>>,
    kind: Kind,
    act: Act,
    undo: Option<Act>,
    attempts: Option<u32>,
    undo_attempts: u32,
    backoff: Option<Backoff>,
    time: Option<Duration>,
    quiet: Option<Duration>,
    may_be_refused: bool,
}

#[derive(Clone, Debug)]
enum Act {
    Http(Arc<HttpAct>),
    Queue(Arc<QueueAct>),
    Saga(Arc<SagaAct>),
}

#[derive(Debug)]
struct HttpAct {
    method: &'static str,
    url: Template,
    headers: Vec<(Arc<str>, Template)>,
    body: Option<Program>,
    policy: Option<Name>,
}

#[derive(Debug)]
struct QueueAct {
    queue: Name,
    kind: Arc<str>,
    data: Option<Program>,
    group: Option<Program>,
}

#[derive(Debug)]
struct SagaAct {
    saga: Name,
    version: Option<u32>,
    input: Option<Program>,
}

/// A request that a step makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The step that it does, or makes up for.
    pub step: Arc<str>,
    /// Its method.
    pub method: &'static str,
    /// Where to.
    pub url: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// What it says, as JSON.
    pub body: Option<Value>,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// How long it may take.
    pub time: Duration,
    /// Which attempt it is, counted from 1: behind the first one, another may still be under way.
    pub attempt: u32,
    /// Whether it makes up for something.
    pub undoes: bool,
    /// The dependency whose policies it passes; `None`: that of the address's host.
    pub policy: Option<Name>,
}

/// Makes requests. What it answers decides what becomes of the step: 2xx is done, with the body, if that is JSON and not [too large](Output::TooLarge); what certainly did not arrive is
/// [transient](super::Failure::Transient), what a policy of this side keeps back is [held](super::Failure::Held); transient are also 429 and a 503 whose problem says `outcome: "unchanged"`; other 4xx are [refused](super::Failure::Refused), but for 408, 425, and a 409 behind the first
/// attempt whose problem does not say `retry: "never"`, for it may mean that the first is under way. A DELETE that makes up for something and finds nothing (404, 410) is done. Whatever says `outcome: "unknown"`, and everything else, is
/// [unknown](super::Failure::Unknown).
///
/// A request of a leg is the same for every attempt, over restarts, but for [`Request::attempt`] and what is left of its time.
pub trait Caller: Send + Sync + 'static {
    /// Makes the request.
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Output, Failure>>;
}

/// What documents' steps are done with.
#[derive(Clone)]
pub struct Hands {
    /// Makes requests.
    pub caller: Arc<dyn Caller>,
    /// The queues of the saga's own store; `None`: there are none.
    pub queues: Option<Queues>,
}

impl Document {
    /// The longest document, in bytes.
    pub const MAX_BYTES: usize = 256 << 10;

    /// Reads a document.
    ///
    /// # Errors
    /// [`Faults`]: everything that is wrong, with line, column and field.
    pub fn read(text: &str, format: Format) -> Result<Self, Faults> {
        read::document(text, format)
    }

    /// The saga's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What it is for, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What it is written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// As it was written.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The names of its steps, in order.
    pub fn steps(&self) -> Vec<&str> {
        let steps = self.stages.iter().flat_map(|stage| match stage {
            Stage::Steps(steps) => steps.as_slice(),
            Stage::Wait(_) => &[],
        });
        steps.map(|step| &*step.name).collect()
    }

    /// The first step that makes an encrypted call, for nodes that make none.
    pub fn first_encrypted(&self) -> Option<&str> {
        let steps = self.stages.iter().flat_map(|stage| match stage {
            Stage::Steps(steps) => steps.as_slice(),
            Stage::Wait(_) => &[],
        });
        let is_encrypted = |act: &Act| matches!(act, Act::Http(act) if act.url.beginning().starts_with("https:"));
        let step = { steps }.find(|step| is_encrypted(&step.act) || step.undo.as_ref().is_some_and(is_encrypted));
        step.map(|step| &*step.name)
    }

    /// The business key of a saga that is started with `input`, where the document says how to find it.
    ///
    /// # Errors
    /// What the program says that is to find it.
    pub fn key_of(&self, input: &Value) -> Result<Option<String>, String> {
        plan::key_of(self, input)
    }

    /// The definition that the document says, its steps done with `hands`.
    pub fn definition(&self, hands: &Hands) -> Definition {
        build::definition(self, hands)
    }
}

#[cfg(test)]
mod tests;
