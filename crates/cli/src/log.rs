//! `quorate log`: the log of all streams.

use clap::{Args, Subcommand};

use crate::{
    client::{Client, Target},
    exit::Failure,
    output::Format,
    pages::HowMany,
    stream::{self, Following, Selection},
};

/// Verbs on the log.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Read events of all streams, oldest first
    Read {
        /// Begin behind this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Follow the log: what is there, then what comes
    Tail {
        /// Begin behind this position
        #[arg(long, value_name = "POSITION")]
        after: Option<u64>,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        following: Following,
    },
}

/// Which events.
#[derive(Args, Debug)]
pub(crate) struct Filter {
    /// Only events of this type, or of another one named so
    #[arg(long = "type", value_name = "TYPE")]
    kinds: Vec<String>,
    /// Only events with this tag, and with every other one named so
    #[arg(long = "tag", value_name = "KEY:VALUE")]
    tags: Vec<String>,
    /// Only streams of this category (their names up to the first `-`), or of another one named so
    #[arg(long = "category", value_name = "CATEGORY")]
    categories: Vec<String>,
}

impl Filter {
    fn apply(&self, target: Target) -> Target {
        let lists = [("type", &self.kinds), ("tag", &self.tags), ("category", &self.categories)];
        let words = lists.into_iter().flat_map(|(name, words)| words.iter().map(move |word| (name, word)));
        words.fold(target, |target, (name, word)| target.with(name, word))
    }
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Read { after, filter, selection, how_many } => {
                let target = filter.apply(Target::path(&["v1", "events"]).with("after", after));
                stream::read(client, target, &selection, how_many, format, stream::Continue::After).await
            }
            Self::Tail { after, filter, following } => {
                let target = filter.apply(Target::path(&["v1", "events", "subscribe"])).with_some("after", after);
                stream::tail(client, target, &following, format).await
            }
        }
    }
}
