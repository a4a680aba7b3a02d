//! Writing events out, one CloudEvent per line.

use std::path::{Path, PathBuf};

use clap::Args;

use super::route;
use crate::{
    client::{Client, Target},
    event::{Event, one_line},
    exit::Failure,
    output::{Out, Reach, WholeFile, note, working_towards},
    pages::Pages,
};

/// Events in a page: many small replies would cost more than they save.
const PAGE: usize = 5_000;

/// What to write, and where to.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The stream; without it all of them, in the order of the log
    stream: Option<String>,
    /// The file to write; it appears under its name when it is complete
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Where the lines go.
enum Sink {
    Stdout(Out),
    File(WholeFile),
}

impl Export {
    /// Writes every event that is not a mere stub. Re-importing it with `--stream-from stream` yields the same streams.
    pub(crate) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let target =
            self.stream.as_ref().map_or_else(|| Target::path(&["v1", "events"]), |stream| route(stream, "events"));
        let mut pages = Pages::new(client, target, PAGE);
        let mut sink = Sink::open(client, self.out.as_deref())?;
        let reach = Reach::default();
        let writing = write(&mut pages, &mut sink, &reach);
        let (written, stubs) = working_towards(client.env(), "exporting", &reach, writing).await?;
        sink.finish()?;
        let left_out = if stubs == 0 { String::new() } else { format!("; {stubs} whose data is gone were left out") };
        note(&format!("{written} events written{left_out}; `quorate stream import --stream-from stream` takes them"));
        Ok(())
    }
}

/// Writes every page; how many events were written, and how many mere stubs left out.
async fn write(pages: &mut Pages, sink: &mut Sink, reach: &Reach) -> Result<(u64, u64), Failure> {
    let (mut written, mut stubs) = (0_u64, 0_u64);
    while let Some(page) = pages.next("events").await? {
        for item in page.items()? {
            if Event::of(item.get())?.is_stub() {
                stubs += 1;
                continue;
            }
            sink.line(&one_line(item.get())?)?;
            written += 1;
        }
        // In the log's pages as a position, in a stream's as a version.
        if let Some((done, whole)) = page.reach() {
            reach.tell(done, whole);
        }
    }
    Ok((written, stubs))
}

impl Sink {
    fn open(client: &Client, path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            Some(path) => WholeFile::create(client.env().disk(), path).map(Self::File),
            None => Ok(Self::Stdout(Out::new())),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        match self {
            Self::Stdout(out) => out.line(line),
            Self::File(file) => file.line(line),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(mut out) => out.flush(),
            Self::File(file) => file.finish(),
        }
    }
}
