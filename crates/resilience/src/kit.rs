//! A kit for tests of whoever calls somebody: upstreams that do as they are told, in time that is virtual.
//!
//! Time is the environment's. In a tokio test with paused time a storm of retries that lasts an hour takes milliseconds; in a
//! simulated world the seed decides what happens besides. [`Upstream`] gives requests back, whatever they are; [`HttpUpstream`] speaks HTTP.
//!
//! # Example
//! ```
//! use quorate_resilience::{kit::{Reply, Upstream}, retry, stack::{Plain, Stack}, timeout::Timers};
//! use quorate_runtime::Env;
//! use std::time::Duration;
//! use tower_layer::Layer as _;
//! use tower_service::Service as _;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In a test: #[tokio::test(start_paused = true)]
//! let env = Env::real();
//! let upstream = Upstream::new(&env);
//! upstream.script([Reply::Fail, Reply::Fail, Reply::Answer]);
//! let stack = Stack::builder("upstream".parse()?)
//!     .retry(retry::Config::default(), retry::BudgetConfig::default())
//!     .build(&Timers::new(&env), Plain::idempotent().judged_by(Upstream::judge))?;
//! assert_eq!(stack.layer(upstream.clone()).call("hello").await?, "hello");
//! assert_eq!(upstream.heard().len(), 3);
//! # Ok(())
//! # }
//! ```

mod http;

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_runtime::{BoxFuture, Env};
use tower_service::Service;

pub use self::http::{Broke, Heard, HttpReply, HttpUpstream, Scripted};
use crate::outcome::{Class, Verdict};

/// What an upstream does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Gives the request back as its answer.
    Answer,
    /// Fails, in a way that may pass.
    Fail,
    /// Asks for fewer calls, and to be called again after so long.
    Throttle(Option<Duration>),
    /// Says that the request is wrong.
    Refuse,
    /// Certainly did nothing, and says so.
    Unprocessed,
    /// Was on a connection that had been closed while it was idle.
    Stale,
    /// Never answers.
    Hang,
}

/// What an upstream failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("call {nth} ended as the test wanted: {reply:?}")]
pub struct Failed {
    /// Which call it was, counted from 1.
    pub nth: usize,
    /// What the upstream did.
    pub reply: Reply,
}

/// An upstream that does as it is told. Clones are the same upstream.
#[derive(Clone)]
pub struct Upstream {
    env: Env,
    told: Arc<Mutex<Told>>,
}

struct Told {
    script: VecDeque<Reply>,
    then: Reply,
    takes: Duration,
    heard: Vec<Mono>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Upstream {
    /// An upstream that answers everything at once.
    pub fn new(env: &Env) -> Self {
        let told = Told {
            script: VecDeque::new(),
            then: Reply::Answer,
            takes: Duration::ZERO,
            heard: Vec::new(),
            in_flight: 0,
            most_in_flight: 0,
        };
        Self { env: env.clone(), told: Arc::new(Mutex::new(told)) }
    }

    /// What it does with the next calls, one after the other, before it does as [`always`](Self::always) says.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.told().script = replies.into_iter().collect();
    }

    /// What it does from now on with every call that the script says nothing about.
    pub fn always(&self, reply: Reply) {
        self.told().then = reply;
    }

    /// How long it takes over each call from now on.
    pub fn takes(&self, span: Duration) {
        self.told().takes = span;
    }

    /// When it was called, in order.
    pub fn heard(&self) -> Vec<Mono> {
        self.told().heard.clone()
    }

    /// How many calls it is at work on.
    pub fn in_flight(&self) -> usize {
        self.told().in_flight
    }

    /// The most calls it was ever at work on at once.
    pub fn most_in_flight(&self) -> usize {
        self.told().most_in_flight
    }

    /// What its answers say: what [`Plain::judged_by`](crate::stack::Plain::judged_by) wants to know.
    pub fn judge<R>(result: Result<&R, &Failed>) -> Verdict {
        match result.map_err(|failed| failed.reply) {
            Ok(_) => Verdict::SUCCESS,
            Err(Reply::Throttle(retry_after)) => Verdict { retry_after, ..Verdict::of(Class::Throttled) },
            Err(Reply::Refuse) => Verdict::of(Class::Refusal),
            Err(Reply::Unprocessed) => Verdict { unprocessed: true, ..Verdict::FAULT },
            Err(Reply::Stale) => Verdict::of(Class::Stale),
            Err(Reply::Answer | Reply::Fail | Reply::Hang) => Verdict::FAULT,
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that an upstream is at work on, until it is dropped.
struct Working(Upstream);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.told().in_flight -= 1;
    }
}

impl<R: Send + 'static> Service<R> for Upstream {
    type Response = R;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<R, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (env, working) = (self.env.clone(), Working(self.clone()));
        let (nth, reply, takes) = {
            let mut told = self.told();
            told.heard.push(env.mono());
            told.in_flight += 1;
            told.most_in_flight = told.most_in_flight.max(told.in_flight);
            let reply = told.script.pop_front().unwrap_or(told.then);
            (told.heard.len(), reply, told.takes)
        };
        Box::pin(async move {
            let _working = working;
            if !takes.is_zero() {
                env.sleep(takes).await;
            }
            match reply {
                Reply::Answer => Ok(request),
                Reply::Hang => pending().await,
                _ => Err(Failed { nth, reply }),
            }
        })
    }
}
