//! Receiving a request's body: bounded in size, in time, and in memory over all requests together.

use std::{error::Error, io, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, Version,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, EXPECT, TRANSFER_ENCODING},
    request::Parts,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use quorate_data::store::Retry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Node, RETRY,
    problem::{Code, Problem},
    request,
};

/// A body that was received, and its share of the memory for bodies.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Bodies up to here are not counted: there are fewer of them than connections.
const SMALL: usize = 16 << 10;

/// How long, and how much of, a body that is too large is read and thrown away, so that its sender gets to see why.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 256 << 20);

impl Node {
    /// Refuses a request that has a body, of which `why` says what it should be instead.
    pub(super) async fn receive_nothing(&self, head: &Parts, body: Body, why: &str) -> Result<(), Problem> {
        let received = self.receive(head, body).await?;
        if received.bytes.is_empty() { Ok(()) } else { Err(Problem::new(Code::InvalidJson, why)) }
    }

    /// Receives the body of the request whose head is `head`.
    pub(super) async fn receive(&self, head: &Parts, mut body: Body) -> Result<Received, Problem> {
        uncoded(&head.headers)?;
        let max = self.config.http.max_body;
        if body.size_hint().lower() > max as u64 {
            // Who asked whether to send it has not sent it: the answer is no.
            if !head.headers.contains_key(EXPECT) {
                self.discard(&mut body).await;
            }
            return Err(too_large(max));
        }
        let collected = self.env.timeout(self.config.http.body_timeout, collect(&mut body, max, &self.memory)).await;
        match collected {
            Some(Err(Unreceived::TooLarge)) => {
                self.discard(&mut body).await;
                Err(too_large(max))
            }
            Some(Err(Unreceived::NoMemory)) => {
                Err(Problem::new(Code::Overloaded, "too many large bodies are being received").after(RETRY))
            }
            Some(Err(Unreceived::Misframed)) => {
                let detail = "the body's chunks are not framed as `transfer-encoding: chunked` frames them";
                let problem = Problem::new(Code::InvalidParameter, detail).with("header", TRANSFER_ENCODING.as_str());
                Err(closing(head, problem))
            }
            Some(Err(Unreceived::Broken)) => Err(late(head, "the body broke off")),
            Some(Ok(received)) => Ok(received),
            None => {
                let waited = self.config.http.body_timeout;
                Err(late(head, format!("the body did not arrive within {waited:?}")))
            }
        }
    }

    async fn discard(&self, body: &mut Body) {
        let discarding = async {
            let mut left = LINGER.1;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        };
        self.env.timeout(LINGER.0, discarding).await;
    }
}

enum Unreceived {
    TooLarge,
    NoMemory,
    /// What came is no body.
    Misframed,
    Broken,
}

impl From<axum::Error> for Unreceived {
    fn from(error: axum::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
        let kind = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).next();
        match kind {
            Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => Self::Misframed,
            _ => Self::Broken,
        }
    }
}

/// Refuses a body in a coding: nobody here takes it off, and its bytes would be kept for what they stand for.
fn uncoded(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(coding) = coding(headers, &TRANSFER_ENCODING, "chunked") {
        let detail = format!("the transfer coding `{coding}` is not understood here; `chunked` is");
        return Err(Problem::new(Code::UnknownTransferCoding, detail).with("header", TRANSFER_ENCODING.as_str()));
    }
    if let Some(coding) = coding(headers, &CONTENT_ENCODING, "identity") {
        let detail = format!("the content coding `{coding}` is not taken off here: send the body as it is");
        let problem = Problem::new(Code::UnsupportedMediaType, detail).with("header", CONTENT_ENCODING.as_str());
        return Err(problem.header(ACCEPT_ENCODING, "identity"));
    }
    Ok(())
}

/// The first coding that a header names beside `known`.
fn coding(headers: &HeaderMap, name: &HeaderName, known: &str) -> Option<String> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("…"));
    let mut codings = values.flat_map(|list| list.split(',')).map(str::trim).filter(|coding| !coding.is_empty());
    codings.find(|coding| !coding.eq_ignore_ascii_case(known)).map(request::short)
}

/// A body that did not come can be sent again.
fn late(head: &Parts, detail: impl Into<String>) -> Problem {
    closing(head, Problem::new(Code::RequestTimeout, detail).retry(Retry::Now))
}

/// Nobody knows where the next request would begin on this connection.
fn closing(head: &Parts, problem: Problem) -> Problem {
    if head.version < Version::HTTP_2 { problem.header(CONNECTION, "close") } else { problem }
}

async fn collect(body: &mut Body, max: usize, memory: &Arc<Semaphore>) -> Result<Received, Unreceived> {
    let Some(first) = data(body).await? else { return Ok(Received { bytes: Bytes::new(), _share: None }) };
    if first.len() > max {
        return Err(Unreceived::TooLarge);
    }
    if body.is_end_stream() {
        // All of it came at once: it stays where it was received.
        let share = (first.len() > SMALL).then(|| take(memory, first.len())).transpose()?;
        return Ok(Received { bytes: first, _share: share });
    }
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX).saturating_add(first.len());
    let mut share: Option<OwnedSemaphorePermit> = None;
    let mut bytes = BytesMut::with_capacity(expected.min(4 * SMALL));
    let mut next = Some(first);
    while let Some(data) = next {
        if bytes.len() + data.len() > max {
            return Err(Unreceived::TooLarge);
        }
        bytes.extend_from_slice(&data);
        // What a buffer holds, not what a header announces, is what counts.
        let held = share.as_ref().map_or(0, |share| share.num_permits() << 10);
        if bytes.capacity() > SMALL.max(held) {
            let more = take(memory, bytes.capacity() - held)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
        }
        next = self::data(body).await?;
    }
    Ok(Received { bytes: bytes.freeze(), _share: share })
}

/// A share of the memory for bodies.
fn take(memory: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Unreceived> {
    let kilobytes = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
    memory.clone().try_acquire_many_owned(kilobytes).map_err(|_| Unreceived::NoMemory)
}

/// The next bytes; `None` at the end.
async fn data(body: &mut Body) -> Result<Option<Bytes>, Unreceived> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(cause)) => return Err(cause.into()),
            Some(Ok(frame)) => {
                // Trailers say nothing here.
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("a request's body has at most {max} bytes")).with("limit", max)
}
