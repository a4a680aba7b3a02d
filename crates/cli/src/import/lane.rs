//! One lane: sends its batches one after the other, and finds the line to blame when one is refused.
//!
//! Appends are known by their events' ids, so a batch can be sent again whatever became of it. A batch of which the node
//! knows a part (an earlier import was killed, or cut its batches elsewhere) is halved until each piece is all known or
//! all new. A known batch is answered as the first time, with the token of back then, and so is told from a new one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quorate_data::store::Token;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    batch,
    line::{BadLine, Line},
    report::Counts,
};
use crate::{
    client::{Call, Client, ClientError, Connection, JSON, Problem, Reply, TOKEN, Target, behind_doubt, is_in_doubt},
    exit::{Exit, Failure},
    output::note,
};

/// What a lane needs to know.
#[derive(Clone)]
pub(crate) struct Rules {
    /// Whether bad lines are passed over.
    pub(crate) skip: bool,
    /// How long a node that cannot take anything is waited for.
    pub(crate) patience: Duration,
    /// What all lanes count together.
    pub(crate) counts: Arc<Counts>,
    /// Fires when a lane fails: the others finish what they are at.
    pub(crate) stop: CancellationToken,
}

/// A lane with its connection.
pub(crate) struct Lane {
    client: Client,
    connection: Connection,
    rules: Rules,
    /// The newest append it has seen: whatever it writes is newer.
    newest: Token,
}

/// What the node made of a batch.
enum Answer {
    New,
    Known,
    Refused(Problem),
}

impl Lane {
    /// A lane to the node of `client`, whose log was at `head` before anything was sent.
    pub(crate) fn new(client: &Client, rules: Rules, head: Token) -> Self {
        Self { client: client.clone(), connection: client.connection(), rules, newest: head }
    }

    /// Sends `batches` until there are no more, or until one cannot be sent, here or in another lane.
    pub(crate) async fn run(mut self, mut batches: mpsc::Receiver<Vec<Line>>) -> Result<(), Failure> {
        loop {
            let batch = tokio::select! {
                biased;
                () = self.rules.stop.cancelled() => None,
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            self.import(batch).await.inspect_err(|_| self.rules.stop.cancel())?;
        }
    }

    /// Imports `lines`, in order; in pieces where the node does not take them together.
    async fn import(&mut self, lines: Vec<Line>) -> Result<(), Failure> {
        // What may be in already, because of an attempt that was not heard of again, is so in each of its pieces.
        let mut pieces = vec![(lines, false)];
        while let Some((piece, mut in_doubt)) = pieces.pop() {
            match self.send(&piece, &mut in_doubt).await? {
                Answer::New => self.rules.counts.new.fetch_add(piece.len() as u64, Ordering::Relaxed),
                Answer::Known => self.rules.counts.known.fetch_add(piece.len() as u64, Ordering::Relaxed),
                Answer::Refused(problem) if piece.len() == 1 => self.blame(&piece[0], problem)?,
                Answer::Refused(problem) => {
                    let smaller = split(piece, &problem).into_iter().rev();
                    pieces.extend(smaller.map(|piece| (piece, in_doubt)));
                    continue;
                }
            };
        }
        Ok(())
    }

    fn blame(&self, line: &Line, problem: Problem) -> Result<u64, Failure> {
        let attribute = problem.text("attribute").map(str::to_owned);
        let bad = BadLine { number: line.number, column: None, attribute, why: problem.detail().to_owned() };
        if problem.is_unknown() && !self.rules.skip {
            let stopped = Failure::new(Exit::Unknown, bad.to_string());
            return Err(stopped.advise("an earlier attempt may have brought the line in: look before you correct it"));
        }
        self.rules.counts.bad(&bad, self.rules.skip)
    }

    /// Sends `lines` until the node says something about them, for as long as patience lasts. Afterwards they are `in_doubt` if they
    /// were, or an attempt may have been done and nothing was heard of it.
    async fn send(&mut self, lines: &[Line], in_doubt: &mut bool) -> Result<Answer, Failure> {
        let call = Call::post("/v1/events", JSON, batch::body(lines));
        let env = self.client.env().clone();
        let begun = env.mono();
        let mut pause = Duration::from_millis(50);
        loop {
            let outcome = self.connection.call(&call).await;
            let is_strange = matches!(outcome, Err(ClientError::Strange { .. }));
            *in_doubt |= is_in_doubt(&outcome);
            let outcome = if *in_doubt { behind_doubt(self.client.server(), outcome) } else { outcome };
            let (failure, after) = match outcome {
                Ok(Ok(reply)) => return self.answer(&reply),
                Ok(Err(problem)) if names_the_events(&problem) => return Ok(Answer::Refused(problem)),
                Ok(Err(problem)) => match problem.retry() {
                    Some(after) => (Failure::from(problem), after),
                    None => return Err(self.connection.advise(problem).await.into()),
                },
                Err(error) if is_strange => return Err(error.into()),
                Err(error) => (Failure::from(error), Duration::ZERO),
            };
            if env.mono().saturating_since(begun) >= self.rules.patience {
                return Err(gave_up(&failure));
            }
            self.rules.counts.say_waiting(&failure);
            env.sleep(pause.max(after)).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    fn answer(&mut self, reply: &Reply) -> Result<Answer, Failure> {
        let token = token(&self.client, reply)?;
        if token.append() <= self.newest.append() {
            return Ok(Answer::Known);
        }
        self.newest = token;
        Ok(Answer::New)
    }
}

/// The token of everything the node of `client` has now.
pub(crate) async fn head(client: &Client) -> Result<Token, Failure> {
    let reply = client.call(&Call::get(Target::path(&["v1", "streams"]).with("limit", 1))).await?;
    token(client, &reply)
}

fn token(client: &Client, reply: &Reply) -> Result<Token, Failure> {
    let strange = || {
        let what = format!("no token in `{TOKEN}`");
        ClientError::Strange { server: client.server().clone(), what }.into()
    };
    reply.header(&TOKEN).and_then(|text| text.parse().ok()).ok_or_else(strange)
}

/// Whether the node refuses the events themselves, and not whoever sends them or for now.
fn names_the_events(problem: &Problem) -> bool {
    const KINDS: [&str; 14] = [
        "invalid-json",
        "invalid-event",
        "invalid-batch",
        "invalid-name",
        "schema-violation",
        "unknown-type",
        "id-reused",
        "batch-partly-known",
        "stream-tombstoned",
        "stream-of-process",
        "stream-of-saga",
        "stream-of-transaction",
        "too-large",
        "limit-exceeded",
    ];
    KINDS.contains(&problem.slug.as_str())
}

/// The pieces to try next, in order: around the line to blame where the node names it, else halves.
fn split(mut lines: Vec<Line>, problem: &Problem) -> Vec<Vec<Line>> {
    let index = problem.number("index");
    let culprit = index.and_then(|index| batch::place(&lines, problem.number("part"), problem.text("stream"), index));
    let Some(culprit) = culprit else {
        let right = lines.split_off(lines.len() / 2);
        return vec![lines, right];
    };
    let behind = lines.split_off(culprit + 1);
    let alone = lines.split_off(culprit);
    [lines, alone, behind].into_iter().filter(|piece| !piece.is_empty()).collect()
}

fn gave_up(failure: &Failure) -> Failure {
    Failure::new(Exit::Unavailable, format!("the import stopped: {failure}"))
        .advise("run the same import again: it goes on where this one stopped, and nothing is doubled")
}

impl Counts {
    /// Names a bad line, and counts it as skipped if such lines are passed over.
    pub(crate) fn bad(&self, bad: &BadLine, skip: bool) -> Result<u64, Failure> {
        if skip {
            note(&format!("skipped {bad}"));
            return Ok(self.skipped.fetch_add(1, Ordering::Relaxed));
        }
        let stopped = Failure::new(Exit::BadInput, bad.to_string());
        Err(stopped
            .advise("correct the line and run the import again (what is in is known), or pass `--on-error skip`"))
    }

    /// Says, once, that the import waits for the node.
    fn say_waiting(&self, failure: &Failure) {
        if !self.waited.swap(true, Ordering::Relaxed) {
            let first = failure.to_string();
            note(&format!("waiting for the node: {}", first.lines().next().unwrap_or_default()));
        }
    }
}
