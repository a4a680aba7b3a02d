//! The one writer: takes what is waiting as a group, runs it in one transaction, syncs once, then answers.
//!
//! A plain append touches memory alone until the group's blocks are written; a unit runs inside a savepoint, so that its
//! failure leaves the others alone. If the group's commit fails, its members are run again one by one, so that each gets
//! the answer it deserves.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use quorate_runtime::{
    blocking::{Dedicated, Work},
    disk::Lock,
};
use tokio::sync::oneshot;

use super::{
    archive,
    batch::Ready,
    connection::{constraint, explained},
    core::Core,
    erase::{self, Destroyed},
    gather::Gather,
    queue::{GROUP_BYTES, Queue},
    retire,
    unit::UnitTx,
};
use crate::{
    event::Recorded,
    store::{
        AppendError, Appended, Archive, ArchiveError, Committed, DynTx, Follower, FollowerError, StoreError, Unit,
        UnitError,
    },
};
use quorate_foundations::name::Name;

/// What a sync seems to take where one is made slow to try what happens then.
const SLOW_SYNC: Duration = Duration::from_millis(1);

/// A group whose transactions have been at work for so long is committed: the first of them waits until it is.
const GROUP_TIME: Duration = Duration::from_millis(50);

/// Something for the writer to do, and where its answer goes.
pub(super) enum Job {
    Append(Arc<Ready>, oneshot::Sender<Result<Appended, AppendError>>),
    /// Says what there is against a batch, or what was answered before, and writes nothing.
    Judge(Arc<Ready>, oneshot::Sender<Result<Option<Appended>, AppendError>>),
    Unit(Arc<dyn Unit>, oneshot::Sender<Result<Committed, UnitError>>),
    /// Answered once nothing that the stream, or any without a name, forgets lies in the blocks.
    Settle(Option<Name>, oneshot::Sender<Result<(), StoreError>>),
    Archived(archive::Made, oneshot::Sender<Result<Archive, ArchiveError>>),
    Erase(Arc<str>, oneshot::Sender<Result<Destroyed, StoreError>>),
    Flush(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

impl Job {
    /// The bytes it holds, and will roughly write.
    pub(super) fn bytes(&self) -> usize {
        if let Self::Append(batch, _) | Self::Judge(batch, _) = self { batch.bytes } else { 0 }
    }

    /// Whether it takes its turn in a group.
    pub(super) fn is_for_a_group(&self) -> bool {
        matches!(self, Self::Append(..) | Self::Judge(..) | Self::Unit(..))
    }
}

/// An answer that waits for the group's commit.
enum Answer {
    Append(Result<Appended, AppendError>),
    Judge(Result<Option<Appended>, AppendError>),
    Unit(Result<Committed, UnitError>),
}

/// What came of the first members of a group, of so many, and what of their commit. Where it failed, nothing of them is left.
type Attempt = (usize, Result<Vec<Answer>, UnitError>);

/// What came of code that was polled once: an answer, none yet, or a panic.
type Polled<T> = Result<Poll<T>, Box<dyn std::any::Any + Send>>;

/// The writer's thread of work.
pub(super) struct Writer {
    core: Arc<Mutex<Core>>,
    queue: Arc<Queue>,
    gather: Gather,
    /// How many are being waited for.
    wanted: Option<usize>,
    /// How long the last group's commit took, and how many were in line after it.
    sync: Duration,
    waiting: usize,
    /// Who waits for forgotten data to be gone: of one stream, or of any.
    settling: Vec<Settling>,
    /// Held until the last write is done and the connection is closed.
    _lock: Box<dyn Lock>,
    /// Dropped last: whoever hears it can open the file again.
    farewell: Option<Farewell>,
}

/// Answers a close once everything else of the writer is gone.
struct Farewell(Option<(oneshot::Sender<Closed>, Closed)>);

/// Who waits, and for which stream.
type Settling = (Option<Name>, oneshot::Sender<Result<(), StoreError>>);

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
        if let Some(wanted) = self.wanted.take() {
            self.gather.waited(self.queue.waiting() >= wanted);
        }
        loop {
            let jobs = self.queue.take().unwrap_or_default();
            let answered = jobs.len();
            if self.run_taken(jobs) == Work::Over {
                return Work::Over;
            }
            // A slice between two groups: neither waits for long.
            if self.forget_some() {
                continue;
            }
            if answered == 0 {
                return Work::Idle;
            }
            if let Some((wanted, span)) = self.gather.wait(answered, self.waiting, self.sync)
                && self.queue.wake_at(wanted)
            {
                self.wanted = Some(wanted);
                return Work::Pause(span);
            }
        }
    }
}

impl Writer {
    pub(super) fn new(core: Core, queue: Arc<Queue>, lock: Box<dyn Lock>) -> Self {
        Self {
            core: Arc::new(Mutex::new(core)),
            queue,
            gather: Gather::default(),
            wanted: None,
            sync: Duration::ZERO,
            waiting: 0,
            settling: Vec::new(),
            _lock: lock,
            farewell: None,
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what was taken from the queue, as a rule as one batch.
    fn run_taken(&mut self, jobs: Vec<Job>) -> Work {
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
        Work::Idle
    }

    /// Runs jobs in order: stretches of appends and units as groups, the rest each by itself.
    pub(super) fn run_batch(&mut self, jobs: Vec<Job>) -> Work {
        let mut group = Vec::with_capacity(jobs.len());
        let mut jobs = jobs.into_iter();
        while let Some(job) = jobs.next() {
            if job.is_for_a_group() {
                group.push(job);
                continue;
            }
            self.run_group(std::mem::take(&mut group));
            match job {
                Job::Settle(stream, reply) => self.settle((stream, reply)),
                Job::Archived(made, reply) => {
                    let mut core = self.core();
                    // With a damaged log it would be lost that the events are in the archive.
                    let refusal = core.log_refusal().map(ArchiveError::from);
                    drop(reply.send(refusal.map_or_else(|| archive::enter(&mut core, &made), Err)));
                }
                // The file of keys has a log of its own, and says as well who was erased: with this one, nothing is lost.
                Job::Erase(subject, reply) => drop(reply.send(erase::run(&mut self.core(), &subject))),
                Job::Flush(reply) => {
                    let mut core = self.core();
                    if core.shared.tail().retiring().is_delayed() {
                        core.shared.tail_mut().retiring_mut().take_up_delayed();
                    }
                    if reply.is_closed() {
                        core.flush_idly();
                        core.empty_log_idly();
                        continue;
                    }
                    let flushed = core.flush();
                    core.empty_log();
                    drop(reply.send(flushed));
                }
                Job::Close(reply) => {
                    self.close(reply);
                    jobs.for_each(|job| refuse(job, &UnitError::Store(StoreError::Closed)));
                    return Work::Over;
                }
                Job::Append(..) | Job::Judge(..) | Job::Unit(..) => unreachable!("these are in the group"),
            }
        }
        self.run_group(group);
        let mut core = self.core();
        core.flush_if_due();
        core.checkpoint_if_due();
        Work::Idle
    }

    /// Takes a slice of forgotten data out of the blocks, and answers who waits for that. Whether it did something.
    fn forget_some(&mut self) -> bool {
        let due = self.core().shared.tail().retiring().is_due();
        let sliced = due.then(|| retire::slice(&mut self.core()));
        match &sliced {
            // It stays written down, and is tried again when there is something else to do, or once a second.
            Some(Err(cause)) => {
                tracing::warn!(%cause, "forgotten events could not be taken out of the store's file");
                // Whose data has left the file is not told of others' trouble.
                self.answer_settled();
                self.settling.drain(..).for_each(|(_, reply)| drop(reply.send(Err(cause.clone()))));
            }
            _ if self.settling.is_empty() => {}
            _ => self.answer_settled(),
        }
        matches!(sliced, Some(Ok(())))
    }

    /// Waits for what a stream, or any, forgets. Who asks has what was set aside tried again.
    fn settle(&mut self, settling: Settling) {
        let core = self.core();
        if core.shared.tail().retiring().aside() > 0 {
            core.shared.tail_mut().retiring_mut().take_up(settling.0.as_ref().map(Name::as_str));
        }
        drop(core);
        self.settling.push(settling);
    }

    fn answer_settled(&mut self) {
        let mut core = self.core();
        let retiring = core.shared.tail().retiring().clone();
        let outcome = |stream: &Option<Name>| retiring.outcome(stream.as_ref().map(Name::as_str));
        if self.settling.iter().any(|(stream, _)| outcome(stream).is_some()) {
            core.empty_log();
        }
        drop(core);
        for (stream, reply) in std::mem::take(&mut self.settling) {
            match outcome(&stream) {
                Some(outcome) => drop(reply.send(outcome)),
                None => self.settling.push((stream, reply)),
            }
        }
    }

    /// Runs a group and answers its members; one that takes long, or writes much, in several commits.
    fn run_group(&mut self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            let refusal = self.core().refusal();
            if let Some(cause) = refusal {
                return jobs.into_iter().for_each(|job| refuse(job, &UnitError::Store(cause.clone())));
            }
            let (members, outcome) = self.attempt(&jobs);
            let rest = jobs.split_off(members);
            self.answer(jobs, outcome);
            jobs = rest;
        }
    }

    /// Answers those who were run together, or runs them again, in smaller groups.
    fn answer(&mut self, jobs: Vec<Job>, outcome: Result<Vec<Answer>, UnitError>) {
        match outcome {
            Ok(answers) => jobs.into_iter().zip(answers).for_each(|(job, answer)| reply(job, answer)),
            Err(cause) if jobs.len() == 1 => jobs.into_iter().for_each(|job| refuse(job, &cause)),
            // Running them again would do it twice if it was done.
            Err(cause @ UnitError::Store(StoreError::OutcomeUnknown)) => {
                jobs.into_iter().for_each(|job| refuse(job, &cause));
            }
            // Which of them a view refuses takes few commits to find; it may be a client's doing again and again.
            Err(UnitError::Follower(..)) => {
                let mut first = jobs;
                let second = first.split_off(first.len() / 2);
                self.run_group(first);
                self.run_group(second);
            }
            // One of them spoiled it for all: each alone gets the answer it deserves.
            Err(_) => {
                self.core().env.reached("store: a group failed, and its members ran again");
                jobs.into_iter().for_each(|job| self.run_group(vec![job]));
            }
        }
    }

    /// Runs and commits a group, or as many of its first members as a group has room for.
    fn attempt(&mut self, jobs: &[Job]) -> Attempt {
        if self.core().is_halted() {
            return (jobs.len(), Err(UnitError::Store(StoreError::Closed)));
        }
        self.core().begin_group();
        let (members, answers) = self.run_members(jobs);
        let answers = answers.and_then(|answers| self.fold().map(|()| answers));
        let begun = self.core().env.mono();
        // A simulated sync takes no time while it runs, and would never be worth waiting for.
        let slow = self.core().env.buggify("store: the writer waits for company");
        let committed = answers.and_then(|answers| Ok(self.commit(members).map(|()| answers)?));
        let took = self.core().env.mono().saturating_since(begun);
        (self.sync, self.waiting) = (took + SLOW_SYNC * u32::from(slow), self.queue.waiting());
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
                return (members, Err(UnitError::Store(StoreError::OutcomeUnknown)));
            }
        }
        (members, committed)
    }

    /// Runs the members of a group until its transactions have taken too long, or written too much, for others to join them.
    ///
    /// What a transaction does is known only when it is done. Groups of appends alone were bounded when they were taken, and
    /// spare themselves the look at the clock.
    fn run_members(&mut self, jobs: &[Job]) -> Attempt {
        let full_at = self.core().env.mono() + GROUP_TIME;
        let (mut answers, mut bytes) = (Vec::with_capacity(jobs.len()), 0);
        for job in jobs {
            match self.run(job) {
                Ok(answer) => answers.push(answer),
                Err(cause) => return (answers.len() + 1, Err(cause)),
            }
            bytes += job.bytes();
            if let Job::Unit(..) = job {
                let core = self.core();
                bytes += core.asked + core.asked_by_rooms;
                if bytes >= GROUP_BYTES || core.env.mono() > full_at {
                    break;
                }
            }
        }
        (answers.len(), Ok(answers))
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
            Job::Append(batch, _) => {
                let mut core = self.core();
                let answer = core.append(batch);
                its_own(&core, answer).map(Answer::Append)
            }
            Job::Judge(batch, _) => {
                let mut core = self.core();
                let answer = core.judge(batch);
                its_own(&core, answer).map(Answer::Judge)
            }
            Job::Unit(unit, _) => self.run_unit(unit.as_ref()).map(Answer::Unit),
            _ => unreachable!("only appends and units are in groups"),
        }
    }

    /// Lets code use the group's transaction, once and within its limits. Returns what came of it, and whether it was late.
    fn poll<T>(&self, run: impl FnOnce(&mut DynTx) -> Poll<T>) -> Result<(Polled<T>, bool), UnitError> {
        let limit = {
            let mut core = self.core();
            let limit = core.shared.limits.unit_time;
            core.deadline = Some(core.env.mono() + limit);
            core.watch_deadline(true);
            core.lost = None;
            (core.asked, core.asked_by_rooms) = (0, 0);
            core.deadline
        };
        let mut tx = DynTx::new(Box::new(UnitTx::new(self.core.clone())));
        let polled = catch_unwind(AssertUnwindSafe(|| run(&mut tx)));
        drop(tx);
        let mut core = self.core();
        core.deadline = None;
        core.watch_deadline(false);
        let late = limit.is_some_and(|limit| core.env.mono() > limit);
        match core.lost.take() {
            Some(_) if late => Err(UnitError::TooLong),
            Some(cause) => Err(cause),
            None => Ok((polled, late)),
        }
    }

    /// Has the followers take in the group's events so far. `Err` spoils the group.
    fn fold(&self) -> Result<(), UnitError> {
        let followers = self.core().shared.followers();
        if followers.is_empty() {
            return Ok(());
        }
        let events = self.core().unfolded();
        for follower in followers.iter().filter(|follower| !follower.is_over()) {
            let wanted: Vec<_> = events.iter().filter(|event| follower.wants(event)).cloned().collect();
            if !wanted.is_empty() {
                self.follow(follower.as_ref(), wanted)?;
            }
        }
        Ok(())
    }

    fn follow(&self, follower: &dyn Follower, events: Vec<Recorded>) -> Result<(), UnitError> {
        let shared = self.core().shared.clone();
        let events = shared.keys.open_all(events)?;
        self.core().begin()?;
        let refuses = |why| UnitError::Follower(follower.name().into(), why);
        let (polled, late) = self
            .poll(|tx| follower.follow(tx, &events).as_mut().poll(&mut Context::from_waker(Waker::noop())))
            .map_err(|cause| match cause {
                // Its own statement ended the transaction: nothing is unknown about that.
                UnitError::Constraint(why) => refuses(why),
                UnitError::TooLong => refuses(TOO_LONG.to_owned()),
                other => other,
            })?;
        let refused = match polled {
            _ if late => TOO_LONG.to_owned(),
            _ if self.core().overcharged() => "it asked to write more than a transaction may".to_owned(),
            Ok(Poll::Ready(Ok(()))) => return Ok(()),
            Ok(Poll::Ready(Err(FollowerError::Store(cause)))) => return Err(cause.into()),
            Ok(Poll::Ready(Err(FollowerError::Refused(why)))) => why,
            Ok(Poll::Pending) => "it awaited something other than the transaction".to_owned(),
            Err(panic) => format!("it panicked: {}", message(&*panic)),
        };
        Err(refuses(refused))
    }

    fn run_unit(&mut self, unit: &dyn Unit) -> Result<Result<Committed, UnitError>, UnitError> {
        // What was appended before it is part of what it sees, in the followers' tables as well.
        self.fold()?;
        let (end, changes, hooks) = {
            let mut core = self.core();
            core.begin()?;
            core.run("SAVEPOINT unit", "beginning a unit")?;
            let tail = core.shared.tail();
            (tail.end(), tail.changes(), core.hooks.len())
        };
        let (polled, late) = self.poll(|tx| unit.run(tx).as_mut().poll(&mut Context::from_waker(Waker::noop())))?;
        let mut core = self.core();
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
            let mut tail = core.shared.tail_mut();
            tail.rewind(end);
            tail.undo(changes);
            drop(tail);
            core.hooks.truncate(hooks);
        }
        core.run("RELEASE unit", "ending a unit")?;
        Ok(outcome)
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

/// The answer to an append, unless it was met by the whole group. It wrote nothing where it was refused: a refusal comes
/// before the first event.
fn its_own<T>(core: &Core, answer: Result<T, AppendError>) -> Result<Result<T, AppendError>, UnitError> {
    match answer {
        Err(AppendError::Store(cause)) if !(is_own(&cause) && core.is_open()) => Err(cause.into()),
        answer => Ok(answer),
    }
}

/// Whether an append met it by what it asked for, or where it looked: the others of its group are no part of it.
fn is_own(cause: &StoreError) -> bool {
    use StoreError::{Corrupt, InvalidQuery, KeyMissing, TooMuch};
    matches!(cause, TooMuch { .. } | KeyMissing { .. } | InvalidQuery(_) | Corrupt { .. })
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
        (Job::Judge(batch, reply), Answer::Judge(answer)) => {
            drop(batch);
            let _ = reply.send(answer);
        }
        (Job::Unit(_, reply), Answer::Unit(answer)) => drop(reply.send(answer)),
        _ => unreachable!("an answer is of its job's kind"),
    }
}

const TOO_LONG: &str = "it took longer than a transaction may";

fn refuse(job: Job, why: &UnitError) {
    let cause = if let UnitError::Store(cause) = why { cause.clone() } else { StoreError::OutcomeUnknown };
    match job {
        Job::Append(_, reply) => drop(reply.send(Err(match why {
            UnitError::Follower(view, what) => AppendError::View { view: view.clone(), what: what.clone() },
            _ => cause.into(),
        }))),
        Job::Judge(_, reply) => drop(reply.send(Err(cause.into()))),
        Job::Unit(_, reply) => {
            let constraint = constraint(&cause).map(UnitError::Constraint);
            drop(reply.send(Err(constraint.unwrap_or_else(|| why.clone()))));
        }
        Job::Archived(_, reply) => drop(reply.send(Err(cause.into()))),
        Job::Erase(_, reply) => drop(reply.send(Err(cause))),
        Job::Settle(_, reply) | Job::Flush(reply) | Job::Close(reply) => drop(reply.send(Err(cause))),
    }
}
