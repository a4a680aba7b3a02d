//! Calls that are made again where that helps and harms nobody: the stack of `quorate` itself.
//!
//! What only reads is sent again, and what the node knows again by a key or by the ids in it. Anything else is, if the node says that it
//! was not done, or could not be reached. A wait that the node asks for is kept to; nothing goes on beyond `--deadline`.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use quorate_foundations::{name::Name, time::Mono};
use quorate_resilience::{
    CallError, Class, Outcome, Scope, Verdict,
    bulkhead::Ask,
    dice::Dice,
    hop::Hop,
    retry::{self, Backoff, BudgetConfig, Jitter, Retries},
    stack::{Answers, Intent, Requests, Rest, Stack, Try},
    timeout::{self, Timers},
};
use quorate_runtime::{BoxFuture, Env};
use tokio::sync::Mutex;
use tower_layer::Layer as _;
use tower_service::Service;

use super::{Call, Client, ClientError, Connection, Problem, Reply, Server};
use crate::exit::{Exit, Failure};

/// How often calls are made again, and how long one attempt may take. Cheap to clone; clones share the budget.
#[derive(Clone)]
pub(crate) struct Guard {
    timers: Timers,
    retries: Arc<Retries>,
    attempt: Option<Duration>,
}

impl Guard {
    /// Up to `again` further attempts, each of which may take as long as `attempt`, or else as the whole call.
    pub(crate) fn new(env: &Env, again: u32, attempt: Option<Duration>) -> Self {
        let second = Duration::from_secs(1);
        let backoff = Backoff { base: second / 10, cap: 2 * second, jitter: Jitter::Full };
        let attempts = NonZeroU32::MIN.saturating_add(again);
        // As long as the node likes: what doesn't fit into the deadline is not waited for.
        let config = retry::Config { attempts, backoff, longest_retry_after: Duration::from_secs(3_600) };
        let dice = Dice::from_rng(&mut env.random("retry"));
        let retries = Retries::new(config, BudgetConfig::default(), dice);
        Self { timers: Timers::new(env), retries: Arc::new(retries), attempt }
    }
}

/// A connection on which calls are made again where that helps.
pub(crate) struct Guarded {
    client: Client,
    connection: Arc<Mutex<Connection>>,
}

impl Guarded {
    pub(super) fn new(client: Client) -> Self {
        let connection = Arc::new(Mutex::new(client.connection()));
        Self { client, connection }
    }

    /// Makes a call and reads the whole reply, within the client's deadline. The inner error is the node's own no.
    ///
    /// # Errors
    /// [`ClientError`]; each says whether the call may have been done, by any of its attempts: so does the problem.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the connection; whether the call was done is then unknown.
    pub(crate) async fn call(&self, call: &Call) -> Result<Result<Reply, Problem>, ClientError> {
        let Some(Guard { timers, retries, attempt }) = &self.client.guard else {
            return self.connection.lock().await.call(call).await;
        };
        let waited = self.client.deadline;
        // A call may have less time than all of them have: then its attempts have that.
        let attempt = attempt.filter(|attempt| *attempt < waited);
        let times = timeout::Config { total: Some(waited), attempt, idle: None, refuse_hopeless: false };
        let name = Name::new("node").unwrap_or_else(|_| unreachable!("this is a name"));
        let stack = Stack::builder(name).timeouts(times).shared_retry(retries.clone()).build(timers, Node);
        let strange = |what: String| ClientError::Strange { server: self.client.server.clone(), what };
        // A time of zero is none.
        let stack = stack.map_err(|wrong| strange(crate::exit::chain(&wrong)))?;
        let wire = Wire { connection: self.connection.clone(), in_doubt: Arc::default() };
        let in_doubt = wire.in_doubt.clone();
        let ended = stack.layer(wire).call(Arc::new(call.clone())).await;
        let in_doubt = in_doubt.load(Ordering::Relaxed);
        let told = |said| if in_doubt { behind_doubt(&self.client.server, said) } else { said };
        match ended {
            Ok(said) => told(Ok(said)),
            Err(CallError::Upstream(error, _)) => told(Err(error)),
            Err(refused) => {
                let server = self.client.server.clone();
                // Whatever else there was, what is told is the time that was set.
                let waited = match refused.outcome() {
                    Outcome::Timeout(Scope::Attempt) => attempt.unwrap_or(waited),
                    _ => waited,
                };
                Err(ClientError::Late { server, unsafe_call: !call.is_safe(), waited })
            }
        }
    }

    /// `problem` with the advice of its page, if the node has it at hand.
    pub(crate) async fn advise(&self, problem: Problem) -> Failure {
        self.connection.lock().await.advise(problem).await.into()
    }
}

/// What a stack has to know of calls to a node.
#[derive(Clone, Copy)]
struct Node;

/// One attempt of a call.
struct Attempt {
    call: Arc<Call>,
    hop: Hop,
}

impl Requests<Arc<Call>> for Node {
    type Sent = Attempt;
    type Kept = Arc<Call>;

    fn intent(&self, call: &Arc<Call>, _: Mono) -> Intent {
        Intent { repeatable: call.repeatable(), hop: Hop::FIRST, ask: Ask::default() }
    }

    fn split(&self, call: Arc<Call>, keep: bool) -> (Attempt, Option<Arc<Call>>) {
        let kept = keep.then(|| call.clone());
        (Attempt { call, hop: Hop::FIRST }, kept)
    }

    fn again(&self, kept: &Arc<Call>) -> Option<Attempt> {
        Some(Attempt { call: kept.clone(), hop: Hop::FIRST })
    }

    fn stamp(&self, sent: &mut Attempt, attempt: Try, _: Mono) {
        sent.hop = attempt.hop;
    }
}

/// The inner error is the node's own no.
pub(crate) type Said = Result<Reply, Problem>;

impl Answers<Said, ClientError> for Node {
    type Answer = Said;

    fn judge(&self, result: Result<&Said, &ClientError>) -> Verdict {
        match result {
            Ok(Ok(_)) => Verdict::SUCCESS,
            Ok(Err(problem)) => verdict(problem),
            Err(ClientError::Unreachable { .. }) => Verdict::UNSENT,
            Err(ClientError::Strange { .. }) => Verdict { transient: false, ..Verdict::FAULT },
            Err(ClientError::Broken { .. } | ClientError::Late { .. } | ClientError::InDoubt { .. }) => Verdict::FAULT,
        }
    }

    fn deliver(&self, said: Said, rest: Rest<'_>) -> Said {
        rest.complete();
        said
    }
}

/// What a problem says about the node.
fn verdict(problem: &Problem) -> Verdict {
    let Some(after) = problem.retry() else {
        return Verdict { transient: false, ..Verdict::of(Class::Refusal) };
    };
    let asks_for_fewer = matches!(problem.status.as_u16(), 429 | 503);
    let class = if asks_for_fewer { Class::Throttled } else { Class::Fault };
    let unprocessed = problem.text("outcome") == Some("unchanged");
    Verdict { unprocessed, retry_after: (!after.is_zero()).then_some(after), ..Verdict::of(class) }
}

/// The connection as a service.
#[derive(Clone)]
struct Wire {
    connection: Arc<Mutex<Connection>>,
    /// Whether an attempt may have been done of which nothing more was heard.
    in_doubt: Arc<AtomicBool>,
}

/// An attempt that may be done: dropped before it is known what became of it, it leaves the call in doubt.
struct Doubt(Option<Arc<AtomicBool>>);

impl Doubt {
    fn of(call: &Call, in_doubt: &Arc<AtomicBool>) -> Self {
        Self((!call.is_safe()).then(|| in_doubt.clone()))
    }

    fn ended(mut self, said: &Result<Said, ClientError>) {
        if !is_in_doubt(said) {
            self.0 = None;
        }
    }
}

/// Whether an attempt that ended so may have been done.
pub(crate) fn is_in_doubt(said: &Result<Said, ClientError>) -> bool {
    match said {
        Ok(Ok(_)) => false,
        Ok(Err(problem)) => problem.is_unknown(),
        Err(error) => error.exit() == Exit::Unknown,
    }
}

/// What a call came to whose last attempt ended so, behind one that may have been done: what a later one came to says nothing of an
/// earlier one.
pub(crate) fn behind_doubt(server: &Server, said: Result<Said, ClientError>) -> Result<Said, ClientError> {
    match said {
        Ok(Err(problem)) => Ok(Err(problem.in_doubt())),
        Err(error) if error.exit() != Exit::Unknown => {
            Err(ClientError::InDoubt { server: server.clone(), last: Box::new(error) })
        }
        said => said,
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if let Some(in_doubt) = &self.0 {
            in_doubt.store(true, Ordering::Relaxed);
        }
    }
}

impl Service<Attempt> for Wire {
    type Response = Said;
    type Error = ClientError;
    type Future = BoxFuture<'static, Result<Said, ClientError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Attempt { call, hop }: Attempt) -> Self::Future {
        let Self { connection, in_doubt } = self.clone();
        Box::pin(async move {
            let mut connection = connection.lock().await;
            let doubt = Doubt::of(&call, &in_doubt);
            let said = connection.attempt(&call, hop).await;
            doubt.ended(&said);
            said
        })
    }
}
