//! What passing a policy costs a call that succeeds: quorate's beside others', and one atomic add beside all of them.
//!
//! One process, one figure after the other, all contenders of a figure in turns: what is printed is the median over the
//! rounds, so that a machine whose speed drifts drifts for all.

mod peers;

use std::{
    future::{Future, poll_fn},
    hint::black_box,
    num::NonZeroU32,
    pin::{Pin, pin},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use quorate_foundations::time::Mono;
use quorate_resilience::{
    Class, Outcome, Scope,
    bulkhead::{self, Ask, Bulkhead},
    circuit_breaker::{self, Breaker},
    deadline::Deadline,
    dice::Dice,
    latency::Latency,
    rate_limit::{Limiter, Rate},
    retry,
    stack::{Plain, Stack},
    timeout::{self, Alarm, Timers},
};
use quorate_runtime::Env;
use tower::{Layer as _, Service};

const SUCCESS: Outcome = Outcome::Upstream(Class::Success);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name| arguments.iter().skip_while(|argument| **argument != name).nth(1);
    let (only, solo) = (after("--only"), arguments.iter().any(|argument| argument == "--solo"));
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (rounds, calls) = if quick { (1, 100_000) } else { (9, 3_000_000) };
    println!("{:<28}{:>8}{:>10}{:>10}", "", "threads", "ns/call", "of ours");
    for threads in [1, 2] {
        for (figure, mut contenders) in figures() {
            if only.is_some_and(|only| only != figure) {
                continue;
            }
            // For a profile of ours.
            contenders.truncate(if solo { 1 } else { usize::MAX });
            let mut spans = vec![Vec::new(); contenders.len()];
            for _ in 0..rounds {
                for (contender, spans) in contenders.iter().zip(&mut spans) {
                    spans.push((contender.run)(threads, calls));
                }
            }
            let medians: Vec<f64> = spans.into_iter().map(median).collect();
            for (contender, nanos) in contenders.iter().zip(&medians) {
                let name = format!("{figure}/{}", contender.name);
                println!("{name:<28}{threads:>8}{nanos:>10.1}{:>10.2}", medians[0] / nanos);
            }
        }
    }
}

fn median(mut spans: Vec<f64>) -> f64 {
    spans.sort_by(f64::total_cmp);
    spans[spans.len() / 2]
}

/// Somebody who is measured: nanoseconds per call of so many threads and calls.
struct Contender {
    name: &'static str,
    run: Box<dyn Fn(usize, u64) -> f64>,
}

/// Ours first in each.
fn figures() -> Vec<(&'static str, Vec<Contender>)> {
    vec![
        ("atomic", vec![atomic_add(), clock()]),
        ("breaker", vec![our_breaker(), failsafe(), recloser(), peers::breaker()]),
        ("limiter", vec![our_limiter(), our_limiter_with_clock(), governor(), peers::limiter()]),
        ("bulkhead", vec![our_bulkhead(false), our_bulkhead(true), tower_limit(), peers::bulkhead()]),
        ("timeout", vec![our_timeout(), tower_timeout(), peers::timeout()]),
        ("latency", vec![our_latency()]),
        ("stack", vec![our_stack(), tower_stack(), peers::stack()]),
    ]
}

/// A contender that makes its calls from plain threads; each thread gets a caller of its own.
fn threaded<C: FnMut()>(name: &'static str, caller: impl Fn() -> C + Sync + 'static) -> Contender {
    let run = move |threads: usize, calls: u64| {
        beside(threads, calls, || {
            let mut call = caller();
            move |calls| (0..calls).for_each(|_| call())
        })
    };
    Contender { name, run: Box::new(run) }
}

/// Nanoseconds that a call takes each of the threads, which begin together.
fn beside<W: FnMut(u64)>(threads: usize, calls: u64, worker: impl Fn() -> W + Sync) -> f64 {
    let (start, worker) = (&Barrier::new(threads), &worker);
    let nanos: f64 = thread::scope(|scope| {
        let run = move || {
            let mut work = worker();
            work(calls / 100);
            start.wait();
            let begun = Instant::now();
            work(calls);
            begun.elapsed().as_secs_f64() * 1e9
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().expect("a measured call doesn't panic")).sum()
    });
    nanos / (calls as f64 * threads as f64)
}

fn atomic_add() -> Contender {
    let shared = Arc::new(AtomicU64::new(0));
    threaded("one shared add", move || {
        let shared = shared.clone();
        move || _ = black_box(shared.fetch_add(1, Ordering::Relaxed))
    })
}

fn clock() -> Contender {
    let env = Env::real();
    threaded("Env::mono", move || {
        let env = env.clone();
        move || _ = black_box(env.mono())
    })
}

/// The time that a stack of policies has read once for all of them.
fn now() -> Mono {
    black_box(Mono::ZERO + Duration::from_millis(1))
}

fn our_breaker() -> Contender {
    let config = circuit_breaker::Config::default();
    let breaker = Arc::new(Breaker::new(config, Dice::seeded(1), Mono::ZERO).expect("a valid configuration"));
    threaded("quorate", move || {
        let breaker = breaker.clone();
        move || {
            if let Ok(permit) = breaker.permit(now()) {
                permit.settle(now(), SUCCESS, None);
            }
        }
    })
}

fn failsafe() -> Contender {
    use failsafe::CircuitBreaker as _;
    let breaker = failsafe::Config::new().build();
    threaded("failsafe", move || {
        let breaker = breaker.clone();
        move || drop(black_box(breaker.call(|| Ok::<_, ()>(()))))
    })
}

fn recloser() -> Contender {
    let breaker = Arc::new(recloser::Recloser::default());
    threaded("recloser", move || {
        let breaker = breaker.clone();
        move || drop(black_box(breaker.call(|| Ok::<_, ()>(()))))
    })
}

/// As many as can be told apart, and a burst that outlasts the measurement.
fn limiter() -> Arc<Limiter> {
    let rate = Rate::new(NonZeroU32::new(10_000_000).expect("not zero"), Duration::from_secs(1));
    Arc::new(Limiter::new(rate.with_burst(NonZeroU32::MAX)).expect("a valid rate"))
}

fn our_limiter() -> Contender {
    let limiter = limiter();
    threaded("quorate", move || {
        let limiter = limiter.clone();
        move || assert!(limiter.take(now(), black_box(1)).is_ok())
    })
}

fn our_limiter_with_clock() -> Contender {
    let (limiter, env) = (limiter(), Env::real());
    threaded("quorate + clock", move || {
        let (limiter, env) = (limiter.clone(), env.clone());
        move || assert!(limiter.take(env.mono(), black_box(1)).is_ok())
    })
}

fn governor() -> Contender {
    let limiter = Arc::new(governor::RateLimiter::direct(governor::Quota::per_second(NonZeroU32::MAX)));
    threaded("governor", move || {
        let limiter = limiter.clone();
        move || assert!(limiter.check().is_ok())
    })
}

fn our_bulkhead(adaptive: bool) -> Contender {
    let limit = match adaptive {
        false => bulkhead::Config::default().limit,
        true => bulkhead::Limit::Adaptive(bulkhead::Adaptive::default()),
    };
    let config = bulkhead::Config { limit, ..bulkhead::Config::default() };
    let bulkhead = Arc::new(Bulkhead::new(config, Mono::ZERO).expect("a valid configuration"));
    let name = if adaptive { "quorate adaptive" } else { "quorate" };
    threaded(name, move || {
        let (bulkhead, ask) = (bulkhead.clone(), Ask::default());
        move || match Bulkhead::try_enter(&*bulkhead, now(), black_box(&ask)) {
            Ok(permit) => permit.settle(now(), SUCCESS),
            Err(full) => panic!("{full}"),
        }
    })
}

fn tower_limit() -> Contender {
    let service = tower::service_fn(|()| std::future::ready(Ok::<_, ()>(())));
    let service = tower::limit::ConcurrencyLimit::new(service, 100);
    threaded("tower", move || {
        let mut service = service.clone();
        move || {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut cx).is_ready());
            assert!(pin!(service.call(())).poll(&mut cx).is_ready());
        }
    })
}

/// Is ready when it is polled a second time: a call that takes a moment.
struct Twice(bool);

impl Future for Twice {
    type Output = Result<(), tower::BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

/// A contender whose calls are made inside a runtime, one per thread.
fn in_runtime<C: FnMut(&mut Context<'_>)>(name: &'static str, caller: impl Fn() -> C + Sync + 'static) -> Contender {
    let run = move |threads: usize, calls: u64| {
        beside(threads, calls / 10, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let mut call = {
                let _inside = runtime.enter();
                caller()
            };
            move |calls| {
                let all = poll_fn(|cx| {
                    (0..calls).for_each(|_| call(cx));
                    Poll::Ready(())
                });
                runtime.block_on(tokio::task::unconstrained(all));
            }
        })
    };
    Contender { name, run: Box::new(run) }
}

fn our_timeout() -> Contender {
    let timers = Timers::new(&Env::real());
    in_runtime("quorate", move || {
        let timers = timers.clone();
        move |cx| {
            let (mut call, deadline) = (pin!(Twice(false)), Deadline::after(now(), Duration::from_secs(10)));
            let mut alarm = Alarm::new(&timers, deadline);
            assert!(call.as_mut().poll(cx).is_pending() && alarm.ring(cx).is_pending());
            assert!(call.as_mut().poll(cx).is_ready());
            black_box(Scope::Total);
        }
    })
}

fn tower_timeout() -> Contender {
    in_runtime("tower", || {
        let service = tower::service_fn(|()| Twice(false));
        let mut service = tower::timeout::Timeout::new(service, Duration::from_secs(10));
        move |cx| {
            let mut call = pin!(service.call(()));
            assert!(call.as_mut().poll(cx).is_pending());
            assert!(call.as_mut().poll(cx).is_ready());
        }
    })
}

fn our_latency() -> Contender {
    let latency = Arc::new(Latency::default());
    threaded("quorate", move || {
        let latency = latency.clone();
        move || latency.record(now(), black_box(Duration::from_micros(700)))
    })
}

/// Everything that a call may pass: rate limit, deadline, two breakers, bulkhead, retry with its budget, timeout.
fn our_stack() -> Contender {
    let rate = Rate::new(NonZeroU32::new(10_000_000).expect("not zero"), Duration::from_secs(1));
    let stack = Stack::builder("bench".parse().expect("a name"))
        .limit(rate.with_burst(NonZeroU32::MAX))
        .timeouts(timeout::Config::default())
        .breaker(circuit_breaker::Config::default())
        .bulkhead(bulkhead::Config::default())
        .retry(retry::Config::default(), retry::BudgetConfig::default())
        .endpoint_breaker(circuit_breaker::Config::default())
        .build(&Timers::new(&Env::real()), Plain::idempotent())
        .expect("a valid stack");
    threaded("quorate", move || {
        let mut service = stack.layer(tower::service_fn(|n: u64| std::future::ready(Ok::<_, ()>(n))));
        move || {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pin!(service.call(black_box(1))).poll(&mut cx).is_ready());
        }
    })
}

/// What tower has of it: a timeout and a concurrency limit.
fn tower_stack() -> Contender {
    in_runtime("tower timeout + limit", || {
        let service = tower::service_fn(|n: u64| std::future::ready(Ok::<_, tower::BoxError>(n)));
        let service = tower::limit::ConcurrencyLimit::new(service, 100);
        let mut service = tower::timeout::Timeout::new(service, Duration::from_secs(10));
        move |cx| {
            assert!(service.poll_ready(cx).is_ready());
            assert!(pin!(service.call(black_box(1))).poll(cx).is_ready());
        }
    })
}
