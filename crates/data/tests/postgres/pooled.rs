//! Behind a proxy that pools transactions (PgBouncer) the store keeps every promise as well: no session remembers anything for it.

use futures_util::future::join_all;
use quorate_data::{
    event::Position,
    store::{Query, ReadLog, postgres},
};

use crate::shared::{self, Schema, batch, env, event};

quorate_data::store_conformance!(match shared::Schema::pooled() {
    Some(schema) => schema,
    None => return,
});

#[tokio::test(flavor = "multi_thread")]
async fn appends_on_sessions_that_others_are_given_in_between_are_each_there_once() {
    let Some(schema) = Schema::pooled() else { return };
    let address = schema.config(quorate_data::store::Limits::default()).address;
    let pid = async || {
        let client = postgres::connect(&env(), &address).await.unwrap();
        let pid = client.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
        (client, pid)
    };
    let ((_one, first), (_other, second)) = (pid().await, pid().await);
    assert_eq!(first, second, "two connections at once are one session of the server");

    let (one, _) = schema.node(|_| {}).await;
    let (other, _) = schema.node(|_| {}).await;
    let appends = (0..200).map(|n| {
        let store = if n % 2 == 0 { &one } else { &other };
        store.append(batch(&format!("s-{}", n % 7), vec![event(n)]))
    });
    for appended in join_all(appends).await {
        appended.unwrap();
    }
    let mut head = other.watch_head();
    head.wait_for(|head| head.get() == 200).await.unwrap();
    let read = ReadLog { query: Query::EVERYTHING, after: Position::new(0), limit: 1_000 };
    let log = other.read_log(read).await.unwrap().events;
    let mut ids: Vec<u32> = log.iter().map(|event| event.id().parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
}
