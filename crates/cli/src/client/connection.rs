//! One connection, dialled when it is needed and again when it was closed.

use std::io;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use quorate_resilience::{deadline::Deadline, hop::Hop};

use super::{Call, Client, ClientError, Problem, Reply};

/// The longest reply that is read whole, in bytes.
const MAX_REPLY: usize = 256 << 20;

/// How long a page of advice is waited for: it is only a kindness.
const ADVICE: std::time::Duration = std::time::Duration::from_secs(2);

/// A connection to a node. Calls follow each other on it.
pub(crate) struct Connection {
    client: Client,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// What the node is told of the current call: by when it has to be complete, for it stops working for whoever has left, and which
    /// attempt it is.
    hop: Hop,
    /// Whether an attempt was given up, so that its answer may still come.
    given_up: bool,
}

impl Connection {
    pub(super) fn new(client: Client) -> Self {
        Self { client, sender: None, hop: Hop::FIRST, given_up: false }
    }

    /// Makes one attempt of a call, for as long as whoever waits for it likes.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the connection; whether the call was done is then unknown.
    pub(super) async fn attempt(&mut self, call: &Call, hop: Hop) -> Result<Result<Reply, Problem>, ClientError> {
        if std::mem::replace(&mut self.given_up, true) {
            self.sender = None;
        }
        self.hop = hop;
        let done = self.exchange(call).await;
        self.given_up = false;
        done
    }

    /// Makes a call and reads the whole reply, within the client's deadline. The inner error is the node's own no.
    ///
    /// # Errors
    /// [`ClientError`]; each says whether the call may have been done.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the connection; whether the call was done is then unknown.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Result<Reply, Problem>, ClientError> {
        let (env, deadline) = (self.client.env.clone(), self.client.deadline);
        let late =
            || ClientError::Late { server: self.client.server.clone(), unsafe_call: !call.is_safe(), waited: deadline };
        let late = late();
        self.hop = Hop::until(Deadline::after(env.mono(), deadline));
        let done = env.timeout(deadline, self.exchange(call)).await;
        match done {
            Some(done) => done,
            None => {
                self.sender = None;
                Err(late)
            }
        }
    }

    /// Makes a call whose reply comes line by line: tells `told` each line but the last, which it returns. The client's
    /// deadline holds for all of it.
    pub(super) async fn last_line(
        &mut self,
        call: &Call,
        told: impl FnMut(&[u8]),
    ) -> Result<Result<Bytes, Problem>, ClientError> {
        let (env, waited) = (self.client.env.clone(), self.client.deadline);
        let late = ClientError::Late { server: self.client.server.clone(), unsafe_call: !call.is_safe(), waited };
        self.hop = Hop::until(Deadline::after(env.mono(), waited));
        env.timeout(waited, self.lines(call, told)).await.unwrap_or(Err(late))
    }

    async fn lines(&mut self, call: &Call, mut told: impl FnMut(&[u8])) -> Result<Result<Bytes, Problem>, ClientError> {
        let response = self.send(call).await?;
        if !response.status().is_success() {
            return Ok(Err(self.problem(call, response).await?));
        }
        let (mut body, mut read) = (Limited::new(response.into_body(), MAX_REPLY), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|cause| self.broken(call, cause))?;
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            // The last line may be the one that just ended.
            while let Some(end) = memchr::memchr(b'\n', &read)
                && end + 1 < read.len()
            {
                told(&read.split_to(end + 1));
            }
        }
        Ok(Ok(read.freeze()))
    }

    /// Opens a reply whose body is read as it comes. The client's deadline holds for its beginning.
    pub(super) async fn open(&mut self, call: &Call) -> Result<Result<Incoming, Problem>, ClientError> {
        let (env, waited) = (self.client.env.clone(), self.client.deadline);
        let server = self.client.server.clone();
        // What is read as it comes may come for as long as it likes.
        self.hop = Hop::FIRST;
        let begun = env.timeout(waited, self.send(call)).await;
        let response = begun.unwrap_or(Err(ClientError::Late { server, unsafe_call: false, waited }))?;
        if response.status().is_success() {
            // The body owns the connection from here on.
            self.sender = None;
            return Ok(Ok(response.into_body()));
        }
        Ok(Err(self.problem(call, response).await?))
    }

    /// `problem` with the advice of its page, if the node has it at hand.
    pub(crate) async fn advise(&mut self, problem: Problem) -> Problem {
        let Some(page) = problem.page_path() else { return problem };
        let Ok(call) = Call::get(page).header(header::ACCEPT, "text/markdown, text/plain") else { return problem };
        let env = self.client.env.clone();
        self.hop = Hop::until(Deadline::after(env.mono(), ADVICE));
        match env.timeout(ADVICE, self.exchange(&call)).await {
            Some(Ok(Ok(reply))) => problem.advised(&String::from_utf8_lossy(&reply.body)),
            _ => problem,
        }
    }

    async fn exchange(&mut self, call: &Call) -> Result<Result<Reply, Problem>, ClientError> {
        let response = self.send(call).await?;
        if response.status().is_client_error() || response.status().is_server_error() {
            return Ok(Err(self.problem(call, response).await?));
        }
        let (parts, body) = response.into_parts();
        let body = self.collect(call, body).await?;
        Ok(Ok(Reply { headers: parts.headers, body }))
    }

    async fn problem(&mut self, call: &Call, response: Response<Incoming>) -> Result<Problem, ClientError> {
        let status = response.status();
        let body = self.collect(call, response.into_body()).await?;
        Ok(Problem::parse(&self.client.server, status, &body))
    }

    async fn collect(&mut self, call: &Call, body: Incoming) -> Result<Bytes, ClientError> {
        let collected = Limited::new(body, MAX_REPLY).collect().await;
        collected.map(|body| body.to_bytes()).map_err(|cause| {
            self.sender = None;
            self.broken(call, cause)
        })
    }

    /// Sends `call`, on a new connection where the old one is known not to have taken it.
    async fn send(&mut self, call: &Call) -> Result<Response<Incoming>, ClientError> {
        if let Some(kept) = self.sender.take()
            && let Some(response) = self.send_again(kept, call).await?
        {
            return Ok(response);
        }
        let mut sender = self.dial().await?;
        match sender.send_request(self.request(call)?).await {
            Ok(response) => {
                self.sender = Some(sender);
                Ok(response)
            }
            Err(cause) => Err(self.broken(call, cause.into())),
        }
    }

    /// Sends `call` on a connection that was used before; `None` when it can be sent on another one without harm.
    async fn send_again(
        &mut self,
        mut kept: SendRequest<Full<Bytes>>,
        call: &Call,
    ) -> Result<Option<Response<Incoming>>, ClientError> {
        if kept.ready().await.is_err() {
            return Ok(None);
        }
        match kept.try_send_request(self.request(call)?).await {
            Ok(response) => {
                self.sender = Some(kept);
                Ok(Some(response))
            }
            Err(mut failed) => {
                let untaken = failed.take_message().is_some();
                if untaken || call.is_safe() { Ok(None) } else { Err(self.broken(call, failed.into_error().into())) }
            }
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let Client { env, server, .. } = &self.client;
        // A link the node gives is a path on the node, or a whole URL of it.
        let target = call.target.strip_prefix(&server.to_string()).unwrap_or(&call.target);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{target}", server.prefix()))
            .body(Full::new(call.body.clone()))
            .map_err(|wrong| ClientError::Strange { server: server.clone(), what: wrong.to_string() })?;
        let host = server.authority().parse().map_err(|_| ClientError::Strange {
            server: server.clone(),
            what: "its name cannot stand in a header".to_owned(),
        })?;
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().insert(header::HOST, host);
        quorate_resilience::http::write(request.headers_mut(), self.hop, env.mono());
        // A call may have a time of its own, behind which the node is still listened to.
        if let Some(own) = call.headers.get(&quorate_resilience::http::TIMEOUT) {
            request.headers_mut().insert(quorate_resilience::http::TIMEOUT, own.clone());
        }
        let agent = concat!("quorate/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, http::HeaderValue::from_static(agent));
        Ok(request)
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let Client { env, server, .. } = &self.client;
        let unreachable = |cause| ClientError::Unreachable { server: server.clone(), cause };
        let addresses = tokio::net::lookup_host(server.dial()).await.map_err(unreachable)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match env.net().connect(address).await {
                Ok(io) => {
                    let shaken = http1::handshake(TokioIo::new(io)).await;
                    let (sender, driver) = shaken.map_err(|cause| unreachable(io::Error::other(cause)))?;
                    env.tasks().spawn("client connection", async move {
                        // What breaks the connection is told to whoever waits for a reply on it.
                        let _ = driver.await;
                    });
                    return Ok(sender);
                }
                Err(cause) => last = cause,
            }
        }
        Err(unreachable(last))
    }

    fn broken(&self, call: &Call, cause: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Broken { server: self.client.server.clone(), unsafe_call: !call.is_safe(), cause }
    }
}
