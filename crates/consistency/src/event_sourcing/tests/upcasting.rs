//! Claims about events of earlier versions.

use quorate_data::{
    event::NewEvent,
    schema::{
        Compatibility, Registrar, SchemaVersion,
        upcast::{Upcasters, UpcastersBuilder, Versioned},
    },
    store::{AppendBatch, AppendError, ExpectedVersion, Query, Store},
};
use quorate_foundations::name::{Name, NameError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bank::{run, store};
use crate::{
    event_sourcing::{
        Aggregate, Aggregates, Config, Decider, Decisions, DynamicBoundary, HandleError, LoadError, Metadata,
        SetupError, Undecodable,
    },
    event_types,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Paid { pence: i64 },
    Thanked,
}

event_types! {
    Event {
        Paid = "payment.captured" version 2,
        Thanked = "payer.thanked" version 1,
    }
}

#[derive(Clone, Copy)]
struct Till;

impl Decider for Till {
    type Command = i64;
    type Event = Event;
    type State = (i64, u32);
    type Rejection = ();

    fn decide(&self, _: &(i64, u32), pence: &i64) -> Result<Vec<Event>, ()> {
        Ok(vec![Event::Paid { pence: *pence }])
    }

    fn evolve((sum, thanks): (i64, u32), event: &Event) -> (i64, u32) {
        match event {
            Event::Paid { pence } => (sum + pence, thanks),
            Event::Thanked => (sum, thanks + 1),
        }
    }
}

impl Aggregate for Till {
    const CATEGORY: &'static str = "till";
}

impl DynamicBoundary for Till {
    fn boundary(&self, _: &i64) -> Query {
        Query::EVERYTHING
    }

    fn stream(&self, _: &Event) -> Result<Name, NameError> {
        Name::new("till-1")
    }
}

fn pence(mut data: Value) -> Result<Value, quorate_data::schema::upcast::BoxError> {
    let pounds = data["pounds"].take().as_i64().ok_or("pounds is not a whole number")?;
    Ok(json!({"pence": pounds * 100}))
}

/// Pounds became pence; "money.came" was once what is now a payment and a thank-you.
fn chains() -> UpcastersBuilder {
    let to = [("payment.captured", 1), ("payer.thanked", 1)];
    Upcasters::builder()
        .latest("payment.captured", 2)
        .latest("payer.thanked", 1)
        .step("payment.captured", 1, 2, pence)
        .split(("money.came", 1), &to, |data| {
            let part = |event_type: &str, data| Versioned {
                event_type: event_type.parse().unwrap(),
                version: SchemaVersion::FIRST,
                data,
            };
            Ok(vec![part("payment.captured", data), part("payer.thanked", Value::Null)])
        })
}

async fn append(store: &Store, kind: &str, schema: Option<&str>, data: &str) {
    let mut event = NewEvent::new(store.event_id(), "/old", kind).json(data.as_bytes().to_vec());
    event.schema = schema.map(Into::into);
    store.append(AppendBatch::to("till-1".parse().unwrap(), ExpectedVersion::Any, vec![event])).await.unwrap();
}

async fn old_events(store: &Store) {
    append(store, "payment.captured", None, r#"{"pounds":1}"#).await;
    append(store, "payment.captured", Some("/v1/schemas/payment.captured/1"), r#"{"pounds":2}"#).await;
    append(store, "money.came", Some("/v1/schemas/money.came/1"), r#"{"pounds":3}"#).await;
    append(store, "payment.captured", Some("/v1/schemas/payment.captured/versions/2"), r#"{"pence":4}"#).await;
}

#[test]
fn a_state_is_folded_from_events_of_every_version_that_ever_was() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        old_events(&store).await;
        let tills = Aggregates::of(Till).upcasters(chains().build().unwrap()).open(&store).await.unwrap();
        let paid = tills.handle(1, 5, Metadata::default()).await.unwrap();
        assert_eq!(*paid.state, (609, 1));

        let decisions = Decisions::open(&store, Till, Config::default(), chains().build().unwrap()).unwrap();
        assert_eq!(decisions.handle(1, Metadata::default()).await.unwrap().state, (610, 1));
    });
}

#[test]
fn a_decision_whose_event_does_not_fit_its_schema_is_not_written() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let tills = Aggregates::of(Till).upcasters(chains().build().unwrap()).open(&store).await.unwrap();
        let register = async |schema: Value| {
            let registrar = Registrar::of(&store);
            registrar.register(&"payment.captured".parse().unwrap(), schema, Some(Compatibility::None)).await.unwrap()
        };
        let refused = async || match tills.handle(1, 5, Metadata::default()).await.unwrap_err() {
            HandleError::Append(AppendError::Schema { cause, .. }) => cause.to_string(),
            other => panic!("{other:?}"),
        };
        register(json!({"required": ["pounds"]})).await;
        assert!(refused().await.contains("no version 2"), "the code is ahead of the schemas");
        register(json!({"properties": {"pence": {"maximum": 4}}})).await;
        assert!(refused().await.contains("`/pence`"));
        assert_eq!(store.head().get(), 0);
        tills.handle(1, 4, Metadata::default()).await.unwrap();
    });
}

#[test]
fn whatever_the_schemas_let_in_is_read_as_the_version_that_it_was_held_against() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        for unit in ["pounds", "pence"] {
            let schema = json!({"required": [unit], "properties": {unit: {"type": "integer"}}});
            let registrar = Registrar::of(&store);
            let event_type = "payment.captured".parse().unwrap();
            registrar.register(&event_type, schema, Some(Compatibility::None)).await.unwrap();
        }
        let mut taken = 0;
        let named = |version| format!("/v1/schemas/payment.captured/versions/{version}");
        for dataschema in [None, Some(named(1)), Some(named(2)), Some("urn:else".into()), Some(named(3))] {
            for data in [r#"{"pounds":1}"#, r#"{"pence":4}"#] {
                let mut event = NewEvent::new(store.event_id(), "/till", "payment.captured").json(data.as_bytes());
                event.schema = dataschema.as_deref().map(Into::into);
                let batch = AppendBatch::to("till-1".parse().unwrap(), ExpectedVersion::Any, vec![event]);
                taken += u32::from(store.append(batch).await.is_ok());
            }
        }
        assert_eq!(taken, 3, "an event that names no version is of the first");
        let tills = Aggregates::of(Till).upcasters(chains().build().unwrap()).open(&store).await.unwrap();
        assert_eq!(*tills.handle(1, 5, Metadata::default()).await.unwrap().state, (100 + 100 + 4 + 5, 0));
    });
}

#[test]
fn a_chain_that_does_not_reach_todays_version_is_found_at_start_up() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let what = |opened: Result<_, SetupError>| match opened.err() {
            Some(SetupError::Upcasters { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        let missing = what(Aggregates::of(Till).open(&store).await.map(drop));
        assert!(missing.contains("version 2 of `payment.captured`"), "{missing}");
        let short = Upcasters::builder().latest("payment.captured", 1).build().unwrap();
        let short = what(Decisions::open(&store, Till, Config::default(), short).map(drop));
        assert!(short.contains("written in version 2, its upcasters lead to 1"), "{short}");
    });
}

#[test]
fn an_event_of_tomorrow_is_refused_and_nothing_is_decided_without_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        append(&store, "payment.captured", Some("/v1/schemas/payment.captured/3"), "{}").await;
        let tills = Aggregates::of(Till).upcasters(chains().build().unwrap()).open(&store).await.unwrap();
        let refused = tills.handle(1, 5, Metadata::default()).await.unwrap_err();
        let HandleError::Load(LoadError::Undecodable { cause, .. }) = refused else { panic!("{refused:?}") };
        assert!(matches!(*cause, Undecodable::Upcast(_)), "{cause:?}");
        assert_eq!(store.head().get(), 1);
    });
}
