//! The course of one transaction: does what its [machine](crate::two_phase_commit::machine) says, and tells it what came of it.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quorate_data::store::{AppendError, StoreError, Token};
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::BoxFuture;
use tokio::sync::oneshot;

use super::{Ended, Live, Receipt, Shared, Transaction, ending::Told, within};
use crate::two_phase_commit::{
    Answer, Gid, Participant, ParticipantError, Vote,
    log::Ending,
    machine::{self, Branch, Effect, Input, Outcome, Phase},
};

/// How often an abort is sent before it is left to whoever finds it in doubt.
const ABORTS: u32 = 3;
/// The longest pause between two tries, in multiples of the first.
const MOST_PAUSES: u32 = 64;

/// What came of something.
struct Came {
    input: Input,
    token: Option<Token>,
    contradicted: Option<Branch>,
}

impl From<Input> for Came {
    fn from(input: Input) -> Self {
        Self { input, token: None, contradicted: None }
    }
}

/// One transaction on its way.
pub(super) struct Course {
    shared: Arc<Shared>,
    gid: Gid,
    live: Arc<Live>,
    participants: Vec<Arc<dyn Participant>>,
    transaction: Arc<Transaction>,
    machine: machine::Transaction,
    underway: FuturesUnordered<BoxFuture<'static, Came>>,
    reply: Option<oneshot::Sender<Receipt>>,
    ended: Option<Ended>,
    /// When its caller is told, whoever has not confirmed.
    answer_due: Option<Mono>,
    token: Option<Token>,
    contradicted: Vec<Name>,
}

impl Course {
    pub(super) fn new(
        shared: Arc<Shared>,
        gid: Gid,
        live: Arc<Live>,
        participants: Vec<Arc<dyn Participant>>,
        transaction: Transaction,
        reply: oneshot::Sender<Receipt>,
    ) -> Self {
        let one_phase = participants.len() == 1 && participants[0].has_one_phase();
        let machine = machine::Transaction::new(participants.len(), !transaction.events.is_empty(), one_phase);
        Self {
            shared,
            gid,
            live,
            participants,
            transaction: Arc::new(transaction),
            machine,
            underway: FuturesUnordered::new(),
            reply: Some(reply),
            ended: None,
            answer_due: None,
            token: None,
            contradicted: Vec::new(),
        }
    }

    /// Goes on until everybody has confirmed, or the coordinator stops: then whoever takes over ends it.
    pub(super) async fn run(mut self) {
        let stop = self.shared.env.tasks().stop().clone();
        let mut effects = Vec::new();
        self.machine.step(Input::Begin, &mut effects);
        loop {
            effects.drain(..).for_each(|effect| self.start(effect));
            if self.machine.phase() == Phase::Ended {
                break;
            }
            let due = self.answer_due.filter(|_| self.reply.is_some());
            let wait = due.map_or(Duration::MAX, |due| due.saturating_since(self.shared.env.mono()));
            let came = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                came = self.underway.next(), if !self.underway.is_empty() => came,
                () = sleep(&self.shared, wait), if due.is_some() => None,
            };
            let Some(came) = came else {
                self.answer();
                continue;
            };
            self.token = self.token.or(came.token);
            self.contradicted.extend(came.contradicted.map(|branch| self.transaction.branches[branch].0.clone()));
            let before = self.machine.phase();
            self.take(came.input, &mut effects);
            self.note(before);
            if self.machine.phase() == Phase::Committing && before != Phase::Committing {
                effects.drain(..).for_each(|effect| self.start(effect));
                // Everybody has it in line before the caller hears of it.
                self.begin_all(&mut effects).await;
            }
        }
        self.answer();
        if self.shared.forget_live(&self.gid) {
            for (name, participant) in self.shared.all() {
                // It only saves room, and comes again.
                let _told = self.shared.call(participant.forget(&self.shared.below(&name))).await;
            }
        }
    }

    /// Polls everything that is under way, until each part of it waits.
    async fn begin_all(&mut self, effects: &mut Vec<Effect>) {
        loop {
            let ready = poll_fn(|context| match self.underway.poll_next_unpin(context) {
                Poll::Ready(came) => Poll::Ready(came),
                Poll::Pending => Poll::Ready(None),
            });
            let Some(came) = ready.await else { break };
            self.contradicted.extend(came.contradicted.map(|branch| self.live.participants[branch].clone()));
            self.take(came.input, effects);
        }
        if self.transaction.answer.unwrap_or(self.shared.config.answer) == Answer::Decided {
            self.answer();
        }
    }

    /// Gives something to the machine.
    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) {
        // Who holds nothing has nothing to confirm.
        if let Input::Done(branch) | Input::Voted(branch, Some(Vote::ReadOnly | Vote::No { .. })) = &input {
            self.live.branches[*branch].store(true, Ordering::Relaxed);
        }
        self.machine.step(input, effects);
    }

    fn start(&mut self, effect: Effect) {
        match effect {
            Effect::Prepare(branch) | Effect::OnePhase(branch) => {
                let is_only = matches!(effect, Effect::OnePhase(_));
                self.underway.push(Box::pin(self.ask(branch, is_only)));
            }
            Effect::Decide => self.underway.push(Box::pin(self.decide())),
            Effect::Commit(branch) => self.underway.push(Box::pin(self.tell(branch, Ending::Commit))),
            Effect::Abort(branch) => self.underway.push(Box::pin(self.tell(branch, Ending::Abort))),
            Effect::Answer(outcome) => self.ended(outcome),
        }
    }

    fn ask(&self, branch: Branch, is_only: bool) -> impl Future<Output = Came> + Send + 'static {
        let (shared, gid) = (self.shared.clone(), self.gid);
        let (participant, transaction) = (self.participants[branch].clone(), self.transaction.clone());
        async move {
            let work = &transaction.branches[branch].1;
            let span = shared.config.prepare_timeout;
            if is_only {
                let until = shared.env.mono() + span + shared.config.decision_patience;
                let mut may_be_done = false;
                for n in 0.. {
                    let vote = match within(&shared.env, span, participant.one_phase(&gid, work)).await {
                        // That it cannot be done, or asked, now says nothing of what was asked before.
                        Err(_) if may_be_done => None,
                        answer => vote(answer),
                    };
                    may_be_done |= vote.is_none();
                    // Who answers a repeated question as the first time is asked until it does.
                    if vote.is_some() || !participant.repeats_one_phase() || shared.env.mono() >= until {
                        return Input::Ended(branch, vote).into();
                    }
                    shared.env.sleep(pause(&shared, n)).await;
                }
            }
            Input::Voted(branch, vote(within(&shared.env, span, participant.prepare(&gid, work)).await)).into()
        }
    }

    fn decide(&self) -> impl Future<Output = Came> + Send + 'static {
        let (shared, gid) = (self.shared.clone(), self.gid);
        let (live, transaction) = (self.live.clone(), self.transaction.clone());
        async move {
            let until = shared.env.mono() + shared.config.decision_patience;
            // What was asked before may have been done, also by an earlier one of these.
            let mut may_be_there = live.may_be_decided.load(Ordering::Relaxed);
            for n in 0.. {
                let batch = shared.standing.decision(&gid, &live.participants, &transaction.events);
                let failed = match shared.store.append(batch).await {
                    Ok(appended) => {
                        live.is_decided.store(true, Ordering::Relaxed);
                        shared.standing.decided(&shared.store, &appended);
                        return Came { token: Some(appended.token), ..Input::Logged.into() };
                    }
                    Err(failed) => failed,
                };
                match failed {
                    // The log knows events before it looks at anything else: it has not got these.
                    AppendError::ConditionFailed { condition: 0, .. } => {
                        shared.is_fenced.store(true, Ordering::Relaxed);
                        return Input::Refused("another coordinator has taken over".to_owned()).into();
                    }
                    AppendError::VersionConflict { ref stream, .. } if *stream == gid.stream() => {
                        live.is_ordered.store(true, Ordering::Relaxed);
                        return Input::Refused("it was resolved by hand before it was decided".to_owned()).into();
                    }
                    AppendError::Store(cause) => {
                        may_be_there |= matches!(cause, StoreError::OutcomeUnknown);
                        live.may_be_decided.store(may_be_there, Ordering::Relaxed);
                        if !may_be_there {
                            return Input::Refused(told(&cause)).into();
                        }
                    }
                    other => return Input::Refused(told(&other)).into(),
                }
                if shared.env.mono() >= until {
                    break;
                }
                shared.env.sleep(pause(&shared, n)).await;
            }
            Input::Unclear.into()
        }
    }

    /// Tells a participant how it ends: what was decided to be committed until it is done, also where somebody ordered otherwise; an
    /// abort a few times.
    fn tell(&self, branch: Branch, decided: Ending) -> impl Future<Output = Came> + Send + 'static {
        let (shared, gid) = (self.shared.clone(), self.gid);
        let (participant, name) = (self.participants[branch].clone(), self.live.participants[branch].clone());
        async move {
            for n in 0.. {
                match shared.tell((&gid, &name), &*participant, Some(decided), n == 0).await {
                    Told::Ended(ending) if ending == decided => break,
                    Told::Ended(_) | Told::Contradicted => {
                        return Came { contradicted: Some(branch), ..Input::Done(branch).into() };
                    }
                    Told::NotDone(cause) if n == 0 => {
                        tracing::warn!(%gid, participant = %name, %cause, "a participant was not told how a transaction ends; it is tried again");
                    }
                    Told::NotDone(_) | Told::Unreadable(_) | Told::Left => {}
                }
                if decided == Ending::Abort && n + 1 == ABORTS {
                    return Input::GivenUp(branch).into();
                }
                shared.env.sleep(pause(&shared, n)).await;
            }
            Input::Done(branch).into()
        }
    }

    fn note(&self, before: Phase) {
        if before == Phase::Deciding && self.machine.phase() > Phase::Deciding {
            self.shared.env.reached("txn: a decision was answered");
        }
    }

    /// The caller may be told how it ended.
    fn ended(&mut self, outcome: Outcome) {
        let mut counts = self.shared.counts();
        match outcome {
            Outcome::Committed => {
                counts.committed += 1;
                drop(counts);
                self.ended = Some(Ended::Committed);
                self.answer_due = Some(self.shared.env.mono() + self.shared.config.applied_within);
            }
            Outcome::Aborted { by, why } => {
                counts.aborted += 1;
                drop(counts);
                let by = by.map(|branch| self.live.participants[branch].clone());
                self.ended = Some(Ended::Aborted { by, why });
                // Nobody waits for an undoing: it has to be done in any case.
                self.answer();
            }
            Outcome::Unknown => {
                counts.unknown += 1;
                drop(counts);
                self.ended = Some(Ended::Unknown);
                self.answer();
            }
        }
    }

    fn answer(&mut self) {
        let (Some(reply), Some(ended)) = (self.reply.take(), self.ended.clone()) else { return };
        let unconfirmed = match ended {
            Ended::Committed => {
                self.machine.unconfirmed().map(|branch| self.live.participants[branch].clone()).collect()
            }
            Ended::Aborted { .. } | Ended::Unknown => Vec::new(),
        };
        let contradicted = self.contradicted.clone();
        // Whoever asked may have gone.
        let _gone = reply.send(Receipt { gid: self.gid, ended, unconfirmed, contradicted, token: self.token });
    }
}

fn vote(answer: Result<Vote, ParticipantError>) -> Option<Vote> {
    match answer {
        Ok(vote) => Some(vote),
        Err(ParticipantError::Failed { what } | ParticipantError::Unsuitable { what }) => Some(Vote::No { why: what }),
        Err(ParticipantError::Unanswered { .. } | ParticipantError::Contradicted { .. }) => None,
    }
}

fn told(cause: &dyn std::error::Error) -> String {
    let mut told = cause.to_string();
    let mut source = cause.source();
    while let Some(cause) = source {
        told = format!("{told}: {cause}");
        source = cause.source();
    }
    told
}

pub(super) fn pause(shared: &Shared, tries: u32) -> Duration {
    shared.config.pause * 2_u32.saturating_pow(tries).min(MOST_PAUSES)
}

async fn sleep(shared: &Shared, span: Duration) {
    shared.env.sleep(span).await;
}
