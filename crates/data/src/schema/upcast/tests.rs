use super::{BrokenChain, Newer, UpcastError, Upcasters, UpcastersBuilder, Versioned, golden};
use crate::schema::{Compatibility, RegistryPolicy, SchemaRegistry, SchemaVersion, Schemas};
use serde_json::{Value, json};

fn same(data: Value) -> Result<Value, super::BoxError> {
    Ok(data)
}

fn version(number: u32) -> SchemaVersion {
    SchemaVersion::new(number).unwrap()
}

fn event(event_type: &str, number: u32, data: Value) -> Versioned {
    Versioned { event_type: event_type.parse().unwrap(), version: version(number), data }
}

fn paid() -> UpcastersBuilder {
    Upcasters::builder().latest("payment.captured", 4)
}

fn broken(builder: UpcastersBuilder) -> Vec<BrokenChain> {
    builder.build().unwrap_err().0
}

fn text(builder: UpcastersBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn a_gap_is_named_with_the_way_that_leads_to_it() {
    let gap = paid().step("payment.captured", 1, 2, same).step("payment.captured", 3, 4, same);
    assert_eq!(text(gap), "payment.captured: 1 -> 2 -> ? -> 4: nothing leads from 2 to 3");
    assert_eq!(
        text(paid().step("payment.captured", 2, 4, same)),
        "payment.captured: 1 -> ? -> 4: nothing leads from 1 to 2; payment.captured: 3 -> ? -> 4: nothing leads from 3 to 4"
    );
    let retired = Upcasters::builder().latest("b", 1).rename(("a", 2), ("b", 1), same);
    assert_eq!(text(retired), "a: 1 -> ? -> 2: nothing leads from 1 to 2");
}

#[test]
fn circles_duplicates_downgrades_and_useless_steps_are_refused_by_name() {
    let circle = Upcasters::builder().rename(("a", 1), ("b", 1), same).rename(("b", 1), ("c", 1), same).rename(
        ("c", 1),
        ("a", 1),
        same,
    );
    assert_eq!(text(circle), "a 1 -> b 1 -> c 1 -> a 1: a circle");
    let duplicate =
        Upcasters::builder().latest("a", 3).step("a", 1, 2, same).step("a", 1, 3, same).step("a", 2, 3, same);
    assert_eq!(text(duplicate), "a: two steps start at 1, one to 2 and one to 3");
    let downgrade = Upcasters::builder().latest("a", 2).step("a", 1, 1, same);
    assert!(matches!(broken(downgrade)[0], BrokenChain::Downgrade { direction: "up", .. }));
    let upgrade = Upcasters::builder().latest("a", 2).step("a", 1, 2, same).down("a", 1, 2, same);
    assert!(matches!(broken(upgrade)[..], [BrokenChain::Downgrade { direction: "down", .. }]));
    let useless = Upcasters::builder().latest("a", 1).latest("b", 1).rename(("a", 1), ("b", 1), same);
    assert_eq!(text(useless), "a: the step 1 -> b 1 is never taken, the latest version is 1");
    let beyond = Upcasters::builder().latest("a", 2).step("a", 1, 3, same);
    assert_eq!(text(beyond), "a: 1 -> 3: nothing is declared about a 3");
    assert_eq!(
        text(Upcasters::builder().rename(("a", 1), ("b", 1), same)),
        "a: 1 -> b 1: nothing is declared about b 1"
    );
    assert_eq!(
        text(Upcasters::builder().latest("a", 1).latest("a", 2).step("a", 1, 2, same)),
        "a: both 1 and 2 are declared as the latest version"
    );
    assert!(matches!(broken(Upcasters::builder().latest("a", 0))[0], BrokenChain::Zero { .. }));
    assert!(matches!(broken(Upcasters::builder().latest("", 1))[0], BrokenChain::Name { .. }));
}

#[test]
fn every_version_arrives_at_the_latest_through_each_step_in_turn() {
    let add = |number: u64| {
        move |mut data: Value| {
            data.as_array_mut().ok_or("not a list")?.push(json!(number));
            Ok(data)
        }
    };
    let upcasters = paid()
        .step("payment.captured", 1, 2, add(2))
        .step("payment.captured", 2, 3, add(3))
        .step("payment.captured", 3, 4, add(4))
        .build()
        .unwrap();
    for (from, expected) in [(1, json!([2, 3, 4])), (2, json!([3, 4])), (3, json!([4])), (4, json!([]))] {
        let current = upcasters.upcast(event("payment.captured", from, json!([]))).unwrap();
        assert_eq!(current, [event("payment.captured", 4, expected)]);
    }
    assert_eq!(upcasters.upcast(event("other", 7, json!(1))).unwrap(), [event("other", 7, json!(1))]);
    let failed = upcasters.upcast(event("payment.captured", 2, json!({}))).unwrap_err();
    assert_eq!(failed.to_string(), "payment.captured 2: the step 2 -> 3 failed");
    assert_eq!(std::error::Error::source(&failed).unwrap().to_string(), "not a list");
}

#[test]
fn one_event_becomes_several_in_order_also_of_other_types() {
    let upcasters = Upcasters::builder()
        .latest("opened", 2)
        .latest("priced", 1)
        .split(("placed", 1), &[("opened", 1), ("priced", 1)], |data| {
            Ok(vec![event("opened", 1, data["who"].clone()), event("priced", 1, data["price"].clone())])
        })
        .step("opened", 1, 2, |who| Ok(json!({"by": who})))
        .split(("noise", 1), &[], |_| Ok(vec![]))
        .build()
        .unwrap();
    let parts = upcasters.upcast(event("placed", 1, json!({"who": "ann", "price": 3}))).unwrap();
    assert_eq!(parts, [event("opened", 2, json!({"by": "ann"})), event("priced", 1, json!(3))]);
    assert_eq!(upcasters.upcast(event("noise", 1, json!(1))).unwrap(), []);
    assert_eq!(
        upcasters.known().map(|known| known.to_string()).collect::<Vec<_>>(),
        ["noise 1", "opened 1", "opened 2", "placed 1", "priced 1"]
    );
}

#[test]
fn a_split_keeps_to_what_it_declared_and_to_a_number() {
    let build = |parts: Vec<Versioned>| {
        let split = Upcasters::builder().latest("b", 1).split(("a", 1), &[("b", 1)], move |_| Ok(parts.clone()));
        split.build().unwrap().upcast(event("a", 1, json!(0))).unwrap_err().to_string()
    };
    assert_eq!(build(vec![event("c", 1, json!(0))]), "a 1: the step 1 -> b 1 yielded c 1, which it had not declared");
    assert_eq!(build(vec![event("b", 1, json!(0)); 1_001]), "a 1: the event splits into more than 1000 events");
}

#[test]
fn an_event_from_the_future_is_refused_or_passed_as_declared() {
    let builder = || Upcasters::builder().latest("a", 1);
    let refused = builder().build().unwrap().upcast(event("a", 2, json!(0))).unwrap_err();
    assert!(matches!(refused, UpcastError::Newer { latest, .. } if latest == version(1)));
    let passed = builder().newer(Newer::Pass).build().unwrap().upcast(event("a", 2, json!(0))).unwrap();
    assert_eq!(passed, [event("a", 2, json!(0))]);
}

#[test]
fn consumers_that_lag_behind_get_the_version_they_know_or_a_named_gap() {
    let upcasters = paid()
        .step("payment.captured", 1, 4, same)
        .step("payment.captured", 2, 4, same)
        .step("payment.captured", 3, 4, same)
        .down("payment.captured", 4, 3, |data| Ok(json!([data])))
        .down("payment.captured", 3, 2, |data| Ok(json!([data])))
        .build()
        .unwrap();
    let down = |to| upcasters.downcast(event("payment.captured", 4, json!(0)), version(to));
    assert_eq!(down(2).unwrap(), event("payment.captured", 2, json!([[0]])));
    assert_eq!(down(4).unwrap(), event("payment.captured", 4, json!(0)));
    assert_eq!(down(1).unwrap_err().to_string(), "payment.captured: 4 -> 3 -> 2 -> ? -> 1: nothing leads further down");
    let leap = Upcasters::builder().down("a", 3, 1, same).build().unwrap();
    assert!(matches!(leap.downcast(event("a", 3, json!(0)), version(2)), Err(UpcastError::NoWayDown { .. })));
}

#[test]
fn a_golden_corpus_finds_each_way_in_which_history_became_unreadable() {
    let registry = SchemaRegistry::new(RegistryPolicy::default());
    let name = "a".parse().unwrap();
    for schema in [json!({"type": "string"}), json!({"type": "integer"})] {
        registry.register(&name, &schema, Compatibility::None).unwrap();
    }
    let schemas: Schemas = registry.current();
    let parsing = |data: Value| Ok(json!(data.as_str().ok_or("not text")?.parse::<i64>()?));
    let upcasters = Upcasters::builder().latest("a", 2).step("a", 1, 2, parsing).build().unwrap();
    let (old, new) = (event("a", 1, json!("5")), event("a", 2, json!(5)));
    assert!(golden::check(&[old.clone(), new.clone()], &upcasters, &schemas).is_ok());

    let text =
        |examples: &[Versioned], upcasters| golden::check(examples, upcasters, &schemas).unwrap_err().to_string();
    assert_eq!(text(std::slice::from_ref(&new), &upcasters), "a 1: there is no example");
    let unreadable = text(&[event("a", 1, json!("five")), new.clone()], &upcasters);
    assert_eq!(
        unreadable,
        "a 1, example 0: cannot be upcast: a 1: the step 1 -> 2 failed: invalid digit found in string"
    );
    assert!(
        text(&[old.clone(), event("a", 2, json!("5"))], &upcasters)
            .starts_with("a 2, example 1: does not fit its own schema")
    );
    let lazy = Upcasters::builder().latest("a", 2).step("a", 1, 2, same).build().unwrap();
    assert!(text(&[old, new], &lazy).starts_with("a 1, example 0: what it becomes does not fit a 2"));
}

#[test]
fn a_step_that_panics_has_failed_on_that_event_alone() {
    let broken = |data: Value| match data["pounds"].as_u64() {
        Some(pounds) => Ok(json!({ "pence": pounds * 100 })),
        None => panic!("no pounds in {data}"),
    };
    let chains = Upcasters::builder().latest("a", 2).step("a", 1, 2, broken).down("a", 2, 1, |_| panic!("no way"));
    let chains = chains.build().unwrap();
    let failed = chains.upcast(event("a", 1, json!({}))).unwrap_err();
    let UpcastError::Failed { step, source, .. } = failed else { panic!("{failed:?}") };
    assert_eq!((step.as_str(), source.to_string().as_str()), ("1 -> 2", "it panicked: no pounds in {}"));
    assert!(matches!(chains.downcast(event("a", 2, json!({})), version(1)), Err(UpcastError::Failed { .. })));
    assert_eq!(chains.upcast(event("a", 1, json!({"pounds": 2}))).unwrap()[0].data, json!({"pence": 200}));
}
