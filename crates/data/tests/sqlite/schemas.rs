//! Schemas in a store on disk: policies, limits, damage, and a registration nobody waited for.

use std::path::Path;

use quorate_data::{
    event::NewEvent,
    schema::{Compatibility, Limits, RegisterError, Registrar, RegistrarError, RegistryPolicy, Rejection, UnknownType},
    store::{AppendError, OpenError, Store, sqlite as store},
};
use quorate_runtime::Env;
use serde_json::json;

use crate::shared::{self, Folder, batch, event, open};

async fn open_with(path: &Path, schemas: RegistryPolicy) -> Store {
    store::open(&Env::real(), store::Config { schemas, ..store::Config::at(path) }).await.unwrap()
}

fn limited(limits: Limits) -> RegistryPolicy {
    RegistryPolicy { limits, ..RegistryPolicy::default() }
}

#[tokio::test]
async fn a_closed_store_takes_no_event_of_a_type_without_schema() {
    let folder = Folder::new();
    let closed = RegistryPolicy { unknown_type: UnknownType::Closed, ..RegistryPolicy::default() };
    let store = open_with(&folder.file(), closed).await;
    let refused = store.append(batch("s", vec![event(1)])).await;
    assert!(matches!(refused, Err(AppendError::Schema { cause: Rejection::UnknownType, .. })), "{refused:?}");
    Registrar::of(&store).register(&"thing.happened".parse().unwrap(), json!(true), None).await.unwrap();
    store.append(batch("s", vec![event(1)])).await.unwrap();
    store.close().await.unwrap();
    let store = open(&folder.file()).await.unwrap();
    let other = NewEvent { kind: "other".into(), ..event(2) };
    store.append(batch("s", vec![other.clone()])).await.unwrap();
    store.close().await.unwrap();
    let store = open_with(&folder.file(), closed).await;
    assert!(store.append(batch("s", vec![other])).await.unwrap().repeated, "what is in the log is known");
}

#[tokio::test]
async fn a_registry_has_room_for_so_many_types_and_bytes() {
    let folder = Folder::new();
    let store = open_with(&folder.file(), limited(Limits { types: 2, registry_bytes: 60, ..Limits::default() })).await;
    let registrar = Registrar::of(&store);
    let register = async |name: &str, title: &str| {
        registrar.register(&name.parse().unwrap(), json!({ "title": title }), Some(Compatibility::None)).await
    };
    register("a", "one").await.unwrap();
    register("b", "one").await.unwrap();
    let third = register("c", "one").await;
    assert!(matches!(third, Err(RegistrarError::Refused(RegisterError::Full { limit: 2, .. }))), "{third:?}");
    let heavy = register("a", &"x".repeat(40)).await;
    assert!(matches!(heavy, Err(RegistrarError::Refused(RegisterError::Full { limit: 60, .. }))), "{heavy:?}");
    assert!(!register("a", "one").await.unwrap().new, "what is there takes no room");
}

#[tokio::test]
async fn a_registration_that_nobody_waits_for_is_carried_out() {
    let folder = Folder::new();
    let store = folder.store().await;
    let (registrar, name) = (Registrar::of(&store), "thing.happened".parse().unwrap());
    let schema = json!({"type": "null"});
    // Begun, and dropped at its first pause behind the decision.
    for _ in 0..20 {
        let registering = registrar.register(&name, schema.clone(), None);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(5), registering).await;
    }
    let again = registrar.register(&name, schema, None).await.unwrap();
    assert_eq!((again.version.get(), again.new), (1, false), "some of the others did it");
    assert!(store.append(batch("s", vec![event(1)])).await.is_err(), "and it is in force");
}

#[tokio::test]
async fn a_row_written_behind_our_back_is_followed_not_overwritten() {
    let folder = Folder::new();
    let store = folder.store().await;
    let name = "thing.happened".parse().unwrap();
    Registrar::of(&store).register(&name, json!({"type": "object"}), None).await.unwrap();
    // A second version as a registration leaves it that died between its commit and putting it in force.
    let other = Folder::new();
    let twin = other.store().await;
    for schema in [json!({"type": "object"}), json!({"type": ["object", "null"]})] {
        Registrar::of(&twin).register(&name, schema, None).await.unwrap();
    }
    twin.close().await.unwrap();
    let copy = format!(
        "ATTACH '{}' AS twin;
         INSERT INTO quorate_schema SELECT * FROM twin.quorate_schema WHERE version = 2;
         INSERT OR REPLACE INTO quorate_schema_type SELECT * FROM twin.quorate_schema_type;",
        other.file().display()
    );
    shared::raw(&folder.file()).execute_batch(&copy).unwrap();
    let third = Registrar::of(&store).register(&name, json!(true), None).await.unwrap();
    assert_eq!(third.version.get(), 3);
    let second = Registrar::of(&store).current().row("thing.happened", third.version).unwrap();
    assert_eq!(second.schema, "true");
    store.close().await.unwrap();
    assert_eq!(open(&folder.file()).await.unwrap().schemas().current().latest("thing.happened").unwrap().get(), 3);
}

#[tokio::test]
async fn schemas_that_were_lost_or_changed_are_missed_at_the_door() {
    for damage in [
        "UPDATE quorate_schema SET document = '{}'",
        "UPDATE quorate_schema SET event_type = 'else'",
        "DELETE FROM quorate_schema WHERE version = 1",
        "DELETE FROM quorate_schema WHERE version = 2",
        "DELETE FROM quorate_schema",
        "DELETE FROM quorate_schema_type",
        "UPDATE quorate_schema_type SET mode = 'none'",
        "DELETE FROM quorate_room WHERE room = 'schema'",
        "UPDATE quorate_room SET version = 0 WHERE room = 'schema'",
    ] {
        let folder = Folder::new();
        let store = folder.store().await;
        for schema in [json!({"type": "object"}), json!(true)] {
            Registrar::of(&store).register(&"thing.happened".parse().unwrap(), schema, None).await.unwrap();
        }
        store.close().await.unwrap();
        shared::raw(&folder.file()).execute_batch(damage).unwrap();
        match open(&folder.file()).await {
            Err(OpenError::Corrupt { what, .. }) => assert!(what.contains("quorate_"), "{damage}: {what}"),
            Err(other) => panic!("{damage}: {other}"),
            Ok(_) => panic!("{damage}: it was opened"),
        }
    }
}
