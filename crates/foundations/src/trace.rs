//! Trace context: the two header fields that tie everything done for one request into one trace.
//!
//! # Intuition
//! A parcel passes through many hands. The *trace id* is the number on its label and stays; the *parent id* is the last
//! hand's signature and is replaced by each next one; the *flags* say whether anybody is keeping a list. `tracestate`
//! is the margin in which tracing vendors leave notes to themselves. Whoever handles the parcel passes the label on.
//!
//! These are the W3C types, nothing more: no span is recorded here and no id is drawn (callers bring 16 and 8 random
//! bytes). The same two fields travel in HTTP headers, in events (the CloudEvents attributes `traceparent` and
//! `tracestate`), in messages and in saga steps.
//!
//! # When not to use it
//! Not to find the cause of an event (its `causationid` survives a trace that nobody sampled), and not for anything that
//! must be true: callers can write into these fields what they like.
//!
//! # What a bad header does
//! | received | outcome |
//! |---|---|
//! | no `traceparent`, or a bad one | the caller starts a new trace; `tracestate` is not looked at |
//! | good `traceparent`, bad `tracestate` | the trace goes on, without the state: [`Extracted::dropped_state`] says why |
//! | a higher version | read as far as it is known, sent on as version `00` |
//!
//! # Example
//! ```
//! use quorate_foundations::trace::{SpanId, TraceContext};
//! let received = TraceContext::from_headers(
//!     ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
//!     ["rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE"],
//! )?.expect("a traceparent was there");
//! let ours = received.context.child(SpanId::from_bytes([0xb7; 8]).expect("not all zero"));
//! assert_eq!(ours.parent.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-b7b7b7b7b7b7b7b7-01");
//! assert_eq!(ours.state.as_str(), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
//! # Ok::<(), quorate_foundations::trace::TraceParentError>(())
//! ```
//! Source: W3C Trace Context (Recommendation, 2021); the keys of `tracestate` and the *random* flag follow Level 2
//! (Candidate Recommendation Draft, 2024), which accepts all that Level 1 does.

mod parent;
mod state;

pub use parent::{SpanId, TraceFlags, TraceId, TraceParent, TraceParentError};
pub use state::{TraceState, TraceStateError};

/// Where in which trace something happens, with the vendors' notes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace, the span that caused this, and the flags.
    pub parent: TraceParent,
    /// The vendors' notes; empty where there were none or they were malformed.
    pub state: TraceState,
}

/// A context read from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The context to go on with.
    pub context: TraceContext,
    /// Why the `tracestate` was left behind, if it was; worth counting, never worth failing.
    pub dropped_state: Option<TraceStateError>,
}

impl TraceContext {
    /// The first context of a new trace.
    pub fn root(trace_id: TraceId, span_id: SpanId, flags: TraceFlags) -> Self {
        Self { parent: TraceParent { trace_id, parent_id: span_id, flags }, state: TraceState::default() }
    }

    /// The context that the span `span_id` passes on: same trace, same flags, same state.
    pub fn child(&self, span_id: SpanId) -> Self {
        Self { parent: self.parent.child(span_id), state: self.state.clone() }
    }

    /// Reads the context from all values of the header fields `traceparent` and `tracestate`, in order of arrival.
    ///
    /// Spaces and tabs around a value are ignored, as HTTP demands. `None` if there is no `traceparent`.
    ///
    /// # Errors
    /// [`TraceParentError`]: start a new trace, with an empty state. A malformed `tracestate` is no error.
    pub fn from_headers<P: AsRef<[u8]>, S: AsRef<[u8]>>(
        parents: impl IntoIterator<Item = P>,
        states: impl IntoIterator<Item = S>,
    ) -> Result<Option<Extracted>, TraceParentError> {
        let mut parents = parents.into_iter();
        let Some(value) = parents.next() else { return Ok(None) };
        if parents.next().is_some() {
            return Err(TraceParentError::Repeated);
        }
        let parent = TraceParent::from_bytes(trim(value.as_ref()))?;
        let (state, dropped_state) = match TraceState::from_fields(states) {
            Ok(state) => (state, None),
            Err(reason) => (TraceState::default(), Some(reason)),
        };
        Ok(Some(Extracted { context: Self { parent, state }, dropped_state }))
    }
}

/// Without the optional white space around it: spaces and tabs, and nothing else.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{SpanId, TraceContext, TraceFlags, TraceId, TraceParentError, TraceStateError};

    const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";

    fn state_of(fields: &[&str]) -> String {
        let extracted = TraceContext::from_headers([PARENT], fields).unwrap().unwrap();
        assert_eq!(extracted.dropped_state, None);
        extracted.context.state.to_string()
    }

    #[test]
    fn a_child_keeps_trace_flags_and_state_and_takes_its_own_id() {
        let received = TraceContext::from_headers([PARENT], ["foo=1"]).unwrap().unwrap().context;
        let ours = received.child(SpanId::from_bytes([7; 8]).unwrap());
        assert_eq!(ours.parent.to_string(), "00-12345678901234567890123456789012-0707070707070707-01");
        assert_eq!(ours.state, received.state);
    }

    #[test]
    fn a_new_trace_has_no_state() {
        let (trace, span) = (TraceId::from_bytes([1; 16]).unwrap(), SpanId::from_bytes([2; 8]).unwrap());
        let root = TraceContext::root(trace, span, TraceFlags::SAMPLED);
        assert_eq!(root.parent.to_string(), "00-01010101010101010101010101010101-0202020202020202-01");
        assert!(root.state.is_empty());
    }

    #[test]
    fn a_state_without_a_parent_is_not_looked_at() {
        assert_eq!(TraceContext::from_headers([""; 0], ["foo=1"]), Ok(None));
        TraceContext::from_headers(["00-nonsense"], ["foo=1"]).unwrap_err();
    }

    #[test]
    fn two_parents_start_a_new_trace_even_if_they_agree() {
        assert_eq!(TraceContext::from_headers([PARENT, PARENT], [""; 0]), Err(TraceParentError::Repeated));
    }

    #[test]
    fn a_malformed_state_is_dropped_whole_and_the_trace_goes_on() {
        let extracted = TraceContext::from_headers([PARENT], ["foo=1", "BAR=2"]).unwrap().unwrap();
        assert_eq!(extracted.context.parent.to_string(), PARENT);
        assert!(extracted.context.state.is_empty());
        assert_eq!(extracted.dropped_state, Some(TraceStateError::Key { member: 2 }));
    }

    // The specification's test suite: test_traceparent_ows_handling.
    #[test]
    fn white_space_around_the_parent_is_ignored() {
        for (before, after) in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")] {
            let extracted = TraceContext::from_headers([format!("{before}{PARENT}{after}")], [""; 0]);
            assert_eq!(extracted.unwrap().unwrap().context.parent.to_string(), PARENT);
        }
        TraceContext::from_headers([format!("{PARENT}\n")], [""; 0]).unwrap_err();
    }

    // test_tracestate_empty_header, test_tracestate_multiple_headers_different_keys
    #[test]
    fn several_state_fields_are_one_list_in_order_of_arrival() {
        assert_eq!(state_of(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"]), "foo=1,bar=2,rojo=1,congo=2,baz=3");
        assert_eq!(state_of(&["foo=1", ""]), "foo=1");
        assert_eq!(state_of(&["", "foo=1"]), "foo=1");
        assert_eq!(state_of(&[""]), "");
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_and_not_trusted() {
        TraceContext::from_headers([&[0xff; 55]], [""; 0]).unwrap_err();
        let extracted = TraceContext::from_headers([PARENT], [b"foo=\xff"]).unwrap().unwrap();
        assert_eq!(extracted.dropped_state, Some(TraceStateError::Value { member: 1 }));
    }
}
