//! A call with a second to live passes two services, the second of which has stopped answering. Each hop is told what is left, the
//! work stops when nobody waits any more, and what can't end in time isn't begun. Time is virtual.
//!
//! `cargo run -p quorate-examples --example timeout`

use std::{error::Error, time::Duration};

use quorate::{
    Env,
    resilience::{
        CallError, Scope,
        deadline::Deadline,
        kit::{Reply, Upstream},
        stack::{Plain, Stack},
        timeout::Timers,
    },
};
use tower_layer::Layer as _;
use tower_service::Service as _;

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let timers = Timers::new(&env);

    // What arrives with a request: a second less what the way has taken.
    let begun = env.mono();
    let deadline = Deadline::from_wire("1S", begun)?;
    env.sleep(Duration::from_millis(300)).await;
    let left = deadline.to_wire(env.mono()).ok_or("it has a deadline")?;
    println!("after 300 ms the next hop is told `Quorate-Timeout: {left}`");
    assert_eq!(left, "700000u");

    // The next hop calls somebody who never answers, and takes no longer than what is left.
    let stock = Upstream::new(&env);
    stock.always(Reply::Hang);
    let stack = Stack::builder("stock".parse()?)
        .total(deadline.remaining(env.mono()))
        .attempt(Duration::from_secs(5))
        .build(&timers, Plain::new().judged_by(Upstream::judge))?;
    let ended = stack.layer(stock.clone()).call("item 7").await;
    let Err(CallError::Timeout { scope, waited }) = ended else { return Err("it never answers".into()) };
    println!("the call ended after {waited:?}: the time of the {scope:?} call was up, not that of an attempt");
    assert_eq!(scope, Scope::Total, "an attempt has no more than what is left of the call");
    assert_eq!(stock.in_flight(), 0, "nothing works for somebody who has left");

    let late = env.mono().saturating_since(begun) - Duration::from_secs(1);
    println!("in all it took the second that it had, and {late:?}");
    assert!(late <= Timers::GRAIN);
    Ok(())
}
