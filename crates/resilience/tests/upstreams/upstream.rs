//! An upstream on a real socket, which does with one request after the other what a list says.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use h2::Reason;
use http::{HeaderMap, HeaderName, Request, Response, request};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use quorate_resilience::client::rustls::ServerConfig;
use quorate_runtime::{BoxFuture, Env, net::Io};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Fields = &'static [(&'static str, &'static str)];
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// What is done with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Answers.
    Says(u16, Fields, &'static str),
    /// Answers with one message of gRPC, if there is one, and trailers behind it.
    Trails(Option<&'static str>, Fields),
    /// Answers with a part of what it promises, and breaks off.
    Breaks(&'static str),
    /// Answers with a part of what it promises, and says no more.
    Stalls(&'static str),
    /// Never answers.
    Waits,
    /// Breaks the connection; over HTTP/2 it resets the stream.
    Resets(Reason),
}

pub(crate) const OK: Does = Does::Says(200, &[], "ok");
pub(crate) const BUSY: Does = Does::Says(503, &[], "busy");

/// Which versions it speaks, and what it shows.
pub(crate) struct Speaks {
    pub(crate) two: bool,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

pub(crate) const ONE: Speaks = Speaks { two: false, tls: None };
pub(crate) const TWO: Speaks = Speaks { two: true, tls: None };

pub(crate) struct Upstream {
    address: SocketAddr,
    tls: bool,
    shared: Arc<Shared>,
    gone: mpsc::UnboundedReceiver<()>,
}

struct Shared {
    deeds: Mutex<VecDeque<Does>>,
    seen: Mutex<Vec<(request::Parts, Bytes)>>,
    connections: Mutex<usize>,
    leaves: mpsc::UnboundedSender<()>,
}

impl Upstream {
    /// One that does what `deeds` says, and answers `ok` from then on.
    pub(crate) async fn new(env: &Env, speaks: Speaks, deeds: &[Does]) -> Self {
        let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (leaves, gone) = mpsc::unbounded_channel();
        let deeds = Mutex::new(deeds.iter().copied().collect());
        let shared = Shared { deeds, seen: Mutex::default(), connections: Mutex::default(), leaves };
        let (address, tls) = (listener.local_addr().unwrap(), speaks.tls.is_some());
        let upstream = Self { address, tls, shared: Arc::new(shared), gone };
        let (env, shared) = (env.clone(), upstream.shared.clone());
        env.clone().tasks().spawn("upstream", async move {
            let (speaks, env) = (Arc::new(speaks), env);
            while let Ok((io, _)) = listener.accept().await {
                *shared.connections.lock().unwrap() += 1;
                let serving = serve(env.clone(), io, speaks.clone(), shared.clone());
                env.tasks().spawn("connection", serving);
            }
        });
        upstream
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        // By name, since certificates are for names.
        let (scheme, port) = (if self.tls { "https" } else { "http" }, self.address.port());
        format!("{scheme}://localhost:{port}{path}")
    }

    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    /// How many requests have come.
    pub(crate) fn seen(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The field called `name` of each request.
    pub(crate) fn field(&self, name: &str) -> Vec<Option<String>> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().map(|(head, _)| Some(head.headers.get(name)?.to_str().unwrap().to_owned())).collect()
    }

    /// The body of each request.
    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        self.shared.seen.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    /// Waits until somebody has left who was kept waiting.
    pub(crate) async fn somebody_left(&mut self) {
        self.gone.recv().await.unwrap();
    }
}

async fn serve(env: Env, io: Box<dyn Io>, speaks: Arc<Speaks>, shared: Arc<Shared>) {
    let (io, two): (Box<dyn Io>, bool) = match &speaks.tls {
        None => (io, speaks.two),
        Some(tls) => match TlsAcceptor::from(tls.clone()).accept(io).await {
            Ok(stream) => {
                let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                (Box::new(stream), two)
            }
            // The client has seen enough of the certificate.
            Err(_) => return,
        },
    };
    let of_service = env.clone();
    let service = service_fn(move |request| answer(of_service.clone(), request, shared.clone()));
    let io = TokioIo::new(io);
    // That a client leaves is what some tests are about.
    if two {
        _ = http2::Builder::new(Tasks(env)).serve_connection(io, service).await;
    } else {
        _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

async fn answer(env: Env, request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    shared.seen.lock().unwrap().push((head, body));
    let does = shared.deeds.lock().unwrap().pop_front().unwrap_or(OK);
    match does {
        Does::Says(status, fields, text) => {
            Ok(head_of(status, fields).map(|()| Full::from(text).map_err(never).boxed_unsync()))
        }
        Does::Trails(message, fields) => {
            let message = message.map(|text| Ok(Frame::data(framed(text))));
            let trailers = Ok(Frame::trailers(headers(fields)));
            Ok(head_of(200, GRPC).map(|()| stream(&env, message.into_iter().chain([trailers]), false)))
        }
        Does::Breaks(text) => {
            let broken = Err(BoxError::from("as was asked"));
            Ok(head_of(200, &[]).map(|()| stream(&env, [Ok(Frame::data(text.into())), broken], false)))
        }
        Does::Stalls(text) => Ok(head_of(200, &[]).map(|()| stream(&env, [Ok(Frame::data(text.into()))], true))),
        Does::Waits => {
            let _leaves = Leaves(shared);
            pending().await
        }
        Does::Resets(reason) => Err(h2::Error::from(reason).into()),
    }
}

const GRPC: Fields = &[("content-type", "application/grpc")];

fn head_of(status: u16, fields: Fields) -> Response<()> {
    let mut head = Response::builder().status(status).body(()).unwrap();
    *head.headers_mut() = headers(fields);
    head
}

fn headers(fields: Fields) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

/// A message as gRPC frames it.
pub(crate) fn framed(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

fn never(never: Infallible) -> BoxError {
    match never {}
}

type Piece = Result<Frame<Bytes>, BoxError>;

/// A body of `pieces`, with a moment after the first one in which it is sent.
fn stream<I>(env: &Env, pieces: I, goes_on: bool) -> UnsyncBoxBody<Bytes, BoxError>
where
    I: IntoIterator<Item = Piece>,
{
    let pieces: Vec<Piece> = pieces.into_iter().collect();
    let env = env.clone();
    let moment: BoxFuture<'static, ()> = Box::pin(async move { env.sleep(Duration::from_millis(20)).await });
    StreamBody::new(Pieces { pieces: pieces.into_iter(), goes_on, told: 0, moment }).boxed_unsync()
}

struct Pieces {
    pieces: std::vec::IntoIter<Piece>,
    goes_on: bool,
    told: usize,
    moment: BoxFuture<'static, ()>,
}

impl Stream for Pieces {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        if self.told == 1 && !self.pieces.as_slice().is_empty() {
            ready!(self.moment.as_mut().poll(cx));
        }
        self.told += 1;
        match self.pieces.next() {
            None if self.goes_on => Poll::Pending,
            next => Poll::Ready(next),
        }
    }
}

struct Leaves(Arc<Shared>);

impl Drop for Leaves {
    fn drop(&mut self) {
        // Nobody listens once the test has ended.
        _ = self.0.leaves.send(());
    }
}

#[derive(Clone)]
pub(crate) struct Tasks(pub(crate) Env);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        self.0.tasks().spawn("stream", async {
            work.await;
        });
    }
}

/// Listens, and tells whoever comes that none of what it asks will be looked at: a `GOAWAY` whose last stream is none, once a
/// request has been sent. Further connections are served as by [`Upstream`]. Returns the address.
pub(crate) async fn goes_away(env: &Env, then: &Upstream) -> String {
    let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (env, speaks, shared) = (env.clone(), Arc::new(TWO), then.shared.clone());
    env.clone().tasks().spawn("upstream that goes away", async move {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_all(&frame(SETTINGS, &[])).await.unwrap();
        let mut preface = [0; 24];
        io.read_exact(&mut preface).await.unwrap();
        loop {
            let mut head = [0; 9];
            io.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            io.read_exact(&mut vec![0; length as usize]).await.unwrap();
            if head[3] == HEADERS {
                break;
            }
        }
        // The last stream that was looked at, and no error.
        io.write_all(&frame(GOAWAY, &[0; 8])).await.unwrap();
        while let Ok((next, _)) = listener.accept().await {
            let serving = serve(env.clone(), next, speaks.clone(), shared.clone());
            env.tasks().spawn("connection", serving);
        }
    });
    format!("http://{address}/")
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
}

/// An address at which nobody listens.
pub(crate) async fn nobody(env: &Env) -> String {
    let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}
