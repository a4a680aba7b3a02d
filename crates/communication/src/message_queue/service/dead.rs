//! Dead letters: looking at them, and deciding what becomes of them.

use std::{collections::BTreeSet, sync::Arc};

use quorate_data::event::NewEvent;

use super::{Queue, Queues};
use crate::message_queue::{
    Cause, DeadLetter, Failure, NewMessage, QueueError,
    driver::{Fate, Work},
    machine::Seq,
    rows::{self, Named, Replayed, turn},
};

/// Dead letters that are looked at, at once; fewer where each statement is a journey to a server.
const DEAD_AT_ONCE: usize = 256;
const DEAD_AT_ONCE_SHARED: usize = 64;

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetters {
    /// In the order in which they were sent.
    pub letters: Vec<DeadLetter>,
    /// Where there may be more: behind this place.
    pub next: Option<u64>,
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The one with this id; of several sources, all.
    pub id: Option<String>,
    /// Those of this group.
    pub group: Option<String>,
    /// Those of this type.
    pub kind: Option<String>,
}

impl Selection {
    /// All of them.
    pub const ALL: Self = Self { id: None, group: None, kind: None };

    /// The one with this id.
    pub fn one(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::ALL }
    }

    fn selects(&self, message: &Named) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| wanted.is_none() || wanted.as_deref() == is;
        fits(&self.id, Some(&message.id))
            && fits(&self.group, message.group.as_deref())
            && fits(&self.kind, Some(&message.kind))
    }
}

impl Queue {
    /// Dead letters in the order in which they were sent: at most `limit` (1 to [`Queues::MAX_PAGE`]) behind
    /// [`place`](DeadLetter::place) `after`, from 0. The page ends before them where they would take more than
    /// [`Queues::MAX_PAGE_BYTES`]; one always fits. A message whose content cannot be read comes without it.
    pub async fn dead_letters(&self, after: u64, limit: usize) -> Result<DeadLetters, QueueError> {
        let max = Queues::MAX_PAGE;
        if !(1..=max).contains(&limit) {
            return Err(QueueError::invalid(format!("`limit` is 1 to {max}, {limit} was asked for")));
        }
        let numbers = rows::within(self.core.id);
        let after = numbers.start().saturating_add(after).min(*numbers.end());
        let seqs = self.core.ask(|reply| Work::Parked { after, limit, reply }).await?;
        let (letters, is_cut) = rows::dead_letters(&self.core.store, &seqs, Queues::MAX_PAGE_BYTES).await?;
        let last = if is_cut {
            letters.last().map(DeadLetter::place)
        } else {
            seqs.last().filter(|_| seqs.len() == limit).map(|seq| rows::count_of(*seq))
        };
        Ok(DeadLetters { letters, next: last })
    }

    /// Lets dead letters be handed out again, with all their attempts, in their old places. Returns how many there were.
    ///
    /// Their time to live is over and does not count any more. Done in slices: a crash may leave some unreplayed. One whose
    /// [unique key](method@NewMessage::unique) another message has by now stays where it is, and is not counted.
    pub async fn replay(&self, which: &Selection) -> Result<usize, QueueError> {
        self.bury(which, &Fate::Replay(None)).await
    }

    /// Lets the dead letter with the id and source of `event` be handed out again, saying `event` from now on. The id
    /// still stands for what was sent: sending that again changes nothing.
    ///
    /// # Errors
    /// [`QueueError::NotParked`] if there is no such dead letter, or another message has its unique key.
    pub async fn replay_edited(&self, event: NewEvent) -> Result<(), QueueError> {
        let message = NewMessage::of(event);
        message.check(0, self.core.store.limits().event_bytes)?;
        let event = Arc::new(message.event);
        let selection = Selection::one(&*event.id);
        let is_it = |letter: &Named| *letter.source == *event.source;
        let found = self.bury_those(&selection, is_it, &Fate::Replay(Some(event.clone()))).await?;
        if found > 0 {
            return Ok(());
        }
        Err(QueueError::NotParked { name: self.name().clone(), id: event.id.to_string() })
    }

    /// Gives dead letters up. Returns how many there were. Done in slices, as [`replay`](Self::replay).
    pub async fn discard(&self, which: &Selection) -> Result<usize, QueueError> {
        self.bury(which, &Fate::Discard).await
    }

    async fn bury(&self, which: &Selection, fate: &Fate) -> Result<usize, QueueError> {
        self.bury_those(which, |_| true, fate).await
    }

    async fn bury_those(
        &self,
        which: &Selection,
        also: impl Fn(&Named) -> bool,
        fate: &Fate,
    ) -> Result<usize, QueueError> {
        let (mut after, mut count) = (0, 0);
        let mut held = BTreeSet::new();
        loop {
            let limit = if self.core.is_shared() { DEAD_AT_ONCE_SHARED } else { DEAD_AT_ONCE };
            let seqs = self.core.ask(|reply| Work::Parked { after, limit, reply }).await?;
            let Some(last) = seqs.last().copied() else { return Ok(count) };
            after = last;
            let letters = rows::named(&self.core.store, &seqs).await?;
            let chosen = letters.iter().filter(|letter| which.selects(letter) && also(letter));
            let is_replay = matches!(fate, Fate::Replay(_));
            let (unique, others): (Vec<&Named>, Vec<&Named>) =
                chosen.partition(|one| one.unique.is_some() && is_replay);
            if let Fate::Replay(edited) = fate {
                for letter in unique {
                    if letter.unique.as_ref().is_some_and(|key| held.contains(key)) {
                        continue;
                    }
                    let replayed = self.replay_unique(letter.seq, edited.clone()).await?;
                    count += usize::from(replayed == Replayed::Yes);
                    // Either way one has the key now: the others with it stay where they are.
                    held.extend(letter.unique.clone().filter(|_| replayed != Replayed::Gone));
                }
            }
            let seqs: Vec<Seq> = others.iter().map(|letter| letter.seq).collect();
            if !seqs.is_empty() {
                let fate = fate.clone();
                count += self.core.ask(|reply| Work::Bury { seqs, fate, reply }).await?;
            }
        }
    }

    /// Lets a dead letter be handed out again whose unique key another message may have: only its rows, in one transaction,
    /// tell that.
    async fn replay_unique(&self, seq: Seq, edited: Option<Arc<NewEvent>>) -> Result<Replayed, QueueError> {
        let core = self.core.clone();
        let failure = Failure::new(0, core.store.env().wall(), Cause::Replayed, "");
        let replayed = self.core.store.transact(move |tx| {
            let (core, failure, edited) = (core.clone(), failure.clone(), edited.clone());
            Box::pin(async move {
                let replayed = rows::replay(tx, core.id, seq, &failure, edited.as_ref()).await?;
                if replayed == Replayed::Yes && core.is_shared() {
                    turn::tell(tx, core.id, &[seq]).await?;
                } else if replayed == Replayed::Yes {
                    tx.after_commit(move || core.hear_of_replayed(seq))?;
                }
                Ok(replayed)
            })
        });
        let replayed = replayed.await.map_err(QueueError::of_transaction)?;
        if replayed == Replayed::Held {
            self.core.store.env().reached("queue: a dead letter stayed, for its key is another's");
        }
        Ok(replayed)
    }
}

impl DeadLetter {
    /// Where it stands in its queue: for [`Queue::dead_letters`] to go on behind it.
    pub fn place(&self) -> u64 {
        rows::count_of(self.seq)
    }
}
