//! The course of a move: what follows what.

use std::{collections::BTreeMap, sync::Arc};

use quorate_runtime::Env;

use super::{Arriving, Fate, Gone, Leaving, Mark, MoveError, Moved, Order, Room, Shape, Step, TableSum, Told, Version};
use crate::{
    event::{Position, Recorded},
    store::{Capabilities, Progress, StoreError},
};

/// How often a batch is sent again that something was in the way of.
const ATTEMPTS: u32 = 5;

/// Moves a store: see the [module](super). Returns once it is open where it went, or had been before.
///
/// # Errors
/// See [`MoveError`]: as a rule the store is as it was. The same call goes on where another ended, however that ended.
///
/// # Cancel safety
/// Dropping the future is like dying: the same call goes on.
pub async fn relocate(env: &Env, order: &Order, told: Told) -> Result<Moved, MoveError> {
    let capabilities = order.to.capabilities();
    if order.from.capabilities().engine == capabilities.engine {
        return Err(MoveError::SameEngine { engine: capabilities.engine });
    }
    let mut from = order.from.leave(env).await?;
    let standing = from.standing();
    let rooms = Rooms { known: &order.rooms, capabilities };
    rooms.plan(&mut *from).await?;
    let is_gone = standing.gone.is_some();
    if order.verify && !is_gone {
        let progress = progress(&told, Step::Checking);
        judged(order.from.to_string(), from.verify(progress).await?)?;
    }
    let mark = Mark { from: standing.timeline, arrival: standing.gone.as_ref().map(|gone| gone.arrival) };
    let mut to = order.to.arrive(env, mark).await.map_err(|cause| match (cause, &standing.gone) {
        // Whatever is there, it is not what the store was left for.
        (MoveError::Occupied { .. } | MoveError::Absent { .. }, Some(gone)) => MoveError::Gone { to: gone.to.clone() },
        (cause, _) => cause,
    })?;
    let place = order.to.to_string();
    let events = from.head().await?;
    if to.is_open() {
        return Ok(Moved { to: place, events, tables: Vec::new(), verified: false });
    }
    agree(&mut *from, &mut *to, &place).await?;
    carry_events(&mut *from, &mut *to, &told).await?;
    if order.verify {
        let progress = progress(&told, Step::Verifying);
        judged(place.clone(), to.verify(progress).await?)?;
    }

    let last = rooms.last_words(&mut *from).await?;
    from.hold(Gone { to: place.clone(), arrival: to.arrival() }, last).await?;
    carry_events(&mut *from, &mut *to, &told).await?;
    same_streams(&mut *from, &mut *to).await?;
    let plan = rooms.plan(&mut *from).await?;
    to.furnish(plan.rooms).await?;
    let mut tables = Vec::with_capacity(plan.tables.len());
    let all = plan.tables.len() as u64;
    for (done, table) in (0..).zip(plan.tables) {
        told(Step::Rows, done, all);
        let sum = carry_table(&mut *from, &mut *to, &table).await?;
        tables.push((table.name, sum));
    }
    told(Step::Rows, all, all);
    let events = from.head().await?;

    // Ordering: see the module.
    from.leave().await?;
    env.reached("move: a store was left");
    let opened = to.open().await;
    opened.map_err(|cause| match cause {
        MoveError::Store(cause) => MoveError::Unfinished { place: place.clone(), cause },
        other => other,
    })?;
    let verified = order.verify && !is_gone;
    Ok(Moved { to: place, events, tables, verified })
}

fn progress(told: &Told, step: Step) -> Progress {
    let told = told.clone();
    Arc::new(move |done, of| told(step, done, of))
}

fn judged(place: String, verified: crate::store::Verified) -> Result<(), MoveError> {
    if verified.is_sound() { Ok(()) } else { Err(MoveError::Damaged { place, verified }) }
}

/// Whether what arrived before ends as the store does there: it may have been restored meanwhile.
async fn agree(from: &mut dyn Leaving, to: &mut dyn Arriving, place: &str) -> Result<(), MoveError> {
    let Some(newest) = to.newest().await? else { return Ok(()) };
    let position = newest.position();
    let there = from.events(position.get() - 1).await?;
    match there.first() {
        Some(event) if event.position() == position && event.bytes() == newest.bytes() => Ok(()),
        _ => Err(MoveError::Diverged { place: place.to_owned(), position }),
    }
}

async fn carry_events(from: &mut dyn Leaving, to: &mut dyn Arriving, told: &Told) -> Result<(), MoveError> {
    let mut attempt = 1;
    let mut after = end(to).await?;
    loop {
        let events = from.events(after).await?;
        let Some(last) = events.last().map(|event| event.position().get()) else { return Ok(()) };
        check(&events, after)?;
        told(Step::Events, after, from.head().await?);
        match to.adopt(events).await {
            Ok(()) => after = last,
            // What an earlier process sent last arrived late.
            Err(MoveError::Store(StoreError::Busy)) if attempt < ATTEMPTS => {
                attempt += 1;
                after = end(to).await?;
            }
            Err(cause) => return Err(cause),
        }
    }
}

async fn end(to: &mut dyn Arriving) -> Result<u64, MoveError> {
    Ok(to.newest().await?.map_or(0, |event| event.position().get()))
}

/// Refuses what is not the next events, and what only the embedded store can hold.
fn check(events: &[Recorded], after: u64) -> Result<(), MoveError> {
    for (event, position) in events.iter().zip(after + 1..) {
        if event.position() != Position::new(position) {
            let what = format!("position {} follows {}", event.position(), position - 1);
            return Err(StoreError::Corrupt { place: "the log".to_owned(), what }.into());
        }
        if event.stub().is_some() || event.is_encrypted() {
            let stream = event.stream();
            let what =
                format!("event {position} (stream `{stream}`), which is forgotten, or sealed with a subject's key");
            return Err(MoveError::Refused { obstacles: vec![what] });
        }
    }
    Ok(())
}

/// A stream's newest hash stands for all of its events, so that comparing these compares the whole log but for its order.
async fn same_streams(from: &mut dyn Leaving, to: &mut dyn Arriving) -> Result<(), MoveError> {
    same("stream", from.streams().await?, to.streams().await?).map(drop)
}

fn same(table: &str, left: TableSum, arrived: TableSum) -> Result<TableSum, MoveError> {
    if left == arrived {
        return Ok(left);
    }
    let what = format!("{} rows ({left}) left, {} rows ({arrived}) arrived", left.rows, arrived.rows);
    Err(MoveError::Table { table: table.to_owned(), what })
}

async fn carry_table(from: &mut dyn Leaving, to: &mut dyn Arriving, table: &Shape) -> Result<TableSum, MoveError> {
    let of_table = |cause: MoveError| match cause {
        MoveError::Store(StoreError::Engine { cause, .. }) => {
            MoveError::Table { table: table.name.clone(), what: cause.to_string() }
        }
        other => other,
    };
    let mut sum = TableSum::default();
    to.empty(table).await?;
    from.read(table).await?;
    loop {
        let rows = from.rows().await.map_err(of_table)?;
        if rows.is_empty() {
            break;
        }
        rows.iter().for_each(|row| sum.add(row));
        to.put(table, rows).await.map_err(of_table)?;
    }
    same(&table.name, sum, to.sum(table).await?)
}

/// The rooms there may be, and what the destination can do.
struct Rooms<'o> {
    known: &'o [Room],
    capabilities: &'static Capabilities,
}

/// What is carried over of rooms.
struct Plan {
    rooms: Vec<Version>,
    tables: Vec<Shape>,
}

impl Rooms<'_> {
    /// What the rooms of `from` have to say as it is left.
    async fn last_words(&self, from: &mut dyn Leaving) -> Result<Vec<&'static str>, MoveError> {
        let there = from.rooms().await?;
        let is_there = |room: &&Room| there.iter().any(|(name, _)| name == room.tables.room);
        Ok(self.known.iter().filter(is_there).filter_map(|room| room.leaving).collect())
    }

    /// What is carried over of the rooms of `from`.
    ///
    /// # Errors
    /// [`MoveError::Refused`] names all that cannot be.
    async fn plan(&self, from: &mut dyn Leaving) -> Result<Plan, MoveError> {
        // Once the store was left it is too late for these, and what is of the application stays where it is.
        let is_gone = from.standing().gone.is_some();
        let mut obstacles = if is_gone { Vec::new() } else { from.obstacles().await? };
        let mut shapes: BTreeMap<String, Shape> =
            from.tables().await?.into_iter().map(|shape| (shape.name.clone(), shape)).collect();
        let mut plan = Plan { rooms: Vec::new(), tables: Vec::new() };
        for (name, version) in from.rooms().await? {
            let room = self.known.iter().find(|room| room.tables.room == name);
            let number = usize::try_from(version).unwrap_or(usize::MAX);
            let Some(room) = room.filter(|room| (1..=room.tables.versions.len()).contains(&number)) else {
                obstacles.push(format!(
                    "the tables of room {name} at version {version}, which this quorate does not know: move it with the one that made them"
                ));
                continue;
            };
            let own: Vec<Shape> = room.names().filter_map(|table| shapes.remove(table)).collect();
            match room.fate {
                Fate::BegunAnew => continue,
                Fate::Where { can, tables, what } if !can.holds(self.capabilities) => {
                    for table in own.iter().filter(|table| tables.is_empty() || tables.contains(&&*table.name)) {
                        if !from.is_empty(table).await? {
                            obstacles.push(format!("{what} (table {})", table.name));
                        }
                    }
                    continue;
                }
                Fate::Carried | Fate::Where { .. } => {}
            }
            plan.rooms.push(Version { tables: room.tables, number });
            plan.tables.extend(own);
        }
        obstacles.extend(shapes.into_keys().map(|table| format!("table {table}, which is of no room that has tables")));
        plan.tables.sort_by(|one, other| one.name.cmp(&other.name));
        if obstacles.is_empty() { Ok(plan) } else { Err(MoveError::Refused { obstacles }) }
    }
}
