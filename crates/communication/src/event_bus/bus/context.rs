//! What an event carries of the request that it came from.

use std::sync::Arc;

use http::HeaderMap;
use quorate_data::event::{NewEvent, Recorded, Scalar};
use quorate_foundations::trace::TraceContext;

/// What an event carries of the request that it came from: who asked, for whom, in which trace, and what it answers.
///
/// It is written as the attributes `user`, `tenant`, `traceparent`, `tracestate` (as the CloudEvents extension for distributed tracing
/// has them), `correlationid` and `causationid`, and read back by whoever hears the event.
///
/// # Example
/// ```
/// use http::HeaderMap;
/// use quorate_communication::event_bus::Context;
/// let mut headers = HeaderMap::new();
/// headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?);
/// let context = Context::of_request(&headers).by("ada").in_tenant("acme");
/// assert!(context.trace.is_some());
/// # Ok::<_, http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Who asked.
    pub user: Option<Arc<str>>,
    /// For whom.
    pub tenant: Option<Arc<str>>,
    /// In which trace.
    pub trace: Option<TraceContext>,
    /// What it belongs to: the id of the first event or request of the story.
    pub correlation: Option<Arc<str>>,
    /// What caused it: the id of an event or request.
    pub causation: Option<Arc<str>>,
}

const USER: &str = "user";
const TENANT: &str = "tenant";
const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

impl Context {
    /// What a request's headers say of its trace. Who asked is for whoever checked that to say: see [`by`](Self::by).
    pub fn of_request(headers: &HeaderMap) -> Self {
        let values =
            |name: &str| headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        Self { trace: read_trace(values(TRACE_PARENT), values(TRACE_STATE)), ..Self::default() }
    }

    /// What `event` was published with.
    pub fn of(event: &Recorded) -> Self {
        let text = |name: &str| match event.extensions().get(name) {
            Some(Scalar::Text(text)) => Some(Arc::from(text.as_str())),
            _ => None,
        };
        Self {
            user: text(USER),
            tenant: text(TENANT),
            trace: read_trace(text(TRACE_PARENT).as_deref(), text(TRACE_STATE).as_deref()),
            correlation: event.correlation_id().map(Into::into),
            causation: event.causation_id().map(Into::into),
        }
    }

    /// What is published because of `event`: for the same user and tenant, in the same trace and story, and caused by it.
    pub fn caused_by(event: &Recorded) -> Self {
        let story = event.correlation_id().unwrap_or_else(|| event.id());
        Self { correlation: Some(story.into()), causation: Some(event.id().into()), ..Self::of(event) }
    }

    /// The same, asked by `user`.
    #[must_use]
    pub fn by(self, user: impl Into<Arc<str>>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The same, for `tenant`.
    #[must_use]
    pub fn in_tenant(self, tenant: impl Into<Arc<str>>) -> Self {
        Self { tenant: Some(tenant.into()), ..self }
    }

    pub(super) fn stamp(&self, event: &mut NewEvent) {
        let trace = self.trace.as_ref();
        let state = trace.map(|trace| trace.state.to_string()).filter(|state| !state.is_empty());
        let texts = [
            (USER, self.user.as_deref().map(str::to_owned)),
            (TENANT, self.tenant.as_deref().map(str::to_owned)),
            (TRACE_PARENT, trace.map(|trace| trace.parent.to_string())),
            (TRACE_STATE, state),
        ];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            event.extensions.insert(name.to_owned(), Scalar::Text(text));
        }
        event.correlation_id.clone_from(&self.correlation);
        event.causation_id.clone_from(&self.causation);
    }
}

/// The trace that was named; none where it cannot be read: then a new one begins.
fn read_trace<T: AsRef<[u8]>>(
    parents: impl IntoIterator<Item = T>,
    states: impl IntoIterator<Item = T>,
) -> Option<TraceContext> {
    TraceContext::from_headers(parents, states).ok().flatten().map(|extracted| extracted.context)
}
