//! An HTTP client over the environment's network, for stacks to stand around.
//!
//! HTTP/1.1 with connections that are kept and HTTP/2 with connections that are shared, as bare as a client can be: it retries
//! nothing, waits for nothing and follows nothing, since that is what the [`stack`](crate::stack) decides. What only a client can
//! know it tells: whether a request certainly wasn't done, whether a connection that had been idle turned out to be closed, and why
//! there is no trust in one.
//!
//! `https` needs the feature `tls`, and somebody to trust: `Client::encrypting`. Which version of HTTP is spoken is agreed on
//! there; without encryption nobody is asked, so HTTP/2 is spoken if that is all that is (see [`Versions`]).
//!
//! *When not to use it*: for proxies, cookies, compression: then use another client, whose answers
//! [`Http`](crate::http::Http) can judge, or `reqwest` with its own adapter.
//!
//! # What holds
//! * A request that couldn't be handed to a kept connection is sent on the next one; nobody hears of it.
//! * A kept connection of HTTP/1.1 that is closed before any of the answer came is [`Error::Stale`]: maybe it was done, most likely
//!   not.
//! * What the other one says it didn't look at (`REFUSED_STREAM`, a `GOAWAY` that names an earlier stream) is
//!   [`Error::Untaken`], and may be sent again whatever it does.
//! * A request that brings [`FreshConnection`] is never sent on a kept connection.
//! * A name with several addresses has each tried in turn, for its part of the time to connect.
//! * A request's body that breaks off is its caller's doing, and no failure of the upstream, over HTTP/1.1; over HTTP/2 it can't be
//!   told from one.
//! * Dropping a call closes its connection over HTTP/1.1, where a connection is kept once the answer's body has been read to its
//!   end. Over HTTP/2 it resets its stream, and the connection is used on, unless nothing was heard on it since the call was
//!   sent: then it may be dead, and further calls get another one.
//! * Nothing is sent to whoever can't be trusted: `Error::Tls` says why.
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

mod connection;
mod error;
mod pool;
mod target;
#[cfg(feature = "tls")]
mod tls;

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use quorate_runtime::{BoxFuture, Env, net::Io};
use tower_service::Service;

use self::{
    connection::{Connection, Sent, Shared, Tasks},
    error::broke,
    pool::Pool,
    target::Target,
};
use crate::{http::FreshConnection, outcome::Verdict};

pub use error::Error;
pub use pool::Received;
#[cfg(feature = "tls")]
pub use {rustls, tls::Tls};

/// Which versions of HTTP a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1.
    One,
    /// HTTP/2 where it is agreed on while encryption is, HTTP/1.1 otherwise.
    #[default]
    Either,
    /// HTTP/2, also without encryption: whoever doesn't speak it can't be called.
    Two,
}

/// How long a kept connection may be at its last request still: the answer was there, and what was sent may not be.
const STILL: Duration = Duration::from_millis(20);

/// What a handshake across the world may take: none of many addresses gets less. That of [RFC 8305](https://www.rfc-editor.org/rfc/rfc8305#section-5).
const HANDSHAKE: Duration = Duration::from_millis(250);

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
    /// Which versions are spoken.
    pub versions: Versions,
}

impl Default for Config {
    fn default() -> Self {
        let (connect, idle) = (Duration::from_secs(3), Duration::from_secs(30));
        Self { connect, most_idle: 32, idle, most_endpoints: 1_024, versions: Versions::Either }
    }
}

/// The client. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Client {
    env: Env,
    config: Config,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    pool: Arc<Pool>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body on its way out.
type Outgoing = UnsyncBoxBody<Bytes, BoxError>;

impl Client {
    /// A client without connections.
    pub fn new(env: &Env, config: Config) -> Self {
        let pool = Arc::new(Pool::new(config));
        Self {
            env: env.clone(),
            config,
            #[cfg(feature = "tls")]
            tls: None,
            pool,
        }
    }

    /// A client without connections that calls `https` as well.
    #[cfg(feature = "tls")]
    pub fn encrypting(env: &Env, config: Config, tls: Tls) -> Self {
        Self { tls: Some(tls.offering(config.versions)), ..Self::new(env, config) }
    }

    /// What an error says about the upstream: for [`Http::failing_as`](crate::http::Http::failing_as).
    pub fn judge(error: &Error) -> Verdict {
        error.judge()
    }

    /// How many connections are kept that are idle or that many calls share.
    pub fn idle(&self) -> usize {
        self.pool.len()
    }

    async fn send(self, mut request: Request<Outgoing>) -> Result<Response<Received>, Error> {
        let target = Target::of(&request, self.encrypts())?;
        let (key, fresh) = (target.key(), request.extensions_mut().remove::<FreshConnection>().is_some());
        loop {
            let kept = if fresh { None } else { self.pool.take(&key, self.env.mono()) };
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(kept) => kept,
                None => self.connect(&target, &key).await?,
            };
            // One that has been closed says so here, at no cost to anybody.
            // One that is still busy is left to what it does.
            if was_kept && !self.env.timeout(STILL, connection.is_ready()).await.unwrap_or(false) {
                self.put_away(&key, &connection);
                continue;
            }
            target.write(&mut request, connection.is_shared());
            let mut failed = match self.send_on(&mut connection, request, &key).await {
                Ok(answer) => return Ok(self.received(key, connection, answer)),
                Err(failed) => failed,
            };
            let (unsent, endpoint) = (failed.take_message(), target.authority.clone());
            match unsent {
                Some(unsent) if was_kept => {
                    self.put_away(&key, &connection);
                    request = unsent;
                }
                Some(_) => return Err(Error::Untaken { endpoint, cause: failed.into_error() }),
                None => {
                    return Err(broke(endpoint, failed.into_error(), was_kept && !connection.is_shared()));
                }
            }
        }
    }

    async fn send_on(&self, connection: &mut Connection, request: Request<Outgoing>, key: &str) -> Sent {
        match connection {
            Connection::One(sender) => sender.try_send_request(request).await,
            Connection::Many(shared) => {
                let sent = shared.send(request, self.env.mono());
                let waiting = Waiting { pool: &self.pool, key, shared, answers: shared.answers() };
                let answer = sent.await;
                waiting.shared.answered(self.env.mono());
                answer
            }
        }
    }

    /// Offers nobody a connection any more that takes no requests. One of HTTP/1.1 was taken out already.
    fn put_away(&self, key: &str, connection: &Connection) {
        if let Connection::Many(shared) = connection {
            self.pool.forget(key, shared);
        }
    }

    fn received(&self, key: String, connection: Connection, answer: Response<Incoming>) -> Response<Received> {
        let home = match connection {
            Connection::One(sender) if !says_close(&answer) => Some((sender, key, self.pool.clone())),
            Connection::One(_) | Connection::Many(_) => None,
        };
        answer.map(|body| Received::new(body, home, self.env.clone()))
    }

    async fn connect(&self, target: &Target, key: &str) -> Result<Connection, Error> {
        let dialled = match self.env.timeout(self.config.connect, self.dial(target)).await {
            Some(dialled) => dialled,
            None => Err(io::ErrorKind::TimedOut.into()),
        };
        let connection = dialled.map_err(|cause| unconnected(target, cause))?;
        if let Connection::Many(shared) = &connection {
            self.pool.share(key, shared.clone(), self.env.mono());
        }
        Ok(connection)
    }

    async fn dial(&self, target: &Target) -> io::Result<Connection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses = self.env.net().resolve(target.host(), target.port()).await?;
        // One of which nothing is heard leaves the others their part of the time.
        let part = self.config.connect / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let each = part.max(HANDSHAKE);
        for address in addresses {
            match self.env.timeout(each, self.env.net().connect(address)).await {
                Some(Ok(io)) => return self.greet(target, io).await,
                Some(Err(cause)) => last = cause,
                None => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    /// Agrees with whoever is at the other end of `io` on how to speak.
    async fn greet(&self, target: &Target, io: Box<dyn Io>) -> io::Result<Connection> {
        let (io, two) = self.encrypt(target, io).await?;
        if two {
            let handshake = http2::handshake(Tasks(self.env.clone()), TokioIo::new(io)).await;
            let (sender, driver) = handshake.map_err(io::Error::other)?;
            self.drive(driver);
            return Ok(Connection::Many(Shared::new(sender, self.env.mono())));
        }
        let (sender, driver) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        self.drive(driver);
        Ok(Connection::One(sender))
    }

    fn drive(&self, driver: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        self.env.tasks().spawn("http client", async move {
            // What breaks the connection is told to whoever waits for an answer on it.
            let _ = driver.await;
        });
    }

    #[cfg(feature = "tls")]
    fn encrypts(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn encrypts(&self) -> bool {
        false
    }

    /// Encrypts `io` if the target asks for it. Returns whether HTTP/2 is spoken on it.
    async fn encrypt(&self, target: &Target, io: Box<dyn Io>) -> io::Result<(Box<dyn Io>, bool)> {
        #[cfg(feature = "tls")]
        if let (true, Some(tls)) = (target.secure, &self.tls) {
            let (io, two) = tls.encrypt(target.host(), io).await?;
            return if two || self.config.versions != Versions::Two {
                Ok((io, two))
            } else {
                Err(io::Error::new(io::ErrorKind::Unsupported, "it does not speak HTTP/2"))
            };
        }
        debug_assert!(!target.secure, "who can't encrypt refuses the address");
        Ok((io, self.config.versions == Versions::Two))
    }
}

/// A call on a shared connection whose answer hasn't begun.
struct Waiting<'a> {
    pool: &'a Pool,
    key: &'a str,
    shared: &'a Shared,
    /// How many answers there had been when it was sent.
    answers: u64,
}

impl Drop for Waiting<'_> {
    /// Whoever gives up on a connection on which nothing was heard meanwhile has others try another one.
    fn drop(&mut self) {
        if self.shared.answers() == self.answers {
            self.pool.forget(self.key, self.shared);
        }
    }
}

fn unconnected(target: &Target, cause: io::Error) -> Error {
    let endpoint = target.authority.clone();
    #[cfg(feature = "tls")]
    if let Some(fault) = crate::http::tls_fault(&cause) {
        return Error::Tls { endpoint, fault, cause };
    }
    Error::Connect { endpoint, cause }
}

fn says_close<B>(answer: &Response<B>) -> bool {
    let said = answer.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
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
