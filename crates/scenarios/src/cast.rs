//! Who takes part in a scenario of the log: clients that come to an end, followers, and a last reader. Where they play, in a
//! simulated world or against a node that really runs, is none of their business.

use std::{collections::BTreeMap, future::Future, sync::Arc};

use quorate_runtime::BoxFuture;
use quorate_sim::{HostId, Sim, check::Verdict};

use crate::{
    hand::{Busy, Hand, Pace},
    judge::{self, Contract, Judgement},
    notes::Note,
};

/// What somebody does.
type Work = Arc<dyn Fn(Hand) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Judges notes that were taken at some pace, by what one scenario promises besides what all do.
type Judge = fn(&[Note], Pace) -> Vec<Verdict>;

/// Makes a world of a kind of its own, of the node and of the clients by name.
type Setting = fn(&mut Sim, HostId, &BTreeMap<String, HostId>);

/// Who takes part, and how their notes are judged.
pub(crate) struct Cast {
    members: Vec<Member>,
    judge: Judge,
    /// What the simulated world has that the usual one has not.
    setting: Option<Setting>,
    /// Whether everything is whole again in the end, so that the node can be asked to check its store.
    heals: bool,
    /// Whether the node lives by what time it is: its clocks are what goes wrong with clocks.
    by_the_clock: bool,
}

/// Somebody who takes part.
#[derive(Clone)]
pub(crate) struct Member {
    /// Their name.
    pub(crate) name: String,
    work: Work,
    /// Whether the log is read for the last time only after this one has ended.
    is_writer: bool,
    /// Whether nothing could be judged without this one.
    pub(crate) is_witness: bool,
}

impl Cast {
    /// Nobody yet, and no promises but those of every scenario.
    pub(crate) fn new() -> Self {
        Self { members: Vec::new(), judge: |_, _| Vec::new(), setting: None, heals: true, by_the_clock: false }
    }

    /// In a simulated world that `setting` makes of the usual one.
    pub(crate) fn in_a_world(mut self, setting: Setting) -> Self {
        self.setting = Some(setting);
        self
    }

    /// In a world in which something stays broken: nobody asks the node there whether its store is sound.
    pub(crate) fn never_healed(mut self) -> Self {
        self.heals = false;
        self
    }

    /// Whether everything is whole again in the end.
    pub(crate) fn heals(&self) -> bool {
        self.heals
    }

    /// Whether they need a simulated world of their own.
    pub(crate) fn needs_a_world(&self) -> bool {
        self.setting.is_some()
    }

    /// Where clocks go wrong in a simulated world, they are set often, and half of it happens to the node.
    pub(crate) fn by_the_clock(mut self) -> Self {
        self.by_the_clock = true;
        self
    }

    /// Makes the world theirs.
    pub(crate) fn set(&self, sim: &mut Sim, node: HostId, clients: &BTreeMap<String, HostId>) {
        if self.by_the_clock {
            sim.trouble_clocks_of(node);
        }
        if let Some(setting) = self.setting {
            setting(sim, node, clients);
        }
    }

    /// Judges notes by `judge`, too.
    pub(crate) fn judged_by(mut self, judge: Judge) -> Self {
        self.judge = judge;
        self
    }

    /// Adds a client that does `work`; the log is read for the last time once all have.
    pub(crate) fn hand<F, R>(mut self, name: &str, work: F) -> Self
    where
        F: Fn(Hand) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let work: Work = Arc::new(move |hand| {
            let (busy, name, done) = (hand.busy.clone(), hand.name.clone(), work(hand));
            Box::pin(async move {
                done.await;
                busy.end(&name);
                Ok(())
            })
        });
        self.members.push(Member { name: name.to_owned(), work, is_writer: true, is_witness: false });
        self
    }

    /// Adds a follower that is told of the log until it has heard of everything there is when all hands are done.
    pub(crate) fn follower<F, R>(mut self, name: &str, work: F) -> Self
    where
        F: Fn(Hand) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        let work: Work = Arc::new(move |hand| Box::pin(work(hand)));
        self.members.push(Member { name: name.to_owned(), work, is_writer: false, is_witness: false });
        self
    }

    /// Everybody, the last reader at the end. Writers count as busy from now on.
    pub(crate) fn members(&self, busy: &Busy) -> Vec<Member> {
        self.members.iter().filter(|member| member.is_writer).for_each(|member| busy.begin(&member.name));
        let work: Work = Arc::new(|hand| {
            Box::pin(async move {
                hand.read_last().await;
                Ok(())
            })
        });
        let last = Member { name: "last reader".to_owned(), work, is_writer: false, is_witness: true };
        self.members.iter().cloned().chain([last]).collect()
    }

    /// What checkers say of `notes`, which were taken at `pace`, by `contract`.
    pub(crate) fn judge(&self, notes: &[Note], pace: Pace, contract: Contract) -> Judgement {
        let mut judgement = Judgement::by(contract, notes);
        if contract == Contract::Whole {
            judgement.also((self.judge)(notes, pace));
            // Last: a world is about what clients were promised.
            judgement.also(vec![judge::store_is_sound(notes)]);
        }
        judgement
    }
}

impl Member {
    /// Has them work with `hand`.
    pub(crate) fn work(&self, hand: Hand) -> BoxFuture<'static, Result<(), String>> {
        (self.work)(hand)
    }
}
