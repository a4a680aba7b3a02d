//! The desk: commands on purses come in by HTTP, each with its key. It is an application's own, beside the node in its process.

use std::{net::SocketAddr, sync::Arc};

use http::{Method, StatusCode};
use quorate_consistency::{
    cqrs::{CommandError, Commands, Config, Key},
    event_sourcing::{Aggregate, Aggregates, Decider},
    event_types,
};
use quorate_data::store::Store;
use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    demo::web::{self, Answer, Asked},
    exit::{Exit, Failure, chain},
};

#[derive(Serialize, Deserialize)]
enum Event {
    Added { cents: i64 },
    Taken { cents: i64 },
}
event_types! { Event { Added = "purse.added" version 1, Taken = "purse.taken" version 1 } }

/// What a customer wishes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Command {
    /// To put in so many cents.
    Add(u32),
    /// To take out so many.
    Take(u32),
}

/// The rule: nothing is taken that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TooLittle {
    /// So many cents more would do.
    pub(super) missing: i64,
}

/// A purse, as its own rules see it.
struct Purse;

impl Decider for Purse {
    type Command = Command;
    type Event = Event;
    type State = i64;
    type Rejection = TooLittle;

    fn decide(&self, held: &i64, command: &Command) -> Result<Vec<Event>, TooLittle> {
        match *command {
            Command::Add(cents) => Ok(vec![Event::Added { cents: cents.into() }]),
            Command::Take(cents) if i64::from(cents) <= *held => Ok(vec![Event::Taken { cents: cents.into() }]),
            Command::Take(cents) => Err(TooLittle { missing: i64::from(cents) - held }),
        }
    }

    fn evolve(held: i64, event: &Event) -> i64 {
        match event {
            Event::Added { cents } => held.saturating_add(*cents),
            Event::Taken { cents } => held.saturating_sub(*cents),
        }
    }
}

impl Aggregate for Purse {
    const CATEGORY: &'static str = "purse";
}

/// Opens the desk over the node's own store; says where.
pub(in crate::patterns::live) async fn serve(env: &Env, store: &Store) -> Result<SocketAddr, Failure> {
    let purses = Aggregates::of(Purse).open(store).await.map_err(|cause| Failure::of(Exit::Failed, &cause))?;
    let commands = Commands::open(purses, Config::default()).await;
    let commands = commands.map_err(|cause| Failure::of(Exit::Failed, &cause))?;
    let handler: web::Handler = Arc::new(move |asked| {
        let commands = commands.clone();
        Box::pin(async move { answer(&commands, &asked).await })
    });
    web::serve(env, handler).await
}

/// A yes, a no of the domain, or neither: three answers that nobody can mistake for each other.
async fn answer(commands: &Commands<Purse>, asked: &Asked) -> Answer {
    let Some(purse) = asked.path.strip_prefix("/purses/").filter(|_| asked.method == Method::POST) else {
        return Answer::not_found();
    };
    let Ok(command) = serde_json::from_slice::<Command>(&asked.body) else {
        return Answer::refused("this is no command");
    };
    let key = asked.header("idempotency-key").map(|key| Key::new(key.trim_matches('"')));
    let Some(Ok(key)) = key else {
        return Answer::refused("a command brings its key as `Idempotency-Key`");
    };
    match commands.send(purse, command, &key).await {
        Ok(receipt) => {
            let token = receipt.token.to_string();
            Answer::done(json!({ "events": receipt.events, "token": token, "repeated": receipt.repeated }))
        }
        Err(CommandError::Rejected { rejection, token, repeated }) => {
            let body = json!({ "rejection": rejection, "token": token.to_string(), "repeated": repeated });
            Answer::of(StatusCode::UNPROCESSABLE_ENTITY, body)
        }
        Err(reused @ CommandError::KeyReused { .. }) => {
            Answer::of(StatusCode::CONFLICT, json!({ "title": reused.to_string() }))
        }
        Err(failed) => {
            let outcome = if failed.is_outcome_unknown() { "unknown" } else { "unchanged" };
            Answer::of(StatusCode::SERVICE_UNAVAILABLE, json!({ "title": chain(&failed), "outcome": outcome }))
        }
    }
}
