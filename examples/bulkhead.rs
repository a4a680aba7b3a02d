//! A hundred calls come at once to a service that bears ten. Ten are under way, ten more wait, and eighty are told at once to come
//! back instead of waiting behind all the others. Time is virtual.
//!
//! `cargo run -p quorate-examples --example bulkhead`

use std::{error::Error, num::NonZeroU32, time::Duration};

use quorate::{
    Env,
    resilience::{
        CallError, Rejection,
        bulkhead::{Config, Limit, Queue, Shares},
        kit::Upstream,
        stack::{Plain, Stack},
        timeout::Timers,
    },
};
use tower_layer::Layer as _;
use tower_service::Service as _;

const CALLS: usize = 100;
const AT_ONCE: NonZeroU32 = NonZeroU32::new(10).unwrap();

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let upstream = Upstream::new(&env);
    upstream.takes(Duration::from_millis(100));

    let config = Config {
        limit: Limit::Fixed(AT_ONCE),
        // Ten more may wait, for no longer than two calls take; the others are told at once.
        queue: Queue { length: 10, max_wait: Duration::from_millis(200) },
        shares: Shares { background: 1.0, normal: 1.0 },
        tenant_share: None,
    };
    let stack = Stack::builder("reports".parse()?)
        .bulkhead(config)
        .build(&Timers::new(&env), Plain::new().judged_by(Upstream::judge))?;

    let begun = env.mono();
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    for nth in 0..CALLS {
        let (mut service, ends) = (stack.layer(upstream.clone()), ends.clone());
        env.tasks().spawn("call", async move {
            // Nobody listens once the example has ended.
            _ = ends.send(service.call(nth).await);
        });
    }
    drop(ends);
    let (mut answered, mut refused) = (0, 0);
    while let Some(end) = ended.recv().await {
        match end {
            Ok(_) => answered += 1,
            Err(CallError::Rejected(Rejection::Bulkhead(_))) => refused += 1,
            Err(other) => return Err(other.into()),
        }
    }
    let took = env.mono().saturating_since(begun);
    println!("{CALLS} calls came at once to a service that takes 100 ms over each");
    println!(
        "  {answered} were answered, {refused} were told to come back; never more than {} at once, all over in {took:?}",
        upstream.most_in_flight()
    );
    assert_eq!((answered, refused), (20, 80), "ten at once, ten that waited, and the others");
    assert_eq!(upstream.most_in_flight(), 10);
    assert!(took < Duration::from_millis(300), "nobody waited behind ninety others");
    Ok(())
}
