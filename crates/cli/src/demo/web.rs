//! JSON over HTTP/1.1: how the demo's services are asked, and how they answer.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use quorate_runtime::{BoxFuture, Env, net::Io};
use serde_json::{Value, json};

use crate::exit::Failure;

/// The largest request, in bytes.
const MAX_BODY: usize = 64 << 10;

/// A request that was read whole.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer.
pub(crate) struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    /// An answer with this status.
    pub(crate) fn of(status: StatusCode, body: Value) -> Self {
        Self { status, body }
    }

    /// It is done.
    pub(crate) fn done(body: Value) -> Self {
        Self { status: StatusCode::OK, body }
    }

    /// It is certainly not done, and never will be.
    pub(crate) fn refused(why: &str) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, body: json!({ "title": why }) }
    }

    /// Whoever asks may ask again: whether it was done is not known.
    pub(crate) fn unknown(why: impl ToString) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, body: json!({ "title": why.to_string() }) }
    }

    /// It was done the other way.
    pub(crate) fn conflict(why: &str) -> Self {
        Self { status: StatusCode::CONFLICT, body: json!({ "why": why }) }
    }

    /// It failed, and says no more than that.
    pub(crate) fn failed(why: &str) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, body: json!({ "title": why }) }
    }

    /// There is nothing by that name.
    pub(crate) fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, body: json!({ "title": "there is nothing here" }) }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }
}

/// What answers.
pub(crate) type Handler = Arc<dyn Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Listens on a free port of this machine, and answers until the environment's tasks are told to stop.
pub(crate) async fn serve(env: &Env, handler: Handler) -> Result<SocketAddr, Failure> {
    let failed = |cause| Failure::io("a port of this machine cannot be listened on", &cause);
    let listener = env.net().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let of_connections = env.clone();
    env.tasks().spawn("demo-web", async move {
        let stop = of_connections.tasks().stop().clone();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((io, _)) = accepted {
                of_connections.tasks().spawn("demo-connection", answer(io, handler.clone(), stop.clone()));
            }
        }
    });
    Ok(address)
}

async fn answer(io: Box<dyn Io>, handler: Handler, stop: tokio_util::sync::CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
                return Ok::<_, std::convert::Infallible>(
                    Answer::refused("the body is too large, or broke off").response(),
                );
            };
            let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().map(str::to_owned));
            let asked = Asked { method: parts.method, path, query, headers: parts.headers, body: body.to_bytes() };
            Ok(handler(asked).await.response())
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    tokio::select! {
        // A peer that broke off has nobody to be told of.
        _ended = connection => {}
        () = stop.cancelled() => {}
    }
}
