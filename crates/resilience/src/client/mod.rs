//! An HTTP client over the environment's network, for stacks to stand around.
//!
//! HTTP/1.1 with connections that are kept, as bare as a client can be: it retries nothing, waits for nothing and follows
//! nothing, since that is what the [`stack`](crate::stack) decides. What only a client can know it tells: whether a request
//! certainly wasn't sent, and whether a connection that had been idle turned out to be closed.
//!
//! *When not to use it*: for `https` (it refuses it: bring a connection that is encrypted already, or another client whose
//! answers [`Http`](crate::http::Http) can judge); for HTTP/2.
//!
//! # What holds
//! * A request that couldn't be handed to a kept connection is sent on the next one; nobody hears of it.
//! * A kept connection that is closed before any of the answer came is [`Error::Stale`]: maybe it was done, most likely not.
//! * A request that brings [`FreshConnection`] is never sent on a kept connection.
//! * Dropping a call closes its connection. A connection is kept once the answer's body has been read to its end.
//!
//! # Example
//! ```no_run
//! use bytes::Bytes;
//! use http_body_util::{BodyExt as _, Full};
//! use quorate_resilience::{
//!     client::{Client, Config},
//!     http::Http,
//!     retry,
//!     stack::Stack,
//!     timeout::{self, Timers},
//! };
//! use quorate_runtime::Env;
//! use tower_layer::Layer as _;
//! use tower_service::Service as _;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Env::real();
//! let stack = Stack::builder("stock".parse()?)
//!     .timeouts(timeout::Config::default())
//!     .retry(retry::Config::default(), retry::BudgetConfig::default())
//!     .build(&Timers::new(&env), Http::default().failing_as(Client::judge))?;
//! let mut stock = stack.layer(Client::new(&env, Config::default()));
//! let request = http::Request::get("http://127.0.0.1:8080/items/7").body(Full::<Bytes>::default())?;
//! let item = stock.call(request).await?.into_body().collect().await?.to_bytes();
//! # Ok(())
//! # }
//! ```

mod pool;

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Authority};
use http_body::Body;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quorate_runtime::{BoxFuture, Env};
use tower_service::Service;

use self::pool::Pool;
use crate::{
    http::FreshConnection,
    outcome::{Class, Verdict},
};

pub use pool::Received;

/// How connections are made and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How many idle connections are kept for an endpoint.
    pub most_idle: usize,
    /// How long an idle connection is kept. Shorter than what upstreams keep theirs, or many turn out to be closed.
    pub idle: Duration,
    /// For how many endpoints connections are kept.
    pub most_endpoints: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), most_idle: 32, idle: Duration::from_secs(30), most_endpoints: 1_024 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be called. Nothing was sent.
    #[error("`{uri}` cannot be called: {why}")]
    Address {
        /// The address.
        uri: Uri,
        /// Why.
        why: &'static str,
    },
    /// There was no connection. Nothing was sent.
    #[error("`{endpoint}` cannot be reached")]
    Connect {
        /// The endpoint.
        endpoint: Authority,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A connection that had been kept was closed before any of the answer came.
    #[error("a kept connection to `{endpoint}` was closed")]
    Stale {
        /// The endpoint.
        endpoint: Authority,
        /// What broke.
        #[source]
        cause: hyper::Error,
    },
    /// The connection broke. Whether the request was done is unknown.
    #[error("the connection to `{endpoint}` broke")]
    Broken {
        /// The endpoint.
        endpoint: Authority,
        /// What broke.
        #[source]
        cause: hyper::Error,
    },
}

/// The client. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    env: Env,
    config: Config,
    pool: Arc<Pool>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body on its way out.
type Outgoing = UnsyncBoxBody<Bytes, BoxError>;

impl Client {
    /// A client without connections.
    pub fn new(env: &Env, config: Config) -> Self {
        Self { env: env.clone(), config, pool: Arc::new(Pool::new(config)) }
    }

    /// What an error says about the upstream: for [`Http::failing_as`](crate::http::Http::failing_as).
    pub fn judge(error: &Error) -> Verdict {
        match error {
            Error::Address { .. } => Verdict { transient: false, unprocessed: true, ..Verdict::of(Class::Refusal) },
            Error::Connect { .. } => Verdict { unprocessed: true, ..Verdict::FAULT },
            Error::Stale { .. } => Verdict::of(Class::Stale),
            Error::Broken { .. } => Verdict::FAULT,
        }
    }

    /// How many idle connections are kept.
    pub fn idle(&self) -> usize {
        self.pool.len()
    }

    async fn send(self, mut request: Request<Outgoing>) -> Result<Response<Received>, Error> {
        let endpoint = endpoint(request.uri())?;
        let host = HeaderValue::from_str(endpoint.as_str()).map_err(|_| Error::Address {
            uri: request.uri().clone(),
            why: "its authority cannot stand in a header",
        })?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        if request.extensions_mut().remove::<FreshConnection>().is_none() {
            while let Some(mut kept) = self.pool.take(&endpoint, self.env.mono()) {
                // One that has been closed says so here, at no cost to anybody.
                if kept.ready().await.is_err() {
                    continue;
                }
                match kept.try_send_request(request).await {
                    Ok(answer) => return Ok(self.received(endpoint, kept, answer)),
                    Err(mut failed) => match failed.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(kept_broke(endpoint, failed.into_error())),
                    },
                }
            }
        }
        let mut sender = match self.env.timeout(self.config.connect, self.dial(&endpoint)).await {
            Some(dialled) => dialled,
            None => Err(io::ErrorKind::TimedOut.into()),
        }
        .map_err(|cause| Error::Connect { endpoint: endpoint.clone(), cause })?;
        match sender.send_request(request).await {
            Ok(answer) => Ok(self.received(endpoint, sender, answer)),
            Err(cause) => Err(Error::Broken { endpoint, cause }),
        }
    }

    fn received(
        &self,
        endpoint: Authority,
        sender: http1::SendRequest<Outgoing>,
        answer: Response<hyper::body::Incoming>,
    ) -> Response<Received> {
        let keep = !says_close(&answer);
        answer.map(|body| Received::new(body, keep.then(|| (sender, endpoint, self.pool.clone())), self.env.clone()))
    }

    async fn dial(&self, endpoint: &Authority) -> io::Result<http1::SendRequest<Outgoing>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let host = endpoint.host().trim_start_matches('[').trim_end_matches(']');
        for address in self.env.net().resolve(host, endpoint.port_u16().unwrap_or(80)).await? {
            let io = match self.env.net().connect(address).await {
                Ok(io) => io,
                Err(cause) => {
                    last = cause;
                    continue;
                }
            };
            let (sender, driver) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
            self.env.tasks().spawn("http client", async move {
                // What breaks the connection is told to whoever waits for an answer on it.
                let _ = driver.await;
            });
            return Ok(sender);
        }
        Err(last)
    }
}

/// What a request that was sent on a kept connection ended with, when none of its answer came.
fn kept_broke(endpoint: Authority, cause: hyper::Error) -> Error {
    let closed = cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled() || is_reset(&cause);
    if closed { Error::Stale { endpoint, cause } } else { Error::Broken { endpoint, cause } }
}

fn is_reset(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        )
    })
}

fn says_close<B>(answer: &Response<B>) -> bool {
    let said = answer.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

fn endpoint(uri: &Uri) -> Result<Authority, Error> {
    let wrong = |why| Error::Address { uri: uri.clone(), why };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(wrong("this client does not encrypt")),
        _ => return Err(wrong("it is not absolute, as in http://host/path")),
    }
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("it holds a user's name: that belongs into a header"));
    }
    Ok(authority.clone())
}

impl<B> Service<Request<B>> for Client
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Received>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response<Received>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(self.clone().send(request))
    }
}

#[cfg(test)]
mod tests;
