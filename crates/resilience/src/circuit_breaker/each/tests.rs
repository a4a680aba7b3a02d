//! Circuits that come, are told apart, and make room.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::{
    super::{Change, Mode, State},
    *,
};
use crate::outcome::{Class, Outcome};

const FAULT: Outcome = Outcome::Upstream(Class::Fault);

fn fragile() -> Config {
    Config { consecutive: NonZeroU32::new(1), ..Config::default() }
}

fn split(per: Per, most: usize) -> Split {
    Split { per, most: NonZeroUsize::new(most).unwrap() }
}

fn at<'a>(endpoint: &'a str, operation: &'a str) -> Asked<'a> {
    Asked { endpoint, operation }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(registry: &Registry) -> Vec<String> {
    registry.snapshots().into_iter().map(|(name, _)| name.to_string()).collect()
}

/// Passes the circuit for `asked` with a call that fails.
fn fail(each: &Each, asked: Asked<'_>, env: &Env) {
    each.of(asked, env.mono()).permit(env.mono()).unwrap().settle(env.mono(), FAULT, None);
}

fn is_open(each: &Each, asked: Asked<'_>, env: &Env) -> bool {
    each.of(asked, env.mono()).snapshot(env.mono()).state == State::Open
}

#[tokio::test(start_paused = true)]
async fn what_is_told_apart_has_a_circuit_each_and_nothing_else_does() {
    let env = Env::real();
    let registry = Registry::new(&env);
    for (per, listed) in [
        (Per::Endpoint, vec!["e", "e/a:1", "e/b:1"]),
        (Per::Operation, vec!["o", "o/charge", "o/refund"]),
        (Per::EndpointAndOperation, vec!["x", "x/-/charge", "x/a:1/-", "x/a:1/charge", "x/a:1/refund", "x/b:1/charge"]),
    ] {
        let each = Each::new(&registry, name(listed[0]), fragile(), split(per, 10)).unwrap();
        for asked in [at("a:1", "charge"), at("a:1", "refund"), at("b:1", "charge"), at("", "")] {
            each.of(asked, env.mono());
        }
        if per == Per::EndpointAndOperation {
            each.of(at("a:1", ""), env.mono());
            each.of(at("", "charge"), env.mono());
        }
        let mine: Vec<_> = names(&registry).into_iter().filter(|one| one.starts_with(listed[0])).collect();
        assert_eq!(mine, listed);
    }
}

#[tokio::test(start_paused = true)]
async fn no_two_that_are_told_apart_share_a_circuit_or_a_name() {
    let env = Env::real();
    let registry = Registry::new(&env);
    let each = Each::new(&registry, name("p"), fragile(), split(Per::EndpointAndOperation, 10)).unwrap();
    let pairs = [("a", ""), ("", "a"), ("a/b", "c"), ("a", "b/c"), ("a%2Fb", "c"), ("-", "a"), ("a", "-")];
    for (endpoint, operation) in pairs {
        assert!(!is_open(&each, at(endpoint, operation), &env), "{endpoint:?} {operation:?}");
        fail(&each, at(endpoint, operation), &env);
    }
    let listed = ["p", "p/%2D/a", "p/-/a", "p/a%252Fb/c", "p/a%2Fb/c", "p/a/%2D", "p/a/-", "p/a/b%2Fc"];
    assert_eq!(names(&registry), listed);
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_of_a_change_may_ask_for_any_circuit_while_room_is_made() {
    let env = Env::real();
    let asked = Arc::new(std::sync::OnceLock::<(Env, Registry, std::sync::Weak<Each>)>::new());
    let ears = asked.clone();
    let listener = move |_: &Name, _: &Change| {
        if let Some((env, registry, each)) = ears.get() {
            each.upgrade().unwrap().snapshots(env.mono());
            registry.snapshots();
        }
    };
    let registry = Registry::with(&env, 4, Some(Arc::new(listener)));
    let each = Arc::new(Each::new(&registry, name("p"), fragile(), split(Per::Endpoint, 1)).unwrap());
    assert!(asked.set((env.clone(), registry.clone(), Arc::downgrade(&each))).is_ok());
    fail(&each, at("gone", ""), &env);
    env.sleep(Duration::from_secs(60)).await;
    // What has to make room was open, and nobody has asked since its time was up.
    each.of(at("new", ""), env.mono());
    assert_eq!(names(&registry), ["p", "p/new"]);
    // One that somebody has left open is asked for again when its time is up.
    let left = registry.breaker(&name("p/left"), &fragile()).unwrap();
    left.permit(env.mono()).unwrap().settle(env.mono(), FAULT, None);
    drop(left);
    env.sleep(Duration::from_secs(60)).await;
    each.of(at("left", ""), env.mono());
    assert_eq!(names(&registry), ["p", "p/left"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_left_open_makes_room_in_a_full_registry_and_so_does_what_is_ones_own() {
    let env = Env::real();
    let registry = Registry::with(&env, 3, None);
    let gone = Each::new(&registry, name("gone"), fragile(), split(Per::Endpoint, 10)).unwrap();
    fail(&gone, at("a", ""), &env);
    fail(&gone, at("b", ""), &env);
    drop(gone);
    assert_eq!(names(&registry), ["gone/a", "gone/b"], "what is open is remembered");
    let each = Each::new(&registry, name("p"), fragile(), split(Per::Endpoint, 10)).unwrap();
    assert!(Arc::ptr_eq(&each.of(at("a", ""), env.mono()), each.own()), "there is no room");
    env.sleep(Duration::from_secs(60)).await;
    for endpoint in ["a", "b"] {
        each.of(at(endpoint, ""), env.mono());
    }
    assert_eq!(names(&registry), ["p", "p/a", "p/b"]);
    // The registry is full of its own, of which nobody needs any but the last for long.
    assert!(Arc::ptr_eq(&each.of(at("c", ""), env.mono()), each.own()));
    env.sleep(Duration::from_secs(60)).await;
    each.of(at("c", ""), env.mono());
    assert!(names(&registry).contains(&"p/c".to_owned()), "{:?}", names(&registry));
}

#[tokio::test(start_paused = true)]
async fn one_bad_replica_opens_its_own_circuit_alone() {
    let env = Env::real();
    let each = Each::alone(&env, name("payments"), fragile(), split(Per::Endpoint, 10)).unwrap();
    fail(&each, at("bad", "charge"), &env);
    assert!(is_open(&each, at("bad", "refund"), &env));
    assert!(!is_open(&each, at("good", "charge"), &env) && !is_open(&each, at("", ""), &env));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_names_shares_one_circuit_and_takes_nothing_from_those_in_use() {
    let env = Env::real();
    let registry = Registry::new(&env);
    let each = Each::new(&registry, name("p"), fragile(), split(Per::Endpoint, 4)).unwrap();
    fail(&each, at("bad", ""), &env);
    for nth in 0..1_000 {
        each.of(at(&format!("flood-{nth}"), ""), env.mono());
    }
    assert_eq!(names(&registry).len(), 5, "its own, and as many as there may be");
    assert!(is_open(&each, at("bad", ""), &env), "it was there first");
    assert_eq!(each.crowded(), 997);
    assert!(Arc::ptr_eq(&each.of(at("flood-999", ""), env.mono()), each.own()));
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_are_gone_make_room_also_if_their_circuits_had_opened() {
    let env = Env::real();
    let registry = Registry::new(&env);
    let each = Each::new(&registry, name("p"), fragile(), split(Per::Endpoint, 2)).unwrap();
    fail(&each, at("gone", ""), &env);
    each.of(at("forced", ""), env.mono()).operate(Mode::ForcedOpen, env.mono());
    env.sleep(Duration::from_secs(60)).await;
    each.of(at("new", ""), env.mono());
    assert_eq!(names(&registry), ["p", "p/forced", "p/new"], "an operator's word is kept");
    // One in use, whose circuit is closed, makes room for nobody.
    env.sleep(Duration::from_secs(1)).await;
    each.of(at("newer", ""), env.mono());
    assert_eq!(names(&registry), ["p", "p/forced", "p/new"]);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_an_attempt_is_under_way_through_is_not_forgotten() {
    let env = Env::real();
    let each = Each::alone(&env, name("p"), fragile(), split(Per::Endpoint, 1)).unwrap();
    let held = each.of(at("slow", ""), env.mono());
    let another = held.clone();
    env.sleep(Duration::from_secs(60)).await;
    assert!(Arc::ptr_eq(&each.of(at("other", ""), env.mono()), each.own()));
    assert!(Arc::ptr_eq(&each.of(at("slow", ""), env.mono()), &held));
    drop(another);
}

#[tokio::test(start_paused = true)]
async fn other_rules_hold_for_all_and_what_is_remembered_stays() {
    let env = Env::real();
    let each = Each::alone(&env, name("p"), fragile(), split(Per::Endpoint, 2)).unwrap();
    fail(&each, at("bad", ""), &env);
    each.of(at("good", ""), env.mono());
    let twice = Config { consecutive: NonZeroU32::new(2), ..fragile() };
    each.configure(&twice, NonZeroUsize::new(3).unwrap(), env.mono()).unwrap();
    assert!(is_open(&each, at("bad", ""), &env));
    for endpoint in ["good", "new"] {
        fail(&each, at(endpoint, ""), &env);
        assert!(!is_open(&each, at(endpoint, ""), &env), "{endpoint}: one is not two");
        fail(&each, at(endpoint, ""), &env);
        assert!(is_open(&each, at(endpoint, ""), &env), "{endpoint}");
    }
    // There may be fewer from now on: what is too much goes as soon as nobody needs it.
    each.configure(&twice, NonZeroUsize::new(1).unwrap(), env.mono()).unwrap();
    env.sleep(Duration::from_secs(120)).await;
    each.of(at("last", ""), env.mono());
    assert_eq!(each.names(), [name("p/last")]);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_asks_of_the_dependency_holds_for_all_until_it_is_taken_back() {
    let env = Env::real();
    let each = Each::alone(&env, name("p"), fragile(), split(Per::Endpoint, 4)).unwrap();
    fail(&each, at("bad", ""), &env);
    each.own().operate(Mode::ForcedOpen, env.mono());
    assert!(each.of(at("good", ""), env.mono()).permit(env.mono()).is_err());
    assert!(each.of(at("never-seen", ""), env.mono()).permit(env.mono()).is_err());
    each.own().operate(Mode::Automatic, env.mono());
    assert!(each.of(at("good", ""), env.mono()).permit(env.mono()).is_ok());
    assert!(is_open(&each, at("bad", ""), &env), "what it had remembered");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_name_passes_the_dependencys_own_circuit() {
    let env = Env::real();
    let each = Each::alone(&env, name("p"), fragile(), split(Per::Operation, 4)).unwrap();
    let long = "x".repeat(600);
    for operation in [long.as_str(), "tab\there"] {
        assert!(Arc::ptr_eq(&each.of(at("", operation), env.mono()), each.own()));
    }
    assert_eq!(each.snapshots(env.mono()), []);
}

#[test]
fn threads_that_ask_for_the_same_at_once_pass_one_circuit() {
    let env = Env::real();
    let registry = Registry::new(&env);
    let each = Each::new(&registry, name("p"), fragile(), split(Per::Endpoint, 4)).unwrap();
    let now = env.mono();
    let found: Vec<Arc<Breaker>> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8)
            .map(|nth| {
                let each = &each;
                scope.spawn(move || each.of(at(["a", "b"][nth % 2], ""), now))
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (nth, circuit) in found.iter().enumerate() {
        assert!(Arc::ptr_eq(circuit, &found[nth % 2]));
    }
    assert_eq!(names(&registry), ["p", "p/a", "p/b"]);
}

proptest! {
    #[test]
    fn any_sequence_keeps_what_is_open_and_no_more_circuits_than_there_may_be(
        acts in proptest::collection::vec((0..6_usize, any::<bool>(), 0..40_000_u64), 1..80),
        most in 1..4_usize,
    ) {
        let rest = Duration::from_secs(60);
        let open = super::super::Open { min: rest, max: rest, jitter: 0.0 };
        let env = Env::real();
        let each = Each::alone(&env, name("p"), Config { open, ..fragile() }, split(Per::Endpoint, most)).unwrap();
        let (mut now, mut open_until) = (env.mono(), [Mono::ZERO; 6]);
        for (endpoint, fails, millis) in acts {
            now = now + Duration::from_millis(millis);
            let circuit = each.of(at(["a", "b", "c", "d", "e", "f"][endpoint], ""), now);
            prop_assert!(each.names().len() <= most);
            if Arc::ptr_eq(&circuit, each.own()) {
                // Others share it: what is known of one endpoint is not known here.
                prop_assert!(now >= open_until[endpoint], "it was open, and is forgotten");
                continue;
            }
            let permit = circuit.permit(now);
            prop_assert_eq!(permit.is_err(), now < open_until[endpoint], "at {:?}", now);
            if let (Ok(permit), true) = (permit, fails) {
                permit.settle(now, FAULT, None);
                open_until[endpoint] = now + rest;
            }
        }
    }
}
