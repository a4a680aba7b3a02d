//! Tables that an earlier quorate made.

use quorate_data::store::{RoomTables, Store};

use super::world::{World, ids, message, name};
use crate::message_queue::{Lease, Queues, Selection, machine::Claim, rows::TABLES};

/// The first version of the tables, with rows as the quorate wrote them that made it. Of its queue, the first, one message waits, a
/// consumer has one, one is a dead letter, and one was done.
async fn first_version(store: &Store) {
    store.declare(RoomTables { versions: &TABLES.versions[..1], ..TABLES }).await.unwrap();
    let rows = [
        r#"INSERT INTO quorate_queue VALUES (1, 'work', '{"lease-ttl":{"secs":30,"nanos":0},"max-attempts":10,
            "backoff":{"first":{"secs":1,"nanos":0},"max":{"secs":300,"nanos":0}},"dedupe":{"secs":604800,"nanos":0},
            "max-messages":1000000,"max-in-flight":null,"rate":null,"paused":false}', 0)"#,
        "INSERT INTO quorate_queue_numbers VALUES (1, 1)",
        r#"INSERT INTO quorate_queue_message VALUES
            (562949954469888, NULL, 4, 86400000000000, 0, NULL, '/test', 'waiting', 'work.due', 'application/json', NULL,
                CAST('{"id":"waiting"}' AS BLOB)),
            (562949954469889, NULL, 4, 86400000000000, 0, NULL, '/test', 'leased', 'work.due', 'application/json', NULL,
                CAST('{"id":"leased"}' AS BLOB)),
            (562949954469890, NULL, 4, 86400000000000, 0, NULL, '/test', 'parked', 'work.due', 'application/json', NULL,
                CAST('{"id":"parked"}' AS BLOB))"#,
        r#"INSERT INTO quorate_queue_state VALUES
            (562949954469889, 1, 1, 2, 0, 30000, ''),
            (562949954469890, 1, 1, 3, 0, 30000, '[{"attempt":1,"at":86400000000000,"cause":"parked","reason":"poison"}]')"#,
        "INSERT INTO quorate_queue_known VALUES
            (1, 'waiting', '/test', 562949954469888, -4047952949229309417, 86400000000000),
            (1, 'leased', '/test', 562949954469889, -2014256424674366437, 86400000000000),
            (1, 'parked', '/test', 562949954469890, -9080620363650192307, 86400000000000),
            (1, 'done', '/test', 562949954469891, 4354264185830400722, 86400000000000)",
    ];
    let written = store.transact(move |tx| {
        Box::pin(async move {
            for sql in rows {
                tx.room_execute(sql, &[]).await?;
            }
            Ok::<_, quorate_data::store::SqlError>(())
        })
    });
    written.await.unwrap();
}

#[tokio::test]
async fn what_the_first_version_of_the_tables_holds_goes_on_as_it_was() {
    let world = World::new();
    let store = world.open().await;
    first_version(&store).await;
    let queue = Queues::open(&store).await.unwrap().get(&name("work")).unwrap();
    for sent in queue.sends(&["waiting", "parked", "done"]).await {
        assert!(sent.repeated, "{sent:?}");
    }
    let out = queue.takes(9).await;
    assert_eq!(ids(&out), ["waiting"], "one has a consumer, one is a dead letter");
    let claim = Claim { seq: 562_949_954_469_889, delivery: 1 };
    let held = Lease { epoch: store.timeline().epoch, queue: 1, claim };
    queue.ack(&[held, out[0].lease]).await.unwrap();
    let dead = queue.dead_letters(0, 9).await.unwrap().letters;
    assert_eq!((dead.len(), &*dead[0].failures[0].reason), (1, "poison"));
    assert_eq!(queue.replay(&Selection::ALL).await.unwrap(), 1);
    let again = queue.takes(9).await;
    assert_eq!((ids(&again), again[0].lease.fence()), (vec!["parked"], 2));
    queue.ack(&[again[0].lease]).await.unwrap();
    // What came with later versions is there, and new numbers are behind the old ones.
    queue.send(vec![message("new").unique("one")]).await.unwrap();
    assert_eq!(queue.send(vec![message("newer").unique("one")]).await.unwrap()[0].held_by.as_deref(), Some("new"));
    let (_store, queue) = world.restart(store).await;
    assert_eq!(ids(&queue.takes(9).await), ["new"]);
}
