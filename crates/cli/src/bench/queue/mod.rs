//! `quorate bench queue`: messages of 200 bytes, every step of them durable: in process, over HTTP, and through other brokers in the
//! same run.
//!
//! A ratio without this is half of the truth: quorate, RabbitMQ (a quorum queue with confirms) and PostgreSQL sync before they answer. NATS
//! answers before it syncs unless its server says `sync_interval: always`, and Redis unless its server says `appendfsync always`. All
//! consumers take up to 32 messages at once; RabbitMQ, Redis and quorate are told of all of them with one word, NATS with one for each.

mod brokers;
mod in_process;

use std::str::FromStr;

use clap::Args;

use super::{Options, figure::Figures, log::Effort};
use crate::exit::Failure;

/// Messages of one call, where it takes several.
const BATCH: usize = 32;

/// How to measure queues, and beside whom.
#[derive(Args, Debug)]
pub(crate) struct QueueOptions {
    /// Measure these brokers as well, where they run: nats=nats://HOST:PORT, rabbitmq=amqp://USER:PASSWORD@HOST:PORT,
    /// postgres=postgres://USER:PASSWORD@HOST:PORT/DATABASE, redis=redis://HOST:PORT. What is made there is removed again
    #[arg(long, value_name = "BROKER=URL", value_delimiter = ',')]
    peer: Vec<Peer>,
    #[command(flatten)]
    pub(super) options: Options,
}

/// A broker that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    kind: Kind,
    url: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nats,
    RabbitMq,
    Postgres,
    Redis,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "a peer is nats=URL, rabbitmq=URL, postgres=URL or redis=URL";
        let (kind, url) = text.split_once('=').ok_or(expected)?;
        let kind = match kind {
            "nats" => Kind::Nats,
            "rabbitmq" => Kind::RabbitMq,
            "postgres" => Kind::Postgres,
            "redis" => Kind::Redis,
            _ => return Err(expected.to_owned()),
        };
        Ok(Self { kind, url: url.to_owned() })
    }
}

/// Measures everything that `asked` wants.
pub(super) async fn measure(env: &quorate_runtime::Env, asked: &QueueOptions) -> Result<Figures, Failure> {
    let effort = Effort::of(&asked.options);
    let mut figures = Figures::default();
    in_process::measure(env, &asked.options, effort, &mut figures).await?;
    brokers::measure(&asked.options, &asked.peer, effort, &mut figures).await?;
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Peer};

    #[test]
    fn a_peer_is_a_broker_that_is_known_and_where_it_is() {
        let nats: Peer = "nats=nats://127.0.0.1:4222".parse().unwrap();
        assert_eq!(nats, Peer { kind: Kind::Nats, url: "nats://127.0.0.1:4222".to_owned() });
        assert!("kafka=127.0.0.1:9092".parse::<Peer>().is_err());
        assert!("nats://127.0.0.1:4222".parse::<Peer>().is_err());
    }
}
