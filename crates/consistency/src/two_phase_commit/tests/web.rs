//! A participant behind HTTP: the contract, answered by a service that stands on an embedded store, over a way that loses answers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use serde_json::{Value, json};
use tower_service::Service;

use super::bank::{World, gives, name, quick, takes, until};
use crate::two_phase_commit::{
    Config, Coordinator, Embedded, Ended, Gid, Http, Participant, ParticipantError, Transaction, Vote, Work,
};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It does not arrive.
    Lost,
    /// It is done, and its answer does not arrive.
    AnswerLost,
    /// It arrives twice.
    Twice,
    /// A proxy answers instead.
    BadGateway,
}

/// The service, and the way to it.
#[derive(Clone)]
struct Remote {
    participant: Embedded,
    fates: Arc<Mutex<VecDeque<(&'static str, Fate)>>>,
}

impl Remote {
    async fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let gid = || body["gid"].as_str().and_then(|gid| gid.parse::<Gid>().ok());
        let ended = |done| match done {
            Ok(()) => (StatusCode::OK, json!({})),
            Err(ParticipantError::Contradicted { what }) => (StatusCode::CONFLICT, json!({"why": what})),
            Err(other) => (StatusCode::SERVICE_UNAVAILABLE, json!({"why": other.to_string()})),
        };
        match (method, path) {
            (&Method::POST, "/txn/prepare") => {
                let work = Work::json(&body["work"]).unwrap();
                match self.participant.prepare(&gid().unwrap(), &work).await {
                    Ok(Vote::Yes) => (StatusCode::OK, json!({"vote": "yes"})),
                    Ok(Vote::ReadOnly) => (StatusCode::OK, json!({"vote": "read-only"})),
                    Ok(Vote::No { why }) => (StatusCode::OK, json!({"vote": "no", "why": why})),
                    Err(other) => (StatusCode::SERVICE_UNAVAILABLE, json!({"why": other.to_string()})),
                }
            }
            (&Method::POST, "/txn/commit") => ended(self.participant.commit(&gid().unwrap()).await),
            (&Method::POST, "/txn/abort") => ended(self.participant.abort(&gid().unwrap()).await),
            (&Method::GET, path) if path.starts_with("/txn/in-doubt?coordinator=") => {
                let query = path.split_once('=').unwrap().1;
                let (coordinator, limit) = query.split_once("&limit=").unwrap();
                let (coordinator, limit) = (coordinator.parse().unwrap(), limit.parse::<usize>().unwrap());
                let prepared = self.participant.in_doubt(coordinator).await.unwrap();
                let prepared: Vec<Value> =
                    prepared.iter().map(|one| json!({"gid": one.gid.to_string(), "held": one.held})).collect();
                // What is no gid of ours is somebody else's.
                let others = [json!({"gid": "other-17"})].into_iter().chain(prepared).take(limit).collect::<Vec<_>>();
                (StatusCode::OK, json!({ "prepared": others }))
            }
            _ => (StatusCode::NOT_FOUND, json!({"why": "there is nothing here"})),
        }
    }
}

impl Service<Request<Full<Bytes>>> for Remote {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap_or_else(|never: Infallible| match never {}).to_bytes();
            let path = parts.uri.path_and_query().unwrap().as_str().to_owned();
            let fate =
                this.fates.lock().unwrap().pop_front_if(|(wanted, _)| path.contains(*wanted)).map(|(_, fate)| fate);
            let broken = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            if fate == Some(Fate::Lost) {
                return Err(broken());
            }
            if fate == Some(Fate::BadGateway) {
                return Ok(Response::builder().status(502).body(Full::from("a proxy")).unwrap());
            }
            if fate == Some(Fate::Twice) {
                this.answer(&parts.method, &path, &body).await;
            }
            let (status, answer) = this.answer(&parts.method, &path, &body).await;
            if fate == Some(Fate::AnswerLost) {
                return Err(broken());
            }
            Ok(Response::builder().status(status).body(Full::from(answer.to_string())).unwrap())
        })
    }
}

async fn joined(world: &World, config: Config) -> (Coordinator, Remote) {
    let remote = Remote { participant: world.participant(1).await, fates: Arc::default() };
    let coordinator = Coordinator::open(&world.log, config).await.unwrap();
    coordinator.register(name("left"), Arc::new(world.participant(0).await)).unwrap();
    let http = Http::new(remote.clone(), "http://right.test/txn/").unwrap();
    coordinator.register(name("web"), Arc::new(http)).unwrap();
    (coordinator, remote)
}

fn transfer(amount: i64) -> Transaction {
    let web: Name = name("web");
    Transaction::new()
        .with(name("left"), takes("ada", amount).work().unwrap())
        .with(web, gives("ada", amount).work().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_over_http_takes_part_whatever_is_lost_on_the_way() {
    let world = World::new().await;
    let (coordinator, remote) = joined(&world, Config { applied_within: Duration::from_secs(20), ..quick() }).await;
    // Commits and aborts are sent until they are answered; a prepare that is not answered aborts.
    let courses: [(&[(&str, Fate)], bool); 8] = [
        (&[], true),
        (&[("prepare", Fate::Twice), ("commit", Fate::Twice)], true),
        (&[("commit", Fate::Lost), ("commit", Fate::AnswerLost), ("commit", Fate::BadGateway)], true),
        (&[("prepare", Fate::Lost)], false),
        (&[("prepare", Fate::AnswerLost)], false),
        (
            &[
                ("prepare", Fate::AnswerLost),
                ("abort", Fate::Lost),
                ("abort", Fate::AnswerLost),
                ("abort", Fate::Twice),
            ],
            false,
        ),
        (&[("prepare", Fate::BadGateway)], false),
        (&[("prepare", Fate::AnswerLost), ("abort", Fate::Lost), ("abort", Fate::Lost), ("abort", Fate::Lost)], false),
    ];
    let mut moved = 0;
    for (fates, commits) in courses {
        remote.fates.lock().unwrap().extend(fates);
        let ended = coordinator.run(transfer(10)).await.unwrap().ended;
        assert_eq!(ended == Ended::Committed, commits, "{fates:?}: {ended:?}");
        moved += i64::from(commits) * 10;
        until("nobody holds anything", async || {
            coordinator.counts().unfinished == 0
                && world.balances("ada").await == [(100 - moved, 100 - moved), (100 + moved, 100 + moved)]
                && remote.participant.in_doubt(coordinator.id()).await.unwrap().is_empty()
        })
        .await;
        assert!(remote.fates.lock().unwrap().is_empty(), "{fates:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_says_no_or_something_else_is_understood() {
    let world = World::new().await;
    let (coordinator, remote) = joined(&world, quick()).await;
    let ended =
        coordinator.run(Transaction::new().with(name("web"), takes("ada", 101).work().unwrap())).await.unwrap().ended;
    let Ended::Aborted { why, .. } = ended else { panic!("{ended:?}") };
    assert!(why.contains("changed 0 rows"), "{why}");
    let lost = Http::new(remote.clone(), "http://right.test/elsewhere").unwrap();
    let gid: Gid = "quorate:0197f2a0-0000-7000-8000-000000000001:1-1".parse().unwrap();
    let vote = lost.prepare(&gid, &gives("ada", 1).work().unwrap()).await;
    assert!(matches!(&vote, Ok(Vote::No { why }) if why.contains("404") && why.contains("nothing here")), "{vote:?}");
    assert!(matches!(lost.commit(&gid).await, Err(ParticipantError::Failed { .. })));
    for wrong in ["", "/txn", "right.test", "http://right.test/txn?x=1"] {
        assert!(matches!(Http::new(remote.clone(), wrong), Err(ParticipantError::Unsuitable { .. })), "{wrong}");
    }
}
