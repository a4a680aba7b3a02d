use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Books, money, pieces, wrong_sum};
use crate::demo::plan::{Order, Plan};

/// What the services tell of two orders, the first of which was completed and the second cancelled.
struct Told {
    orders: Value,
    inventory: Value,
    payments: Value,
    shipping: Value,
    notifications: Value,
}

fn orders() -> [Order; 2] {
    let mut plan = Plan::of(1, std::time::Duration::from_secs(30), None);
    let order = |mut order: Order| {
        order.mail = "a@example.com".to_owned();
        order
    };
    [order(plan.order()), order(plan.order())]
}

fn told() -> Told {
    let [done, undone] = orders();
    let row =
        |order: &Order, state: &str| json!({ "id": order.id, "state": state, "document": json!(order).to_string() });
    let mail = |order: &Order, about: &str| json!({ "order_id": order.id, "about": about, "address": order.mail });
    let sent = |order: &Order, about: &str| json!({ "order_id": order.id, "about": about });
    Told {
        orders: json!({
            "orders": [row(&done, "completed"), row(&undone, "cancelled")],
            "more": { "completed": 1, "cancelled": 1 },
        }),
        inventory: json!({
            "stock": [{ "item": "lamp", "free": pieces() - done.quantity, "taken": done.quantity }],
            "reservations": [{ "order_id": done.id, "item": done.item, "quantity": done.quantity }],
        }),
        payments: json!({
            "accounts": [{ "customer": "c1", "cents": money() - done.cents }],
            "charges": [{ "order_id": done.id, "customer": done.customer, "cents": done.cents }],
            "clearing": [{ "total": done.cents - 7, "free": done.cents - 7, "settled": 7 }],
            "merchant": [{ "cents": 7 }],
        }),
        shipping: json!({ "parcels": [{ "order_id": done.id, "place": done.place }] }),
        notifications: json!({
            "mails": [mail(&done, "received"), mail(&done, "completed"), mail(&undone, "received"), mail(&undone, "cancelled")],
            "sent": [sent(&done, "received"), sent(&done, "completed"), sent(&undone, "received"), sent(&undone, "cancelled")],
            "more": { "left": 0, "dead": 0 },
        }),
    }
}

fn violations(told: &Told) -> Vec<String> {
    let mut books = Books::default();
    let all = [
        ("orders", &told.orders),
        ("inventory", &told.inventory),
        ("payments", &told.payments),
        ("shipping", &told.shipping),
        ("notifications", &told.notifications),
    ];
    for (name, one) in all {
        books.take(name, one).unwrap();
    }
    books.violations(&BTreeSet::from(orders().map(|order| order.id)))
}

#[test]
fn what_is_whole_is_no_violation() {
    assert_eq!(violations(&told()), [""; 0]);
}

#[test]
fn whatever_is_lost_doubled_or_half_done_is_one() {
    type Spoil = fn(&mut Told);
    let spoils: [(&str, Spoil); 20] = [
        ("is lost", |told| told.orders["orders"] = json!([])),
        ("has not ended", |told| told.orders["orders"][1]["state"] = json!("open")),
        ("what is reserved", |told| told.inventory["reservations"] = json!([])),
        ("reserved still is", |told| told.orders["orders"][0]["state"] = json!("cancelled")),
        ("charged is", |told| told.payments["charges"] = json!([])),
        ("charged is", |told| told.payments["charges"][0]["cents"] = json!(1)),
        ("there is no parcel", |told| told.shipping["parcels"] = json!([])),
        ("belongs to no order", |told| told.shipping["parcels"][0]["order_id"] = json!("o99")),
        ("a parcel is on its way", |told| told.shipping["parcels"][0]["order_id"] = json!("o2")),
        ("was sent 2 times", |told| told.notifications["sent"][1] = told.notifications["sent"][0].clone()),
        ("told that it was cancelled", |told| {
            told.notifications["mails"].as_array_mut().unwrap().pop();
        }),
        ("was not sent", |told| {
            told.notifications["sent"].as_array_mut().unwrap().pop();
        }),
        ("dead letters", |told| told.notifications["more"]["dead"] = json!(1)),
        ("left in the queue", |told| told.notifications["more"]["left"] = json!(1)),
        ("pieces in stock", |told| told.inventory["stock"][0]["free"] = json!(1)),
        ("cents of the customers", |told| told.payments["accounts"][0]["cents"] = json!(1)),
        ("cents that were earned", |told| told.payments["clearing"][0]["total"] = json!(1)),
        ("a transfer holds", |told| told.payments["clearing"][0]["free"] = json!(0)),
        ("the view says", |told| told.orders["more"]["completed"] = json!(2)),
        ("the bank took", |told| told.payments["merchant"][0]["cents"] = json!(8)),
    ];
    for (expected, spoil) in spoils {
        let mut told = told();
        spoil(&mut told);
        let found = violations(&told);
        assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn a_service_whose_sums_are_off_is_told_at_once() {
    let sound = [
        ("inventory", json!({ "pieces": pieces(), "least": 0, "taken": 3, "reserved": 3 })),
        ("payments", json!({ "cents": money(), "least": 0, "settled": 5 })),
        ("orders", json!({ "orders": 6, "open": 1, "completed": 2, "cancelled": 3 })),
        ("notifications", json!({ "mails": 3, "sent": 3 })),
        ("shipping", json!({ "parcels": 3 })),
    ];
    for (service, state) in sound {
        assert_eq!(wrong_sum(service, &state), None, "{service}");
        for field in state.as_object().unwrap().keys().filter(|field| *field != "settled") {
            let mut off = state.clone();
            off[field] = json!(if field == "sent" { 4 } else { -1 });
            assert!(wrong_sum(service, &off).is_some(), "{service}: {field}");
            off.as_object_mut().unwrap().remove(field);
            assert!(wrong_sum(service, &off).is_some(), "{service} without {field}");
        }
    }
}
