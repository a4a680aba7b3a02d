//! What streams are like by the log, a bounded number of them at a time.
//!
//! Streams lie all through the log, so whoever checks it in order has to remember each of them; and a log can have more
//! streams than there is memory for. So a pass over the log remembers those alone whose keys lie in an interval. It begins as
//! all that no pass had before, and is halved whenever there would be too many; what falls out of it is left to the next
//! pass. A store with no more streams than [`MOST`] is gone through once.

use std::mem;

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use super::StreamHead;
use crate::event::ChainHash;

/// The most streams that a pass remembers, in some 40 MB: a table of 2¹⁹ places is full with them.
pub(super) const MOST: usize = (1 << 19) / 8 * 7;

/// A number of a stream, or its name, hashed: names may be long. The first part is what intervals are of.
pub(super) type Key = (u64, u64);

/// The key of the stream `name`; no two have the same, also if somebody would like them to.
pub(super) fn key(name: &str) -> Key {
    let hash = blake3::hash(name.as_bytes());
    let half = |from: usize| hash.as_bytes()[from..from + 8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    (half(0), half(8))
}

/// What a stream was like at the last event read.
pub(super) struct Chain {
    pub(super) version: u64,
    pub(super) hash: ChainHash,
    /// The last version whose event is forgotten, wiped or not; zero if none is.
    pub(super) forgotten: u64,
    /// The first version whose event is kept; zero if none is.
    pub(super) kept: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { version: 0, hash: ChainHash::START, forgotten: 0, kept: 0 }
    }
}

impl Chain {
    /// What is wrong with a stream's row; what is forgotten is a stretch at its beginning, which can reach beyond the index.
    ///
    /// `indexed`: the version and hash at the last event that the index knows, which is what the row should say.
    fn differs(&self, indexed: (u64, ChainHash), head: &StreamHead, hash: &ChainHash) -> Option<String> {
        let (version, first) = (indexed.0, self.forgotten + 1);
        if head.version.get() != version {
            return Some(format!("it says version {}, the log has {version}", head.version));
        }
        if *hash != indexed.1 {
            return Some("its hash is not that of the stream's last event".to_owned());
        }
        if head.first.get() != first {
            return Some(format!(
                "it says that events are whole from version {} on, they are from {first}",
                head.first
            ));
        }
        if self.kept > 0 && self.kept < first {
            return Some(format!("version {} is whole, although it is forgotten and nobody is to wipe it", self.kept));
        }
        let closed = head.tombstoned && first != self.version + 1;
        closed.then(|| "it is tombstoned and has whole events".to_owned())
    }
}

/// The streams that one pass remembers.
pub(super) struct Chains {
    most: usize,
    known: HashMap<Key, Chain, FixedState>,
    /// What streams were like at the last event that the index knows, where others follow: few, as the tail is short.
    indexed: HashMap<Key, (u64, ChainHash), FixedState>,
    /// The interval: both ends are in it.
    from: u64,
    to: u64,
    /// The end of the last one.
    end: u64,
    /// The furthest that [`progress`](Self::progress) has told.
    told: u64,
}

impl Chains {
    /// For the first pass over streams whose keys are up to `end`, and at most `most` of them at a time: two at least.
    pub(super) fn new(most: usize, end: u64) -> Self {
        let (known, indexed) =
            (HashMap::with_hasher(FixedState::default()), HashMap::with_hasher(FixedState::default()));
        Self { most: most.max(2), known, indexed, from: 0, to: end, end, told: 0 }
    }

    /// Makes ready for the next pass; whether there has to be one.
    pub(super) fn next_pass(&mut self) -> bool {
        if self.to >= self.end {
            return false;
        }
        (self.from, self.to) = (self.to + 1, self.end);
        self.known.clear();
        self.indexed.clear();
        true
    }

    /// The interval of keys that this pass remembers; both ends are in it.
    pub(super) fn interval(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    /// How many streams this pass has found so far.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How much of everything is done when this pass is at `at` of `total`, as a part of `total`; never less than before, though
    /// it can turn out to be less.
    pub(super) fn progress(&mut self, at: u64, total: u64) -> u64 {
        let all = u128::from(self.end) + 1;
        let (before, width) = (u128::from(self.from), u128::from(self.to - self.from) + 1);
        let done = (before * u128::from(total) + width * u128::from(at.min(total))) / all;
        self.told = self.told.max(u64::try_from(done).unwrap_or(total));
        self.told
    }

    /// The stream `key` before its next event, which the index knows or not; `None` if another pass remembers it.
    pub(super) fn stream(&mut self, key: Key, is_indexed: bool) -> Option<&mut Chain> {
        while self.holds(key) && self.known.len() >= self.most && self.from < self.to && !self.known.contains_key(&key)
        {
            self.to = self.from + (self.to - self.from) / 2;
            let to = self.to;
            // Tables of their own: what is taken out of one leaves marks behind, which would let it grow beyond what it holds.
            self.known = mem::take(&mut self.known).into_iter().filter(|(known, _)| known.0 <= to).collect();
            self.indexed = mem::take(&mut self.indexed).into_iter().filter(|(known, _)| known.0 <= to).collect();
        }
        if !self.holds(key) {
            return None;
        }
        let chain = self.known.entry(key).or_default();
        if !is_indexed {
            self.indexed.entry(key).or_insert((chain.version, chain.hash));
        }
        Some(chain)
    }

    /// What is wrong with the row of the stream `name`, if this pass remembers it.
    pub(super) fn differs(&self, name: &str, head: &StreamHead, hash: &ChainHash) -> Option<String> {
        let key = key(name);
        if !self.holds(key) {
            return None;
        }
        let unknown = Chain::default();
        let chain = self.get(key).unwrap_or(&unknown);
        let indexed = self.indexed.get(&key).copied().unwrap_or((chain.version, chain.hash));
        chain.differs(indexed, head, hash)
    }

    /// The stream `key` at its last event; `None` where this pass has found none of it.
    pub(super) fn get(&self, key: Key) -> Option<&Chain> {
        self.known.get(&key)
    }

    fn holds(&self, key: Key) -> bool {
        (self.from..=self.to).contains(&key.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Chains, key};

    /// Goes through a log of as many events as `streams` says, and returns how often each of them was looked at in the last
    /// pass that remembered its stream, how many passes there were, and the most that one remembered and had room for.
    fn go_through(streams: usize, most: usize) -> (BTreeMap<usize, u64>, usize, (usize, usize)) {
        let (mut chains, mut versions, mut passes) = (Chains::new(most, u64::MAX), BTreeMap::new(), 0);
        let (mut largest, mut most_room) = (0, 0);
        let keys: Vec<_> = (0..streams).map(|stream| key(&format!("stream-{stream}"))).collect();
        loop {
            passes += 1;
            for stream in (0..streams).chain(0..streams) {
                if let Some(chain) = chains.stream(keys[stream], true) {
                    chain.version += 1;
                }
                largest = largest.max(chains.len());
                most_room = most_room.max(chains.known.capacity());
            }
            for (stream, key) in keys.iter().enumerate() {
                if let Some(chain) = chains.known.get(key) {
                    assert_eq!(versions.insert(stream, chain.version), None, "each stream is of one pass");
                }
            }
            if !chains.next_pass() {
                return (versions, passes, (largest, most_room));
            }
        }
    }

    #[test]
    fn few_streams_take_one_pass() {
        let (versions, passes, _) = go_through(100, 100);
        assert_eq!((versions.len(), passes), (100, 1));
    }

    #[test]
    fn however_many_streams_there_are_a_pass_remembers_no_more_than_it_may_and_all_are_looked_at_whole() {
        // What is kept fits exactly into a table of the last two.
        for (most, streams) in [(2, 100), (7, 500), (64, 2_000), (1_000, 5_000), (448, 5_000), (3_584, 20_000)] {
            let (versions, passes, (largest, room)) = go_through(streams, most);
            assert_eq!(versions.len(), streams);
            assert!(versions.values().all(|version| *version == 2), "both events of each, in one pass");
            let (fewest, many) = (streams / most, streams * 4 / most);
            assert!(largest <= most && (fewest..=many).contains(&passes), "{passes} of {largest}");
            assert!(room <= (most.next_power_of_two() * 2).max(14), "{room} places for {most}");
            assert!(!matches!(most, 448 | 3_584) || room == most, "{room} places for {most}");
        }
    }

    #[test]
    fn progress_grows_to_the_end() {
        let mut chains = Chains::new(10, u64::MAX);
        let (mut last, mut passes) = (0, 0);
        loop {
            passes += 1;
            for n in 0..100 {
                chains.stream(key(&n.to_string()), true);
            }
            let done = chains.progress(1_000, 1_000);
            assert!(done >= last && done <= 1_000, "{done} after {last}");
            last = done;
            if !chains.next_pass() {
                break;
            }
        }
        assert!(passes > 5 && last == 1_000, "{last} at the end of {passes}");
    }
}
