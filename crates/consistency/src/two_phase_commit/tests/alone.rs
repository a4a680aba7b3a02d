//! A participant that takes part alone: what is known of its only phase, and what is not.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_runtime::BoxFuture;

use super::bank::{World, name, quick, takes};
use crate::two_phase_commit::{
    Config, Coordinator, CoordinatorId, Embedded, Ended, Gid, Participant, ParticipantError, Prepared, Transaction,
    Vote, Work,
};

/// What becomes of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is done, and the answer does not come.
    AnswerLost,
    /// It is not heard of.
    Lost,
    /// It cannot be done just now.
    NotNow,
    /// It is refused for good before it is looked at, by something on the way.
    Unsuitable,
}

/// A bank whose answers are struck in order; the last fate stays.
struct Patchy {
    inner: Embedded,
    fates: Mutex<VecDeque<Fate>>,
    stays: bool,
}

impl Patchy {
    fn fate(&self) -> Option<Fate> {
        let mut fates = self.fates.lock().unwrap();
        if self.stays && fates.len() == 1 { fates.front().copied() } else { fates.pop_front() }
    }
}

impl Participant for Patchy {
    fn prepare<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        self.inner.prepare(gid, work)
    }

    fn commit<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        self.inner.commit(gid)
    }

    fn abort<'a>(&'a self, gid: &'a Gid) -> BoxFuture<'a, Result<(), ParticipantError>> {
        self.inner.abort(gid)
    }

    fn in_doubt(&self, coordinator: CoordinatorId) -> BoxFuture<'_, Result<Vec<Prepared>, ParticipantError>> {
        self.inner.in_doubt(coordinator)
    }

    fn has_one_phase(&self) -> bool {
        true
    }

    fn repeats_one_phase(&self) -> bool {
        true
    }

    fn one_phase<'a>(&'a self, gid: &'a Gid, work: &'a Work) -> BoxFuture<'a, Result<Vote, ParticipantError>> {
        Box::pin(async move {
            let what = || "as it was told to".to_owned();
            match self.fate() {
                None => self.inner.one_phase(gid, work).await,
                Some(Fate::AnswerLost) => {
                    self.inner.one_phase(gid, work).await?;
                    Err(ParticipantError::Unanswered { what: what() })
                }
                Some(Fate::Lost) => Err(ParticipantError::Unanswered { what: what() }),
                Some(Fate::NotNow) => Err(ParticipantError::Failed { what: what() }),
                Some(Fate::Unsuitable) => Err(ParticipantError::Unsuitable { what: what() }),
            }
        })
    }
}

/// How a payment of 10 ends for its caller, and what ada has then.
async fn pay(fates: &[Fate], stays: bool, patience: Duration) -> (Ended, (i64, i64)) {
    let world = World::new().await;
    let config = Config { decision_patience: patience, prepare_timeout: patience, ..quick() };
    let coordinator = Coordinator::open(&world.log, config).await.unwrap();
    let fates = Mutex::new(fates.iter().copied().collect());
    let bank = Patchy { inner: world.participant(0).await, fates, stays };
    coordinator.register(name("left"), Arc::new(bank)).unwrap();
    let alone = Transaction::new().with(name("left"), takes("ada", 10).work().unwrap());
    let ended = coordinator.run(alone).await.unwrap().ended;
    (ended, world.balances("ada").await[0])
}

const PATIENT: Duration = Duration::from_secs(20);
const HASTY: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_done_alone_is_unknown_until_its_participant_says_it() {
    use Fate::{AnswerLost, Lost, NotNow, Unsuitable};
    // Whatever it says it cannot do now, it may have done before.
    for later in [NotNow, Unsuitable, Lost] {
        assert_eq!(pay(&[AnswerLost, later], true, HASTY).await, (Ended::Unknown, (90, 90)), "{later:?}");
        assert_eq!(pay(&[Lost, later], true, HASTY).await, (Ended::Unknown, (100, 100)), "{later:?}");
    }
    // It is asked until it answers, and answers as the first time.
    assert_eq!(pay(&[AnswerLost, NotNow, Unsuitable, Lost], false, PATIENT).await, (Ended::Committed, (90, 90)));
    assert_eq!(pay(&[Lost, NotNow], false, PATIENT).await, (Ended::Committed, (90, 90)));
    // What was never heard of and cannot be done is not done.
    let (ended, balance) = pay(&[NotNow], true, PATIENT).await;
    assert!(matches!(ended, Ended::Aborted { .. }) && balance == (100, 100), "{ended:?}");
}
