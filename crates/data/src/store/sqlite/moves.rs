//! Waking those who follow single streams, and few others.
//!
//! With the log's head alone, every append would wake the follower of every stream, each to find that nothing is there
//! for it. Streams share 64 marks by hash instead: an append moves the marks of its group's streams, and wakes one in 64
//! of the followers of others. Marks nobody watches cost the writer a glance.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use tokio::sync::watch;

use crate::event::Position;

/// The marks.
pub(super) struct Moves {
    marks: [watch::Sender<Position>; Marks::BITS as usize],
    state: FixedState,
}

/// A set of marks, one bit each.
type Marks = u64;

impl Moves {
    /// Nobody watches yet.
    pub(super) fn new() -> Self {
        Self { marks: std::array::from_fn(|_| watch::Sender::new(Position::ZERO)), state: FixedState::default() }
    }

    /// The mark of `stream`, which it shares with others.
    pub(super) fn watch(&self, stream: &str) -> watch::Receiver<Position> {
        self.marks[self.mark(stream)].subscribe()
    }

    /// The marks of `streams`.
    pub(super) fn of<'s>(&self, streams: impl IntoIterator<Item = &'s str>) -> Marks {
        streams.into_iter().fold(0, |marks, stream| marks | 1 << self.mark(stream))
    }

    /// Wakes whoever watches one of `marks`. What is to be seen must have been published before: a watcher that is missed
    /// here has yet to look.
    pub(super) fn wake(&self, marks: Marks, position: Position) {
        let moved = self.marks.iter().enumerate().filter(|(n, _)| marks >> n & 1 == 1);
        moved.filter(|(_, mark)| mark.receiver_count() > 0).for_each(|(_, mark)| {
            mark.send_replace(position);
        });
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&self) {
        self.marks.iter().for_each(|mark| mark.send_modify(|_| {}));
    }

    fn mark(&self, stream: &str) -> usize {
        // The upper bits: of this hash, the better mixed ones.
        (self.state.hash_one(stream) >> (u64::BITS - Marks::BITS.ilog2())) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_wakes_the_followers_of_its_streams_and_few_others() {
        let moves = Moves::new();
        let names: Vec<String> = (0..640).map(|n| format!("account-{n}")).collect();
        let mut watching: Vec<_> = names.iter().map(|name| moves.watch(name)).collect();
        moves.wake(moves.of(["account-7", "account-8"]), Position::new(1));
        assert!(watching[7].has_changed().unwrap() && watching[8].has_changed().unwrap());
        let woken = watching.iter().filter(|watching| watching.has_changed().unwrap()).count();
        assert!(woken < 60, "{woken} of 640 were woken by two streams");
        watching.iter_mut().for_each(watch::Receiver::mark_unchanged);
        moves.wake_all();
        assert!(watching.iter().all(|watching| watching.has_changed().unwrap()));
    }
}
