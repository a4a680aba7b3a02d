//! Histories as text: a line per invocation and per completion, in the order in which they were recorded.

use quorate_foundations::time::Mono;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ClientId, History, OpId, Outcome};

/// Why a text is not a history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NdjsonError {
    /// A line is not what a recorder writes.
    #[error("line {line} of the history can't be read")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// A line tells of an operation that can't have done this.
    #[error("line {line} of the history: {id} {what}")]
    Order {
        /// Counted from 1.
        line: usize,
        /// Whose line it is.
        id: OpId,
        /// What is wrong with it.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Happened<O, R> {
    Invoke { client: ClientId, call: O },
    Ok(R),
    Failed(String),
    Unknown(String),
}

#[derive(Serialize, Deserialize)]
struct Line<O, R> {
    op: OpId,
    at_ns: u64,
    #[serde(flatten)]
    happened: Happened<O, R>,
}

impl<O: Serialize, R: Serialize> History<O, R> {
    /// The history as NDJSON, for reports and for checking it again elsewhere.
    ///
    /// # Errors
    /// When an operation or an answer can't be written as JSON.
    pub fn to_ndjson(&self) -> Result<String, serde_json::Error> {
        let mut lines = Vec::new();
        for operation in self.operations() {
            let Moments { invoked, ended } = Moments::of(operation);
            let call = Happened::<&O, &R>::Invoke { client: operation.client, call: &operation.op };
            lines.push((invoked.order, line(operation.id, invoked.at, call)?));
            if let (Some(ended), Some(completion)) = (ended, completion(&operation.outcome)) {
                lines.push((ended.order, line::<O, R>(operation.id, ended.at, completion)?));
            }
        }
        lines.sort_unstable_by_key(|(order, _)| *order);
        Ok(lines.into_iter().map(|(_, line)| line + "\n").collect())
    }
}

struct Moments {
    invoked: super::Moment,
    ended: Option<super::Moment>,
}

impl Moments {
    fn of<O, R>(operation: &super::Operation<O, R>) -> Self {
        Self { invoked: operation.invoked, ended: operation.outcome.ended() }
    }
}

fn completion<O, R>(outcome: &Outcome<R>) -> Option<Happened<&O, &R>> {
    match outcome {
        Outcome::Pending => None,
        Outcome::Ok { value, .. } => Some(Happened::Ok(value)),
        Outcome::Failed { reason, .. } => Some(Happened::Failed(reason.clone())),
        Outcome::Unknown { reason, .. } => Some(Happened::Unknown(reason.clone())),
    }
}

fn line<O: Serialize, R: Serialize>(
    op: OpId,
    at: Mono,
    happened: Happened<&O, &R>,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Line { op, at_ns: at.as_nanos(), happened })
}

impl<O: DeserializeOwned, R: DeserializeOwned> History<O, R> {
    /// Reads what [`to_ndjson`](Self::to_ndjson) wrote.
    ///
    /// # Errors
    /// [`NdjsonError`], with the line it is about.
    pub fn from_ndjson(text: &str) -> Result<Self, NdjsonError> {
        let mut history = Self::new();
        for (index, text) in text.lines().enumerate() {
            let number = index + 1;
            let read: Line<O, R> =
                serde_json::from_str(text).map_err(|cause| NdjsonError::Line { line: number, cause })?;
            history.replay(read).map_err(|(id, what)| NdjsonError::Order { line: number, id, what })?;
        }
        Ok(history)
    }

    fn replay(&mut self, Line { op, at_ns, happened }: Line<O, R>) -> Result<(), (OpId, &'static str)> {
        let at = Mono::from_nanos(at_ns);
        if let Happened::Invoke { client, call } = happened {
            if op.0 != self.operations.len() as u64 {
                return Err((op, "is invoked out of turn"));
            }
            self.invoke(client, call, at);
            return Ok(());
        }
        match self.get(op) {
            None => return Err((op, "completes but was never invoked")),
            Some(known) if !matches!(known.outcome, Outcome::Pending) => return Err((op, "completes a second time")),
            Some(_) => {}
        }
        match happened {
            Happened::Ok(value) => self.ok(op, value, at),
            Happened::Failed(reason) => self.failed(op, reason, at),
            Happened::Unknown(reason) => self.unknown(op, reason, at),
            Happened::Invoke { .. } => {}
        }
        Ok(())
    }
}
