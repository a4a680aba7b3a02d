//! A client of the node: HTTP/1.1 over [`Env`]'s network, keep-alive, and a deadline for every call.

mod connection;
mod guard;
mod problem;
mod server;
pub(crate) mod sse;

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use quorate_resilience::retry::Repeatable;
use quorate_runtime::Env;
use serde_json::Value;

pub(crate) use self::{
    connection::Connection,
    guard::{Guard, Guarded, behind_doubt, is_in_doubt},
    problem::Problem,
    server::Server,
    sse::{Follow, Follower, Told},
};
use crate::exit::{Exit, Failure};

/// The media type of one event.
pub(crate) const EVENT: &str = "application/cloudevents+json";
/// The media type of everything else.
pub(crate) const JSON: &str = "application/json";
/// The token of a write.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("quorate-token");

/// Where the node is and how long one call to it may take.
#[derive(Clone)]
pub(crate) struct Client {
    env: Env,
    server: Server,
    deadline: Duration,
    /// How calls are made again; `None`: they aren't.
    guard: Option<Guard>,
}

/// A request, as often as it needs to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
    /// Whether the node knows it again by what is in it.
    known_again: bool,
}

/// A whole reply that is no problem.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

/// Why there is no whole reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    /// Nobody answers there. Nothing was done.
    #[error("no node can be reached at {server}")]
    Unreachable {
        /// Where.
        server: Server,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The connection broke after the request was sent.
    #[error("the connection to {server} broke before the reply was complete")]
    Broken {
        /// Where.
        server: Server,
        /// Whether the request may have been done.
        unsafe_call: bool,
        /// What broke.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No reply within the deadline.
    #[error("{server} gave no reply within {waited:?}")]
    Late {
        /// Where.
        server: Server,
        /// Whether the request may have been done.
        unsafe_call: bool,
        /// The deadline.
        waited: Duration,
    },
    /// The last attempt came to nothing, and an earlier one may have been done.
    #[error("an earlier attempt at {server} may have been done, and the last one came to nothing")]
    InDoubt {
        /// Where.
        server: Server,
        /// What the last one came to.
        #[source]
        last: Box<ClientError>,
    },
    /// The reply is not what a node sends.
    #[error("{server} answered with something a quorate node does not send: {what}")]
    Strange {
        /// Where.
        server: Server,
        /// What is strange.
        what: String,
    },
}

impl ClientError {
    /// How a command that met it exits.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Broken { unsafe_call: true, .. } | Self::Late { unsafe_call: true, .. } | Self::InDoubt { .. } => {
                Exit::Unknown
            }
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Late { .. } => Exit::Unavailable,
            Self::Strange { .. } => Exit::Failed,
        }
    }

    /// What to do.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "start one with `quorate serve`, or say where it is with --server or QUORATE_SERVER"
            }
            Self::Broken { unsafe_call: true, .. } | Self::Late { unsafe_call: true, .. } | Self::InDoubt { .. } => {
                "it may have been done: repeat it with the same ids or key, and it will not happen twice"
            }
            Self::Broken { .. } | Self::Late { .. } => "repeat it; see --deadline",
            Self::Strange { .. } => "see whether --server names a quorate node of this version",
        }
    }
}

impl Client {
    /// A client of the node at `server`.
    pub(crate) fn new(env: &Env, server: Server, deadline: Duration) -> Self {
        Self { env: env.clone(), server, deadline, guard: None }
    }

    /// The same, with calls made again where that helps and harms nobody.
    #[must_use]
    pub(crate) fn guarded_by(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The same, with one attempt for each call.
    #[must_use]
    pub(crate) fn once(mut self) -> Self {
        self.guard = None;
        self
    }

    /// The world it lives in.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Where the node is.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// How long one call may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The same, with another deadline for each call.
    #[must_use]
    pub(crate) fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same, for calls that the node may let wait for `span` before it answers.
    #[must_use]
    pub(crate) fn waiting(mut self, span: Duration) -> Self {
        self.deadline = self.deadline.saturating_add(span);
        self
    }

    /// A connection that is dialled when it is first used.
    pub(crate) fn connection(&self) -> Connection {
        Connection::new(self.clone())
    }

    /// The same, on which calls are made again where that helps, if this client does so.
    pub(crate) fn guarded(&self) -> Guarded {
        Guarded::new(self.clone())
    }

    /// Makes one call, whose answer is JSON.
    pub(crate) async fn answer(&self, call: &Call) -> Result<Value, Failure> {
        Ok(self.call(call).await?.json(&self.server)?)
    }

    /// Makes one call on a connection of its own. A problem comes with the advice of its page.
    pub(crate) async fn call(&self, call: &Call) -> Result<Reply, Failure> {
        let connection = self.guarded();
        match connection.call(call).await? {
            Ok(reply) => Ok(reply),
            Err(problem) => Err(connection.advise(problem).await),
        }
    }

    /// Makes one call whose reply comes line by line, and tells `told` each line but the last, which it returns.
    pub(crate) async fn last_line(&self, call: &Call, told: impl FnMut(&[u8])) -> Result<Bytes, Failure> {
        let mut connection = self.connection();
        match connection.last_line(call, told).await? {
            Ok(line) => Ok(line),
            Err(problem) => Err(connection.advise(problem).await.into()),
        }
    }
}

impl Call {
    /// A read of `target`, a path with its query.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        let (method, target, headers) = (Method::GET, target.into(), HeaderMap::new());
        Self { method, target, headers, body: Bytes::new(), known_again: false }
    }

    /// A write to `target`.
    pub(crate) fn post(target: impl Into<String>, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { method: Method::POST, target: target.into(), headers, body: body.into(), known_again: false }
    }

    /// The same as a `PUT`.
    #[must_use]
    pub(crate) fn put(mut self) -> Self {
        self.method = Method::PUT;
        self
    }

    /// The removal of `target`.
    pub(crate) fn delete(target: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::get(target) }
    }

    /// With a header.
    ///
    /// # Errors
    /// When `value` cannot stand in a header.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Result<Self, Failure> {
        let bad =
            |_| Failure::new(Exit::Usage, format!("`{value}` cannot be sent as `{name}`: it is not printable ASCII"));
        let value = HeaderValue::from_str(value).map_err(bad)?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// The same, of which the node knows by the ids in it whether it did it before.
    #[must_use]
    pub(crate) fn known_again(mut self) -> Self {
        self.known_again = true;
        self
    }

    /// What doing it twice would do.
    fn repeatable(&self) -> Repeatable {
        match self.is_safe() {
            true => Repeatable::Idempotent,
            false if self.known_again || self.headers.contains_key("idempotency-key") => Repeatable::Keyed,
            false => Repeatable::No,
        }
    }

    /// Whether repeating it is harmless whatever it is.
    fn is_safe(&self) -> bool {
        self.method == Method::GET
    }
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self, server: &Server) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|wrong| ClientError::Strange { server: server.clone(), what: format!("no JSON: {wrong}") })
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Where the next page is: `Link: <…>; rel="next"`.
    pub(crate) fn next(&self) -> Option<String> {
        let links = self.headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok());
        let mut links = links.flat_map(|value| value.split(", <"));
        let next = links.find(|link| link.contains("rel=\"next\""))?;
        let target = next.trim_start().trim_start_matches('<').split('>').next()?;
        Some(target.to_owned())
    }
}

/// `text` as one segment of a path, or one value of a query.
pub(crate) fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

/// A path with its query, put together.
pub(crate) struct Target(String);

impl Target {
    /// The path `segments`, each encoded.
    pub(crate) fn path(segments: &[&str]) -> Self {
        Self(segments.iter().fold(String::new(), |path, segment| path + "/" + &encode(segment)))
    }

    /// With the parameter `name`.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0 += &format!("{name}={}", encode(&value.to_string()));
        self
    }

    /// With the parameter `name`, if there is a value.
    #[must_use]
    pub(crate) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Reply, Target};
    use bytes::Bytes;
    use http::{HeaderMap, header};

    #[test]
    fn a_target_is_encoded_part_by_part() {
        let target =
            Target::path(&["v1", "streams", "a/b ☂"]).with("from", 3).with_some("to", None::<u8>).with("x", "&=");
        assert_eq!(String::from(target), "/v1/streams/a%2Fb%20%E2%98%82?from=3&x=%26%3D");
    }

    #[test]
    fn the_next_page_is_found_among_links() {
        let mut headers = HeaderMap::new();
        let links = "</v1/events?after=0>; rel=\"first\", </v1/events?after=9&limit=2>; rel=\"next\"";
        headers.insert(header::LINK, links.parse().unwrap());
        let reply = Reply { headers, body: Bytes::new() };
        assert_eq!(reply.next().as_deref(), Some("/v1/events?after=9&limit=2"));
    }
}
