//! The books: whether the three stores together say what they must.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use quorate::{
    event::Position,
    store::{Query, ReadLog, Row, Store},
};

use super::{
    Outcome, SERVICES,
    billing::CENTS,
    inventory::STOCK,
    service::{ORDERS, boxes, counted, open},
};

/// What came of the orders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Books {
    pub(crate) completed: usize,
    /// There was no money.
    pub(crate) declined: usize,
    /// There were not enough pieces.
    pub(crate) rejected: usize,
    /// Messages that took effect.
    pub(crate) messages: usize,
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { completed, declined, rejected, messages } = self;
        write!(
            f,
            "{completed} orders completed, {declined} declined, {rejected} rejected; {messages} messages, each once and in order"
        )
    }
}

/// Counts in the stores of the services, which have ended.
///
/// # Errors
/// What does not add up: money or pieces that came from nowhere or went there, an order that was dealt with twice or not at all, a
/// message that was lost, came twice, or overtook another one of its key.
pub(crate) async fn audit(folder: &Path) -> Outcome<Books> {
    let mut stores = BTreeMap::new();
    for name in SERVICES {
        stores.insert(name, open(&folder.join(name).with_extension("db")).await?);
    }
    let of = |name: &str| stores.get(name).ok_or_else(|| format!("there is no service {name}"));
    let (orders, inventory, billing) = (of("orders")?, of("inventory")?, of("billing")?);
    let those = async |state: &str| ids(orders, &format!("SELECT id FROM orders WHERE state = '{state}'")).await;
    let (completed, declined, rejected) =
        (those("completed").await?, those("declined").await?, those("rejected").await?);
    same("orders that ended", completed.len() + declined.len() + rejected.len(), usize::try_from(ORDERS)?)?;

    let reserved =
        async |state: &str| ids(inventory, &format!("SELECT id FROM reservations WHERE state = '{state}'")).await;
    same("what was shipped", &reserved("shipped").await?, &completed)?;
    same("what was released", &reserved("released").await?, &declined)?;
    same("what is still held", reserved("held").await?.len(), 0)?;
    same("who was charged", &ids(billing, "SELECT id FROM charges").await?, &completed)?;
    for (item, pieces) in (0..).zip(STOCK) {
        let shipped =
            format!("SELECT COALESCE(sum(pieces), 0) FROM reservations WHERE item = {item} AND state = 'shipped'");
        let left = format!("SELECT pieces FROM stock WHERE item = {item}");
        same("pieces of an item", counted(inventory, &shipped).await? + counted(inventory, &left).await?, pieces)?;
    }
    for (account, cents) in (0..).zip(CENTS) {
        let charged = format!("SELECT COALESCE(sum(cents), 0) FROM charges WHERE account = {account}");
        let left = format!("SELECT cents FROM accounts WHERE id = {account}");
        same("cents of an account", counted(billing, &charged).await? + counted(billing, &left).await?, cents)?;
    }

    let mut messages = 0;
    for (topic, group) in boxes()? {
        let (told, heard) = (told(of(topic)?).await?, heard(of(group)?, topic).await?);
        same(&format!("what {group} heard of {topic}, by key"), &heard, &told)?;
        messages += heard.values().map(Vec::len).sum::<usize>();
    }
    for store in stores.values() {
        store.close().await?;
    }
    Ok(Books { completed: completed.len(), declined: declined.len(), rejected: rejected.len(), messages })
}

fn same<T: PartialEq + fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} and not {expected:?}")) }
}

async fn ids(store: &Store, sql: &str) -> Outcome<BTreeSet<i64>> {
    Ok(store.query(sql, vec![]).await?.iter().filter_map(|row| row.at(0).as_i64()).collect())
}

/// Ids of messages, in order, by key.
type ByKey = BTreeMap<String, Vec<String>>;

/// What a service told, as its log has it.
async fn told(store: &Store) -> Outcome<ByKey> {
    let mut by_key = ByKey::new();
    let page = store.read_log(ReadLog { query: Query::EVERYTHING, after: Position::ZERO, limit: 1_000 }).await?;
    for event in &page.events {
        by_key.entry(event.stream().to_owned()).or_default().push(event.id().to_owned());
    }
    Ok(by_key)
}

/// What took effect of what `topic` told.
async fn heard(store: &Store, topic: &str) -> Outcome<ByKey> {
    let mut by_key = ByKey::new();
    let text = |row: &Row, n: usize| row.at(n).as_str().unwrap_or_default().to_owned();
    let sql = "SELECT key, id FROM handled WHERE topic = $1 ORDER BY place";
    for row in store.query(sql, vec![topic.into()]).await? {
        by_key.entry(text(&row, 0)).or_default().push(text(&row, 1));
    }
    Ok(by_key)
}
