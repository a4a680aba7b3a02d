//! Bodies that are told again, for any pieces, any room and any order of readers.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http_body_util::BodyExt as _;
use proptest::prelude::*;

use super::*;

/// Pieces, waits between them, and trailers at the end.
struct Pieces {
    frames: VecDeque<Option<Frame<Bytes>>>,
    left: u64,
    says_length: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.frames.pop_front() {
            // Whoever waits asks again by itself.
            Some(None) => Poll::Pending,
            Some(Some(frame)) => {
                self.left -= frame.data_ref().map_or(0, Bytes::len) as u64;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        if self.says_length { http_body::SizeHint::with_exact(self.left) } else { http_body::SizeHint::new() }
    }
}

/// What one reader has heard.
struct Reader {
    body: Option<Replay<Pieces>>,
    heard: Vec<u8>,
    trailers: bool,
    lost: bool,
    ended: bool,
}

impl Reader {
    fn of(body: Replay<Pieces>) -> Self {
        Self { body: Some(body), heard: Vec::new(), trailers: false, lost: false, ended: false }
    }

    fn poll(&mut self) {
        let Some(body) = self.body.as_mut().filter(|_| !self.ended) else { return };
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => self.heard.extend(piece),
                Err(_) => self.trailers = true,
            },
            Poll::Ready(Some(Err(TooLong::Lost(_)))) => (self.lost, self.ended) = (true, true),
            Poll::Ready(Some(Err(TooLong::Broken))) => unreachable!("it never breaks"),
            Poll::Ready(None) => self.ended = true,
            Poll::Ready(Some(Err(TooLong::Body(never)))) => match never {},
        }
    }
}

proptest! {
    #[test]
    fn any_order_of_readers_hears_the_body_as_it_is_or_is_told_that_it_does_not(
        sizes in proptest::collection::vec((0_usize..6, any::<bool>()), 0..8),
        room in 0_usize..30,
        acts in proptest::collection::vec((0_usize..8, 0_usize..4), 1..120),
        says_length in any::<bool>(),
    ) {
        let (mut frames, mut whole) = (VecDeque::new(), Vec::new());
        for (size, waits) in sizes {
            if waits {
                frames.push_back(None);
            }
            let piece: Vec<u8> = (0..size).map(|_| whole.len() as u8).collect();
            whole.extend(&piece);
            frames.push_back(Some(Frame::data(Bytes::from(piece))));
        }
        frames.push_back(Some(Frame::trailers(HeaderMap::new())));
        let body = Pieces { frames, left: whole.len() as u64, says_length };
        let fits = whole.len() <= room;
        let (first, kept) = Replay::kept(body, room);
        let mut readers = vec![Reader::of(first)];
        for (act, which) in acts {
            match act {
                0 if readers.len() < 4 => readers.extend(kept.again().map(Reader::of)),
                1 => {
                    let which = which % readers.len();
                    readers[which].body = None;
                }
                _ => {
                    let which = which % readers.len();
                    readers[which].poll();
                }
            }
        }
        // Those who are still there read to the end.
        for reader in &mut readers {
            for _ in 0..40 {
                reader.poll();
            }
        }
        let mut owners = 0;
        for reader in &readers {
            prop_assert!(whole.starts_with(&reader.heard), "{:?} of {whole:?}", reader.heard);
            if reader.body.is_none() {
                continue;
            }
            prop_assert!(reader.ended);
            prop_assert!(!(fits && reader.lost), "what fits is lost by nobody");
            if !reader.lost {
                prop_assert_eq!(&reader.heard, &whole, "what ends as if it were whole is");
                prop_assert!(reader.trailers);
                owners += 1;
            }
        }
        prop_assert!(fits || owners <= 1, "what doesn't fit is one reader's");
        prop_assert!(!fits || kept.again().is_some(), "what fits can be told again");
    }
}

/// Half of a body, an error, and behind it the end, as with bodies of hyper.
#[derive(Default)]
pub(super) struct Half(u8);

impl Body for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0 += 1;
        Poll::Ready(match self.0 {
            1 => Some(Ok(Frame::data(Bytes::from_static(b"half")))),
            2 => Some(Err(std::io::ErrorKind::UnexpectedEof.into())),
            _ => None,
        })
    }
}

#[tokio::test]
async fn a_body_that_broke_off_is_whole_to_nobody_and_told_no_second_time() {
    let (mut first, kept) = Replay::kept(Half::default(), 100);
    let copy = kept.again().unwrap();
    assert!(first.frame().await.unwrap().is_ok());
    assert!(first.frame().await.unwrap().is_err());
    assert!(copy.collect().await.is_err(), "half a body does not end as if it were whole");
    assert!(kept.again().is_none());
}
