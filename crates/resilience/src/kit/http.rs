//! An HTTP upstream that does as it is told.

use std::{
    collections::VecDeque,
    fmt,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use quorate_foundations::time::Mono;
use quorate_runtime::{BoxFuture, Env};
use tower_service::Service;

/// What an HTTP upstream does with a request.
#[derive(Clone, Debug)]
pub enum HttpReply {
    /// Answers.
    Answer(Response<Bytes>),
    /// Begins to answer with this, and breaks the connection before the end of the body.
    BreaksOff(Response<Bytes>),
    /// Breaks the connection instead of an answer.
    Breaks,
    /// Never answers.
    Hang,
}

impl HttpReply {
    /// An answer of this status, with an empty body.
    pub fn status(status: StatusCode) -> Self {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = status;
        Self::Answer(answer)
    }
}

impl From<Response<Bytes>> for HttpReply {
    fn from(answer: Response<Bytes>) -> Self {
        Self::Answer(answer)
    }
}

/// The connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection broke, as the test wanted")]
pub struct Broke;

/// A request as the upstream heard it.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When it came.
    pub at: Mono,
    /// The request, with as much of its body as came.
    pub request: Request<Bytes>,
    /// Whether all of the body came: where it broke off the upstream did nothing.
    pub is_whole: bool,
}

/// An HTTP upstream that does as it is told: for stacks of [`Http`](crate::http::Http). Clones are the same upstream.
///
/// # Example
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use quorate_resilience::{http::Http, kit::{HttpReply, HttpUpstream}, retry, stack::Stack, timeout::Timers};
/// use quorate_runtime::Env;
/// use std::time::Duration;
/// use tower_layer::Layer as _;
/// use tower_service::Service as _;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In a test: #[tokio::test(start_paused = true)]
/// let env = Env::real();
/// let upstream = HttpUpstream::new(&env);
/// let busy = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "7").body(Bytes::new())?;
/// upstream.script([busy.into()]);
/// let stack = Stack::builder("upstream".parse()?)
///     .retry(retry::Config::default(), retry::BudgetConfig::default())
///     .build(&Timers::new(&env), Http::default())?;
/// let answer = stack.layer(upstream.clone()).call(Request::get("/items").body(Full::<Bytes>::default())?).await?;
/// assert_eq!(answer.status(), StatusCode::OK);
/// let heard = upstream.heard();
/// assert!(heard[1].at.saturating_since(heard[0].at) >= Duration::from_secs(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpUpstream {
    env: Env,
    told: Arc<Mutex<Told>>,
}

struct Told {
    script: VecDeque<HttpReply>,
    then: HttpReply,
    takes: Duration,
    heard: Vec<Heard>,
    in_flight: usize,
}

impl HttpUpstream {
    /// An upstream that answers everything at once, with 200.
    pub fn new(env: &Env) -> Self {
        let then = HttpReply::status(StatusCode::OK);
        let told = Told { script: VecDeque::new(), then, takes: Duration::ZERO, heard: Vec::new(), in_flight: 0 };
        Self { env: env.clone(), told: Arc::new(Mutex::new(told)) }
    }

    /// What it does with the next requests, one after the other, before it does as [`always`](Self::always) says. A request counts
    /// once its body came.
    pub fn script(&self, replies: impl IntoIterator<Item = HttpReply>) {
        self.told().script = replies.into_iter().collect();
    }

    /// What it does from now on with every request that the script says nothing about.
    pub fn always(&self, reply: HttpReply) {
        self.told().then = reply;
    }

    /// How long it takes over each request from now on, once its body came.
    pub fn takes(&self, span: Duration) {
        self.told().takes = span;
    }

    /// The requests, in the order in which their bodies came or broke off.
    pub fn heard(&self) -> Vec<Heard> {
        self.told().heard.clone()
    }

    /// How many requests it is at work on: none whose caller has left.
    pub fn in_flight(&self) -> usize {
        self.told().in_flight
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HttpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUpstream").finish_non_exhaustive()
    }
}

/// A request that an upstream is at work on, until it is dropped.
struct Working(HttpUpstream);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.told().in_flight -= 1;
    }
}

impl<B: Body + Send + 'static> Service<Request<B>> for HttpUpstream
where
    B::Data: Send,
{
    type Response = Response<Scripted>;
    type Error = Broke;
    type Future = BoxFuture<'static, Result<Self::Response, Broke>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.told().in_flight += 1;
        let (working, env) = (Working(self.clone()), self.env.clone());
        Box::pin(async move {
            let (at, (head, body)) = (env.mono(), request.into_parts());
            let (body, is_whole) = read(body).await;
            let (reply, takes) = {
                let mut told = working.0.told();
                told.heard.push(Heard { at, request: Request::from_parts(head, body), is_whole });
                match is_whole {
                    true => (told.script.pop_front().unwrap_or_else(|| told.then.clone()), told.takes),
                    false => (HttpReply::Breaks, Duration::ZERO),
                }
            };
            if !takes.is_zero() {
                env.sleep(takes).await;
            }
            let (answer, breaks) = match reply {
                HttpReply::Answer(answer) => (answer, false),
                HttpReply::BreaksOff(answer) => (answer, true),
                HttpReply::Breaks => return Err(Broke),
                HttpReply::Hang => pending().await,
            };
            Ok(answer.map(|rest| Scripted { rest, breaks }))
        })
    }
}

/// As much of a body as comes, and whether that is all.
async fn read(body: impl Body) -> (Bytes, bool) {
    let (mut body, mut read) = (pin!(body), Vec::new());
    loop {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(frame)) => {
                if let Ok(mut data) = frame.into_data() {
                    read.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
            }
            Some(Err(_)) => return (read.into(), false),
            None => return (read.into(), true),
        }
    }
}

/// The body of an answer, which may break off.
#[derive(Debug)]
pub struct Scripted {
    rest: Bytes,
    breaks: bool,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
        }
        Poll::Ready(std::mem::take(&mut self.breaks).then_some(Err(Broke)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        if self.breaks { SizeHint::new() } else { SizeHint::with_exact(self.rest.len() as u64) }
    }
}
