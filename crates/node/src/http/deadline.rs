//! The deadline of whoever asks: nothing is begun, and nothing goes on, for somebody who has stopped waiting.
//!
//! A request says in `Quorate-Timeout` (or `grpc-timeout`) what its caller has left: `1500m`, one to eight digits and a unit
//! of `H M S m u n`. It counts from the head's arrival, on the monotonic clock. At the deadline the work is dropped, just as if
//! the connection were gone, and a reply that is under way breaks off rather than ending as if it were whole.
//!
//! What was handed to the store's writer goes on all the same, as it does when a connection breaks: so whoever asked for a change is
//! told that its outcome is unknown, never that nothing changed; and work that is done at the deadline is reported as done.

use std::{convert::Infallible, future::Future};

use axum::{body::Body, response::IntoResponse as _};
use http::{Method, Request, Response};
use http_body::Body as _;
use quorate_foundations::time::Mono;
use quorate_resilience::{
    Scope,
    deadline::Deadline,
    http::{TIMEOUT, received},
    timeout::{TimedBody, Timers},
};

use super::problem::{Code, Problem};

/// The deadline that a request which came at `now` brings, if it leaves time for anything.
pub(super) fn of<B>(request: &Request<B>, now: Mono) -> Result<Deadline, Problem> {
    let brought = received(request.headers(), now)
        .map_err(|cause| Problem::of(Code::InvalidParameter, &cause).with("header", TIMEOUT.as_str()))?;
    not_over(brought.deadline, now)?;
    Ok(brought.deadline)
}

/// Nothing is begun whose time is over at `now`.
pub(super) fn not_over(deadline: Deadline, now: Mono) -> Result<(), Problem> {
    if deadline.has_passed(now) {
        return Err(Problem::new(Code::DeadlinePassed, "nothing was left of the request's time before it was begun"));
    }
    Ok(())
}

/// Answers a request of `method` that came at `now` by its deadline.
pub(super) async fn within(
    timers: &Timers,
    (now, deadline): (Mono, Deadline),
    method: &Method,
    work: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Response<Body> {
    if deadline == Deadline::NEVER {
        let Ok(reply) = work.await;
        return reply;
    }
    match timers.within(now, deadline, Scope::Total, work).await {
        // What is in memory already is done: it goes out as it is.
        Ok(Ok(reply)) if reply.body().size_hint().exact().is_some() => reply,
        Ok(Ok(reply)) => reply.map(|body| Body::new(TimedBody::new(body, timers, (deadline, Scope::Total), None))),
        Err(_) => {
            let waited = timers.env().mono().saturating_since(now);
            let passed = Problem::new(Code::DeadlinePassed, format!("the request's time was over after {waited:?}"));
            // Whoever only reads changes nothing; a write may be on its way to the disk.
            if method.is_safe() { passed } else { passed.unknown() }.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use quorate_runtime::Env;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    async fn posted(env: &Env, work: impl Future<Output = Result<Response<Body>, Infallible>>) -> Response<Body> {
        let (timers, now) = (Timers::new(env), env.mono());
        within(&timers, (now, Deadline::after(now, SHORT)), &Method::POST, work).await
    }

    #[tokio::test]
    async fn what_is_done_is_told_whole_however_late_it_is_read() {
        let env = Env::real();
        let mut done = Response::new(Body::from("done"));
        *done.status_mut() = StatusCode::CREATED;
        let reply = posted(&env, async { Ok(done) }).await;
        assert_eq!(reply.status(), StatusCode::CREATED);
        env.sleep(2 * SHORT).await;
        assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "done");
    }

    #[tokio::test]
    async fn a_change_that_is_not_done_by_the_deadline_is_never_called_unchanged() {
        let reply = posted(&Env::real(), pending()).await;
        let problem = reply.extensions().get::<Problem>().unwrap();
        assert_eq!(problem.code(), Code::DeadlinePassed);
        assert_eq!(problem.document()["outcome"], "unknown");
    }
}
