//! A circuit for each endpoint and operation, where a document asks for it.

use std::sync::OnceLock;

use super::*;
use crate::{
    bulkhead::Ask,
    circuit_breaker::{Asked, Mode},
    hop::Hop,
    retry::Repeatable,
    stack::{Answers, Intent, Living, Requests, Rest, Try},
};

/// Requests that are an endpoint and an operation.
#[derive(Clone, Copy)]
struct Said;

type Pair = (&'static str, &'static str);

impl Requests<Pair> for Said {
    type Sent = Pair;
    type Kept = Pair;

    fn intent(&self, _: &Pair, _: Mono) -> Intent {
        Intent { repeatable: Repeatable::Idempotent, hop: Hop::FIRST, ask: Ask::default() }
    }

    fn split(&self, request: Pair, keep: bool) -> (Pair, Option<Pair>) {
        (request, keep.then_some(request))
    }

    fn again(&self, kept: &Pair) -> Option<Pair> {
        Some(*kept)
    }

    fn stamp(&self, _: &mut Pair, _: Try, _: Mono) {}

    fn asked<'a>(&self, sent: &'a Pair) -> Asked<'a> {
        Asked { endpoint: sent.0, operation: sent.1 }
    }
}

impl Answers<Pair, Failed> for Said {
    type Answer = Pair;

    fn judge(&self, result: Result<&Pair, &Failed>) -> Verdict {
        Upstream::judge(result)
    }

    fn deliver(&self, answer: Pair, rest: Rest<'_>) -> Pair {
        rest.complete();
        answer
    }
}

struct Payments {
    env: Env,
    breakers: circuit_breaker::Registry,
    policies: Registry,
    upstream: Upstream,
    service: Living<Upstream, Said>,
}

fn payments(spec: &str) -> Payments {
    let env = Env::real();
    let breakers = circuit_breaker::Registry::new(&env);
    let policies = Registry::new(&Stacks::new(&Timers::new(&env)), &breakers);
    apply(&policies, &[policy("payments", spec)]);
    let upstream = Upstream::new(&env);
    let service = policies.stack(&name("payments"), Said).unwrap().layer(upstream.clone());
    Payments { env, breakers, policies, upstream, service }
}

impl Payments {
    async fn fails(&mut self, asked: Pair) {
        self.upstream.script([Reply::Fail]);
        assert!(matches!(self.service.call(asked).await, Err(CallError::Upstream(..))));
    }

    async fn is_refused(&mut self, asked: Pair) -> bool {
        matches!(self.service.call(asked).await, Err(CallError::Rejected(Rejection::Breaker(_))))
    }

    fn listed(&self) -> Vec<String> {
        self.breakers.snapshots().into_iter().map(|(name, _)| name.to_string()).collect()
    }
}

const EACH: &str = "breaker: {per: endpointAndOperation, consecutive: 1, open: {min: 60s, max: 60s, jitter: 0.1}}";

#[tokio::test(start_paused = true)]
async fn each_operation_of_each_endpoint_has_a_circuit_that_is_listed_by_name() {
    let mut payments = payments(EACH);
    payments.fails(("10.0.0.7:443", "charge")).await;
    assert!(payments.is_refused(("10.0.0.7:443", "charge")).await);
    assert!(!payments.is_refused(("10.0.0.7:443", "refund")).await);
    assert!(!payments.is_refused(("10.0.0.8:443", "charge")).await);
    let listed =
        ["payments", "payments/10.0.0.7:443/charge", "payments/10.0.0.7:443/refund", "payments/10.0.0.8:443/charge"];
    assert_eq!(payments.listed(), listed);
    let standing = payments.policies.standing(&name("payments")).unwrap();
    let states: Vec<State> = standing.circuits.unwrap().all.iter().map(|(_, one)| one.state).collect();
    assert_eq!(states, [State::Open, State::Closed, State::Closed]);
}

#[tokio::test(start_paused = true)]
async fn open_circuits_of_endpoints_stay_open_when_their_policy_changes() {
    let mut payments = payments(EACH);
    payments.fails(("a", "charge")).await;
    assert!(!payments.is_refused(("b", "charge")).await);
    // Something else changes, and the rules of those that are there already.
    let text = EACH.replace("consecutive: 1", "consecutive: 2");
    apply(&payments.policies, &[policy("payments", &format!("{text}, timeouts: {{request: 3s}}"))]);
    assert!(payments.is_refused(("a", "charge")).await);
    payments.fails(("b", "charge")).await;
    assert!(!payments.is_refused(("b", "charge")).await, "one is not two any more");
    // Told apart otherwise they are others, and those of before are gone but for what is open.
    let text = EACH.replace("endpointAndOperation", "endpoint");
    apply(&payments.policies, &[policy("payments", &text)]);
    assert!(!payments.is_refused(("a", "charge")).await);
    apply(&payments.policies, &[policy("payments", &format!("{text}, timeouts: {{request: 3s}}"))]);
    let open = payments.breakers.get(&name("payments/a/charge")).unwrap();
    assert_eq!(open.snapshot(payments.env.mono()).state, State::Open);
    apply(&payments.policies, &[]);
    assert!(!payments.is_refused(("a", "charge")).await, "without a policy nothing is refused");
    assert_eq!(payments.listed(), ["payments/a/charge"], "one that comes back finds what is open");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_dropped_gives_the_probe_of_its_endpoint_back() {
    let mut payments = payments(EACH);
    payments.fails(("a", "charge")).await;
    payments.env.sleep(Duration::from_secs(70)).await;
    payments.upstream.script([Reply::Hang]);
    let probe = payments.env.timeout(Duration::from_secs(1), payments.service.call(("a", "charge"))).await;
    assert!(probe.is_none(), "it was under way");
    assert!(!payments.is_refused(("a", "charge")).await, "the next one may try at once");
    let (_, circuit) = payments.policies.standing(&name("payments")).unwrap().circuits.unwrap().all.remove(0);
    assert_eq!(circuit.state, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_retry_passes_the_circuit_of_whom_it_asks() {
    let mut payments = payments(&format!("{EACH}, retry: {{attempts: 2, backoff: 1ms}}"));
    payments.upstream.always(Reply::Fail);
    // The second attempt finds the circuit open that the first one opened: the call has failed as the first one did, and was heard.
    payments.fails(("a", "charge")).await;
    assert_eq!(payments.upstream.heard().len(), 1);
    assert!(payments.is_refused(("a", "charge")).await);
    // A probe that finds it ill isn't sent again, nor does its call say that nobody heard it.
    payments.env.sleep(Duration::from_secs(70)).await;
    let begun = payments.env.mono();
    payments.fails(("a", "charge")).await;
    assert_eq!((payments.env.mono(), payments.upstream.heard().len()), (begun, 2));
    let outcomes = payments.policies.standing(&name("payments")).unwrap().outcomes;
    let of = |wanted: &str| outcomes.iter().find(|(word, _)| *word == wanted).unwrap().1;
    assert_eq!((of("fault"), of("rejected_breaker")), (2, 1));
    payments.upstream.always(Reply::Answer);
    assert!(!payments.is_refused(("b", "charge")).await);
}

#[tokio::test(start_paused = true)]
async fn an_operator_steers_one_circuit_or_all_of_a_dependency() {
    let mut payments = payments(EACH);
    assert!(!payments.is_refused(("a", "charge")).await);
    let (one, own) = (payments.breakers.get(&name("payments/a/charge")), payments.breakers.get(&name("payments")));
    one.unwrap().operate(Mode::ForcedOpen, payments.env.mono());
    assert!(payments.is_refused(("a", "charge")).await);
    assert!(!payments.is_refused(("b", "charge")).await);
    let own = own.unwrap();
    own.operate(Mode::ForcedOpen, payments.env.mono());
    assert!(payments.is_refused(("b", "charge")).await && payments.is_refused(("new", "charge")).await);
    own.operate(Mode::Automatic, payments.env.mono());
    assert!(!payments.is_refused(("b", "charge")).await && payments.is_refused(("a", "charge")).await);
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_a_dependency_closes_its_circuits_and_no_others() {
    let mut payments = payments(EACH);
    for asked in [("a", "charge"), ("b", "charge")] {
        payments.fails(asked).await;
        assert!(payments.is_refused(asked).await);
    }
    // One that only has a name like theirs is another one.
    let config = circuit_breaker::Config::default();
    let other = payments.breakers.breaker(&name("payments/c/charge"), &config).unwrap();
    other.operate(Mode::ForcedOpen, payments.env.mono());
    let kept = payments.breakers.get(&name("payments/b/charge")).unwrap();
    kept.operate(Mode::ForcedOpen, payments.env.mono());
    let generation = other.snapshot(payments.env.mono()).generation;
    assert_eq!(payments.breakers.reset(&name("payments")).unwrap().state, State::Closed);
    assert!(!payments.is_refused(("a", "charge")).await);
    assert!(payments.is_refused(("b", "charge")).await, "what was asked of one by itself stays");
    assert_eq!(other.snapshot(payments.env.mono()).generation, generation);
    assert!(payments.breakers.reset(&name("nobody")).is_none());
}

#[tokio::test(start_paused = true)]
async fn counters_go_on_whatever_documents_say_meanwhile() {
    let mut payments = payments(&format!("{COUNTS}, {}", EACH.replace("per:", "most: 1, per:")));
    payments.upstream.always(Reply::Fail);
    for asked in [("a", "charge"), ("b", "charge"), ("c", "charge")] {
        assert!(payments.service.call(asked).await.is_err());
    }
    let counted = |payments: &Payments| {
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &payments.env.metrics()).unwrap();
        let of = |line: &&str| line.contains("payments\"") && !line.starts_with("quorate_breaker_refused");
        let counters = metrics.lines().filter(of).filter(|line| line.contains("_total{")).map(str::to_owned);
        counters.collect::<Vec<_>>()
    };
    let before = counted(&payments);
    assert!(
        before.iter().any(|line| line.starts_with("quorate_breaker_crowded") && !line.ends_with(" 0")),
        "{before:?}"
    );
    assert!(before.iter().any(|line| line.starts_with("quorate_retries_total") && !line.ends_with(" 0")), "{before:?}");
    apply(&payments.policies, &[policy("payments", "timeouts: {request: 3s}")]);
    apply(&payments.policies, &[]);
    let each = EACH.replace("endpointAndOperation", "endpoint");
    apply(&payments.policies, &[policy("payments", &format!("{COUNTS}, {each}"))]);
    assert_eq!(counted(&payments), before);
}

const COUNTS: &str = "retry: {attempts: 1, backoff: 1ms}, concurrency: {max: 5}";

#[tokio::test(start_paused = true)]
async fn while_every_endpoint_is_out_calls_fail_at_once_and_the_counts_say_why() {
    let mut payments = payments(EACH);
    let endpoints = ["a", "b", "c"];
    for endpoint in endpoints {
        payments.fails((endpoint, "charge")).await;
    }
    let begun = payments.env.mono();
    for endpoint in endpoints {
        assert!(payments.is_refused((endpoint, "charge")).await);
    }
    assert_eq!((payments.env.mono(), payments.upstream.heard().len()), (begun, 3));
    let outcomes = payments.policies.standing(&name("payments")).unwrap().outcomes;
    assert_eq!(outcomes.iter().find(|(word, _)| *word == "rejected_breaker").unwrap().1, 3);
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &payments.env.metrics()).unwrap();
    for line in [
        r#"quorate_calls_total{dependency="payments",outcome="rejected_breaker"} 3"#,
        r#"quorate_breaker_state{breaker="payments/a/charge"} 2"#,
        r#"quorate_breaker_crowded_total{dependency="payments"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_have_one_name_twice_is_refused_and_changes_nothing() {
    let payments = payments(EACH);
    let both = documents(&[policy("payments", EACH), policy("payments/a", FRAGILE)]);
    let refused = payments.policies.apply(&both).unwrap_err();
    assert_eq!(refused, ApplyError::Within { dependency: name("payments/a"), of: name("payments") });
    assert_eq!(payments.policies.standings().len(), 1);
    // One that only begins alike is another one.
    apply(&payments.policies, &[policy("payments", EACH), policy("payments-v2/a", FRAGILE)]);
}

#[tokio::test(start_paused = true)]
async fn whoever_hears_what_documents_make_of_a_circuit_may_ask_for_it() {
    let env = Env::real();
    let asks = Arc::new(OnceLock::<Registry>::new());
    let listener: circuit_breaker::NamedListener = {
        let asks = asks.clone();
        Arc::new(move |name: &Name, _| drop(asks.get().map(|policies| policies.standing(name))))
    };
    let breakers = circuit_breaker::Registry::with(&env, 10, Some(listener));
    let policies = Registry::new(&Stacks::new(&Timers::new(&env)), &breakers);
    asks.set(policies.clone()).ok().unwrap();
    let spec = |probes| format!("breaker: {{consecutive: 1, probes: {probes}, open: {{min: 1s, max: 1s}}}}");
    apply(&policies, &[policy("a", &spec(2))]);
    let upstream = Upstream::new(&env);
    let stack = policies.stack(&name("a"), plain()).unwrap();
    upstream.script([Reply::Fail]);
    assert!(stack.layer(upstream.clone()).call(1).await.is_err());
    env.sleep(Duration::from_secs(2)).await;
    assert!(stack.layer(upstream.clone()).call(1).await.is_ok());
    assert_eq!(breakers.snapshots()[0].1.state, State::HalfOpen);
    apply(&policies, &[policy("a", &spec(1))]);
    assert_eq!(breakers.snapshots()[0].1.state, State::Closed);
}
