//! What prevented an answer, as far as the errors of hyper, h2 and rustls tell.

use std::{error::Error, io};

use h2::Reason;

use crate::outcome::{Class, Verdict};

/// What `error`, or what caused it, says about the upstream: for [`Http::failing_as`](super::Http::failing_as) around any client on
/// hyper.
///
/// | found | verdict |
/// |---|---|
/// | a fault of TLS (`tls_fault`, with the feature `tls`) | untrusted: nothing was sent, and the next attempt would find the same |
/// | `RST_STREAM` with `REFUSED_STREAM` | a fault, certainly not done (RFC 9113, 8.7) |
/// | `GOAWAY` that names an earlier stream than ours | the same |
/// | either of them with `ENHANCE_YOUR_CALM` | throttled |
/// | anything else | a fault of a call that may have been done |
pub fn failed(error: &(dyn Error + 'static)) -> Verdict {
    #[cfg(feature = "tls")]
    if super::tls_fault(error).is_some() {
        return Verdict::UNTRUSTED;
    }
    find(error).map_or(Verdict::FAULT, of_h2)
}

fn of_h2(error: &h2::Error) -> Verdict {
    let theirs = error.is_remote();
    let class = match error.reason() {
        Some(Reason::ENHANCE_YOUR_CALM) if theirs => Class::Throttled,
        _ => Class::Fault,
    };
    // A stream is only told of a GOAWAY that came from the peer if it lies behind the last one that was looked at.
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    Verdict { unprocessed: theirs && (refused || error.is_go_away()), ..Verdict::of(class) }
}

/// The first `E` among `error` and what caused it, also inside of the errors of a stream.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An error inside of an `io::Error` is not its source, but the one whose source is told as its own.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inside.map(|inside| inside as _).or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("around")]
    struct Around(#[source] io::Error);

    #[test]
    fn what_went_wrong_is_found_inside_of_streams_errors() {
        let reset = h2::Error::from(Reason::REFUSED_STREAM);
        let around = Around(io::Error::other(Around(io::Error::other(reset))));
        assert_eq!(find::<h2::Error>(&around).and_then(h2::Error::reason), Some(Reason::REFUSED_STREAM));
        assert!(find::<std::fmt::Error>(&around).is_none());
        assert_eq!(failed(&around), Verdict::FAULT, "what we refused ourselves says nothing of what the upstream did");
    }
}
