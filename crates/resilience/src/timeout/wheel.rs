//! Many deadlines, most of which never come: a hierarchical timing wheel, without clock or tasks.
//!
//! Setting and removing one take the same few steps however many there are: nearly every call ends in time, so nearly every
//! deadline is set only to be removed. Six levels of 64 slots each; a slot of the first is a tick, one of the next 64
//! ticks, and so on. When a coarse slot's time comes, what is in it moves to finer ones.
//!
//! Source: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7.

use std::task::Waker;

/// Deadlines in ticks, each with somebody to wake.
pub(super) struct Wheel {
    /// All deadlines up to this tick have fired.
    elapsed: u64,
    levels: [Level; LEVELS],
    entries: Vec<Entry>,
    /// The first entry that is free.
    free: u32,
    armed: usize,
}

#[derive(Clone, Copy)]
struct Level {
    /// A bit for each slot that holds something.
    occupied: u64,
    /// The first entry of each slot.
    heads: [u32; SLOTS],
}

struct Entry {
    /// Raised whenever the place is given to another deadline.
    generation: u32,
    due: u64,
    place: Place,
    previous: u32,
    next: u32,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Fired,
    Slot(u8, u8),
}

/// A deadline that was set, until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const BITS: u32 = 6;
const NONE: u32 = u32::MAX;

impl Wheel {
    pub(super) fn new() -> Self {
        let level = Level { occupied: 0, heads: [NONE; SLOTS] };
        Self { elapsed: 0, levels: [level; LEVELS], entries: Vec::new(), free: NONE, armed: 0 }
    }

    /// How many deadlines have neither fired nor been removed.
    pub(super) fn armed(&self) -> usize {
        self.armed
    }

    /// Sets a deadline. One that has passed fires at the next tick.
    pub(super) fn insert(&mut self, due: u64, waker: Waker) -> Key {
        let due = due.max(self.elapsed + 1);
        let index = self.place();
        let entry = &mut self.entries[index as usize];
        (entry.due, entry.waker) = (due, Some(waker));
        let generation = entry.generation;
        self.armed += 1;
        self.link(index);
        Key { index, generation }
    }

    /// Whether a deadline has come; if not, `waker` is who is woken then.
    pub(super) fn has_fired(&mut self, key: Key, waker: &Waker) -> bool {
        let entry = &mut self.entries[key.index as usize];
        debug_assert_eq!(entry.generation, key.generation, "a key is used until it is removed");
        match &mut entry.waker {
            None => true,
            Some(known) => {
                known.clone_from(waker);
                false
            }
        }
    }

    /// Removes a deadline, whether it has fired or not.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waker> {
        let entry = &self.entries[key.index as usize];
        debug_assert_eq!(entry.generation, key.generation, "a key is used until it is removed");
        if let Place::Slot(..) = entry.place {
            self.unlink(key.index);
            self.armed -= 1;
        }
        let entry = &mut self.entries[key.index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = Place::Free;
        entry.next = std::mem::replace(&mut self.free, key.index);
        entry.waker.take()
    }

    /// When the next slot's time comes: no deadline is earlier, and the earliest may be later.
    pub(super) fn next(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, at)| at)
    }

    /// Lets the time be `now`, and moves those to be woken into `woken`.
    pub(super) fn advance(&mut self, now: u64, woken: &mut Vec<Waker>) {
        while let Some((level, slot, at)) = self.next_slot().filter(|(_, _, at)| *at <= now) {
            self.elapsed = at;
            let level = &mut self.levels[level];
            level.occupied &= !(1 << slot);
            let mut index = std::mem::replace(&mut level.heads[slot], NONE);
            while index != NONE {
                let entry = &mut self.entries[index as usize];
                let next = entry.next;
                if entry.due <= at {
                    entry.place = Place::Fired;
                    self.armed -= 1;
                    woken.extend(entry.waker.take());
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// The slot whose time comes next: finer levels hold what comes before the next slot of coarser ones.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let (number, level) = self.levels.iter().enumerate().find(|(_, level)| level.occupied != 0)?;
        let shift = BITS * number as u32;
        let current = (self.elapsed >> shift) as usize % SLOTS;
        // What is in the current slot is a whole round away.
        let ahead = 1 + level.occupied.rotate_right(current as u32 + 1).trailing_zeros() as usize;
        let slot = (current + ahead) % SLOTS;
        let round = 1_u64 << (shift + BITS);
        let at = (self.elapsed & !(round - 1)) + ((slot as u64) << shift);
        // Only what is further away than the coarsest level reaches lies behind the current slot: the next time round.
        Some((number, slot, if at <= self.elapsed { at + round } else { at }))
    }

    fn link(&mut self, index: u32) {
        let due = self.entries[index as usize].due;
        // The coarsest digit in which the deadline and the time differ.
        let level = ((63 - ((self.elapsed ^ due) | (SLOTS as u64 - 1)).leading_zeros()) / BITS).min(LEVELS as u32 - 1);
        let slot = (due >> (BITS * level)) as usize % SLOTS;
        let Level { occupied, heads } = &mut self.levels[level as usize];
        *occupied |= 1 << slot;
        let next = std::mem::replace(&mut heads[slot], index);
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.place, entry.previous, entry.next) = (Place::Slot(level as u8, slot as u8), NONE, next);
    }

    fn unlink(&mut self, index: u32) {
        let Entry { place, previous, next, .. } = self.entries[index as usize];
        let Place::Slot(level, slot) = place else { return };
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
            return;
        }
        let Level { occupied, heads } = &mut self.levels[usize::from(level)];
        heads[usize::from(slot)] = next;
        if next == NONE {
            *occupied &= !(1 << slot);
        }
    }

    /// A free place.
    fn place(&mut self) -> u32 {
        if self.free != NONE {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            return index;
        }
        let index = u32::try_from(self.entries.len()).unwrap_or_else(|_| unreachable!("memory ends before"));
        let place = Place::Free;
        self.entries.push(Entry { generation: 0, due: 0, place, previous: NONE, next: NONE, waker: None });
        index
    }
}

#[cfg(test)]
mod tests;
