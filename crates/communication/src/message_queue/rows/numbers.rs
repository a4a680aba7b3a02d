//! Messages' numbers: the queue above, and below a count that never gives one twice.
//!
//! The count comes in blocks. Taking a block writes a row, in the transaction of the first message that gets a number of it:
//! whoever only opens queues writes nothing, and whoever opens them after a crash begins behind all blocks that were taken.
//! So a number is never given twice, not even after the rows of all messages are gone; else an old lease would settle a
//! new message.
//!
//! Where several processes send, blocks would not do: of two messages the later one could get the lower number. There each
//! sending draws a ticket from a sequence of the database, which stands for [`TICKET_BITS`] bits of numbers: what is sent after
//! another sending was answered has higher ones.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_data::store::{DynTx, Row, Store};
use quorate_foundations::time::Boot;

use super::{turn, unsigned};
use crate::message_queue::{QueueError, machine::Seq};

/// Bits of a number that count; those above name the queue.
const COUNT_BITS: u32 = 49;
/// Bits of the count inside a block.
pub(super) const BLOCK_BITS: u32 = 20;

/// Bits of the count that a ticket stands for.
pub(super) const TICKET_BITS: u32 = 10;

/// Hands out numbers. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub(in crate::message_queue) enum Numbers {
    /// The store's one writer is the only one who draws.
    Blocks(Arc<Mutex<Taken>>),
    /// Several processes draw.
    Tickets,
}

/// The block that numbers come from.
#[derive(Debug, Default)]
pub(in crate::message_queue) struct Taken {
    block: u64,
    next: u64,
    end: u64,
    /// Whether that it was taken is durable. Until then the transaction that took it may have been rolled back.
    is_durable: bool,
}

/// When the queues were opened, and which messages were there by then.
#[derive(Clone, Copy, Debug)]
pub(in crate::message_queue) struct Opened {
    pub(in crate::message_queue) at: Boot,
    block: u64,
}

impl Opened {
    /// That is now.
    pub(in crate::message_queue) async fn now(store: &Store) -> Result<Self, QueueError> {
        let rows = store.room_query(LAST_BLOCK, vec![]).await?;
        Ok(Self { at: store.env().boot(), block: block_of(&rows)? })
    }

    /// Whether the message was there by then.
    pub(super) fn is_behind(&self, seq: Seq) -> bool {
        count_of(seq) >> BLOCK_BITS <= self.block
    }
}

impl Numbers {
    /// Those of a store that several processes write to, or one.
    pub(in crate::message_queue) fn of(is_shared: bool) -> Self {
        if is_shared { Self::Tickets } else { Self::Blocks(Arc::default()) }
    }

    /// The first of `count` numbers in a row for messages of `queue`, at most 1,000. If the transaction is rolled back, nobody
    /// or somebody else gets them.
    pub(in crate::message_queue) async fn draw(
        &self,
        tx: &mut DynTx,
        queue: u64,
        count: usize,
    ) -> Result<Seq, QueueError> {
        let above = queue << COUNT_BITS;
        let first = match self {
            Self::Blocks(taken) => draw(taken, tx, count as u64).await?,
            Self::Tickets => turn::ticket(tx).await? << TICKET_BITS,
        };
        if first >> COUNT_BITS > 0 {
            return Err(QueueError::corrupt("quorate_queue_numbers", "all numbers of messages were given out"));
        }
        Ok(above | first)
    }
}

/// Draws from a block, or takes the next one.
async fn draw(shared: &Arc<Mutex<Taken>>, tx: &mut DynTx, count: u64) -> Result<u64, QueueError> {
    let (block, is_durable) = {
        let taken = lock(shared);
        (taken.block, taken.is_durable)
    };
    let holds = is_durable || (block > 0 && last_block(tx).await? == block);
    if holds && let Some(first) = lock(shared).draw(count) {
        return Ok(first);
    }
    let sql = "INSERT INTO quorate_queue_numbers (one, block) VALUES (1, 1)
            ON CONFLICT (one) DO UPDATE SET block = block + 1";
    tx.room_execute(sql, &[]).await?;
    let block = last_block(tx).await?;
    let first = block << BLOCK_BITS;
    if first >> COUNT_BITS > 0 {
        return Ok(first);
    }
    *lock(shared) = Taken { block, next: first + count, end: first + (1 << BLOCK_BITS), is_durable: false };
    let shared = shared.clone();
    tx.after_commit(move || {
        let mut taken = lock(&shared);
        taken.is_durable |= taken.block == block;
    })?;
    Ok(first)
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taken {
    fn draw(&mut self, count: u64) -> Option<u64> {
        let first = self.next;
        (first + count <= self.end).then(|| {
            self.next += count;
            first
        })
    }
}

const LAST_BLOCK: &str = "SELECT block FROM quorate_queue_numbers";

async fn last_block(tx: &mut DynTx) -> Result<u64, QueueError> {
    block_of(&tx.room_query(LAST_BLOCK, &[]).await?)
}

fn block_of(rows: &[Row]) -> Result<u64, QueueError> {
    rows.first().map_or(Ok(0), |row| unsigned(row.at(0), "block"))
}

/// The numbers that messages of `queue` may have.
pub(in crate::message_queue) fn within(queue: u64) -> RangeInclusive<Seq> {
    queue << COUNT_BITS..=((queue + 1) << COUNT_BITS) - 1
}

/// The queue of the message with this number.
pub(in crate::message_queue) fn queue_of(seq: Seq) -> u64 {
    seq >> COUNT_BITS
}

/// A number without its queue: what people and programs see of it, and exact in JSON.
pub(in crate::message_queue) fn count_of(seq: Seq) -> u64 {
    seq & ((1 << COUNT_BITS) - 1)
}
