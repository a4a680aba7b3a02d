//! Documents: what they may say, what is wrong with them, and what they do.

use std::sync::{Arc, Mutex};

use quorate_communication::message_queue::{Config as QueueConfig, Queues, Receive};
use quorate_data::store::sqlite;
use quorate_foundations::document::Format;
use quorate_runtime::{BoxFuture, Env};
use serde_json::{Value, json};

use super::{Caller, Document, Hands, Request};
use crate::saga::{Config, Failure, Output, Sagas, Status};

const ORDER: &str = r#"
saga: order
version: 1
description: An order, from shelf to parcel.
key: .input.customer
deadline: 1h
steps:
  - together:
      - step: reserve
        http: { url: "http://stock/items/{.input.item}/reservations", body: "{id, item: .input.item}" }
        undo: { http: { method: DELETE, url: "http://stock/reservations/{.output.id // .id}" } }
      - step: gift
        when: .input.gift
        may-be-refused: true
        http: { method: PUT, url: "http://stock/gifts/{.id}", headers: { x-from: "shop {.saga}" } }
  - step: charge
    attempts: 1
    http: { url: "http://bank/charges", body: ".input.cents", policy: bank }
    undo: { http: { url: "http://bank/refunds" } }
  - step: tell
    kind: pivot
    queue: { name: mails, type: mail.due, data: "{to: .input.customer, gift: (.refused | contains([\"gift\"]) | not)}", group: .input.customer }
output: "{reservation: .steps.reserve.id}"
"#;

/// Answers by the method and the path, and notes what it was asked for.
#[derive(Default)]
struct Shop {
    asked: Mutex<Vec<Request>>,
    refuses: Option<&'static str>,
}

impl Caller for Shop {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Output, Failure>> {
        let refused = self.refuses.is_some_and(|refused| request.url.contains(refused));
        self.asked.lock().unwrap().push(request);
        let answer = if refused { Err(Failure::refused("sold out")) } else { Ok(json!({ "id": 7 }).into()) };
        Box::pin(std::future::ready(answer))
    }
}

/// Runs an order; what was asked for, how it ended, and the mails.
async fn run(refuses: Option<&'static str>, gift: bool) -> (Vec<String>, Arc<crate::saga::Journal>, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
    let queues = Queues::open(&store).await.unwrap();
    let mails = queues.declare(&"mails".parse().unwrap(), QueueConfig::default()).await.unwrap();
    let shop = Arc::new(Shop { refuses, ..Shop::default() });
    let document = Document::read(ORDER, Format::Yaml).unwrap();
    let sagas = Sagas::open(&store, Config::default()).await.unwrap();
    sagas.define(document.definition(&Hands { caller: shop.clone(), queues: Some(queues) })).await.unwrap();
    let input = json!({ "item": "a/b c", "cents": 5, "customer": "ada", "gift": gift });
    assert_eq!(document.key_of(&input), Ok(Some("ada".to_owned())));
    let name = "order".parse().unwrap();
    sagas.start(&name, "17", input, None).await.unwrap();
    let ended = sagas.settled(&name, "17", std::time::Duration::from_secs(60)).await.unwrap().journal;
    let told = mails.receive(Receive::of(9)).await.unwrap();
    let told = told.iter().map(|one| serde_json::from_slice(one.message.event.data.as_ref().unwrap()).unwrap());
    let told = told.collect();
    let mut asked: Vec<String> =
        shop.asked.lock().unwrap().iter().map(|one| format!("{} {} {}", one.method, one.url, one.key)).collect();
    asked.sort();
    store.close().await.unwrap();
    (asked, ended, told)
}

#[tokio::test]
async fn a_document_runs_as_it_says() {
    let (asked, ended, told) = run(None, true).await;
    assert_eq!(
        asked,
        [
            "POST http://bank/charges order/17/charge/forward",
            "POST http://stock/items/a%2Fb%20c/reservations order/17/reserve/forward",
            "PUT http://stock/gifts/17 order/17/gift/forward",
        ]
    );
    assert_eq!((ended.status(), &ended.output), (Status::Completed, &json!({ "reservation": 7 })));
    assert_eq!(told, [json!({ "to": "ada", "gift": true })]);
}

#[tokio::test]
async fn conditions_leave_steps_out_and_some_may_be_refused() {
    let (asked, ended, _) = run(None, false).await;
    assert!(!asked.iter().any(|asked| asked.contains("gifts")), "{asked:?}");
    assert_eq!(ended.status(), Status::Completed);
    let (_, ended, told) = run(Some("gifts"), true).await;
    assert_eq!((ended.status(), told), (Status::Completed, vec![json!({ "to": "ada", "gift": false })]));
}

#[tokio::test]
async fn what_was_done_is_undone_with_what_it_answered() {
    let (asked, ended, told) = run(Some("charges"), false).await;
    assert_eq!(ended.status(), Status::Compensated);
    assert!(
        asked.contains(&"DELETE http://stock/reservations/7 order/17/reserve/compensation".to_owned()),
        "{asked:?}"
    );
    assert!(told.is_empty());
}

#[test]
fn what_was_passed_over_is_not_gone_back_to() {
    let text = r#"
saga: order
version: 1
steps:
  - together:
      - { step: a, when: .signals.late, http: { url: "http://a/a" } }
      - { step: b, http: { url: "http://a/b" } }
  - wait: approval
  - { step: c, http: { url: "http://a/c" } }
"#;
    let document = Document::read(text, Format::Yaml).unwrap();
    let definition = document.definition(&Hands { caller: Arc::new(Shop::default()), queues: None });
    let signals = [("late".to_owned(), json!(true)), ("approval".to_owned(), json!(true))].into();
    let all = crate::saga::courses::courses(
        &definition,
        &crate::saga::courses::Participants { signals, ..Default::default() },
    );
    assert!(all[0].status == Status::Completed && all[0].calls == 2, "{:?}", all[0]);
}

#[test]
fn everything_that_is_wrong_is_told_with_its_place() {
    let faults = |text: &str| Document::read(text, Format::Yaml).unwrap_err().to_string();
    for (from, to, said) in [
        ("saga: order", "saga: or:der", "neither `:`"),
        ("version: 1", "version: 0", "line 3, column 10: `version`: a version is a whole number from 1"),
        ("deadline: 1h", "deadline: soon", "line 6, column 11: `deadline`: `soon` is no time"),
        ("key: .input.customer", "key: .input | nope", "line 5, column 15: `key`"),
        ("may-be-refused: true", "may-be-refused: perhaps", "`steps[0].together[1].may-be-refused`"),
        ("http://bank/charges", "ftp://bank/charges", "begins with `http://`"),
        ("http://bank/charges", "http://{.input.host}/charges", "none of them in braces"),
        ("{.output.id // .id}", "{.output.id", "never closed"),
        ("{.output.id // .id}", "{.output.id}", "`.output.id // .id`"),
        ("x-from:", "idempotency-key:", "one that quorate sets"),
        ("step: charge", "step: reserve", "stands further up already"),
        ("attempts: 1", "attempts: 0", "1 to 1000000"),
        ("kind: pivot", "kind: retriable", "no pivot stands before it"),
        ("undo: { http: { url: \"http://bank/refunds\" } }", "undoo: {}", "did you mean `undo`?"),
        ("    queue: {", "    queues: {", "one of `http`, `queue` and `saga`"),
    ] {
        assert!(ORDER.contains(from), "{from}");
        let found = faults(&ORDER.replacen(from, to, 1));
        assert!(found.contains(said), "{to}: {found}");
    }
    let both = ORDER.replace("version: 1", "version: x").replace("deadline: 1h", "deadline: x");
    let both = Document::read(&both, Format::Yaml).unwrap_err();
    assert_eq!(both.list.len(), 2, "all at once: {both}");
}

#[test]
fn every_course_of_a_document_can_be_tried() {
    use crate::saga::courses::{Participants, courses};
    let document = Document::read(ORDER, Format::Yaml).unwrap();
    let definition = document.definition(&Hands { caller: Arc::new(Shop::default()), queues: None });
    let input = json!({ "item": "x", "cents": 5, "customer": "ada", "gift": true });
    let answers = [("reserve".to_owned(), json!({ "id": 7 }))].into();
    let all = courses(&definition, &Participants { input, answers, ..Participants::default() });
    let wrong: Vec<_> = all.iter().filter(|course| !course.wrong.is_empty()).collect();
    assert!(all.len() > 50 && wrong.is_empty(), "{} courses, {wrong:#?}", all.len());
}

#[tokio::test]
async fn a_step_of_a_document_is_a_saga_with_the_input_that_it_says() {
    const PAYMENT: &str = r#"
saga: payment
version: 2
key: .input.account
steps:
  - { step: hold, http: { url: "http://bank/{.input.account}/holds" }, undo: { http: { url: "http://bank/releases" } } }
output: "{held: .input.cents}"
"#;
    const PAID: &str = r#"
saga: order
version: 1
steps:
  - { step: pay, saga: { name: payment, version: 2, input: "{account: (.input.customer + .id), cents: 5}" } }
  - { step: ship, http: { url: "http://parcels/{.steps.pay.held}" } }
"#;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
    let shop = Arc::new(Shop { refuses: Some("parcels"), ..Shop::default() });
    let sagas = Sagas::open(&store, Config::default()).await.unwrap();
    for text in [PAYMENT, PAID] {
        let document = Document::read(text, Format::Yaml).unwrap();
        sagas.define(document.definition(&Hands { caller: shop.clone(), queues: None })).await.unwrap();
    }
    let name = "order".parse().unwrap();
    sagas.start(&name, "17", json!({ "customer": "ada" }), None).await.unwrap();
    let ended = sagas.settled(&name, "17", std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(
        (ended.journal.status(), ended.journal.output("pay")),
        (Status::Compensated, Some(&json!({ "held": 5 })))
    );
    assert_eq!((ended.children[0].key.as_deref(), ended.children[0].status), (Some("ada17"), Status::Compensated));
    let asked: Vec<String> = shop.asked.lock().unwrap().iter().map(|one| one.url.clone()).collect();
    assert_eq!(asked, ["http://bank/ada17/holds", "http://parcels/5", "http://bank/releases"]);
    store.close().await.unwrap();

    let faults =
        |from: &str, to: &str| Document::read(&PAID.replacen(from, to, 1), Format::Yaml).unwrap_err().to_string();
    assert!(faults("version: 2", "version: 0").contains("`steps[0].saga.version`: a version is a whole number"));
    assert!(faults("step: pay,", "step: pay, time: 5s,").contains("neither time nor quiet time"));
    assert!(faults("name: payment", "nmae: payment").contains("`steps[0].saga.nmae`"));
    let twice = faults("saga: { name", "queue: { name: mails, type: t }, saga: { name");
    assert!(twice.contains("`steps[0].saga`: `queue` stands here already"), "{twice}");
}
