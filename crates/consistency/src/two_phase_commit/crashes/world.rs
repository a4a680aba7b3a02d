//! The world of [`explore`](super::explore): a coordinator, participants, a log, and messages between them that anything may happen to.

use std::fmt;

use super::{Ballot, End, Faults, Told};
use crate::two_phase_commit::{
    Vote,
    branch::{Asked, Known, Step},
    machine::{Branch, Effect, Input, Outcome, Phase, Transaction},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Prepare(Branch),
    Vote(Branch, Ballot),
    Append,
    Appended(bool),
    Commit(Branch),
    Abort(Branch),
    Done(Branch),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    known: Known,
    applied: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct World {
    coordinator: Option<Transaction>,
    is_decided: bool,
    is_replaced: bool,
    places: Vec<Place>,
    messages: Vec<Message>,
    pub(super) told: Told,
    left: Faults,
    pub(super) first: Option<String>,
}

/// Takes what may happen next: in words, whether it is a fault, and what it changes.
type Add<'a> = dyn FnMut(String, bool, &dyn Fn(&mut World)) + 'a;

pub(super) struct Next {
    pub(super) what: String,
    pub(super) is_fault: bool,
    pub(super) world: World,
}

impl World {
    /// One in which a coordinator begins a transaction of so many participants.
    pub(super) fn begun(participants: usize, faults: Faults) -> Self {
        let place = Place { known: Known::Nothing, applied: 0 };
        let mut world = Self {
            coordinator: Some(Transaction::new(participants, false, false)),
            is_decided: false,
            is_replaced: false,
            places: vec![place; participants],
            messages: Vec::new(),
            told: Told::Nothing,
            left: faults,
            first: None,
        };
        world.tell(Input::Begin);
        world
    }

    /// What must hold at every moment.
    pub(super) fn check(&self, ballots: &[Ballot]) -> Result<(), &'static str> {
        let is = |known| self.places.iter().any(|place| place.known == known);
        let writes = ballots.contains(&Ballot::Yes);
        if is(Known::Committed) && !self.is_decided {
            return Err("a participant committed what was not decided");
        }
        if is(Known::Aborted) && self.is_decided {
            return Err("a participant aborted what was decided");
        }
        if self.places.iter().any(|place| place.applied > 1) {
            return Err("a participant did it twice");
        }
        match self.told {
            Told::Committed if writes && !self.is_decided => {
                Err("the caller was told that it is committed, and it was not decided")
            }
            Told::Aborted if self.is_decided => Err("the caller was told that it is aborted, and it was decided"),
            _ => Ok(()),
        }
    }

    /// How it ended, when nothing more happens by itself.
    pub(super) fn end(&self, ballots: &[Ballot]) -> Result<End, &'static str> {
        if self.places.iter().any(|place| place.known == Known::Prepared) {
            return Err("a participant is left with a promise");
        }
        let did = |(place, ballot): (&Place, &Ballot)| *ballot != Ballot::Yes || place.known == Known::Committed;
        if self.is_decided && !self.places.iter().zip(ballots).all(did) {
            return Err("it was decided, and a participant has not done it");
        }
        let is_committed = self.is_decided || (self.told == Told::Committed && !ballots.contains(&Ballot::Yes));
        Ok(if is_committed { End::Committed } else { End::Aborted })
    }

    /// Gives something to the coordinator, and does what it says.
    fn tell(&mut self, input: Input) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let mut effects = Vec::new();
        coordinator.step(input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Prepare(branch) => self.send(Message::Prepare(branch)),
                Effect::Decide => self.send(Message::Append),
                Effect::Commit(branch) => self.send(Message::Commit(branch)),
                Effect::Abort(branch) => self.send(Message::Abort(branch)),
                Effect::Answer(outcome) => {
                    self.told = match outcome {
                        Outcome::Committed => Told::Committed,
                        Outcome::Aborted { .. } => Told::Aborted,
                        Outcome::Unknown => Told::Unknown,
                    }
                }
                Effect::OnePhase(_) => unreachable!("several take part"),
            }
        }
    }

    fn send(&mut self, message: Message) {
        let at = self.messages.partition_point(|known| *known <= message);
        self.messages.insert(at, message);
    }

    /// Everything that may happen now.
    pub(super) fn next(&self, ballots: &[Ballot]) -> Vec<Next> {
        let mut all = Vec::new();
        let mut add = |what: String, is_fault: bool, change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            if is_fault && world.first.is_none() {
                world.first = Some(what.clone());
            }
            all.push(Next { what, is_fault, world });
        };
        for (n, message) in self.messages.iter().enumerate() {
            if n > 0 && self.messages[n - 1] == *message {
                continue;
            }
            add(format!("{message} arrives"), false, &|world| {
                world.messages.remove(n);
                world.arrive(*message, ballots);
            });
            if self.left.losses > 0 {
                add(format!("{message} is lost"), true, &|world| {
                    world.left.losses -= 1;
                    world.messages.remove(n);
                });
            }
            if self.left.duplicates > 0
                && matches!(message, Message::Prepare(_) | Message::Commit(_) | Message::Abort(_))
            {
                add(format!("{message} comes twice"), true, &|world| {
                    world.left.duplicates -= 1;
                    world.send(*message);
                });
            }
        }
        self.coordinators(&mut add);
        all
    }

    /// What coordinators do by themselves, and what happens to them.
    fn coordinators(&self, add: &mut Add<'_>) {
        let on_its_way = |wanted: &[Message]| self.messages.iter().any(|message| wanted.contains(message));
        if let Some(coordinator) = &self.coordinator {
            let point = self.point(coordinator);
            for branch in coordinator.unconfirmed() {
                let ballots = [Ballot::Yes, Ballot::ReadOnly, Ballot::No].map(|ballot| Message::Vote(branch, ballot));
                let is_coming = on_its_way(&ballots) || on_its_way(&[Message::Prepare(branch)]);
                if coordinator.phase() <= Phase::Preparing || (coordinator.phase() == Phase::Aborting && is_coming) {
                    if !is_coming {
                        add(format!("the time of vote {branch} is up"), false, &|world| {
                            world.tell(Input::Voted(branch, None))
                        });
                    } else if self.left.late > 0 {
                        add(format!("vote {branch} is given up on"), true, &|world| {
                            world.left.late -= 1;
                            world.tell(Input::Voted(branch, None));
                        });
                    }
                }
                let (commit, abort) = (Message::Commit(branch), Message::Abort(branch));
                if !on_its_way(&[commit, abort, Message::Done(branch)]) && !is_coming {
                    match coordinator.phase() {
                        Phase::Committing => add(format!("{commit} is sent again"), false, &|world| world.send(commit)),
                        Phase::Aborting => add(format!("{abort} is sent again"), false, &|world| {
                            world.tell(Input::Voted(branch, None));
                            world.send(abort);
                        }),
                        _ => {}
                    }
                }
            }
            let is_unclear = !on_its_way(&[Message::Append, Message::Appended(true), Message::Appended(false)]);
            if coordinator.phase() == Phase::Deciding && is_unclear {
                add("the log does not answer".to_owned(), false, &|world| world.tell(Input::Unclear));
            }
            if self.left.crashes > 0 {
                add(format!("the coordinator dies {point}"), true, &|world| {
                    world.left.crashes -= 1;
                    world.coordinator = None;
                });
            }
            if self.left.replacements > 0 && !self.is_replaced {
                add(format!("the coordinator is replaced {point}"), true, &|world| {
                    world.left.replacements -= 1;
                    world.is_replaced = true;
                });
            }
        } else if !self.is_replaced {
            add("another takes over".to_owned(), false, &|world| world.is_replaced = true);
        }
        let may_sweep = self.is_replaced || self.coordinator.as_ref().is_some_and(|one| one.phase() == Phase::Ended);
        for (branch, _) in
            self.places.iter().enumerate().filter(|(_, place)| may_sweep && place.known == Known::Prepared)
        {
            add(format!("a sweep ends branch {branch}"), false, &|world| {
                let asked = if world.is_decided { Asked::Commit } else { Asked::Abort };
                world.places[branch].end(asked);
            });
        }
    }

    fn arrive(&mut self, message: Message, ballots: &[Ballot]) {
        match message {
            Message::Prepare(branch) => {
                let step = self.places[branch].known.step(Asked::Prepare);
                let ballot = match step {
                    Step::Prepare => ballots[branch],
                    Step::Repeat => Ballot::Yes,
                    _ => Ballot::No,
                };
                if step == Step::Prepare && ballot == Ballot::Yes {
                    self.places[branch].known = Known::Prepared;
                }
                self.send(Message::Vote(branch, ballot));
            }
            Message::Vote(branch, ballot) => {
                let vote = match ballot {
                    Ballot::Yes => Vote::Yes,
                    Ballot::ReadOnly => Vote::ReadOnly,
                    Ballot::No => Vote::No { why: String::new() },
                };
                self.tell(Input::Voted(branch, Some(vote)));
            }
            // The log knows what it has before it looks at who asks.
            Message::Append => {
                self.is_decided |= !self.is_replaced;
                self.send(Message::Appended(self.is_decided));
            }
            Message::Appended(true) => self.tell(Input::Logged),
            Message::Appended(false) => self.tell(Input::Refused(String::new())),
            Message::Commit(branch) => {
                self.places[branch].end(Asked::Commit);
                self.send(Message::Done(branch));
            }
            Message::Abort(branch) => {
                self.places[branch].end(Asked::Abort);
                self.send(Message::Done(branch));
            }
            Message::Done(branch) => self.tell(Input::Done(branch)),
        }
    }

    /// How far a coordinator is, as the end of a sentence.
    fn point(&self, coordinator: &Transaction) -> &'static str {
        let done = self.places.iter().filter(|place| place.known == Known::Committed).count();
        let promised = self.places.iter().filter(|place| place.known == Known::Prepared).count();
        match coordinator.phase() {
            Phase::Preparing if promised == 0 => "before anybody has promised",
            Phase::Preparing => "between the promises",
            Phase::OnePhase => "in the only phase",
            Phase::Deciding if self.is_decided => "behind the durable decision, before it knows",
            Phase::Deciding => "before the decision is durable",
            Phase::Committing if done == 0 => "before anybody has committed",
            Phase::Committing if promised > 0 => "between the commits",
            Phase::Committing => "before everybody has confirmed",
            Phase::Aborting => "while it aborts",
            Phase::Ended => "behind the end",
        }
    }
}

impl Place {
    fn end(&mut self, asked: Asked) {
        match self.known.step(asked) {
            Step::Commit => {
                self.known = Known::Committed;
                self.applied += 1;
            }
            Step::Abort | Step::Remember => self.known = Known::Aborted,
            _ => {}
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare(branch) => write!(f, "prepare {branch}"),
            Self::Vote(branch, Ballot::Yes) => write!(f, "the yes of {branch}"),
            Self::Vote(branch, Ballot::ReadOnly) => write!(f, "the read-only of {branch}"),
            Self::Vote(branch, Ballot::No) => write!(f, "the no of {branch}"),
            Self::Append => f.write_str("the decision"),
            Self::Appended(true) => f.write_str("the log's answer"),
            Self::Appended(false) => f.write_str("the log's refusal"),
            Self::Commit(branch) => write!(f, "commit {branch}"),
            Self::Abort(branch) => write!(f, "abort {branch}"),
            Self::Done(branch) => write!(f, "the confirmation of {branch}"),
        }
    }
}
