//! A shop asks what things cost: an answer, a fault, nobody there, and a responder that takes too long for its caller. Time is virtual.
//!
//! `cargo run -p quorate-examples --example prices`

use std::{error::Error, time::Duration};

use quorate::{
    Env,
    request::{Answering, Asked, Deadline, Fault, Limits, RequestError, Requests},
};

#[tokio::main(flavor = "current_thread", start_paused = true)]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let requests = Requests::new(&env, Limits::default());
    let answering = Answering { time_limit: Duration::from_secs(30), idempotent: true };
    let prices = requests.declare::<String, u64>(&"price".parse()?, answering)?;
    let ask = async |what: &str| {
        let deadline = Deadline::after(env.mono(), Duration::from_secs(1));
        prices.request(&what.to_owned(), deadline).await
    };

    let nobody = ask("tea").await;
    assert!(matches!(nobody, Err(RequestError::NoResponder { .. })), "{nobody:?}");
    println!("with nobody there: {nobody:?}");

    let slow = env.clone();
    let responder = prices.respond(8, move |asked: Asked<String>| {
        let env = slow.clone();
        async move {
            match asked.body.as_str() {
                "tea" => Ok(250),
                "saffron" => {
                    env.sleep(Duration::from_secs(5)).await;
                    Ok(90_000)
                }
                other => Err(Fault::new("not-sold", format!("there is no {other}"))),
            }
        }
    })?;
    println!("tea: {}", ask("tea").await?);
    let fault = ask("coal").await;
    assert!(matches!(&fault, Err(RequestError::Fault { fault, .. }) if fault.code == "not-sold"), "{fault:?}");
    println!("coal: {fault:?}");

    let unknown = ask("saffron").await;
    assert!(matches!(unknown, Err(RequestError::Unknown { idempotent: true, .. })), "{unknown:?}");
    println!("saffron, within a second: {unknown:?}; the handler was dropped");
    drop(responder);

    let counts = requests.counts();
    assert_eq!((counts.answered, counts.faults, counts.no_responder, counts.unknown), (1, 1, 1, 1));
    println!("{counts:?}");
    Ok(())
}
