//! A bounded map that forgets what was asked for longest ago.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// At most `capacity` values; the least recently used one goes first. Every operation takes constant time.
pub(super) struct Lru<K, V> {
    capacity: usize,
    places: HashMap<K, usize, FixedState>,
    /// The entries, linked in a ring through the sentinel at index 0: behind it the newest, before it the oldest.
    ring: Vec<Node<K, V>>,
}

struct Node<K, V> {
    entry: Option<(K, V)>,
    newer: usize,
    older: usize,
}

const SENTINEL: usize = 0;

impl<K: Clone + Eq + Hash, V: Clone> Lru<K, V> {
    /// An empty one. `seed` keeps the order of hashes from those who choose the keys.
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        let sentinel = Node { entry: None, newer: SENTINEL, older: SENTINEL };
        Self { capacity, places: HashMap::with_hasher(FixedState::with_seed(seed)), ring: vec![sentinel] }
    }

    /// The value of `key`, made by `make` if it is not there, and now the newest.
    pub(super) fn get_or_insert(&mut self, key: &K, make: impl FnOnce() -> V) -> V {
        if self.capacity == 0 {
            return make();
        }
        let place = match self.places.get(key) {
            Some(&place) => {
                self.unlink(place);
                place
            }
            None => self.insert(key.clone(), make()),
        };
        self.link_newest(place);
        self.value(place)
    }

    /// Forgets `key`.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some(place) = self.places.remove(key) {
            self.unlink(place);
            let last = self.ring.len() - 1;
            self.ring.swap_remove(place);
            if place != last {
                self.moved(last, place);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.ring.truncate(1);
        (self.ring[SENTINEL].newer, self.ring[SENTINEL].older) = (SENTINEL, SENTINEL);
    }

    /// Puts the entry into a place of its own, that of the oldest if all are taken. The place is not linked yet.
    fn insert(&mut self, key: K, value: V) -> usize {
        let place = if self.places.len() < self.capacity { self.fresh() } else { self.evict() };
        self.places.insert(key.clone(), place);
        self.ring[place].entry = Some((key, value));
        place
    }

    fn fresh(&mut self) -> usize {
        self.ring.push(Node { entry: None, newer: SENTINEL, older: SENTINEL });
        self.ring.len() - 1
    }

    fn evict(&mut self) -> usize {
        let oldest = self.ring[SENTINEL].newer;
        self.unlink(oldest);
        if let Some((key, _)) = self.ring[oldest].entry.take() {
            self.places.remove(&key);
        }
        oldest
    }

    fn value(&self, place: usize) -> V {
        match &self.ring[place].entry {
            Some((_, value)) => value.clone(),
            None => unreachable!("a place in the map has an entry"),
        }
    }

    fn unlink(&mut self, place: usize) {
        let Node { newer, older, .. } = self.ring[place];
        self.ring[older].newer = newer;
        self.ring[newer].older = older;
    }

    fn link_newest(&mut self, place: usize) {
        let newest = std::mem::replace(&mut self.ring[SENTINEL].older, place);
        self.ring[newest].newer = place;
        (self.ring[place].older, self.ring[place].newer) = (newest, SENTINEL);
    }

    /// Mends what pointed to `from` after its node moved to `to`.
    fn moved(&mut self, from: usize, to: usize) {
        let Node { newer, older, .. } = self.ring[to];
        self.ring[older].newer = to;
        self.ring[newer].older = to;
        if let Some((key, _)) = &self.ring[to].entry {
            debug_assert_eq!(self.places.get(key), Some(&from));
            self.places.insert(key.clone(), to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lru;
    use proptest::prelude::*;

    /// The same by the book: newest last.
    #[derive(Default)]
    struct Model(Vec<(u8, u32)>);

    impl Model {
        fn get_or_insert(&mut self, capacity: usize, key: u8, value: u32) -> u32 {
            let known = self.0.iter().position(|(k, _)| *k == key).map(|at| self.0.remove(at));
            let entry = known.unwrap_or((key, value));
            if capacity > 0 {
                self.0.push(entry);
                let surplus = self.0.len().saturating_sub(capacity);
                self.0.drain(..surplus);
            }
            entry.1
        }
    }

    proptest! {
        #[test]
        fn it_remembers_what_was_asked_for_last_and_no_more(
            capacity in 0_usize..5,
            calls in prop::collection::vec((any::<bool>(), 0_u8..8, any::<u32>()), 0..200),
        ) {
            let (mut lru, mut model) = (Lru::new(capacity, 7), Model::default());
            for (ask, key, value) in calls {
                if ask {
                    let expected = model.get_or_insert(capacity, key, value);
                    prop_assert_eq!(lru.get_or_insert(&key, || value), expected);
                } else {
                    model.0.retain(|(k, _)| *k != key);
                    lru.remove(&key);
                }
                prop_assert_eq!(lru.places.len(), model.0.len());
                prop_assert_eq!(lru.ring.len(), model.0.len() + 1);
            }
        }
    }

    #[test]
    fn a_cleared_one_is_like_new() {
        let mut lru = Lru::new(2, 7);
        (0..5).for_each(|n| assert_eq!(lru.get_or_insert(&n, || n), n));
        lru.clear();
        assert_eq!(lru.get_or_insert(&4, || 40), 40);
        assert_eq!(lru.get_or_insert(&4, || 41), 40);
    }
}
