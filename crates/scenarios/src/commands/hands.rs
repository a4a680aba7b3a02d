//! Clients of the desk. They repeat what nobody answered, and some of what somebody did, under its key.

use std::{net::SocketAddr, time::Duration};

use quorate_runtime::{Env, random::Rng};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{
    Answer, Dealing,
    desk::{Said, Told},
};
use crate::notes::{Action, Notes};

const PURSES: u64 = 3;
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a client wants.
#[derive(Clone)]
struct Wish {
    key: String,
    purse: u64,
    cents: i64,
}

impl Wish {
    /// The `n`-th of `name`. Each third one is everybody's: all clients send it, under the same key.
    fn nth(name: &str, n: usize, rng: &mut Rng) -> Self {
        let n64 = n as u64;
        if n % 3 == 2 {
            let cents = (n64 * 37 % 90).cast_signed() - 45;
            return Self { key: format!("all-{n}"), purse: n64 % PURSES, cents };
        }
        let cents = match rng.below(8) {
            0 => 0,
            1..=4 => (1 + rng.below(40)).cast_signed(),
            _ => -(1 + rng.below(60)).cast_signed(),
        };
        Self { key: format!("{name}-{n}"), purse: rng.below(PURSES), cents }
    }
}

/// Sends so many commands, each until it is answered.
pub(super) async fn work(env: &Env, to: SocketAddr, name: &str, commands: usize, notes: &Notes) {
    let (mut rng, mut wishes) = (env.random("hand"), Vec::new());
    for n in 0..commands {
        let wish = Wish::nth(name, n, &mut rng);
        let answer = send(env, to, name, &wish, notes).await;
        if rng.below(2) == 0 {
            ask(env, to, name, wish.purse, &answer, notes).await;
        }
        wishes.push(wish);
        if rng.below(3) == 0 {
            let earlier = usize::try_from(rng.below(wishes.len() as u64)).unwrap_or_default();
            send(env, to, name, &wishes[earlier], notes).await;
        }
        env.sleep(Duration::from_millis(rng.below(300))).await;
    }
}

/// Reads the log and the view.
pub(super) async fn close(env: &Env, to: SocketAddr, notes: &Notes) {
    loop {
        let invoked = notes.now();
        if let Some(Told::Ledger(ledger)) = call(env, to, &Said::Close).await {
            notes.add("reader", invoked, Action::Dealt(Dealing::Closed(ledger)));
            return;
        }
        env.sleep(Duration::from_millis(200)).await;
    }
}

async fn send(env: &Env, to: SocketAddr, name: &str, wish: &Wish, notes: &Notes) -> Answer {
    let Wish { key, purse, cents } = wish.clone();
    loop {
        let (invoked, key) = (notes.now(), key.clone());
        if let Some(Told::Answer(answer)) = call(env, to, &Said::Send { purse, cents, key: key.clone() }).await {
            let dealing = Dealing::Commanded { key, purse, cents, answer: answer.clone() };
            notes.add(name, invoked, Action::Dealt(dealing));
            return answer;
        }
        env.sleep(Duration::from_millis(150)).await;
    }
}

async fn ask(env: &Env, to: SocketAddr, name: &str, purse: u64, answer: &Answer, notes: &Notes) {
    loop {
        let (invoked, token) = (notes.now(), answer.token.clone());
        if let Some(Told::Held(held)) = call(env, to, &Said::Ask { purse, token }).await {
            let dealing = Dealing::Asked { purse, token: answer.append, held };
            return notes.add(name, invoked, Action::Dealt(dealing));
        }
        env.sleep(Duration::from_millis(150)).await;
    }
}

/// Says a line, on a connection of its own, and hears one.
async fn call(env: &Env, to: SocketAddr, said: &Said) -> Option<Told> {
    let mut line = serde_json::to_vec(said).ok()?;
    line.push(b'\n');
    let heard = env.timeout(PATIENCE, async {
        let mut io = BufReader::new(env.net().connect(to).await.ok()?);
        io.write_all(&line).await.ok()?;
        let mut told = String::new();
        io.read_line(&mut told).await.ok()?;
        serde_json::from_str(&told).ok()
    });
    heard.await.flatten()
}
