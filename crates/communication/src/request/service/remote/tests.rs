//! Responders elsewhere, by their tickets.

use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use quorate_runtime::Env;

use super::*;
use crate::request::{
    Contract, Exchange, Fault, Limits, RequestError, Standing,
    machine::{Refusal, Unknown},
};

fn kind() -> Name {
    "price".parse().unwrap()
}

fn contract() -> Contract {
    Contract { exchange: Exchange::Answer { idempotent: false }, time_limit: Duration::from_secs(60) }
}

fn tea() -> Payload {
    Payload { content_type: Some("text/plain".into()), bytes: Bytes::from_static(b"tea") }
}

/// What the responder is asked next.
async fn asked(remote: &mut Remote) -> Asking {
    match remote.next().await {
        Some(Told::Asked(asking)) => asking,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_under_its_ticket_reaches_the_caller_as_it_was_sent_and_only_once() {
    let requests = Requests::new(&Env::real(), Limits::default());
    let mut remote = requests.serve_elsewhere(&kind(), 1).unwrap();
    let contract = contract();
    let kind = kind();
    let mut asking = Box::pin(requests.call(&kind, &contract, tea(), Deadline::NEVER));
    assert!(poll!(&mut asking).is_pending());
    let Asking { ticket, body, .. } = asked(&mut remote).await;
    assert_eq!(body, tea());
    let verdict = || Verdict::Answer(tea());
    assert_eq!(requests.answer(&kind, ticket, verdict()), Receipt::NotHeld, "it has not left yet");
    assert!(remote.begin(ticket));
    let others = Ticket { seat: ticket.seat ^ 1, ..ticket };
    assert_eq!(requests.answer(&kind, others, verdict()), Receipt::NotHeld);
    assert_eq!(requests.answer(&"stock".parse().unwrap(), ticket, verdict()), Receipt::NotHeld);
    assert_eq!(requests.answer(&kind, ticket, verdict()), Receipt::Taken);
    assert_eq!(requests.answer(&kind, ticket, verdict()), Receipt::NotHeld);
    assert!(!requests.let_go(&kind, ticket));
    assert_eq!(asking.await, Ok(Some(tea())));
}

#[tokio::test(start_paused = true)]
async fn what_a_responder_that_left_had_begun_on_is_unknown_and_what_it_had_not_is_anothers() {
    let requests = Requests::new(&Env::real(), Limits::default());
    let mut first = requests.serve_elsewhere(&kind(), 2).unwrap();
    let (contract, kind) = (contract(), kind());
    let mut begun = Box::pin(requests.call(&kind, &contract, tea(), Deadline::NEVER));
    let mut unseen = Box::pin(requests.call(&kind, &contract, tea(), Deadline::NEVER));
    assert!(poll!(&mut begun).is_pending() && poll!(&mut unseen).is_pending());
    let ticket = asked(&mut first).await.ticket;
    assert!(first.begin(ticket));
    let mut second = requests.serve_elsewhere(&kind, 1).unwrap();
    drop(first);
    let unknown = begun.await.unwrap_err();
    assert!(matches!(unknown, RequestError::Unknown { why: Unknown::ResponderLeft, .. }), "{unknown:?}");
    assert_eq!(requests.answer(&kind, ticket, Verdict::Answer(tea())), Receipt::NotHeld, "it is gone");
    let ticket = asked(&mut second).await.ticket;
    assert!(second.begin(ticket));
    let fault = Fault::new("not-sold", "no tea");
    assert_eq!(requests.answer(&kind, ticket, Verdict::Fault(fault.clone())), Receipt::Taken);
    assert_eq!(unseen.await, Err(RequestError::Fault { kind: kind.clone(), fault }));
    drop(second);
    assert_eq!(requests.standing(&kind), Standing::default());
}

#[tokio::test(start_paused = true)]
async fn who_works_for_nobody_is_told_so_and_has_its_place_until_it_lets_go() {
    let requests = Requests::new(&Env::real(), Limits::default());
    let mut remote = requests.serve_elsewhere(&kind(), 1).unwrap();
    let (contract, kind) = (contract(), kind());
    let mut leaving = Box::pin(requests.call(&kind, &contract, tea(), Deadline::NEVER));
    assert!(poll!(&mut leaving).is_pending());
    let ticket = asked(&mut remote).await.ticket;
    assert!(remote.begin(ticket));
    let soon = Deadline::after(requests.inner.env.mono(), Duration::from_millis(10));
    let mut waiting = Box::pin(requests.call(&kind, &contract, tea(), soon));
    assert!(poll!(&mut waiting).is_pending());
    drop(leaving);
    assert_eq!(remote.next().await, Some(Told::Stop(ticket)));
    let expired = waiting.await.unwrap_err();
    assert_eq!(expired, RequestError::Refused { kind: kind.clone(), why: Refusal::Expired });
    assert!(requests.let_go(&kind, ticket));
    let mut next = Box::pin(requests.call(&kind, &contract, tea(), Deadline::NEVER));
    assert!(poll!(&mut next).is_pending());
    let ticket = asked(&mut remote).await.ticket;
    drop(next);
    assert!(!remote.begin(ticket), "nobody waits for it");
    assert_eq!(requests.standing(&kind), Standing { responders: 1, waiting: 0, running: 0 });
}

#[test]
fn a_ticket_is_written_in_one_way() {
    let ticket = Ticket { seat: 7, id: RequestId(17) };
    let text = ticket.to_string();
    assert_eq!(text.parse(), Ok(ticket));
    for wrong in [
        "",
        "-",
        "7-17",
        &text[1..],
        &format!("{text}0x"),
        &text.replace("-17", "-+17"),
        &text.to_uppercase().replace('0', "O"),
    ] {
        assert_eq!(wrong.parse::<Ticket>(), Err(NoTicket), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_waits_for_what_is_worked_on_elsewhere() {
    let requests = Requests::new(&Env::real(), Limits::default());
    let mut responder = requests.serve_elsewhere(&kind(), 1).unwrap();
    let (contract, kind) = (contract(), kind());
    let mut asking = Box::pin(requests.call(&kind, &contract, tea(), Deadline::NEVER));
    assert!(poll!(&mut asking).is_pending());
    let ticket = asked(&mut responder).await.ticket;
    assert!(responder.begin(ticket));
    let mut seen_off = Box::pin(requests.see_off());
    assert!(poll!(&mut seen_off).is_pending());
    assert_eq!(requests.answer(&kind, ticket, Verdict::Answer(tea())), Receipt::Taken);
    seen_off.await;
    assert_eq!(asking.await, Ok(Some(tea())));
}
