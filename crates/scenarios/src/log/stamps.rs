//! A service of a user's: it hands out stamps of a hybrid clock whose mark lies in a store, and must never repeat one.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use quorate_data::store::{HybridClock, sqlite};
use quorate_foundations::{name::NameError, ordering::hlc::Config};
use quorate_runtime::{Env, net::Io};
use quorate_sim::{Sim, check::Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    Report,
    notes::{Action, Note, Notes},
    rule,
};

const CLIENTS: usize = 2;
const STAMPS: usize = 60;
const PORT: u16 = 80;
/// Wide enough for clocks that jump by days: what is tested is the restart.
const MAX_OFFSET: Duration = Duration::from_secs(400 * 24 * 3_600);

/// Runs the scenario.
pub(crate) fn run(mut sim: Sim) -> Report {
    let server = sim.server("stamps", serve);
    let (to, notes) = (sim.address(server, PORT), Notes::of_world(&sim));
    let stamps = sim.rounds_or(STAMPS);
    for n in 0..CLIENTS {
        let (name, notes) = (format!("client-{n}"), notes.clone());
        sim.client(&name.clone(), move |env| ask(env, to, name.clone(), stamps, notes.clone()));
    }
    // Where syncs lie, the mark may be one of long ago, and nothing that is written can tell.
    let judge: fn(&[Note]) -> Vec<Verdict> = if sim.out_of_contract().is_none() { judge } else { |_| Vec::new() };
    let (outcome, notes) = (sim.run(), notes.take());
    Report::judged(outcome, notes, stamps as u64, judge)
}

async fn serve(env: Env) -> Result<(), String> {
    let store = sqlite::open(&env, sqlite::Config::at("stamps.db")).await.map_err(|failed| failed.to_string())?;
    let config = Config::new(MAX_OFFSET, Duration::from_secs(1)).map_err(|wrong| wrong.to_string())?;
    let name = "stamps".parse().map_err(|wrong: NameError| wrong.to_string())?;
    let clock = HybridClock::open(&store, name, config).await.map_err(|failed| failed.to_string())?;
    let at = SocketAddr::from(([0, 0, 0, 0], PORT));
    let listener = env.net().listen(at).await.map_err(|cause| cause.to_string())?;
    loop {
        let accepted = tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        if let Ok((io, _)) = accepted {
            env.tasks().spawn("answer", answer(io, clock.clone()));
        }
    }
    store.close().await.map_err(|failed| failed.to_string())
}

/// Answers each byte with a stamp, or with nothing where none could be made.
async fn answer(mut io: Box<dyn Io>, clock: HybridClock) {
    let mut question = [0];
    while io.read_exact(&mut question).await.is_ok() {
        let Ok(stamp) = clock.tick().await else { return };
        if io.write_all(&stamp.to_bytes()).await.is_err() {
            return;
        }
    }
}

async fn ask(env: Env, to: SocketAddr, name: String, stamps: usize, notes: Notes) -> Result<(), String> {
    let mut got = 0;
    while got < stamps {
        let invoked = notes.now();
        let answer = env.timeout(Duration::from_secs(2), async {
            let mut io = env.net().connect(to).await?;
            io.write_all(&[1]).await?;
            let mut stamp = [0; 12];
            io.read_exact(&mut stamp).await.map(|_| stamp)
        });
        if let Some(Ok(stamp)) = answer.await {
            got += 1;
            notes.add(
                &name,
                invoked,
                Action::Stamp { stamp: stamp.iter().map(|byte| format!("{byte:02x}")).collect() },
            );
        }
        env.sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}

/// A stamp that was asked for after another one had been given is larger, and no two are the same.
fn judge(notes: &[Note]) -> Vec<Verdict> {
    let stamps: Vec<(u64, u64, &str)> = notes
        .iter()
        .filter_map(|note| match &note.what {
            Action::Stamp { stamp } => Some((note.invoked, note.completed, stamp.as_str())),
            _ => None,
        })
        .collect();
    let back = stamps.iter().filter_map(|(_, completed, earlier)| {
        let (.., stamp) = stamps.iter().find(|(invoked, _, stamp)| invoked > completed && stamp < earlier)?;
        Some(format!("stamp {stamp} was given after {earlier}"))
    });
    let mut known = BTreeSet::new();
    let twice = stamps.iter().filter(|(.., stamp)| !known.insert(*stamp));
    let twice: Vec<String> = twice.map(|(.., stamp)| format!("stamp {stamp} was given twice")).collect();
    vec![
        rule::verdict("stamps grow", stamps.len(), back),
        rule::verdict("no stamp is given twice", stamps.len(), twice),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stamps by when they were asked for and given.
    fn rules(stamps: &[(u64, u64, &str)]) -> Vec<String> {
        let note = |&(invoked, completed, stamp): &(u64, u64, &str)| {
            let what = Action::Stamp { stamp: stamp.into() };
            Note { client: "client-0".into(), invoked, completed, what }
        };
        rule::names(&judge(&stamps.iter().map(note).collect::<Vec<_>>()))
    }

    #[test]
    fn stamps_grow_from_one_asking_to_the_next_and_none_comes_twice() {
        assert_eq!(rules(&[(1, 2, "01"), (3, 4, "02"), (5, 6, "03")]), [""; 0]);
        assert_eq!(rules(&[(1, 2, "02"), (3, 4, "01")]), ["stamps grow"]);
        assert_eq!(rules(&[(1, 5, "02"), (3, 4, "01")]), [""; 0], "they were asked for at once");
        assert_eq!(rules(&[(1, 2, "01"), (3, 4, "01")]), ["no stamp is given twice"]);
        assert_eq!(rules(&[(1, 5, "01"), (3, 4, "01")]), ["no stamp is given twice"], "at once, too");
    }
}
