//! The one writer: takes what is waiting as a group, runs it in one transaction, syncs once, then answers.
//!
//! A plain append touches memory alone until the group's blocks are written; a unit runs inside a savepoint, so that its
//! failure leaves the others alone. If the group's commit fails, its members are run again one by one, so that each gets
//! the answer it deserves.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use quorate_runtime::{
    blocking::{Dedicated, Work},
    disk::Lock,
};
use tokio::sync::oneshot;

use super::{
    batch::Ready,
    connection::{constraint, explained},
    core::Core,
    erase::{self, Destroyed},
    queue::Queue,
    retire,
    unit::UnitTx,
};
use crate::store::{AppendError, Appended, Committed, DynTx, Retire, Retired, StoreError, Unit, UnitError};
use quorate_foundations::name::Name;

/// The tail goes into the index tables when it holds so many events …
const FLUSH_EVENTS: usize = 8_192;
/// … or so many bytes.
const FLUSH_BYTES: usize = 8 << 20;

/// Something for the writer to do, and where its answer goes.
pub(super) enum Job {
    Append(Arc<Ready>, oneshot::Sender<Result<Appended, AppendError>>),
    Unit(Arc<dyn Unit>, oneshot::Sender<Result<Committed, UnitError>>),
    Retire(Name, Retire, oneshot::Sender<Result<Retired, AppendError>>),
    Erase(Arc<str>, oneshot::Sender<Result<Destroyed, StoreError>>),
    Flush(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

impl Job {
    /// The bytes it will roughly write.
    pub(super) fn bytes(&self) -> usize {
        if let Self::Append(batch, _) = self { batch.bytes } else { 0 }
    }
}

/// An answer that waits for the group's commit.
enum Answer {
    Append(Result<Appended, AppendError>),
    Unit(Result<Committed, UnitError>),
}

/// The writer's thread of work.
pub(super) struct Writer {
    core: Arc<Mutex<Core>>,
    queue: Arc<Queue>,
    /// Held until the last write is done and the connection is closed.
    _lock: Box<dyn Lock>,
    /// Dropped last: whoever hears it can open the file again.
    farewell: Option<Farewell>,
}

/// Answers a close once everything else of the writer is gone.
struct Farewell(Option<(oneshot::Sender<Closed>, Closed)>);

/// How closing ended.
type Closed = Result<(), StoreError>;

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some((reply, closed)) = self.0.take() {
            let _ = reply.send(closed);
        }
    }
}

impl Drop for Writer {
    /// Whatever ended the writer, nobody waits for it in vain.
    fn drop(&mut self) {
        self.queue.close().into_iter().for_each(|job| refuse(job, &UnitError::Store(StoreError::Closed)));
    }
}

impl Dedicated for Writer {
    fn work(&mut self) -> Work {
        while let Some(jobs) = self.queue.take() {
            // Any division into groups is right: one sync for all is what a group is for, and nothing else.
            let alone = jobs.len() > 1 && self.core().env.buggify("store: every job is a group of its own");
            let groups = if alone { jobs.into_iter().map(|job| vec![job]).collect() } else { vec![jobs] };
            let mut groups = groups.into_iter();
            while let Some(jobs) = groups.next() {
                if self.run_batch(jobs) == Work::Over {
                    groups.flatten().for_each(|job| refuse(job, &UnitError::Store(StoreError::Closed)));
                    return Work::Over;
                }
            }
        }
        Work::Idle
    }
}

impl Writer {
    pub(super) fn new(core: Core, queue: Arc<Queue>, lock: Box<dyn Lock>) -> Self {
        Self { core: Arc::new(Mutex::new(core)), queue, _lock: lock, farewell: None }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs jobs in order: stretches of appends and units as groups, the rest each by itself.
    pub(super) fn run_batch(&mut self, jobs: Vec<Job>) -> Work {
        let mut group = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            if matches!(job, Job::Append(..) | Job::Unit(..)) {
                group.push(job);
                continue;
            }
            self.run_group(std::mem::take(&mut group));
            match job {
                Job::Retire(stream, what, reply) => drop(reply.send(retire::run(&mut self.core(), &stream, what))),
                Job::Erase(subject, reply) => drop(reply.send(erase::run(&mut self.core(), &subject))),
                Job::Flush(reply) => {
                    let mut core = self.core();
                    let flushed = core.flush();
                    core.empty_log();
                    drop(reply.send(flushed));
                }
                Job::Close(reply) => {
                    self.close(reply);
                    jobs.for_each(|job| refuse(job, &UnitError::Store(StoreError::Closed)));
                    return Work::Over;
                }
                Job::Append(..) | Job::Unit(..) => unreachable!("these are in the group"),
            }
        }
        self.run_group(group);
        self.flush_if_due();
        self.core().checkpoint_if_due();
        Work::Idle
    }

    fn run_group(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        match self.attempt(&jobs) {
            Ok(answers) => jobs.into_iter().zip(answers).for_each(|(job, answer)| reply(job, answer)),
            Err(cause) if jobs.len() == 1 => jobs.into_iter().for_each(|job| refuse(job, &cause)),
            // Running them again would do it twice if it was done.
            Err(cause @ UnitError::Store(StoreError::OutcomeUnknown)) => {
                jobs.into_iter().for_each(|job| refuse(job, &cause));
            }
            // One of them spoiled it for all: each alone gets the answer it deserves.
            Err(_) => {
                self.core().env.reached("store: a group failed, and its members ran again");
                jobs.into_iter().for_each(|job| self.run_group(vec![job]));
            }
        }
    }

    /// Runs and commits a group; on failure nothing of it is left.
    fn attempt(&mut self, jobs: &[Job]) -> Result<Vec<Answer>, UnitError> {
        if self.core().is_halted() {
            return Err(UnitError::Store(StoreError::Closed));
        }
        let answers = jobs.iter().map(|job| self.run(job)).collect::<Result<Vec<_>, _>>();
        let committed = answers.and_then(|answers| Ok(self.commit(jobs.len()).map(|()| answers)?));
        let committed = committed.map_err(|cause| match cause {
            UnitError::Store(cause) => UnitError::Store(explained(&self.core().connection, cause)),
            other => other,
        });
        if let Err(cause) = &committed {
            let mut core = self.core();
            core.roll_back();
            if let UnitError::Store(cause) = cause {
                if matches!(cause, StoreError::DiskFull) {
                    core.env.reached("store: the disk was full");
                }
                core.end_if_fatal(cause);
            }
            if core.is_halted() {
                // It may be durable all the same; in any case it is not run again.
                return Err(UnitError::Store(StoreError::OutcomeUnknown));
            }
        }
        committed
    }

    /// Commits a group of so many.
    fn commit(&self, members: usize) -> Result<(), StoreError> {
        let mut core = self.core();
        if members > 1 && core.env.buggify("store: a group is taken back before its commit") {
            return Err(StoreError::Busy);
        }
        core.commit()
    }

    /// Runs one member of the group. `Err` spoils the group.
    fn run(&mut self, job: &Job) -> Result<Answer, UnitError> {
        match job {
            Job::Append(batch, _) => match self.core().append(batch) {
                Err(AppendError::Store(cause)) => Err(cause.into()),
                answer => Ok(Answer::Append(answer)),
            },
            Job::Unit(unit, _) => self.run_unit(unit.as_ref()).map(Answer::Unit),
            _ => unreachable!("only appends and units are in groups"),
        }
    }

    fn run_unit(&mut self, unit: &dyn Unit) -> Result<Result<Committed, UnitError>, UnitError> {
        let (end, limit) = {
            let mut core = self.core();
            core.begin()?;
            core.run("SAVEPOINT unit", "beginning a unit")?;
            let limit = core.shared.limits.unit_time;
            core.deadline = Some(core.env.mono() + limit);
            core.watch_deadline(true)?;
            core.lost = None;
            core.asked = 0;
            (core.shared.tail().end(), core.deadline)
        };
        let mut tx = DynTx::new(Box::new(UnitTx::new(self.core.clone())));
        let polled =
            catch_unwind(AssertUnwindSafe(|| unit.run(&mut tx).as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        drop(tx);
        let mut core = self.core();
        core.deadline = None;
        core.watch_deadline(false)?;
        let late = limit.is_some_and(|limit| core.env.mono() > limit);
        if let Some(cause) = core.lost.take() {
            return Err(if late { UnitError::TooLong } else { cause });
        }
        let outcome = match polled {
            // Whatever it made of the refusal, part of what it wanted to write is not there.
            Ok(Poll::Ready(_)) if core.overcharged() => Err(UnitError::TooLarge),
            Ok(Poll::Ready(Ok(()))) if late => Err(UnitError::TooLong),
            Ok(Poll::Ready(Ok(()))) => Ok(Committed { append: core.shared.tail().end() }),
            Ok(Poll::Ready(Err(_))) if late => Err(UnitError::TooLong),
            Ok(Poll::Ready(Err(_))) => Err(UnitError::Aborted),
            Ok(Poll::Pending) => Err(UnitError::ForeignAwait),
            Err(panic) => Err(UnitError::Panicked(message(&*panic))),
        };
        if outcome.is_err() {
            core.run("ROLLBACK TO unit", "rolling a unit back")?;
            core.shared.tail_mut().rewind(end);
        }
        core.run("RELEASE unit", "ending a unit")?;
        Ok(outcome)
    }

    fn flush_if_due(&self) {
        let mut core = self.core();
        let due = {
            let tail = core.shared.tail();
            tail.len() >= FLUSH_EVENTS || tail.bytes() >= FLUSH_BYTES
        } || core.env.buggify("store: the index is written early");
        if due && let Err(cause) = core.flush() {
            // Nothing is lost: the events are durable, and the next commit tries again.
            tracing::warn!(%cause, "the index could not be written");
        }
        if due && core.shared.lingering.load(Ordering::Relaxed) {
            core.empty_log();
        }
    }

    fn close(&mut self, reply: oneshot::Sender<Result<(), StoreError>>) {
        let mut core = self.core();
        let closed = core.flush();
        core.shared.close();
        core.empty_log();
        drop(core);
        self.queue.close().into_iter().for_each(|job| refuse(job, &UnitError::Store(StoreError::Closed)));
        self.farewell = Some(Farewell(Some((reply, closed))));
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

fn reply(job: Job, answer: Answer) {
    match (job, answer) {
        (Job::Append(batch, reply), Answer::Append(answer)) => {
            // Before the answer, so that it is the caller who takes the batch apart.
            drop(batch);
            let _ = reply.send(answer);
        }
        (Job::Unit(_, reply), Answer::Unit(answer)) => drop(reply.send(answer)),
        _ => unreachable!("an answer is of its job's kind"),
    }
}

fn refuse(job: Job, why: &UnitError) {
    let cause = if let UnitError::Store(cause) = why { cause.clone() } else { StoreError::OutcomeUnknown };
    match job {
        Job::Append(_, reply) => drop(reply.send(Err(cause.into()))),
        Job::Unit(_, reply) => {
            let constraint = constraint(&cause).map(UnitError::Constraint);
            drop(reply.send(Err(constraint.unwrap_or_else(|| why.clone()))));
        }
        Job::Retire(.., reply) => drop(reply.send(Err(cause.into()))),
        Job::Erase(_, reply) => drop(reply.send(Err(cause))),
        Job::Flush(reply) | Job::Close(reply) => drop(reply.send(Err(cause))),
    }
}
