//! `quorate view`: declaring views, how they stand, rebuilding them beside what readers have, and what is parked.

mod document;
mod follow;
mod query;
mod show;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    pages::{HowMany, list},
};

/// Verbs on views.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Declare a view: it is kept up to date as the document says, from now on and after every restart
    Declare(document::Sent),
    /// Print a document as it was declared
    #[command(disable_version_flag = true)]
    Document {
        /// The view
        name: String,
        /// The version; without it the newest one
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
    },
    /// Say which events made a row of a declared view
    Explain {
        /// The view
        name: String,
        /// The table
        table: String,
        /// The values of the columns of the table's key, in order
        #[arg(required = true)]
        key: Vec<String>,
    },
    /// Delete a view with its documents and all its builds
    Delete {
        /// The view
        name: String,
    },
    /// List views by name, with the build that readers have
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a view and each of its builds stand: position, lag, what is parked, what stops it
    Show {
        /// The view
        name: String,
    },
    /// List the tables that can be asked, with the types of their columns
    Tables {
        /// The view
        name: String,
    },
    /// Ask for rows: of a table by conditions, order and key, or by read-only SQL
    Query(query::Query),
    /// Follow the rows of a table as they change
    Follow(follow::Following),
    /// Begin another build beside the one readers have; they are given it once it has caught up
    Rebuild {
        /// The view
        name: String,
        /// Leave the switch to `quorate view switch`
        #[arg(long)]
        manual: bool,
    },
    /// Pause a build: its rows stay as they are
    Pause(OfBuild),
    /// Have a build go on that was paused, or that stopped before an event
    Resume(OfBuild),
    /// Give readers a build that has caught up
    Switch {
        #[command(flatten)]
        which: OfBuild,
        /// Also if events of it are parked, which readers then miss
        #[arg(long)]
        accept_parked: bool,
    },
    /// Drop a build that readers do not have
    Drop {
        /// The view
        name: String,
        /// The build
        #[arg(long, value_name = "N")]
        build: u32,
    },
    /// List parked events in order of position
    Parked(Listing),
    /// List events that were left out, with who said so
    Skipped(Listing),
    /// Apply the parked events of a key, in order
    Replay {
        #[command(flatten)]
        which: OfBuild,
        /// The key
        #[arg(long, value_name = "KEY")]
        key: String,
    },
    /// Leave out an event for good that is parked, or that a build stopped before; it is kept on record
    Skip {
        #[command(flatten)]
        which: OfBuild,
        /// Where the event stands in the log
        position: u64,
        /// Who says so, for the record
        #[arg(long, value_name = "WHO", default_value = "")]
        by: String,
    },
    /// List effects that wait or were given up, with the reason, in order
    Effects {
        /// The view
        name: String,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Have all effects that were given up tried anew
    RetryEffects {
        /// The view
        name: String,
    },
    /// Leave out, for good, an effect that waits or was given up
    SkipEffect {
        /// The view
        name: String,
        /// Where the event that caused it stands in the log
        position: u64,
        /// Which effect of that event it is, from 0
        ordinal: u32,
    },
    /// Recount the log: whether a build missed an event, or took one twice
    Audit(OfBuild),
}

/// A build of a view.
#[derive(Args, Debug)]
pub(crate) struct OfBuild {
    /// The view
    name: String,
    /// The build; without it the newest one, or for parked events and audits the one that readers have
    #[arg(long, value_name = "N")]
    build: Option<u32>,
}

/// A listing of a build's events.
#[derive(Args, Debug)]
pub(crate) struct Listing {
    #[command(flatten)]
    which: OfBuild,
    /// Begin behind this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    how_many: HowMany,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Declare(sent) => sent.run(client, format).await,
            Self::Document { name, version } => document::print(client, &name, version).await,
            Self::Explain { name, table, key } => {
                let target = route(&name, Some("explain")).with("table", &table);
                let target = key.iter().fold(target, |target, value| target.with("key", value));
                show::explained(&client.answer(&Call::get(target)).await?, format)
            }
            Self::Delete { name } => show::deleted(&client.answer(&Call::delete(route(&name, None))).await?, format),
            Self::List { how_many } => {
                let all = list(client, Target::path(&["v1", "views"]), "views", how_many).await?;
                show::views(&all, format)
            }
            Self::Show { name } => show::view(&client.answer(&Call::get(route(&name, None))).await?, format),
            Self::Tables { name } => {
                show::tables(&client.answer(&Call::get(route(&name, Some("tables")))).await?, format)
            }
            Self::Query(query) => query.run(client, format).await,
            Self::Follow(following) => following.run(client, format).await,
            Self::Rebuild { name, manual } => {
                let switch = if manual { "manual" } else { "when-caught-up" };
                show::build(&act(client, &name, "rebuild", json!({ "switch": switch })).await?, format)
            }
            Self::Pause(which) => show::build(&which.act(client, "pause", json!({})).await?, format),
            Self::Resume(which) => show::build(&which.act(client, "resume", json!({})).await?, format),
            Self::Switch { which, accept_parked } => {
                let how = json!({ "accept-parked": accept_parked });
                show::build(&which.act(client, "switch", how).await?, format)
            }
            Self::Drop { name, build } => {
                show::build(&act(client, &name, "drop", json!({ "build": build })).await?, format)
            }
            Self::Parked(listing) => show::parked(&listing.all(client, "parked").await?, format),
            Self::Skipped(listing) => show::skipped(&listing.all(client, "skipped").await?, format),
            Self::Replay { which, key } => {
                show::count(&which.act(client, "replay", json!({ "key": key })).await?, format)
            }
            Self::Skip { which, position, by } => {
                let what = json!({ "logposition": position, "by": by });
                show::count(&which.act(client, "skip", what).await?, format)
            }
            Self::Effects { name, how_many } => {
                let all = list(client, route(&name, Some("effects")), "effects", how_many).await?;
                show::effects(&all, format)
            }
            Self::RetryEffects { name } => {
                show::effects_changed(&on_effects(client, &name, "retry", json!({})).await?, format)
            }
            Self::SkipEffect { name, position, ordinal } => {
                let which = json!({ "logposition": position, "ordinal": ordinal });
                show::effects_changed(&on_effects(client, &name, "skip", which).await?, format)
            }
            Self::Audit(which) => {
                let audit = which.act(client, "audit", json!({})).await?;
                show::audit(&audit, format)
            }
        }
    }
}

impl OfBuild {
    async fn act(&self, client: &Client, action: &str, mut body: Value) -> Result<Value, Failure> {
        if let Some(build) = self.build {
            body["build"] = build.into();
        }
        act(client, &self.name, action, body).await
    }
}

impl Listing {
    async fn all(self, client: &Client, which: &'static str) -> Result<Vec<Value>, Failure> {
        let mut target = route(&self.which.name, Some(which)).with("after", self.after);
        if let Some(build) = self.which.build {
            target = target.with("build", build);
        }
        list(client, target, which, self.how_many).await
    }
}

async fn act(client: &Client, name: &str, action: &str, body: Value) -> Result<Value, Failure> {
    client.answer(&Call::post(route(name, Some(action)), JSON, body.to_string())).await
}

async fn on_effects(client: &Client, name: &str, action: &str, body: Value) -> Result<Value, Failure> {
    let target = Target::path(&["v1", "views", name, "effects", action]);
    client.answer(&Call::post(target, JSON, body.to_string())).await
}

/// `/v1/views/{name}`, or `/v1/views/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    let segments: Vec<&str> = ["v1", "views", name].into_iter().chain(action).collect();
    Target::path(&segments)
}
