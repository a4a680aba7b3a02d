//! Bringing events in from a file: picture a mail room with a few counters. Letters are sorted so that everything for one
//! address goes over the same counter, in the order in which it came; each counter hands over one sack at a time.
//!
//! Killed half-way and run again, an import neither doubles nor loses anything: events are known by stream, `source` and
//! `id`. What a line needs is checked here, before it is sent; what only the node can tell leads back to its line.
//!
//! *When not to use it*: for a backup. `store backup` keeps positions, times of recording and hash chains; an import makes
//! new ones.

mod batch;
mod input;
mod lane;
pub(crate) mod line;
mod report;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use futures_util::future::{Either, join_all, select};
use quorate_data::store::Token;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{
    batch::{Gatherer, Gathering},
    input::{Input, MAX_LINE, Read1},
    lane::{Lane, Rules},
    line::{BadLine, Line, StreamFrom},
    report::Counts,
};
use crate::{
    client::Client,
    exit::{Exit, Failure, chain},
    output::{Format, Out, note},
};

/// Batches that wait for a lane.
const WAITING: usize = 2;

/// What to import, and how.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// CloudEvents in JSON, one per line, plain or gzip; `-` is standard input
    file: PathBuf,
    /// The attribute that names the stream; what `stream export` wrote has it in `stream`
    #[arg(long, value_name = "ATTRIBUTE", default_value = "subject")]
    stream_from: String,
    /// What to do with a bad line
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    on_error: OnError,
    /// Which order the log keeps: that of each stream, or, slower, that of the whole input
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t)]
    order: Order,
    /// Events in one request at most
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Requests under way at once; a stream is never reordered
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: u32,
    /// How long to wait for a node that went away or takes nothing
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = crate::span)]
    patience: Duration,
}

/// What to do with a bad line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// Name it and stop; what came before it is imported.
    #[default]
    Stop,
    /// Name it and pass over it.
    Skip,
}

/// Which order the log keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Each stream's own.
    #[default]
    Stream,
    /// That of the whole input.
    Log,
}

impl Import {
    /// Runs the import and prints what it came to, also when it ends early.
    pub(crate) async fn run(&self, client: &Client, format: Format) -> Result<(), Failure> {
        let env = client.env().clone();
        let (disk, path) = (env.disk().clone(), self.file.clone());
        let opened = env.run_blocking(move || Input::open(&*disk, &path)).await;
        let (input, reach) = opened.map_err(|cause| Failure::io(self.file.display(), &cause))?;
        let head = lane::head(client).await?;
        let (begun, counts) = (env.mono(), Arc::new(Counts::default()));
        let ended = tokio::select! {
            ended = self.transfer(client, head, input, &counts) => ended,
            () = report::show(&env, &counts, &reach) => unreachable!("progress is shown for ever"),
        };
        let summary = counts.summary(env.mono().saturating_since(begun));
        let mut out = Out::new();
        match format {
            Format::Table => out.line(&summary.to_string())?,
            Format::Json => out.json(&summary.json())?,
        }
        out.flush()?;
        ended
    }

    async fn transfer(&self, client: &Client, head: Token, input: Input, counts: &Arc<Counts>) -> Result<(), Failure> {
        let gatherer = Gatherer::new(self.gathering());
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..gatherer.lanes()).map(|_| mpsc::channel(WAITING)).unzip();
        let skip = self.on_error == OnError::Skip;
        let rules = Rules { skip, patience: self.patience, counts: counts.clone(), stop: CancellationToken::new() };
        let source =
            Source { input, gatherer, from: StreamFrom(self.stream_from.clone()), skip, counts: counts.clone() };
        let lanes = receivers.into_iter().map(|batches| Lane::new(client, rules.clone(), head).run(batches));
        let reading = pin!(client.env().run_blocking(move || source.read(&senders)));
        let sending = pin!(async { join_all(lanes).await.into_iter().collect::<Result<(), _>>() });
        match select(reading, sending).await {
            // What only the node can tell concerns earlier lines than the one where reading stopped.
            Either::Left((read, sending)) => sending.await.and(read),
            // Nobody waits for a standard input that may never end.
            Either::Right((Err(failure), _)) => Err(failure),
            Either::Right((Ok(()), reading)) => reading.await,
        }
    }

    fn gathering(&self) -> Gathering {
        Gathering {
            lanes: self.parallel as usize,
            events: self.batch as usize,
            bytes: 1 << 20,
            in_order: self.order == Order::Log,
        }
    }
}

/// Reads, checks and gathers lines, on a thread of its own.
struct Source {
    input: Input,
    gatherer: Gatherer,
    from: StreamFrom,
    skip: bool,
    counts: Arc<Counts>,
}

impl Source {
    /// Hands batches to the lanes until the input ends, a line is bad, or a lane takes no more.
    fn read(mut self, lanes: &[mpsc::Sender<Vec<Line>>]) -> Result<(), Failure> {
        let ended = self.gather(lanes);
        for (lane, batch) in self.gatherer.rest() {
            let _ = lanes[lane].blocking_send(batch); // a lane that is gone has said why
        }
        ended
    }

    fn gather(&mut self, lanes: &[mpsc::Sender<Vec<Line>>]) -> Result<(), Failure> {
        let mut warned = false;
        loop {
            let line = match self.line()? {
                None => return Ok(()),
                Some(Ok(line)) => line,
                Some(Err(bad)) => {
                    self.counts.bad(&bad, self.skip)?;
                    continue;
                }
            };
            if line.astray && !std::mem::replace(&mut warned, true) {
                note(&astray(&line, &self.from));
            }
            if let Some((lane, batch)) = self.gatherer.take(line)
                && lanes[lane].blocking_send(batch).is_err()
            {
                return Ok(()); // the lane has said why
            }
        }
    }

    /// The next line that holds something, or what is wrong with it; `None` at the end.
    fn line(&mut self) -> Result<Option<Result<Line, BadLine>>, Failure> {
        loop {
            return Ok(match self.input.next() {
                Ok(Read1::End) => None,
                Ok(Read1::Line(_, bytes)) if bytes.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(Read1::Line(number, bytes)) => Some(Line::parse(number, &bytes, &self.from)),
                Ok(Read1::TooLong(number)) => {
                    let why = format!("a line has at most {MAX_LINE} bytes");
                    Some(Err(BadLine { number, column: Some(MAX_LINE + 1), attribute: None, why }))
                }
                Err(cause) => {
                    let what = format!("the input breaks off behind line {}: {}", self.input.number(), chain(&cause));
                    return Err(Failure::new(Exit::BadInput, what));
                }
            });
        }
    }
}

fn astray(line: &Line, StreamFrom(attribute): &StreamFrom) -> String {
    let Line { number, stream, .. } = line;
    format!(
        "line {number} goes to stream `{stream}`, which its `{attribute}` names, though it carries another one in `stream`; \
         what `stream export` wrote is imported with `--stream-from stream`"
    )
}
