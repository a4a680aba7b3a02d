//! A small HTTP/1.1 client that sends exactly what it is told to, and reads replies strictly.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use quorate_runtime::{Env, net::Io};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a reply may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Client {
    io: Box<dyn Io>,
    read: Vec<u8>,
    env: Env,
    address: SocketAddr,
}

/// A request being put together.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn get(path: impl Into<String>) -> Request {
    request("GET", path)
}

pub(crate) fn post(path: impl Into<String>) -> Request {
    request("POST", path)
}

pub(crate) fn request(method: &str, path: impl Into<String>) -> Request {
    Request { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// One event as JSON.
    pub(crate) fn event(self, json: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/cloudevents+json").body(json)
    }

    /// A batch as JSON.
    pub(crate) fn batch(self, json: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/cloudevents-batch+json").body(json)
    }

    pub(crate) fn json(self, json: impl Into<Vec<u8>>) -> Self {
        self.header("content-type", "application/json").body(json)
    }

    fn bytes(&self, host: &str) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "host") {
            text += &format!("host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        let mut bytes = (text + "\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|wrong| panic!("{wrong}: {self:?}"))
    }

    /// The last part of a problem's type; checks what all problems have in common.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let document = self.json();
        assert_eq!(document["status"], self.status);
        for member in ["title", "detail", "retry", "outcome"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {document}");
        }
        document["type"].as_str().unwrap().strip_prefix("/errors/").unwrap().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The address of the next page.
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.header("link")?;
        Some(link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?.to_owned())
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json()["events"].as_array().unwrap_or_else(|| panic!("{}", self.text())).clone()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let env = Env::real();
        let io = env.net().connect(address).await.unwrap();
        Self { io, read: Vec::new(), env, address }
    }

    /// From this address of the machine's own: another peer.
    pub(crate) async fn connect_from(from: IpAddr, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let io = Box::new(socket.connect(address).await.unwrap());
        Self { io, read: Vec::new(), env: Env::real(), address }
    }

    pub(crate) async fn send(&mut self, request: Request) -> Reply {
        let is_head = request.method == "HEAD";
        let bytes = request.bytes(&self.address.to_string());
        self.write(&bytes).await;
        self.reply_to(is_head).await.expect("a reply")
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let env = self.env.clone();
        // A server that has heard enough may close while we still talk: what it said before is what counts.
        let _ = env.timeout(PATIENCE, self.io.write_all(bytes)).await.expect("the node takes no bytes");
    }

    /// Begins a request and returns when its headers were sent.
    pub(crate) async fn begin(&mut self, request: &Request) {
        let bytes = request.bytes(&self.address.to_string());
        self.write(&bytes).await;
    }

    /// The next reply; `None` if the connection ends instead.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        self.reply_to(false).await
    }

    async fn reply_to(&mut self, is_head: bool) -> Option<Reply> {
        let mut reply = self.head().await?;
        if is_head || reply.status == 304 {
            return Some(reply);
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await? {
                reply.body.extend(chunk);
            }
        } else {
            let length: usize = reply.header("content-length").unwrap_or("0").parse().unwrap();
            while self.read.len() < length {
                self.fill().await?;
            }
            reply.body = self.read.drain(..length).collect();
        }
        Some(reply)
    }

    /// A reply's status and headers.
    pub(crate) async fn head(&mut self) -> Option<Reply> {
        let end = self.find(b"\r\n\r\n").await?;
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_owned(), v.to_owned()));
        Some(Reply { status, headers: headers.collect(), body: Vec::new() })
    }

    /// The next chunk of a body; `Some(None)` at its end, `None` if the connection breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let end = self.find(b"\r\n").await?;
        let line: Vec<u8> = self.read.drain(..end + 2).collect();
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        while self.read.len() < length + 2 {
            self.fill().await?;
        }
        let chunk: Vec<u8> = self.read.drain(..length + 2).collect();
        Some((length > 0).then(|| chunk[..length].to_vec()))
    }

    /// Whether the node closes the connection within `span`. Bytes that come meanwhile are kept.
    pub(crate) async fn is_closed_within(&mut self, span: Duration) -> bool {
        let env = self.env.clone();
        env.timeout(span, async { while self.fill().await.is_some() {} }).await.is_some()
    }

    async fn find(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|window| window == mark) {
                return Some(at);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let env = self.env.clone();
        let read = env.timeout(PATIENCE, self.io.read_buf(&mut self.read)).await.expect("the node says nothing");
        read.ok().filter(|bytes| *bytes > 0).map(|_| ())
    }
}
