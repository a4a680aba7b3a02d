//! What must hold: all the while within each service, and in the end between all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::Deserialize;
use serde_json::Value;

use super::plan::{CUSTOMERS, ITEMS, Order, purse, stock};

/// What is wrong with what a service says of itself, if anything: sums that hold at every moment, whatever happens around it.
pub(super) fn wrong_sum(service: &str, state: &Value) -> Option<String> {
    sums_hold(service, state).is_none_or(|hold| !hold).then(|| format!("{service}: its sums do not hold: {state}"))
}

/// Nothing where a number is missing.
fn sums_hold(service: &str, state: &Value) -> Option<bool> {
    let number = |name: &str| state[name].as_i64();
    Some(match service {
        "inventory" => {
            number("pieces")? == pieces() && number("taken")? == number("reserved")? && number("least")? >= 0
        }
        "payments" => number("cents")? == money() && number("least")? >= 0,
        "orders" => number("open")? + number("completed")? + number("cancelled")? == number("orders")?,
        "notifications" => number("sent")? <= number("mails")?,
        _ => number("parcels")? >= 0,
    })
}

/// All pieces there are at first.
fn pieces() -> i64 {
    ITEMS.into_iter().map(stock).sum()
}

/// All money there is, in cents.
fn money() -> i64 {
    (0..CUSTOMERS).map(purse).sum()
}

/// Everything that the services know, once nothing is on its way any more.
#[derive(Default)]
pub(super) struct Books {
    orders: BTreeMap<String, (String, Order)>,
    reserved: BTreeMap<String, (String, i64)>,
    charged: BTreeMap<String, (String, i64)>,
    parcels: BTreeSet<String>,
    mails: BTreeMap<(String, String), String>,
    sent: BTreeMap<(String, String), i64>,
    /// Messages that are left in the queue, and the dead letters among them.
    left: i64,
    dead: i64,
    free: i64,
    accounts: i64,
    clearing: i64,
    /// What of it a transfer has set aside.
    held: i64,
    settled: i64,
    merchant: i64,
    /// How many orders the view says are so.
    view: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct Kept {
    id: String,
    state: String,
    document: String,
}

#[derive(Deserialize)]
struct Reserved {
    order_id: String,
    item: String,
    quantity: i64,
}

#[derive(Deserialize)]
struct Charged {
    order_id: String,
    customer: String,
    cents: i64,
}

#[derive(Deserialize)]
struct Mail {
    order_id: String,
    about: String,
    address: String,
}

#[derive(Deserialize)]
struct Sent {
    order_id: String,
    about: String,
}

#[derive(Deserialize)]
struct Parcel {
    order_id: String,
}

#[derive(Deserialize)]
struct Stock {
    free: i64,
}

#[derive(Deserialize)]
struct Account {
    cents: i64,
}

#[derive(Deserialize)]
struct Clearing {
    total: i64,
    free: i64,
    settled: i64,
}

impl Books {
    /// Takes what one service tells; what cannot be read is said.
    pub(super) fn take(&mut self, service: &str, told: &Value) -> Result<(), String> {
        fn list<T: serde::de::DeserializeOwned>(told: &Value, name: &str) -> Result<Vec<T>, String> {
            serde_json::from_value(told[name].clone()).map_err(|cause| format!("`{name}` cannot be read: {cause}"))
        }
        match service {
            "orders" => {
                for Kept { id, state, document } in list(told, "orders")? {
                    let order = serde_json::from_str(&document).map_err(|cause| format!("order {id}: {cause}"))?;
                    self.orders.insert(id, (state, order));
                }
                self.view = serde_json::from_value(told["more"].clone())
                    .map_err(|cause| format!("the view of orders cannot be read: {cause}"))?;
            }
            "inventory" => {
                self.free = list::<Stock>(told, "stock")?.iter().map(|row| row.free).sum();
                for Reserved { order_id, item, quantity } in list(told, "reservations")? {
                    self.reserved.insert(order_id, (item, quantity));
                }
            }
            "payments" => {
                self.accounts = list::<Account>(told, "accounts")?.iter().map(|row| row.cents).sum();
                for Charged { order_id, customer, cents } in list(told, "charges")? {
                    self.charged.insert(order_id, (customer, cents));
                }
                let clearing: Vec<Clearing> = list(told, "clearing")?;
                self.clearing = clearing.iter().map(|row| row.total).sum();
                self.held = clearing.iter().map(|row| row.total - row.free).sum();
                self.settled = clearing.iter().map(|row| row.settled).sum();
                self.merchant = list::<Account>(told, "merchant")?.iter().map(|row| row.cents).sum();
            }
            "shipping" => {
                self.parcels = list::<Parcel>(told, "parcels")?.into_iter().map(|row| row.order_id).collect();
            }
            _ => {
                for Mail { order_id, about, address } in list(told, "mails")? {
                    self.mails.insert((order_id, about), address);
                }
                for Sent { order_id, about } in list(told, "sent")? {
                    *self.sent.entry((order_id, about)).or_default() += 1;
                }
                let left = |name: &str| told["more"][name].as_i64().ok_or("what is left in the queue is not told");
                (self.left, self.dead) = (left("left")?, left("dead")?);
            }
        }
        Ok(())
    }

    /// How many orders are so.
    pub(super) fn count(&self, state: &str) -> usize {
        self.orders.values().filter(|(of_order, _)| of_order == state).count()
    }

    /// How many mails were sent.
    pub(super) fn mails_sent(&self) -> usize {
        self.sent.len()
    }

    /// Dead letters.
    pub(super) fn dead(&self) -> i64 {
        self.dead
    }

    /// What was moved to the merchant's bank, in cents.
    pub(super) fn at_the_bank(&self) -> i64 {
        self.merchant
    }

    /// Everything that is wrong: with the orders that were `acknowledged`, and between the services.
    pub(super) fn violations(&self, acknowledged: &BTreeSet<String>) -> Vec<String> {
        let mut wrong: Vec<String> = acknowledged
            .iter()
            .filter(|id| !self.orders.contains_key(*id))
            .map(|id| format!("order {id} was acknowledged, and is lost"))
            .collect();
        wrong.extend(self.orders.iter().flat_map(|(id, (state, order))| self.of_order(id, state, order)));
        for (what, theirs) in [("a reservation", self.reserved.keys()), ("a charge", self.charged.keys())] {
            wrong.extend(
                theirs
                    .filter(|id| !self.orders.contains_key(*id))
                    .map(|id| format!("{what} belongs to no order: {id}")),
            );
        }
        wrong.extend(
            self.parcels
                .iter()
                .filter(|id| !self.orders.contains_key(*id))
                .map(|id| format!("a parcel belongs to no order: {id}")),
        );
        for ((id, about), times) in &self.sent {
            if *times != 1 {
                wrong.push(format!("order {id}: the mail `{about}` was sent {times} times"));
            }
            match self.mails.get(&(id.clone(), about.clone())) {
                None => wrong.push(format!("order {id}: the mail `{about}` was sent, and nobody wrote it")),
                Some(address) if !address.contains('@') => {
                    wrong.push(format!("order {id}: the mail `{about}` was sent to no address"));
                }
                Some(_) => {}
            }
        }
        for ((id, about), address) in &self.mails {
            if address.contains('@') && !self.sent.contains_key(&(id.clone(), about.clone())) {
                wrong.push(format!("order {id}: the mail `{about}` was not sent"));
            }
        }
        wrong.extend(self.sums());
        for state in ["open", "completed", "cancelled"] {
            let (view, orders) = (self.view.get(state).copied().unwrap_or(0), self.count(state));
            if view != orders as i64 {
                wrong.push(format!("the view says that {view} orders are {state}, and {orders} are"));
            }
        }
        wrong
    }

    /// What is wrong with one order: all of it is there, or nothing.
    fn of_order(&self, id: &str, state: &str, order: &Order) -> Vec<String> {
        let (mut wrong, completed) = (Vec::new(), state == "completed");
        if !completed && state != "cancelled" {
            return vec![format!("order {id} has not ended")];
        }
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                let mut text = format!("order {id}, {}, is {state}: ", order.style.word());
                let _infallible = write!(text, "{what}");
                wrong.push(text);
            }
        };
        let reserved = self.reserved.get(id);
        let charged = self.charged.get(id);
        if completed {
            expect(
                reserved == Some(&(order.item.clone(), order.quantity)),
                &format!("what is reserved is {reserved:?}"),
            );
            expect(
                charged == Some(&(order.customer.clone(), order.cents)),
                &format!("{} cents were due, charged is {charged:?}", order.cents),
            );
            expect(self.parcels.contains(id), "there is no parcel");
        } else {
            expect(reserved.is_none(), &format!("reserved still is {reserved:?}"));
            expect(charged.is_none(), &format!("charged still is {charged:?}"));
            expect(!self.parcels.contains(id), "a parcel is on its way");
        }
        let mail = |about: &str| self.mails.contains_key(&(id.to_owned(), about.to_owned()));
        expect(mail("completed") == completed, "the last mail says something else");
        // What was sent cannot be called back: whoever heard of the order hears that it came to nothing.
        expect(mail("received") || !completed, "nobody was told that it was received");
        let due = mail("received") && !completed;
        expect(mail("cancelled") == due, "nobody was told that it was cancelled, or somebody was wrongly");
        wrong
    }

    /// Sums over everything: nothing came from nowhere, and nothing went there.
    fn sums(&self) -> Vec<String> {
        let completed = || self.orders.values().filter(|(state, _)| state == "completed").map(|(_, order)| order);
        let sold: i64 = completed().map(|order| order.quantity).sum();
        let earned: i64 = completed().map(|order| order.cents).sum();
        let nowhere = || self.mails.iter().filter(|(_, address)| !address.contains('@'));
        let undeliverable = nowhere().count() as i64;
        // What comes behind a dead letter in its group waits for it.
        let heads = nowhere().map(|((id, _), _)| id).collect::<BTreeSet<_>>().len() as i64;
        let sums = [
            ("messages left in the queue of mails", self.left, undeliverable),
            ("dead letters", self.dead, heads),
            ("pieces in stock", self.free, pieces() - sold),
            ("cents of the customers", self.accounts, money() - earned),
            ("cents that a transfer holds", self.held, 0),
            ("cents that were earned", self.clearing + self.merchant, earned),
            ("cents that the clearing account gave and the bank took", self.settled, self.merchant),
        ];
        sums.iter()
            .filter(|(_, found, expected)| found != expected)
            .map(|(what, found, expected)| format!("{what}: {found}, and it should be {expected}"))
            .collect()
    }
}

#[cfg(test)]
mod tests;
