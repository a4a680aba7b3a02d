//! What is ordered in the shop, and what the view of it has to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use serde_json::{Value, json};

use crate::{
    client::{Call, EVENT, JSON},
    exit::{Exit, Failure},
    patterns::live::node::{Node, position},
};

/// Orders that there are before anybody looks.
pub(super) const HISTORY: u64 = 6_000;
/// The order in a currency whose rate nobody has told when it comes.
pub(super) const ODD: u64 = HISTORY / 4;
/// Customers, who order in turn.
pub(super) const CUSTOMERS: u64 = 30;
/// Kinds of goods in one order.
const LINES: u64 = 4;
const OWN: &str = "EUR";
/// The currency of [`ODD`].
pub(super) const FOREIGN: &str = "CHF";
/// What one of its coins is worth, in thousandths.
pub(super) const WORTH: i64 = 1_064;

/// Whose the `nth` order is: the name of a stream.
pub(super) fn customer(nth: u64) -> String {
    format!("customer-{}", nth % CUSTOMERS)
}

/// Appends orders, each to its customer's stream: all or none, and once however often it is sent.
pub(super) fn orders(nths: Range<u64>) -> Call {
    let mut streams = BTreeMap::<String, Vec<Value>>::new();
    for nth in nths {
        streams.entry(customer(nth)).or_default().push(order(nth));
    }
    let part = |(stream, events)| json!({ "stream": stream, "events": Value::Array(events) });
    let streams: Vec<Value> = streams.into_iter().map(part).collect();
    Call::post("/v1/events", JSON, json!({ "streams": streams }).to_string())
}

/// Says what a currency is worth.
pub(super) fn rate(currency: &str, permille: i64) -> Call {
    let event = event(currency, "rate.told", &json!({ "currency": currency, "permille": permille }));
    Call::post(format!("/v1/streams/rate-{currency}/events"), EVENT, event.to_string())
}

/// Says what the shop's own currency is worth: as much as it is.
pub(super) fn own_rate() -> Call {
    rate(OWN, 1_000)
}

fn order(nth: u64) -> Value {
    let currency = if nth == ODD { FOREIGN } else { OWN };
    let lines: Vec<Value> = (0..LINES).map(|line| json!({ "pieces": 1 + (nth + line) % 5 })).collect();
    let data = json!({ "currency": currency, "cents": 100 + nth * 37 % 9_000, "lines": lines });
    event(&format!("order-{nth}"), "order.placed", &data)
}

fn event(id: &str, kind: &str, data: &Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/patterns/materialized-view", "type": kind, "data": data })
}

/// A customer's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    orders: i64,
    cents: i64,
    /// The first version does not know them.
    pieces: i64,
}

/// All rows, by their keys.
pub(super) type Rows = BTreeMap<String, Row>;

impl Row {
    /// A row as the node tells it, with its key.
    pub(super) fn read(told: &Value) -> Option<(String, Self)> {
        let number = |name: &str| told[name].as_i64();
        let pieces = number("pieces").unwrap_or_default();
        Some((told["id"].as_str()?.to_owned(), Self { orders: number("orders")?, cents: number("cents")?, pieces }))
    }
}

/// An order of the log: where it stands, whose it is, and what it adds to the row.
struct Order {
    position: u64,
    customer: String,
    adds: Row,
}

/// The log as it was read, event by event, with nothing of the view in it.
pub(super) struct Log {
    orders: Vec<Order>,
    ids: BTreeSet<String>,
    /// Its last position.
    pub(super) head: u64,
}

impl Log {
    /// Reads all of it.
    pub(super) async fn read(node: &Node) -> Result<Self, Failure> {
        let events = node.events().await?;
        let strange = || Failure::new(Exit::Failed, "the log cannot be read as what was written to it");
        Self::of(&events).ok_or_else(strange)
    }

    fn of(events: &[Value]) -> Option<Self> {
        let told = events.iter().filter(|event| event["type"] == "rate.told");
        let rates: BTreeMap<&str, i64> = told
            .map(|event| Some((event["data"]["currency"].as_str()?, event["data"]["permille"].as_i64()?)))
            .collect::<Option<_>>()?;
        let mut log = Self { orders: Vec::new(), ids: BTreeSet::new(), head: 0 };
        for event in events {
            let position = position(&event["logposition"])?;
            log.head = position;
            if event["type"] == "order.placed" {
                let (data, customer) = (&event["data"], event["stream"].as_str()?.to_owned());
                let permille = rates.get(data["currency"].as_str()?)?;
                let pieces = data["lines"].as_array()?.iter().map(|line| line["pieces"].as_i64()).sum::<Option<_>>()?;
                let adds = Row { orders: 1, cents: data["cents"].as_i64()? * permille / 1_000, pieces };
                log.orders.push(Order { position, customer, adds });
                log.ids.insert(event["id"].as_str()?.to_owned());
            }
        }
        Some(log)
    }

    /// Whether it holds `count` orders, each of them once.
    pub(super) fn holds_once(&self, count: u64) -> bool {
        let all = self.orders.len() as u64 == count && self.ids.len() as u64 == count;
        all && (0..count).all(|nth| self.ids.contains(&format!("order-{nth}")))
    }

    /// Folds it from the beginning.
    pub(super) fn fold(&self) -> Fold<'_> {
        Fold { rest: &self.orders, rows: BTreeMap::new() }
    }
}

/// The log, folded up to a position that only grows: of each customer what the row was after each of the events.
pub(super) struct Fold<'l> {
    rest: &'l [Order],
    rows: BTreeMap<&'l str, Vec<Row>>,
}

impl Fold<'_> {
    /// What the view has to be at `position` while `parked` events of one customer are set aside: a suffix of that one's.
    pub(super) fn at(&mut self, position: u64, parked: usize, version: u64) -> Rows {
        while let Some((order, rest)) = self.rest.split_first()
            && order.position <= position
        {
            let rows = self.rows.entry(&order.customer).or_default();
            let before = rows.last().copied().unwrap_or_default();
            let adds = &order.adds;
            rows.push(Row {
                orders: before.orders + adds.orders,
                cents: before.cents + adds.cents,
                pieces: before.pieces + adds.pieces,
            });
            self.rest = rest;
        }
        let held_back = customer(ODD);
        let of = |(customer, rows): (&&str, &Vec<Row>)| {
            let without = if **customer == held_back { parked } else { 0 };
            let row = *rows.get(rows.len().checked_sub(without + 1)?)?;
            let pieces = if version == 1 { 0 } else { row.pieces };
            Some(((**customer).to_owned(), Row { pieces, ..row }))
        };
        self.rows.iter().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{CUSTOMERS, FOREIGN, Log, ODD, OWN, Row, Rows, WORTH, customer, event, order};

    fn written(position: u64, stream: &str, mut event: Value) -> Value {
        event["logposition"] = position.to_string().into();
        event["stream"] = stream.into();
        event
    }

    #[test]
    fn a_row_is_without_what_is_parked_of_its_customer_and_the_others_are_whole() {
        let told = |currency, worth| event(currency, "rate.told", &json!({ "currency": currency, "permille": worth }));
        let placed = |position, nth| written(position, &customer(nth), order(nth));
        let log = Log::of(&[
            written(1, "rate-EUR", told(OWN, 1_000)),
            placed(2, ODD - CUSTOMERS),
            placed(3, ODD),
            placed(4, ODD + 1),
            written(5, "rate-CHF", told(FOREIGN, WORTH)),
            placed(6, ODD + CUSTOMERS),
        ])
        .unwrap();
        assert_eq!(log.head, 6);
        let (mut fold, whose) = (log.fold(), customer(ODD));
        let orders = |rows: &Rows| (rows[&whose].orders, rows.get(&customer(ODD + 1)).map(|row| row.orders));
        assert_eq!(orders(&fold.at(3, 1, 1)), (1, None), "the odd one waits");
        let before = fold.at(5, 1, 2)[&whose];
        let rows = fold.at(6, 2, 2);
        assert_eq!((orders(&rows), rows[&whose]), ((1, Some(1)), before), "and the one behind it");
        let (whole, first) = (fold.at(6, 0, 2)[&whose], fold.at(6, 0, 1)[&whose]);
        let cents = |nth: u64| i64::try_from(100 + nth * 37 % 9_000).unwrap();
        let sum = cents(ODD - CUSTOMERS) + cents(ODD) * WORTH / 1_000 + cents(ODD + CUSTOMERS);
        assert_eq!((whole.orders, whole.cents, before.cents), (3, sum, cents(ODD - CUSTOMERS)));
        assert_eq!(first, Row { pieces: 0, ..whole }, "the first version knows no pieces");
        assert!(whole.pieces > before.pieces && before.pieces > 0);
    }

    #[test]
    fn an_order_that_is_missing_or_there_twice_is_noticed() {
        let rate = || written(1, "rate-EUR", event(OWN, "rate.told", &json!({ "currency": OWN, "permille": 1_000 })));
        let log = |nths: &[u64]| {
            let orders = nths.iter().map(|nth| written(2 + nth, &customer(*nth), order(*nth)));
            Log::of(&std::iter::once(rate()).chain(orders).collect::<Vec<_>>()).unwrap()
        };
        assert!(log(&[0, 1, 2]).holds_once(3));
        assert!(!log(&[0, 2]).holds_once(3) && !log(&[0, 1, 1]).holds_once(3) && !log(&[0, 1, 2, 2]).holds_once(3));
    }
}
