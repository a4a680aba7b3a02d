//! The client against sockets of this machine: kept connections, closed ones, and what is told of them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use quorate_runtime::{
    BoxFuture, Env,
    net::{Io, Listener, Net},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_layer::Layer as _;
use tower_service::Service as _;

use super::*;
use crate::{
    CallError, Class, hedge,
    http::Http,
    retry::{self, BudgetConfig},
    stack::Stack,
    timeout::Timers,
};

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// What a server does with the request that it has read from a connection.
#[derive(Clone, Copy)]
enum Does {
    Answers(&'static [u8]),
    Closes,
}

/// A server that does one thing after the other, connection by connection. Returns where it listens.
async fn server(env: &Env, connections: Vec<Vec<Does>>) -> String {
    let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    env.tasks().spawn("server", async move {
        for deeds in connections {
            let (mut io, _) = listener.accept().await.unwrap();
            for does in deeds {
                if !request(&mut io).await {
                    break;
                }
                match does {
                    Does::Answers(bytes) => io.write_all(bytes).await.unwrap(),
                    Does::Closes => break,
                }
            }
        }
    });
    format!("http://{address}/")
}

/// Reads a request's head; false if the connection was closed.
async fn request(io: &mut Box<dyn Io>) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

fn get(uri: &str, method: Method) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::default()).unwrap()
}

async fn text(answer: Response<impl Body<Data = Bytes, Error: std::fmt::Debug>>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_connection_is_kept_once_its_answer_was_read_and_used_again() {
    let env = Env::real();
    let uri = server(&env, vec![vec![Does::Answers(HELLO), Does::Answers(HELLO)]]).await;
    let mut client = Client::new(&env, Config::default());
    let answer = client.call(get(&uri, Method::GET)).await.unwrap();
    assert_eq!(client.idle(), 0, "the answer is still to be read");
    assert_eq!(text(answer).await, "hello");
    assert_eq!(client.idle(), 1);
    assert_eq!(text(client.call(get(&uri, Method::GET)).await.unwrap()).await, "hello");
}

#[tokio::test]
async fn a_kept_connection_closed_under_a_request_is_stale_and_the_stack_sends_a_read_on_a_new_one() {
    let env = Env::real();
    let connections = || vec![vec![Does::Answers(HELLO), Does::Closes], vec![Does::Answers(HELLO)]];
    let uri = server(&env, connections()).await;
    let client = Client::new(&env, Config::default());
    let config = retry::Config { attempts: NonZeroU32::new(2).unwrap(), ..retry::Config::default() };
    let stack = Stack::builder("a".parse().unwrap())
        .retry(config, BudgetConfig::default())
        .build(&Timers::new(&env), Http::default().failing_as(Client::judge))
        .unwrap();
    let mut guarded = stack.layer(client);
    for _ in 0..2 {
        assert_eq!(text(guarded.call(get(&uri, Method::GET)).await.unwrap()).await, "hello");
    }
    // A write without a key isn't: nobody knows whether it was done.
    let uri = server(&env, connections()).await;
    assert_eq!(text(guarded.call(get(&uri, Method::POST)).await.unwrap()).await, "hello");
    let ended = guarded.call(get(&uri, Method::POST)).await;
    assert!(matches!(ended, Err(CallError::Upstream(Error::Stale { .. }, Class::Stale))), "{ended:?}");
}

#[tokio::test]
async fn a_connection_is_not_kept_that_the_server_will_close_or_whose_answer_was_not_read() {
    let env = Env::real();
    let close = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: Close\r\n\r\n";
    let uri = server(&env, vec![vec![Does::Answers(close)], vec![Does::Answers(HELLO)]]).await;
    let mut client = Client::new(&env, Config::default());
    assert_eq!(client.call(get(&uri, Method::GET)).await.unwrap().status(), StatusCode::OK);
    drop(client.call(get(&uri, Method::GET)).await.unwrap());
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn who_cannot_be_reached_did_nothing_and_an_address_that_cannot_be_called_is_told() {
    let env = Env::real();
    let mut client = Client::new(&env, Config::default());
    let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let refused = client.call(get(&uri, Method::GET)).await.unwrap_err();
    assert!(Client::judge(&refused).unprocessed, "{refused:?}");
    for (uri, says) in [("https://a/", "encrypt"), ("/a", "absolute"), ("http://u@a/", "user")] {
        let wrong = client.call(get(uri, Method::GET)).await.unwrap_err();
        assert!(wrong.to_string().contains(says), "{wrong}");
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_with_the_call_and_is_not_taken_for_whole() {
    let env = Env::real();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello";
    let uri = server(&env, vec![vec![Does::Answers(half), Does::Closes]]).await;
    let stack = Stack::builder("a".parse().unwrap())
        .total(Duration::from_millis(50))
        .build(&Timers::new(&env), Http::default().failing_as(Client::judge))
        .unwrap();
    let client = Client::new(&env, Config::default());
    let answer = stack.layer(client.clone()).call(get(&uri, Method::GET)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.into_body().collect().await.is_err());
    assert_eq!(client.idle(), 0);
}

/// A network in which a name has two addresses, and nobody ever answers at the first one.
struct Twofold(Arc<dyn Net>);

const VOID: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Net for Twofold {
    fn listen(&self, at: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.0.listen(at)
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        if to.ip() == VOID { Box::pin(std::future::pending()) } else { self.0.connect(to) }
    }

    fn resolve(&self, _: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let living = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Box::pin(std::future::ready(Ok([VOID, living].map(|address| SocketAddr::new(address, port)).to_vec())))
    }
}

#[tokio::test]
async fn an_address_of_which_nothing_is_heard_leaves_the_others_of_the_name_time() {
    let real = Env::real();
    let uri = server(&real, vec![vec![Does::Answers(HELLO)]]).await.replace("127.0.0.1", "twofold");
    let mut parts = real.into_parts();
    parts.net = Arc::new(Twofold(parts.net));
    let config = Config { connect: Duration::from_millis(400), ..Config::default() };
    let mut client = Client::new(&Env::from_parts(parts), config);
    assert_eq!(text(client.call(get(&uri, Method::GET)).await.unwrap()).await, "hello");
}

/// A body that tells one piece, and then what `breaks` says, or nothing for ever.
struct Upload {
    told: bool,
    breaks: Option<io::Error>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !std::mem::replace(&mut self.told, true) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half")))));
        }
        self.breaks.take().map_or(Poll::Pending, |broken| Poll::Ready(Some(Err(broken))))
    }
}

#[tokio::test]
async fn a_connection_whose_upload_goes_on_behind_its_answer_keeps_no_other_call_waiting() {
    let env = Env::real();
    let uri = server(&env, vec![vec![Does::Answers(HELLO)], vec![Does::Answers(HELLO)]]).await;
    let mut client = Client::new(&env, Config::default());
    let post = Request::post(&uri).body(Upload { told: false, breaks: None }).unwrap();
    assert_eq!(text(client.call(post).await.unwrap()).await, "hello");
    let next = async { text(client.call(get(&uri, Method::GET)).await.unwrap()).await };
    assert_eq!(env.timeout(Duration::from_secs(10), next).await.as_deref(), Some("hello"));
}

#[tokio::test]
async fn an_upload_that_its_own_caller_breaks_off_is_no_failure_of_the_upstream() {
    let env = Env::real();
    let uri = server(&env, vec![vec![Does::Answers(b"")]]).await;
    let stack = Stack::builder("a".parse().unwrap())
        .build(&Timers::new(&env), Http::default().failing_as(Client::judge))
        .unwrap();
    let broken = Upload { told: false, breaks: Some(io::ErrorKind::UnexpectedEof.into()) };
    let ended = stack.layer(Client::new(&env, Config::default())).call(Request::post(&uri).body(broken).unwrap()).await;
    assert!(matches!(ended, Err(CallError::Upstream(Error::Broken { .. }, Class::Refusal))), "{:?}", ended.err());
}

/// A body of two pieces with a pause between them, each nearly as long as what is kept of one.
struct Halves(Env, Option<BoxFuture<'static, ()>>, u8);

impl Body for Halves {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.1 {
            std::task::ready!(pause.as_mut().poll(cx));
            self.1 = None;
        }
        self.2 += 1;
        if self.2 > 2 {
            return Poll::Ready(None);
        }
        let env = self.0.clone();
        self.1 = Some(Box::pin(async move { env.sleep(Duration::from_millis(150)).await }));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; 40 << 10])))))
    }
}

/// Answers whoever has sent all of a chunked body, on as many connections as come.
async fn patient(env: &Env) -> String {
    let listener = env.net().listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), env.clone());
    env.tasks().spawn("server", async move {
        while let Ok((mut io, _)) = listener.accept().await {
            tasks.tasks().spawn("connection", async move {
                let mut heard = Vec::new();
                while !heard.ends_with(b"\r\n0\r\n\r\n") {
                    match io.read_u8().await {
                        Ok(byte) => heard.push(byte),
                        Err(_) => return,
                    }
                }
                io.write_all(HELLO).await.unwrap();
            });
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn an_upload_that_outgrows_what_is_kept_while_two_attempts_send_it_goes_on_with_one() {
    let env = Env::real();
    let uri = patient(&env).await;
    let late = hedge::Config { after: hedge::After::Fixed(Duration::from_millis(50)), extra: NonZeroU32::MIN };
    let stack = Stack::builder("a".parse().unwrap())
        .hedge(late)
        .build(&Timers::new(&env), Http::default().failing_as(Client::judge))
        .unwrap();
    let mut guarded = stack.layer(Client::new(&env, Config::default()));
    let answer = guarded.call(Request::put(&uri).body(Halves(env.clone(), None, 0)).unwrap()).await.unwrap();
    assert_eq!(text(answer).await, "hello");
}
