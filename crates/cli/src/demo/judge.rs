//! What must hold: all the while within each service, and in the end between all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::Deserialize;
use serde_json::Value;

use super::plan::{CUSTOMERS, ITEMS, Order, STOCK, purse};

/// What is wrong with what a service says of itself, if anything: sums that hold at every moment, whatever happens around it.
pub(super) fn wrong_sum(service: &str, state: &Value) -> Option<String> {
    let number = |name: &str| state[name].as_i64();
    let holds = match service {
        "inventory" => {
            number("pieces") == Some(STOCK * ITEMS.len() as i64)
                && number("taken") == number("reserved")
                && number("least").is_some_and(|least| least >= 0)
        }
        "payments" => number("cents") == Some(money()) && number("least").is_some_and(|least| least >= 0),
        "orders" => {
            let all = number("open").zip(number("completed")).zip(number("cancelled"));
            all.map(|((open, completed), cancelled)| open + completed + cancelled) == number("orders")
        }
        "notifications" => number("sent") <= number("mails"),
        _ => true,
    };
    (!holds).then(|| format!("{service}: its sums do not hold: {state}"))
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
    free: i64,
    accounts: i64,
    clearing: i64,
    settled: i64,
    merchant: i64,
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
    #[serde(default)]
    address: String,
    #[serde(default)]
    times: i64,
}

#[derive(Deserialize)]
struct Sum {
    #[serde(default)]
    order_id: String,
    #[serde(default)]
    free: i64,
    #[serde(default)]
    cents: i64,
    #[serde(default)]
    total: i64,
    #[serde(default)]
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
            }
            "inventory" => {
                self.free = list::<Sum>(told, "stock")?.iter().map(|row| row.free).sum();
                for Reserved { order_id, item, quantity } in list(told, "reservations")? {
                    self.reserved.insert(order_id, (item, quantity));
                }
            }
            "payments" => {
                self.accounts = list::<Sum>(told, "accounts")?.iter().map(|row| row.cents).sum();
                for Charged { order_id, customer, cents } in list(told, "charges")? {
                    self.charged.insert(order_id, (customer, cents));
                }
                let clearing = list::<Sum>(told, "clearing")?;
                self.clearing = clearing.iter().map(|row| row.total).sum();
                self.settled = clearing.iter().map(|row| row.settled).sum();
                self.merchant = list::<Sum>(told, "merchant")?.iter().map(|row| row.cents).sum();
            }
            "shipping" => {
                self.parcels = list::<Sum>(told, "parcels")?.into_iter().map(|row| row.order_id).collect();
            }
            _ => {
                for Mail { order_id, about, address, .. } in list(told, "mails")? {
                    self.mails.insert((order_id, about), address);
                }
                for Mail { order_id, about, times, .. } in list(told, "sent")? {
                    self.sent.insert((order_id, about), times);
                }
            }
        }
        Ok(())
    }

    /// Orders that have not ended.
    pub(super) fn open(&self) -> usize {
        self.orders.values().filter(|(state, _)| state == "open").count()
    }

    /// How many orders ended so.
    pub(super) fn ended(&self, state: &str) -> usize {
        self.orders.values().filter(|(of_order, _)| of_order == state).count()
    }

    /// How many mails were sent.
    pub(super) fn mails_sent(&self) -> usize {
        self.sent.len()
    }

    /// Whether every mail that can be sent was.
    pub(super) fn are_mails_out(&self) -> bool {
        self.mails.iter().all(|(mail, address)| !address.contains('@') || self.sent.contains_key(mail))
    }

    /// Mails that cannot be delivered: dead letters.
    pub(super) fn undeliverable(&self) -> usize {
        self.mails.values().filter(|address| !address.contains('@')).count()
    }

    /// What was moved to the merchant's bank, in cents.
    pub(super) fn settled(&self) -> i64 {
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
        wrong.extend(self.sums());
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
        let stock = STOCK * ITEMS.len() as i64;
        let sums = [
            ("pieces in stock", self.free, stock - sold),
            ("cents of the customers", self.accounts, money() - earned),
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
