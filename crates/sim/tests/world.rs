//! The world itself: is it a world, and is it the same one twice?
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_runtime::{
    Env,
    fault::{Fault, FaultPlan, NetworkFault, Planned, ProcessFault},
};
use quorate_sim::{Outcome, Settings, Sim, Swarm, sim_test, testing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn text(cause: std::io::Error) -> String {
    cause.to_string()
}

/// Answers every byte with its successor.
async fn successor(env: Env) -> Result<(), String> {
    let listener = env.net().listen("0.0.0.0:80".parse().unwrap()).await.map_err(text)?;
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (mut io, _) = accepted.map_err(text)?;
        env.tasks().spawn("answer", async move {
            let mut byte = [0];
            while io.read_exact(&mut byte).await.is_ok() && io.write_all(&[byte[0].wrapping_add(1)]).await.is_ok() {}
        });
    }
}

/// Asks until `count` questions are answered; each has a deadline and is asked again on a new connection.
async fn ask(env: Env, to: std::net::SocketAddr, count: u8) -> Result<(), String> {
    for question in 0..count {
        loop {
            let answer = env.timeout(Duration::from_secs(1), async {
                let mut io = env.net().connect(to).await?;
                io.write_all(&[question]).await?;
                let mut byte = [0];
                io.read_exact(&mut byte).await.map(|_| byte[0])
            });
            match answer.await {
                Some(Ok(answer)) if answer == question.wrapping_add(1) => break,
                Some(Ok(answer)) => return Err(format!("{question} was answered with {answer}")),
                Some(Err(_)) | None => env.sleep(Duration::from_millis(50)).await,
            }
        }
        env.sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn world(seed: u64, settings: Settings) -> Outcome {
    with_three_clients(Sim::new(seed, settings))
}

fn with_three_clients(mut sim: Sim) -> Outcome {
    let server = sim.server("server", successor);
    let to = sim.address(server, 80);
    for n in 0..3 {
        sim.client(&format!("client-{n}"), move |env| ask(env, to, 40));
    }
    sim.run()
}

#[sim_test(seeds = 60, crate = quorate_sim)]
fn whatever_the_network_and_the_processes_do_questions_are_answered_in_the_end(sim: Sim) -> Outcome {
    with_three_clients(sim)
}

/// Needs more room to begin than a full disk has, and some time.
async fn furnished(env: Env) -> Result<(), String> {
    env.sleep(Duration::from_secs(2)).await;
    let disk = env.disk().clone();
    let written = env.run_blocking(move || {
        let path = std::path::Path::new("furniture");
        if disk.exists(path)? {
            return Ok(());
        }
        let mut file = disk.create(path)?;
        file.write_all(&[7; 1 << 20])?;
        file.sync()
    });
    written.await.map_err(text)?;
    successor(env).await
}

#[sim_test(seeds = 40, crate = quorate_sim)]
fn a_disk_is_full_for_good_only_once_its_server_has_begun(mut sim: Sim) -> Outcome {
    let server = sim.server("server", furnished);
    let to = sim.address(server, 80);
    sim.client("client", move |env| ask(env, to, 40));
    sim.fill_disk_for_good(server);
    sim.run()
}

#[test]
fn a_client_that_is_absent_does_nothing_and_changes_nothing_that_was_drawn() {
    let whole = world(5, Settings::default());
    let less = world(5, Settings { absent: vec!["client-1".into()], ..Settings::default() });
    assert!(whole.passed() && less.passed(), "{:?}", less.violations);
    assert_eq!((&less.plan, &less.clients), (&whole.plan, &whole.clients));
    assert!(less.steps < whole.steps);
}

#[test]
fn a_plan_can_be_given_and_parts_of_it_left_out() {
    let found =
        (0..).map(|seed| world(seed, Settings::default())).find(|outcome| outcome.plan.faults.len() > 3).unwrap();
    let again = world(found.seed, Settings { without: vec![0, 2], ..Settings::default() });
    assert_eq!((&again.plan, &again.without), (&found.plan, &vec![0, 2]));
    assert_eq!(again.faults().map(|(place, _)| place).take(2).collect::<Vec<_>>(), [1, 3]);
    let given = world(found.seed, Settings { plan: Some(found.plan.clone()), ..Settings::default() });
    assert_eq!(given.trace, found.trace);
}

#[test]
fn the_same_seed_is_the_same_world_and_another_one_is_not() {
    let traces: Vec<String> = [3, 3, 4].into_iter().map(|seed| world(seed, Settings::default()).trace).collect();
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}

#[test]
fn a_world_that_cannot_come_to_an_end_says_who_waits() {
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), ..Settings::default() });
    sim.client("waiter", |env| async move {
        env.tasks().stop().cancelled().await;
        Ok(())
    });
    let outcome = sim.run();
    assert_eq!(outcome.violations.len(), 1);
    assert!(outcome.violations[0].what.contains("waiter"), "{:?}", outcome.violations);
}

#[test]
fn a_panic_is_found_and_named() {
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), ..Settings::default() });
    sim.client("fragile", |_| async move { panic!("it broke") });
    let outcome = sim.run();
    assert_eq!(outcome.violations[0].rule, "no panic");
    assert!(outcome.violations[0].what.contains("it broke"));
}

fn at(millis: u64, fault: Fault) -> Planned {
    Planned { at_nanos: millis * 1_000_000, fault }
}

/// When each of two bytes, sent 100 ms and 300 ms after the beginning, was read by the server.
fn arrivals(fault: Option<Fault>) -> Vec<u64> {
    let plan = FaultPlan::new(fault.into_iter().map(|fault| at(200, fault)).collect());
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let (read, time) = (Arc::new(Mutex::new(Vec::new())), sim.true_time());
    let of_server = read.clone();
    let server = sim.server("server", move |env| {
        let (read, time) = (of_server.clone(), time.clone());
        async move {
            let listener = env.net().listen("0.0.0.0:80".parse().unwrap()).await.map_err(text)?;
            let (mut io, _) = listener.accept().await.map_err(text)?;
            let mut byte = [0];
            while io.read_exact(&mut byte).await.is_ok() {
                read.lock().unwrap().push(time.nanos() / 1_000_000);
            }
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    let (to, time) = (sim.address(server, 80), sim.true_time());
    sim.client("client", move |env| {
        let time = time.clone();
        async move {
            env.sleep(Duration::from_millis(100).saturating_sub(Duration::from_nanos(time.nanos()))).await;
            let mut io = env.net().connect(to).await.map_err(text)?;
            io.write_all(b"a").await.map_err(text)?;
            env.sleep(Duration::from_millis(200)).await;
            let _ = io.write_all(b"b").await;
            env.sleep(Duration::from_secs(3)).await;
            Ok(())
        }
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    std::mem::take(&mut *read.lock().unwrap())
}

#[test]
fn what_is_sent_while_the_way_is_cut_arrives_when_it_is_open_again() {
    assert!(arrivals(None)[1] < 320);
    let span = Duration::from_millis(1_000);
    let cut = |from: &str, to: &str| Fault::Network(NetworkFault::Cut { from: from.into(), to: to.into(), span });
    let read = arrivals(Some(cut("client", "server")));
    assert!(read[0] < 120 && (1_200..1_300).contains(&read[1]), "{read:?}");
    let other_way = arrivals(Some(cut("server", "client")));
    assert!(other_way[1] < 320, "only the other way is cut: {other_way:?}");
}

#[test]
fn what_is_on_its_way_is_lost_when_a_connection_is_reset() {
    assert_eq!(arrivals(Some(Fault::Network(NetworkFault::Reset { host: "client".into() }))).len(), 1);
}

/// Whether a dial at 210 ms was answered, and when somebody knew, after `fault` at 200.
fn dialled(fault: Fault) -> (bool, u64) {
    let plan = FaultPlan::new(vec![at(200, fault)]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let server = sim.server("server", successor);
    let (to, time, heard) = (sim.address(server, 80), sim.true_time(), Arc::new(Mutex::new((false, 0))));
    let told = heard.clone();
    sim.client("client", move |env| {
        let (time, told) = (time.clone(), told.clone());
        async move {
            env.sleep(Duration::from_millis(210).saturating_sub(Duration::from_nanos(time.nanos()))).await;
            let made = env.net().connect(to).await.is_ok();
            *told.lock().unwrap() = (made, time.nanos() / 1_000_000);
            Ok(())
        }
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    *heard.lock().unwrap()
}

#[test]
fn a_lost_question_is_asked_again_and_a_machine_refuses_for_a_dead_program() {
    let lost = NetworkFault::LoseConnects { host: "server".into(), span: Duration::from_millis(1_500) };
    let (made, millis) = dialled(Fault::Network(lost));
    // Asked at 0.2, 1.2 and 3.2 s, as Linux does.
    assert!(made && (3_200..3_300).contains(&millis), "{made} {millis}");
    let kill = ProcessFault::Kill { host: "server".into(), down: Duration::from_secs(1) };
    let (made, millis) = dialled(Fault::Process(kill));
    assert!(!made && millis < 220, "{made} {millis}");
}

#[test]
fn between_hosts_that_are_slow_to_each_other_a_dial_takes_its_time() {
    let (extra, span) = (Duration::from_millis(500), Duration::from_secs(5));
    let slow = NetworkFault::Slow { a: "client".into(), b: "server".into(), extra, span };
    let (made, millis) = dialled(Fault::Network(slow));
    // There and back, each half a second longer at most.
    assert!(made && (220..1_220).contains(&millis), "{made} {millis}");
}

/// In how many pieces a server reads what is sent in fifty.
fn pieces(chunked: bool) -> usize {
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm { chunked, ..Swarm::calm() }), ..Settings::default() });
    let read = Arc::new(Mutex::new(Vec::new()));
    let of_server = read.clone();
    let server = sim.server("server", move |env| {
        let read = of_server.clone();
        async move {
            let listener = env.net().listen("0.0.0.0:80".parse().unwrap()).await.map_err(text)?;
            let (mut io, _) = listener.accept().await.map_err(text)?;
            let mut bytes = [0; 100];
            while let Ok(count @ 1..) = io.read(&mut bytes).await {
                read.lock().unwrap().push(count);
            }
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    let to = sim.address(server, 80);
    sim.client("client", move |env| async move {
        env.sleep(Duration::from_millis(100)).await;
        let mut io = env.net().connect(to).await.map_err(text)?;
        for _ in 0..50 {
            io.write_all(&[7; 100]).await.map_err(text)?;
            env.sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    let read = read.lock().unwrap();
    assert_eq!(read.iter().sum::<usize>(), 5_000);
    read.len()
}

#[test]
fn what_is_sent_comes_whole_or_in_pieces_as_the_world_is() {
    assert_eq!(pieces(false), 50);
    assert!(pieces(true) > 50);
}

#[test]
fn a_world_that_knows_every_family_of_faults_says_so() {
    let says = |swarm: Swarm| {
        let outcome = world(1, Settings { swarm: Some(swarm), ..Settings::default() });
        outcome.reached.contains_key("every family of faults was on")
    };
    let all = Swarm { network: true, kill: true, power: true, pause: true, clock: true, disk: true, ..Swarm::calm() };
    assert!(says(all.clone()) && !says(Swarm { disk: false, ..all }));
}

#[test]
fn a_server_that_ends_without_having_been_told_to_is_found() {
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), ..Settings::default() });
    sim.server("server", |env| async move {
        env.sleep(Duration::from_millis(500)).await;
        Ok(())
    });
    sim.client("clock", |env| async move {
        env.sleep(Duration::from_secs(2)).await;
        Ok(())
    });
    assert_eq!(told(&sim.run()), ("server", "server ended without having been told to"));
}

#[test]
fn a_paused_process_finds_its_timers_late_and_a_suspended_one_does_not_notice() {
    let measured = |fault: fn(String, Duration) -> ProcessFault| {
        let plan = FaultPlan::new(vec![at(200, Fault::Process(fault("sleeper".into(), Duration::from_secs(5))))]);
        let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
        let seen = Arc::new(Mutex::new((0, 0)));
        let told = seen.clone();
        sim.server("sleeper", move |env| {
            let told = told.clone();
            async move {
                let (mono, boot) = (env.mono(), env.boot());
                env.sleep(Duration::from_secs(1)).await;
                let elapsed = env.mono().saturating_since(mono).as_millis();
                *told.lock().unwrap() = (elapsed, env.boot().saturating_since(boot).as_millis());
                env.tasks().stop().cancelled().await;
                Ok(())
            }
        });
        sim.client("clock", |env| async move {
            env.sleep(Duration::from_secs(20)).await;
            Ok(())
        });
        assert!(sim.run().passed());
        std::mem::take(&mut *seen.lock().unwrap())
    };
    let (mono, boot) = measured(|host, span| ProcessFault::Pause { host, span });
    assert!((5_000..5_300).contains(&mono) && (5_000..5_300).contains(&boot), "{mono} {boot}");
    let (mono, boot) = measured(|host, span| ProcessFault::Suspend { host, span });
    assert!((1_000..1_010).contains(&mono) && (6_000..6_100).contains(&boot), "{mono} {boot}");
}

#[test]
fn a_server_that_dies_loses_its_tasks_and_is_started_again() {
    let kill = ProcessFault::Kill { host: "server".into(), down: Duration::from_millis(300) };
    let plan = FaultPlan::new(vec![at(1_000, Fault::Process(kill))]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let beats = Arc::new(Mutex::new(Vec::new()));
    let (of_server, time) = (beats.clone(), sim.true_time());
    sim.server("server", move |env| {
        let (beats, time, inner) = (of_server.clone(), time.clone(), env.clone());
        env.tasks().spawn("beat", async move {
            while !inner.tasks().stop().is_cancelled() {
                beats.lock().unwrap().push(time.nanos() / 1_000_000);
                inner.sleep(Duration::from_millis(100)).await;
            }
        });
        async move {
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    sim.client("clock", |env| async move {
        env.sleep(Duration::from_secs(2)).await;
        Ok(())
    });
    assert!(sim.run().passed());
    let beats = beats.lock().unwrap().clone();
    assert!(beats.iter().all(|at| !(1_001..1_300).contains(at)), "{beats:?}");
    assert!(beats.iter().any(|at| (1_300..1_310).contains(at)), "{beats:?}");
}

/// A world of one program, in which nothing goes wrong.
fn alone<F, R>(program: F) -> Outcome
where
    F: Fn(Env) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), ..Settings::default() });
    sim.client("program", program);
    sim.run()
}

fn told(outcome: &Outcome) -> (&str, &str) {
    let [violation] = outcome.violations.as_slice() else { panic!("{:?}", outcome.violations) };
    (&violation.rule, &violation.what)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what a program does that must not")]
fn a_task_given_to_tokio_leaves_the_world_and_is_told_where() {
    let outcome = alone(|_| async { tokio::spawn(async {}).await.map_err(|failed| failed.to_string()) });
    let (rule, what) = told(&outcome);
    assert_eq!(rule, "nothing leaves the world");
    assert!(what.contains("`main` of program") && what.contains("world.rs:") && what.contains("env.tasks()"), "{what}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what a program does that must not")]
fn work_given_to_threads_of_tokio_leaves_the_world() {
    let outcome = alone(|_| async { tokio::task::spawn_blocking(|| ()).await.map_err(|failed| failed.to_string()) });
    let (rule, what) = told(&outcome);
    assert_eq!(rule, "nothing leaves the world");
    assert!(what.contains("env.run_blocking"), "{what}");
}

#[test]
fn a_task_woken_by_a_thread_leaves_the_world() {
    let outcome = alone(|env| async move {
        let (tell, hear) = tokio::sync::oneshot::channel();
        let (go, gone) = std::sync::mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "what a simulated program must not do")]
        let thread = std::thread::spawn(move || (gone.recv(), tell.send(())));
        env.tasks().spawn("impatient", async move {
            // Only once the other task waits.
            go.send(()).unwrap();
            thread.join().unwrap().1.unwrap();
        });
        hear.await.map_err(|gone: tokio::sync::oneshot::error::RecvError| gone.to_string())
    });
    let (rule, what) = told(&outcome);
    assert_eq!(rule, "nothing leaves the world");
    assert!(what.contains("a thread that is not the world's"), "{what}");
}

#[test]
fn whoever_sleeps_with_tokio_is_told_how_to_sleep() {
    #[expect(clippy::disallowed_methods, reason = "what a simulated program must not do")]
    let outcome = alone(|_| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    });
    let (rule, what) = told(&outcome);
    assert_eq!(rule, "no panic");
    assert!(what.contains("`env.sleep`"), "{what}");
}

/// What a client hears of a server that answers its byte, and 5 ms later meets with `fault`: what was read, when it was told of an
/// end or an error, both in milliseconds of true time.
fn last_words(faults: Vec<Planned>) -> (Vec<u64>, Option<u64>) {
    let settings = Settings { swarm: Some(Swarm::calm()), plan: Some(FaultPlan::new(faults)), ..Settings::default() };
    let mut sim = Sim::new(1, settings);
    let time = sim.true_time();
    let server = sim.server("server", move |env| {
        let time = time.clone();
        async move {
            let listener = env.net().listen("0.0.0.0:80".parse().unwrap()).await.map_err(text)?;
            let accepted = env.tasks().stop().run_until_cancelled(listener.accept()).await;
            let Some(Ok((mut io, _))) = accepted else { return Ok(()) };
            let until = Duration::from_millis(995).saturating_sub(Duration::from_nanos(time.nanos()));
            env.sleep(until).await;
            io.write_all(b"a").await.map_err(text)?;
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    let heard = Arc::new(Mutex::new((Vec::new(), None)));
    let (to, time, told) = (sim.address(server, 80), sim.true_time(), heard.clone());
    sim.client("client", move |env| {
        let (time, told) = (time.clone(), told.clone());
        async move {
            env.sleep(Duration::from_millis(200)).await;
            let mut io = env.net().connect(to).await.map_err(text)?;
            let listening = async {
                let mut byte = [0];
                while io.read_exact(&mut byte).await.is_ok() {
                    told.lock().unwrap().0.push(time.nanos() / 1_000_000);
                }
                told.lock().unwrap().1 = Some(time.nanos() / 1_000_000);
            };
            let _ = env.timeout(Duration::from_secs(30), listening).await;
            Ok(())
        }
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    std::mem::take(&mut *heard.lock().unwrap())
}

fn killed(millis: u64) -> Planned {
    at(millis, Fault::Process(ProcessFault::Kill { host: "server".into(), down: Duration::from_secs(1) }))
}

#[test]
fn what_a_program_sent_before_it_was_killed_arrives_and_then_its_end() {
    // The byte is on its way for 200 to 400 microseconds.
    let (read, end) = last_words(vec![killed(996)]);
    assert_eq!((read.len(), end.is_some_and(|end| end < 1_000)), (1, true), "{read:?} {end:?}");
    let (read, end) = last_words(vec![killed(990)]);
    assert_eq!((read.len(), end.is_some()), (0, true));
}

#[test]
fn nobody_hears_of_a_death_behind_a_cut_before_it_is_over() {
    let span = Duration::from_secs(5);
    let cut = NetworkFault::Cut { from: "server".into(), to: "client".into(), span };
    let (read, end) = last_words(vec![at(990, Fault::Network(cut)), killed(1_000)]);
    assert!(read.iter().chain(&end).all(|at| (5_990..6_000).contains(at)) && read.len() == 1, "{read:?} {end:?}");
}

#[test]
fn whoever_only_listens_never_hears_that_a_machine_lost_power() {
    let lost = ProcessFault::PowerLoss { host: "server".into(), down: Duration::from_secs(1) };
    let (read, end) = last_words(vec![at(1_000, Fault::Process(lost))]);
    assert_eq!((read.len(), end), (1, None));
}

#[test]
fn a_machine_that_lost_power_in_a_disk_operation_is_off_as_long_as_the_plan_says() {
    let lost =
        ProcessFault::PowerLossAtDisk { host: "server".into(), operation: 1, down: Duration::from_millis(7_000) };
    let plan = FaultPlan::new(vec![at(80, Fault::Process(lost))]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let starts = Arc::new(Mutex::new(Vec::new()));
    let (of_server, time) = (starts.clone(), sim.true_time());
    sim.server("server", move |env| {
        of_server.lock().unwrap().push(time.nanos() / 1_000_000);
        async move {
            env.sleep(Duration::from_millis(100)).await;
            let disk = env.disk().clone();
            let _ = env.run_blocking(move || disk.create_dir_all("folder".as_ref())).await;
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    sim.client("clock", |env| async move {
        env.sleep(Duration::from_secs(9)).await;
        Ok(())
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    let starts = starts.lock().unwrap().clone();
    assert!(
        starts.len() == 2 && (7_000..7_200).contains(&(starts[1] - starts[0])),
        "{starts:?} {:?}",
        outcome.injected
    );
}

/// Lets others run first.
async fn one_step() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// A server that sleeps for a tenth of a second, then takes many steps of a microsecond each, and writes a line beside each tenth.
/// How many steps its first life took, and what a later life found of the lines.
fn steps_of_a_server(fault: Planned, steps: u64) -> (u64, Option<u64>, Outcome) {
    let plan = FaultPlan::new(vec![fault]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let lives: Arc<Mutex<Vec<u64>>> = Arc::default();
    let found = Arc::new(Mutex::new(None));
    let (of_server, of_file, time) = (lives.clone(), found.clone(), sim.true_time());
    sim.server("server", move |env| {
        let (lives, found, time) = (of_server.clone(), of_file.clone(), time.clone());
        async move {
            let disk = env.disk().clone();
            lives.lock().unwrap().push(0);
            if lives.lock().unwrap().len() > 1 {
                let (mut text, mut file) = (String::new(), disk.open("lines".as_ref()).map_err(text)?);
                *found.lock().unwrap() = file.read_to_string(&mut text).ok().map(|_| text.lines().count() as u64);
                env.tasks().stop().cancelled().await;
                return Ok(());
            }
            let mut file = disk.create("lines".as_ref()).map_err(text)?;
            while time.nanos() < 100_000_000 {
                env.sleep(Duration::from_millis(1)).await;
            }
            for step in 1..=steps {
                *lives.lock().unwrap().last_mut().unwrap() = step;
                if step % 10 == 0 {
                    file.write_all(b"line\n").map_err(text)?;
                }
                one_step().await;
            }
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    sim.client("clock", |env| async move {
        env.sleep(Duration::from_secs(3)).await;
        Ok(())
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    let (first, found) = (lives.lock().unwrap()[0], *found.lock().unwrap());
    (first, found, outcome)
}

#[test]
fn what_is_planned_comes_on_time_and_into_work_that_is_under_way() {
    let kill = ProcessFault::Kill { host: "server".into(), down: Duration::from_secs(1) };
    let (steps, lines, _) = steps_of_a_server(at(103, Fault::Process(kill)), 10_000);
    assert!((1_000..4_000).contains(&steps), "killed after {steps} steps");
    assert_eq!(lines, Some(steps / 10), "what was written before stays");
}

#[test]
fn a_process_is_killed_between_two_steps_of_its_work() {
    let strike = |polls| {
        let kill = ProcessFault::KillAtPoll { host: "server".into(), polls, down: Duration::from_secs(1) };
        steps_of_a_server(at(103, Fault::Process(kill)), 10_000)
    };
    let ((early, lines, outcome), (late, ..)) = (strike(1), strike(58));
    assert_eq!(late - early, 57);
    assert_eq!(lines, Some(early / 10));
    assert_eq!(outcome.injected.get("process: killed at work"), Some(&1));
}

#[test]
fn a_process_is_killed_inside_a_disk_operation_and_what_it_wrote_stays() {
    let kill = ProcessFault::KillAtDisk { host: "server".into(), operation: 7, down: Duration::from_secs(1) };
    let (steps, lines, outcome) = steps_of_a_server(at(90, Fault::Process(kill)), 10_000);
    assert_eq!((steps, lines), (70, Some(7)), "the write was made, and its caller heard nothing");
    assert_eq!(outcome.injected.get("process: killed inside a disk operation"), Some(&1));
}

/// A server whose first life ends itself in the tenth of its steps, and is to be killed after so many of them. How often either was
/// counted.
fn ends_of_a_server(polls: u64) -> [u64; 2] {
    let kill = ProcessFault::KillAtPoll { host: "server".into(), polls, down: Duration::from_secs(1) };
    let plan = FaultPlan::new(vec![at(150, Fault::Process(kill))]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let lives: Arc<Mutex<u64>> = Arc::default();
    sim.server("server", move |env| {
        let lives = lives.clone();
        async move {
            *lives.lock().unwrap() += 1;
            if *lives.lock().unwrap() == 1 {
                env.sleep(Duration::from_millis(200)).await;
                for _ in 0..10 {
                    one_step().await;
                }
                env.fatal("it has had enough");
            }
            env.tasks().stop().cancelled().await;
            Ok(())
        }
    });
    sim.client("clock", |env| async move {
        env.sleep(Duration::from_secs(3)).await;
        Ok(())
    });
    let Outcome { violations, injected, reached, .. } = sim.run();
    assert!(violations.is_empty(), "{violations:?}");
    [(injected, "process: killed at work"), (reached, "a server ended itself")]
        .map(|(counts, what)| counts.get(what).copied().unwrap_or(0))
}

#[test]
fn a_server_that_ended_itself_was_not_killed_in_the_same_step() {
    let ends: Vec<[u64; 2]> = (1..=14).map(ends_of_a_server).collect();
    let [killed, ended] = [[1, 0], [0, 1]].map(|end| ends.iter().filter(|other| **other == end).count());
    assert_eq!(killed + ended, ends.len(), "each life has one end: {ends:?}");
    assert!(killed > 0 && ended > 0, "{ends:?}");
}

#[test]
fn a_short_pause_within_a_long_one_does_not_end_it() {
    let pause = |span| Fault::Process(ProcessFault::Pause { host: "beater".into(), span: Duration::from_millis(span) });
    let plan = FaultPlan::new(vec![at(1_000, pause(5_000)), at(2_000, pause(100))]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let beats = Arc::new(Mutex::new(Vec::new()));
    let (told, time) = (beats.clone(), sim.true_time());
    sim.client("beater", move |env| {
        let (told, time) = (told.clone(), time.clone());
        async move {
            while time.nanos() < 8_000_000_000 {
                told.lock().unwrap().push(time.nanos() / 1_000_000);
                env.sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        }
    });
    assert!(sim.run().passed());
    let beats = beats.lock().unwrap().clone();
    assert!(beats.iter().all(|at| !(1_001..6_000).contains(at)), "{beats:?}");
    assert!(beats.len() > 20, "{beats:?}");
}

#[test]
fn a_witness_cannot_be_left_out() {
    let settings = Settings { swarm: Some(Swarm::calm()), absent: vec!["witness".into()], ..Settings::default() };
    let mut sim = Sim::new(1, settings);
    let came = Arc::new(Mutex::new(false));
    let told = came.clone();
    sim.witness("witness", move |_| {
        *told.lock().unwrap() = true;
        async { Ok(()) }
    });
    let outcome = sim.run();
    assert!(outcome.passed() && *came.lock().unwrap());
    assert!(outcome.clients.is_empty(), "nobody should try: {:?}", outcome.clients);
}

/// Asks the operating system for randomness.
fn careless(mut sim: Sim) -> Outcome {
    sim.client("careless", |env| async move {
        let seeds = std::collections::hash_map::RandomState::new();
        let drawn = std::hash::BuildHasher::hash_one(&seeds, 1);
        env.sleep(Duration::from_nanos(drawn % 1_000_000_007)).await;
        Ok(())
    });
    sim.run()
}

#[test]
fn a_seed_that_is_another_world_each_time_fails_its_test() {
    let run = || testing::run("world::a_seed_that_is_another_world_each_time_fails_its_test", 4, careless);
    if testing::own_seed().is_some() {
        return run();
    }
    let panic = std::panic::catch_unwind(run).unwrap_err();
    let told = panic.downcast_ref::<String>().unwrap();
    assert!(told.contains("seed 0 is not the same world twice") && told.contains("HashMap"), "{told}");
    assert!(told.contains("QUORATE_SIM_SEED=0 cargo test a_seed_that_is_another"), "{told}");
}
