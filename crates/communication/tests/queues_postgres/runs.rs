//! Several processes on one queue for a while: each message once, in order, whatever is slow, away or gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use futures_util::future::join_all;
use quorate_communication::message_queue::{Config, Delivery, Missed, Queue, QueueError, Receive, Schedule};
use quorate_data::store::TransactError;

use crate::{
    place,
    rules::{config, done, ids, leases, message, messages, name, take, wait_for, with_table, work},
    several::{Process, change, processes, short},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_away_for_long_reads_what_changed_or_the_queue_anew() {
    let place = place();
    let [one, other] = processes(&place, config()).await;
    one.queue.send(messages(&["first"])).await.unwrap();
    assert_eq!(other.queue.describe().await.unwrap().counts.messages, 1);
    // More turns than are read at once.
    for n in 0..300 {
        let taken = take(&one.queue, 1).await;
        one.queue.nack(&leases(&taken), None, "").await.unwrap_or_else(|_| panic!("{n}"));
        if taken[0].attempt >= 9 {
            let taken = take(&one.queue, 1).await;
            one.queue.ack(&leases(&taken)).await.unwrap();
            one.queue.send(vec![message(&n.to_string())]).await.unwrap();
        }
    }
    let [here, there] = [&one, &other].map(|process| process.queue.describe());
    assert_eq!(here.await.unwrap().counts, there.await.unwrap().counts);
    let taken = take(&other.queue, 9).await;
    assert_eq!(taken.len(), 1);
    other.queue.ack(&leases(&taken)).await.unwrap();
    other.queue.send(messages(&["last"])).await.unwrap();
    // As where there were more turns than are kept.
    assert!(change(&other, "DELETE FROM quorate_queue_turn_change WHERE revision > $1", 0.into()).await > 300);
    assert_eq!(ids(&take(&one.queue, 9).await), ["last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_sends_each_moment_once_whichever_process_dies() {
    let place = place();
    let [one, other, third] = processes(&place, config()).await;
    let tick = |id: &str| Schedule::new("* * * * * *", message(id)).missed(Missed::All);
    one.queue.schedule(&name("seconds"), tick("tick")).await.unwrap();
    let twin = other.queue.schedule(&name("twin"), tick("tick")).await;
    assert!(matches!(twin, Err(QueueError::Invalid { .. })), "{twin:?}");
    other.queues.refresh().await.unwrap();
    assert!(other.queue.scheduled(&name("seconds")).unwrap().next.is_some());
    let mut seen: Vec<String> = Vec::new();
    async fn collect(queue: &Queue, seen: &mut Vec<String>, until: usize) {
        while seen.len() < until {
            let taken = wait_for(queue, 99).await;
            seen.extend(ids(&taken).into_iter().map(str::to_owned));
            queue.ack(&leases(&taken)).await.unwrap();
        }
    }
    collect(&other.queue, &mut seen, 3).await;
    // Whoever declared it is gone.
    one.store.close().await.unwrap();
    drop(one);
    let more = seen.len() + 8;
    collect(&other.queue, &mut seen, more).await;
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "each moment once: {seen:?}");
    assert!(seen.is_sorted(), "{seen:?}");
    let seconds =
        seen.iter().map(|id| id.split_once('@').unwrap().1.parse::<quorate_data::event::Timestamp>().unwrap());
    let seconds: Vec<i64> = seconds.map(|moment| moment.instant().unix_nanos() / 1_000_000_000).collect();
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "and none is left out: {seconds:?}");
    third.queue.schedule(&name("seconds"), tick("tock")).await.unwrap();
    third.queue.send(messages(&["mark"])).await.unwrap();
    let mut after: Vec<String> = Vec::new();
    while !after.iter().any(|id| id.starts_with("tock")) {
        let more = after.len() + 1;
        collect(&other.queue, &mut after, more).await;
    }
    let more = after.len() + 3;
    collect(&other.queue, &mut after, more).await;
    let changed = after.iter().position(|id| id.starts_with("tock")).unwrap();
    assert!(after[changed..].iter().all(|id| !id.starts_with("tick")), "what it was before sends no more: {after:?}");
    other.queues.refresh().await.unwrap();
    other.queue.unschedule(&name("seconds")).await.unwrap();
    third.queues.refresh().await.unwrap();
    assert!(matches!(third.queue.scheduled(&name("seconds")), Err(QueueError::NoSchedule { .. })));
}

/// What became of messages, by what their consumers saw.
#[derive(Default)]
struct Seen {
    /// Of each group the ids in the order in which they were settled.
    settled: BTreeMap<String, Vec<u64>>,
    /// Of each group the message that is out.
    out: BTreeMap<String, u64>,
    count: usize,
}

fn place_of(delivery: &Delivery) -> (String, u64) {
    let (group, n) = delivery.message.event.id.split_once('-').unwrap();
    (group.to_owned(), n.parse().unwrap())
}

async fn consume(process: &Process, seen: &Mutex<Seen>, all: usize, in_transaction: bool) {
    while seen.lock().unwrap().count < all {
        let taken = process.queue.receive(Receive::of(5).waiting(Duration::from_millis(200))).await.unwrap();
        for delivery in &taken {
            let (group, n) = place_of(delivery);
            assert_eq!(delivery.attempt, 1, "no lease runs out here");
            let out = seen.lock().unwrap().out.insert(group, n);
            assert_eq!(out, None, "one of a group at a time");
        }
        for delivery in &taken {
            let (group, n) = place_of(delivery);
            {
                // Before it is settled: behind that the next one may be out at once.
                let mut seen = seen.lock().unwrap();
                seen.out.remove(&group);
                seen.settled.entry(group).or_default().push(n);
                seen.count += 1;
            }
            if in_transaction {
                work(&process.store, &process.queue, delivery).await.unwrap();
            } else {
                process.queue.ack(&[delivery.lease]).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_and_consumers_at_three_processes_share_the_work_and_keep_the_order_of_each_group() {
    let place = place();
    let all: [Process; 3] = processes(&place, config()).await;
    with_table(&all[0].store).await;
    let (groups, each) = (6_usize, 25_u64);
    let seen = Mutex::new(Seen::default());
    let produce = |group: usize| {
        let all = &all;
        async move {
            for n in 0..each {
                // Each message of a group at another process, once the one before was answered.
                let process = &all[(group + usize::try_from(n).unwrap()) % all.len()];
                let one = message(&format!("g{group}-{n}")).in_group(format!("g{group}"));
                if n % 3 == 0 {
                    let queue = process.queue.clone();
                    let sent = process.store.transact(move |tx| {
                        let (queue, one) = (queue.clone(), one.clone());
                        Box::pin(async move { queue.send_in(tx, vec![one]).await })
                    });
                    sent.await.unwrap();
                } else {
                    process.queue.send(vec![one]).await.unwrap();
                }
            }
        }
    };
    let total = groups * usize::try_from(each).unwrap();
    let consumers = join_all((0..6).map(|n| consume(&all[n % 3], &seen, total, n < 3)));
    let producers = join_all((0..groups).map(produce));
    tokio::join!(consumers, producers);
    let seen = seen.into_inner().unwrap();
    for (group, settled) in &seen.settled {
        assert_eq!(settled, &(0..each).collect::<Vec<u64>>(), "{group}");
    }
    assert_eq!(all[1].queue.describe().await.unwrap().counts.messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_that_run_out_at_several_processes_at_once_go_to_one_holder_each() {
    let place = place();
    let all: [Process; 3] = processes(&place, Config { max_attempts: 1_000, ..short(config()) }).await;
    with_table(&all[0].store).await;
    let total = 40;
    all[0].queue.send((0..total).map(|n| message(&n.to_string())).collect()).await.unwrap();
    let fences: Mutex<BTreeSet<(String, u32)>> = Mutex::default();
    let consume = |n: usize| {
        let (process, fences) = (&all[n % 3], &fences);
        async move {
            let mut held: Vec<Delivery> = Vec::new();
            loop {
                let taken = process.queue.receive(Receive::of(4).waiting(Duration::from_millis(50))).await.unwrap();
                for one in &taken {
                    let id = one.message.event.id.to_string();
                    assert!(fences.lock().unwrap().insert((id, one.lease.fence())), "no fence is given out twice");
                }
                held.extend(taken);
                // Every other one is left until its lease has run out, and is tried all the same.
                for (n, one) in std::mem::take(&mut held).into_iter().enumerate() {
                    if n % 2 == 1 {
                        process.store.env().sleep(Duration::from_millis(350)).await;
                    }
                    match work(&process.store, &process.queue, &one).await {
                        Ok(()) | Err(TransactError::Aborted(QueueError::LeaseLost { .. })) => {}
                        Err(other) => panic!("{other:?}"),
                    }
                }
                if process.queue.describe().await.unwrap().counts.messages == 0 {
                    return;
                }
            }
        }
    };
    join_all((0..6).map(consume)).await;
    let mut expected: Vec<String> = (0..total).map(|n| n.to_string()).collect();
    expected.sort();
    assert_eq!(done(&all[1].store).await, expected, "each is done once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_clock_is_far_behind_a_schedule_leaves_it_alone() {
    let place = place();
    let [one] = processes(&place, config()).await;
    let each_second = |id: &str| Schedule::new("* * * * * *", message(id));
    one.queue.schedule(&name("ahead"), each_second("ahead")).await.unwrap();
    one.queue.schedule(&name("right"), each_second("right")).await.unwrap();
    // Other processes came a month further than this one's clock.
    let ahead = one.store.env().wall() + Duration::from_secs(30 * 86_400);
    let changed = one.store.transact(move |tx| {
        Box::pin(async move {
            let sql = "UPDATE quorate_queue_schedule SET done_ns = $1 WHERE name = 'ahead'";
            tx.room_execute(sql, &[ahead.unix_nanos().into()]).await
        })
    });
    assert_eq!(changed.await.unwrap(), 1);
    // It looks at one after the other, by their names.
    let mut right = 0;
    let since = one.store.env().wall();
    while right < 4 {
        let taken = wait_for(&one.queue, 99).await;
        let is_later = |one: &&Delivery| one.message.sent_at > since;
        right += taken.iter().filter(is_later).filter(|one| one.message.event.id.starts_with("right")).count();
        one.queue.ack(&leases(&taken)).await.unwrap();
    }
    let rows = one.store.transact(|tx| {
        Box::pin(
            async move { tx.room_query("SELECT done_ns FROM quorate_queue_schedule WHERE name = 'ahead'", &[]).await },
        )
    });
    assert_eq!(rows.await.unwrap()[0].at(0).as_i64(), Some(ahead.unix_nanos()));
}
