//! Trying to append a group, until it is known what came of it.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio_postgres::Client;

use super::{
    super::{
        backend::Shared,
        fault::Fault,
        group::{self, Answer, Decided, Known, Within, Written},
        ready::Ready,
        schemas,
    },
    APPENDING, Job, Reply,
};
use crate::store::{AppendError, Appended, StoreError, Token};

/// Whether a group gives up where somebody is in its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Hurried,
    Patient,
}

/// How long behind the patience of all in a group a server is waited for that says nothing.
const GRACE: Duration = Duration::from_secs(1);

/// Tries until it is known what came of it, or what fails would fail again. Whose patience ends meanwhile is answered and leaves
/// the group; the last of them with the fault.
///
/// An attempt whose end is unknown holds the rows of its streams until it has ended, so that the next one waits for it and
/// finds its events, or does not, for good.
pub(super) async fn attempts(shared: &Shared, group: &mut Vec<Job>, pace: Pace) -> Result<(Decided, Written), Fault> {
    let mut is_first = true;
    loop {
        let (fault, at_commit) = match attempt(shared, group, pace).await {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        if at_commit && (fault.is_lost() || matches!(fault, Fault::Strange(_))) {
            shared.env.reached("store: a commit was lost");
            group.iter_mut().for_each(|job| job.may_be_written = true);
        }
        let again = fault.is_lost() || fault.is_conflict();
        if !again || (pace == Pace::Hurried && fault.is_waiting()) {
            return Err(fault);
        }
        let is_stale = matches!(fault, Fault::Stale);
        // A schema that was registered while it waited in its lane is no reason to refuse it.
        if !(is_stale && is_first) {
            let now = shared.env.mono();
            let over = group.extract_if(.., |job| job.until <= now);
            over.for_each(|job| job.give_up(fault.clone().into_store(APPENDING)));
            if group.is_empty() {
                return Err(fault);
            }
        }
        is_first = false;
        if is_stale {
            match schemas::refresh(shared).await {
                Ok(()) => continue,
                Err(StoreError::Unreachable { .. }) => {}
                Err(cause) => {
                    group.drain(..).for_each(|job| job.give_up(cause.clone()));
                    return Err(fault);
                }
            }
        }
        shared.env.sleep(shared.pause()).await;
    }
}

/// One attempt, and how it failed: the fault, and whether the commit was on its way.
///
/// A server that says nothing (its machine is gone, or a firewall forgot the connection) is given up on once nobody of the group
/// has patience left.
async fn attempt(shared: &Shared, group: &[Job], pace: Pace) -> Result<(Decided, Written), (Fault, bool)> {
    let until = group.iter().map(|job| job.until).max().unwrap_or_default();
    let left = || until.saturating_since(shared.env.mono());
    let silent = |what: &str| Fault::Lost(what.to_owned());
    let lease = shared.env.timeout(left() + GRACE, shared.pool.lease()).await;
    let lease = lease.unwrap_or_else(|| Err(silent("no connection was free in time")));
    let lease = lease.map_err(|fault| (fault, false))?;
    let begin = match pace {
        Pace::Hurried => shared.sql.begin_hurried.clone(),
        Pace::Patient => shared.sql.begin_patient(left()),
    };
    let done = shared.env.timeout(left() + GRACE, on(shared, &lease, group, &begin)).await;
    // It may have been told to commit.
    let done = done.unwrap_or_else(|| Err((silent("the server did not answer in time"), true)));
    match &done {
        Ok((decided, _)) => {
            lease.keep();
            if !decided.is_empty() {
                shared.count_commit();
            }
        }
        // What was on its way has an answer: the connection is as good as before.
        Err((fault @ (Fault::Refused { .. } | Fault::Stale), _)) if !fault.is_lost() => lease.roll_back().await,
        Err(_) => {}
    }
    done
}

async fn on(shared: &Shared, client: &Client, group: &[Job], begin: &str) -> Result<(Decided, Written), (Fault, bool)> {
    let before = |fault| (fault, false);
    let ground = shared.ground();
    let batches: Vec<Arc<Ready>> = group.iter().map(|job| job.ready.clone()).collect();
    let decided = group::decide(&ground, client, &batches, Within::Group { begin }).await;
    let decided = decided.map_err(before)?;
    let written = if decided.is_empty() {
        client.batch_execute("ROLLBACK").await.map_err(|failed| before(failed.into()))?;
        Written::default()
    } else {
        let written = decided.write(&shared.sql, client, Some("COMMIT")).await;
        written.map_err(|fault| (fault, true))?
    };
    Ok((decided, written))
}

/// Answers everybody, once positions were given or the patience for that is over.
pub(super) fn answer(shared: &Arc<Shared>, group: Vec<Job>, (decided, written): (Decided, Written)) {
    let of = shared.clone();
    shared.env.tasks().spawn("store/answers", async move {
        let _late = of.catch_up().await;
        let answers = group.into_iter().zip(decided.answers).map(|(job, answer)| async {
            let answer = told(&of, answer, &written.ids, job.may_be_written).await;
            job.reply(answer);
        });
        join_all(answers).await;
    });
}

/// An answer as whoever appended gets it.
pub(in super::super) async fn told(shared: &Shared, answer: Answer, ids: &[i64], may_be_written: bool) -> Reply {
    let token = |id: i64| Token::new(shared.timeline, id.cast_unsigned());
    let id = |known| match known {
        Known::Stored(id) => id,
        Known::Row(row) => ids[row],
    };
    match answer {
        Answer::Refused(refused) => Err(refused),
        Answer::Matched { condition, event } => {
            let position = shared.position_of(id(event)).await?;
            Err(AppendError::ConditionFailed { condition, position })
        }
        Answer::Repeated { versions, newest } => {
            // What is known from an attempt of its own is new to whoever asked.
            Ok(Appended { versions, token: token(id(newest)), repeated: !may_be_written })
        }
        Answer::New { versions, last } => Ok(Appended { versions, token: token(ids[last]), repeated: false }),
    }
}
