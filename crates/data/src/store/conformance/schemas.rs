//! Schemas: what is registered, and that nothing is appended that does not fit.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    super::{AppendBatch, AppendError, Appended, CheckedBatch, ExpectedVersion, Limits, Store},
    Outcome, Place,
    vocabulary::{append, assert_sound, event, events, stream, whole_log},
};
use crate::{
    event::NewEvent,
    schema::{Compatibility, RegisterError, Registered, Registrar, RegistrarError, Rejection, SchemaVersion, address},
};

const KIND: &str = "order.placed";

/// Objects with a whole number called `member`.
fn with(member: &str) -> Value {
    json!({"type": "object", "required": [member], "properties": {member: {"type": "integer"}}})
}

fn placed(id: impl ToString, data: &str) -> NewEvent {
    NewEvent { kind: KIND.into(), ..event(id) }.json(data.to_owned())
}

fn to(name: &str, events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch::to(stream(name), ExpectedVersion::Any, events)
}

async fn register(store: &Store, schema: Value, mode: Option<Compatibility>) -> Result<Registered, RegistrarError> {
    Registrar::of(store).register(&stream(KIND), schema, mode).await
}

/// Where the first misfit stands, and at which place of its data it does not fit.
fn misfit(refused: Result<Appended, AppendError>) -> (String, usize, String) {
    match refused {
        Err(AppendError::Schema { stream, index, cause: Rejection::Violations { violations, .. }, .. }) => {
            (stream.to_string(), index, violations[0].instance.clone())
        }
        other => panic!("this should not fit: {other:?}"),
    }
}

/// Appends a batch in a transaction of its own; what is refused does not end it.
async fn append_within(store: &Store, batch: AppendBatch) -> Result<Appended, AppendError> {
    let done = store.transact(move |tx| {
        let batch = batch.clone();
        Box::pin(async move { Ok::<_, AppendError>(tx.append_batch(batch).await) })
    });
    done.await.unwrap_or_else(|failed| panic!("the transaction should go on: {failed}"))
}

async fn append_checked(store: &Store, checked: CheckedBatch) -> Result<Appended, AppendError> {
    let done = store.transact(move |tx| {
        let checked = checked.clone();
        Box::pin(async move { Ok::<_, AppendError>(tx.append_checked(checked).await) })
    });
    done.await.unwrap_or_else(|failed| panic!("the transaction should go on: {failed}"))
}

pub(super) async fn what_does_not_fit_its_schema_is_refused_on_every_road(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    assert!(register(&store, with("n"), None).await?.new);
    let bad = || placed("bad", r#"{"n":"one"}"#);
    let here = |stream: &str, index| (stream.to_owned(), index, "/n".to_owned());

    assert_eq!(misfit(append(&store, "a", vec![event(1), bad()]).await), here("a", 1));
    let several = || to("a", events("ok", 0..2)).and_to(stream("b"), ExpectedVersion::Any, vec![event(2), bad()]);
    assert_eq!(misfit(store.append(several()).await), here("b", 1));
    assert_eq!(misfit(append_within(&store, several()).await), here("b", 1));
    let checked = store.check(several()).await;
    assert_eq!(checked.objection().map(|objection| objection.index), Some(1));
    assert_eq!(misfit(append_checked(&store, checked).await), here("b", 1));
    let large = || placed("large", &format!(r#"{{"n":"{}"}}"#, "x".repeat(100_000)));
    assert_eq!(misfit(append(&store, "a", vec![large()]).await), here("a", 0));
    let seals = store.capabilities().erasure;
    if seals {
        assert_eq!(misfit(append(&store, "a", vec![bad().about("anna")]).await), here("a", 0), "before it is sealed");
    }
    assert_eq!(store.head().get(), 0, "nothing of any batch was written");

    append(&store, "a", vec![placed("good", r#"{"n":1}"#), event("of another type")]).await?;
    if seals {
        append(&store, "a", vec![placed("hers", r#"{"n":1}"#).about("anna")]).await?;
    }
    Ok(assert_sound(&store).await?)
}

pub(super) async fn schemas_and_modes_outlive_reopening_and_a_crash(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    register(&store, with("n"), Some(Compatibility::Full)).await?;
    register(&store, with("m"), Some(Compatibility::None)).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_eq!(Registrar::of(&store).current().mode(KIND), Some(Compatibility::Full), "the first registration says it");
    let second = |event| NewEvent { schema: Some(address(KIND, SchemaVersion::FIRST.next()).into()), ..event };
    assert_eq!(misfit(append(&store, "a", vec![second(placed(1, r#"{"m":"one"}"#))]).await).2, "/m");
    Registrar::of(&store).set_mode(&stream(KIND), Compatibility::ForwardTransitive).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    let current = Registrar::of(&store).current();
    let found: Vec<_> = current.subjects().map(|(name, latest)| (name.to_string(), latest.get())).collect();
    assert_eq!((found, current.mode(KIND)), (vec![(KIND.to_owned(), 2)], Some(Compatibility::ForwardTransitive)));
    let first = NewEvent { schema: Some(address(KIND, SchemaVersion::FIRST).into()), ..placed(2, r#"{"n":1}"#) };
    append(&store, "a", vec![first]).await?;
    let unknown = Registrar::of(&store).set_mode(&stream("nothing"), Compatibility::None).await;
    assert!(matches!(unknown, Err(RegistrarError::NotFound { .. })), "{unknown:?}");
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_repeat_is_known_whatever_was_registered_since(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let batch = || to("a", vec![placed(1, r#"{"n":"one"}"#), placed(2, "[]")]);
    let first = store.append(batch()).await?;
    register(&store, with("n"), None).await?;
    let again = store.append(batch()).await?;
    assert_eq!((&again.versions, &again.token, again.repeated), (&first.versions, &first.token, true));
    assert!(append_within(&store, batch()).await?.repeated);
    let more = append(&store, "a", vec![placed(1, r#"{"n":"one"}"#), placed(3, "[]")]).await;
    assert!(matches!(more, Err(AppendError::PartlyKnown { .. })), "{more:?}");
    let new = append(&store, "a", vec![placed(3, "[]")]).await;
    assert!(matches!(new, Err(AppendError::Schema { .. })), "{new:?}");
    Ok(())
}

pub(super) async fn of_racing_registrations_each_gets_its_due(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let same = join_all((0..8).map(|_| register(&store, with("n"), None))).await;
    let same = same.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert!(same.iter().all(|registered| registered.version.get() == 1), "{same:?}");
    assert_eq!(same.iter().filter(|registered| registered.new).count(), 1, "one of them did it");

    // Each breaks the one before, whichever that is: one wins.
    let other = |n: usize| json!({"type": "object", "required": [format!("m{n}")], "title": n.to_string()});
    let races = join_all((0..8).map(|n| register(&store, other(n), Some(Compatibility::BackwardTransitive)))).await;
    for lost in &races {
        assert!(matches!(lost, Err(RegistrarError::Refused(RegisterError::Incompatible { .. }))), "{lost:?}");
    }
    let races = join_all((0..8).map(|n| register(&store, other(n), Some(Compatibility::None)))).await;
    let mut versions = Vec::new();
    for won in races {
        versions.push(won?.version.get());
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..10).collect::<Vec<_>>(), "every version once");
    let widening = |n: usize| json!({"type": "object", "title": format!("wide {n}")});
    let races = join_all((0..4).map(|n| register(&store, widening(n), None))).await;
    assert!(races.iter().all(Result::is_ok), "{races:?}");
    Ok(assert_sound(&store).await?)
}

pub(super) async fn nothing_is_appended_behind_a_registration_that_does_not_fit_it(place: &dyn Place) -> Outcome {
    for round in 0..8 {
        let store = place.open(Limits::default()).await;
        let kind = format!("kind-{round}");
        let bad = |n: u64| NewEvent { kind: kind.as_str().into(), ..placed(format!("{round}-{n}"), r#"{"n":"one"}"#) };
        let stale = store.check(to("stale", vec![bad(1_000)])).await;
        let append = async |n: u64| {
            let batch = to(&format!("s-{n}"), vec![bad(n)]);
            match if n.is_multiple_of(2) { store.append(batch).await } else { append_within(&store, batch).await } {
                Ok(_) | Err(AppendError::Schema { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        };
        let during = join_all((0..60).map(append));
        let registering = async {
            let registered = Registrar::of(&store).register(&stream(&kind), with("n"), None).await;
            registered.map(|_| store.head().get())
        };
        let (registered, _) = futures_util::join!(registering, during);
        let at = registered?;
        let behind = whole_log(&store).await?.into_iter().filter(|event| event.position().get() > at);
        assert_eq!(behind.filter(|event| event.kind() == kind).count(), 0, "what came behind does not fit");
        assert_eq!(misfit(append_checked(&store, stale).await).2, "/n", "what was checked before is checked again");
        store.close().await?;
    }
    Ok(())
}
