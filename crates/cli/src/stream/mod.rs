//! `quorate stream`: streams and their events.

mod append;
mod export;
mod heads;
mod read;
mod retention;
mod tail;

use clap::Subcommand;

pub(crate) use self::{
    append::{json_text, new_id},
    read::{Continue, Selection, read},
    tail::{Following, tail},
};
use crate::{
    client::{Client, Target},
    exit::Failure,
    import::Import,
    output::Format,
    pages::HowMany,
    store,
};

/// Verbs on streams.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Append one event to a stream
    Append(Box<append::Append>),
    /// Read a stream's events, also as it was at some moment
    Read {
        /// The stream
        stream: String,
        /// Begin with this version; without it, with the first, or the last when reading backward
        #[arg(long, value_name = "VERSION")]
        from: Option<u64>,
        /// Newest first
        #[arg(long)]
        backward: bool,
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Follow a stream: what is there, then what comes
    Tail {
        /// The stream; it need not exist yet
        stream: String,
        /// Begin with this version
        #[arg(long, value_name = "VERSION", conflicts_with = "after")]
        from: Option<u64>,
        /// Begin behind this position of the log
        #[arg(long, value_name = "POSITION")]
        after: Option<u64>,
        #[command(flatten)]
        following: Following,
    },
    /// List streams by name
    List {
        /// Only those whose names begin so
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// What a stream is like right now
    Show {
        /// The stream
        stream: String,
    },
    /// Bring in events from a file of CloudEvents, one per line; run it again to resume it
    Import(Box<Import>),
    /// Write events as CloudEvents, one per line, in the order of the log
    Export(export::Export),
    /// Forget the data of a stream's oldest events; their place and hash stay
    Truncate {
        /// The stream
        stream: String,
        /// The first version to keep
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        before: u64,
        /// What it must be like: a version, `exists` or `any`
        #[arg(long, value_name = "WHAT", default_value = "any")]
        expect: append::Expect,
    },
    /// Forget all data of a stream and close it for good
    Tombstone {
        /// The stream
        stream: String,
        /// What it must be like: a version, `exists` or `any`
        #[arg(long, value_name = "WHAT", default_value = "any")]
        expect: append::Expect,
    },
    /// A stream's metadata: what it keeps, and values of your own
    #[command(subcommand)]
    Metadata(retention::Metadata),
    /// Move a stream's oldest events to a file, in the folder `archives` of the node's data directory
    Archive {
        /// The stream
        stream: String,
        /// The file's name; repeating the command with it is safe
        #[arg(long, value_name = "NAME")]
        to: String,
        /// The first version to keep; without it everything is moved
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        before: Option<u64>,
    },
    /// List the archives of a stream
    Archives {
        /// The stream
        stream: String,
    },
    /// Check the hash chains of all streams, and every other stored byte: the same as `store verify`
    Verify,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Append(append) => append.run(client, format).await,
            Self::Read { stream, from, backward, selection, how_many } => {
                let target = route(&stream, "events").with_some("from", from);
                let target = target.with_some("direction", backward.then_some("backward"));
                read(client, target, &selection, how_many, format, Continue::From).await
            }
            Self::Tail { stream, from, after, following } => {
                let target = route(&stream, "subscribe").with_some("from", from).with_some("after", after);
                tail(client, target, &following, format).await
            }
            Self::List { prefix, how_many } => heads::list(client, prefix.as_deref(), how_many, format).await,
            Self::Show { stream } => heads::show(client, &stream, format).await,
            Self::Import(import) => import.run(client, format).await,
            Self::Export(export) => export.run(client).await,
            Self::Truncate { stream, before, expect } => heads::truncate(client, &stream, before, expect, format).await,
            Self::Tombstone { stream, expect } => heads::tombstone(client, &stream, expect, format).await,
            Self::Metadata(command) => command.run(client, format).await,
            Self::Archive { stream, to, before } => retention::archive(client, &stream, before, &to, format).await,
            Self::Archives { stream } => retention::archives(client, &stream, format).await,
            Self::Verify => store::verify(client, format).await,
        }
    }
}

/// `/v1/streams/{stream}/{action}`
fn route(stream: &str, action: &str) -> Target {
    Target::path(&["v1", "streams", stream, action])
}
