//! Registers that can be read, written, and compared and set: the classic of linearizability.
//!
//! Any number of registers, each judged by itself. Every register holds nothing at first.
//!
//! Source: the register of Herlihy and Wing (1990), figure 1, with compare-and-set as Jepsen's knossos has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{
    history::{History, Outcome},
    linearizability::{self, Budget, Contradiction, Model, Object, Observed},
    verdict::Verdict,
};

/// What a client asks of a register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Which register.
    pub key: String,
    /// What of it.
    pub op: Op,
}

/// What can be asked of one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// Its value.
    Read,
    /// That it hold this value.
    Write(u64),
    /// That it hold `new` if it holds `expected`.
    CompareAndSet {
        /// What it should hold before; `None` for nothing.
        expected: Option<u64>,
        /// What it should hold then.
        new: u64,
    },
}

/// What a register answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To a read: what it holds.
    Value(Option<u64>),
    /// It holds the new value now.
    Written,
    /// To a compare-and-set: it held something else.
    Mismatch,
}

impl Call {
    /// A read.
    pub fn read(key: impl Into<String>) -> Self {
        Self { key: key.into(), op: Op::Read }
    }

    /// A write.
    pub fn write(key: impl Into<String>, value: u64) -> Self {
        Self { key: key.into(), op: Op::Write(value) }
    }

    /// A compare-and-set.
    pub fn compare_and_set(key: impl Into<String>, expected: Option<u64>, new: u64) -> Self {
        Self { key: key.into(), op: Op::CompareAndSet { expected, new } }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.op, self.key)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write(value) => write!(f, "write {value}"),
            Self::CompareAndSet { expected: Some(expected), new } => write!(f, "set {expected} to {new}"),
            Self::CompareAndSet { expected: None, new } => write!(f, "set nothing to {new}"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(Some(value)) => write!(f, "{value}"),
            Self::Value(None) => f.write_str("nothing"),
            Self::Written => f.write_str("written"),
            Self::Mismatch => f.write_str("holds something else"),
        }
    }
}

/// Judges every register of `history` with the default budget.
pub fn linearizable(history: &History<Call, Reply>) -> Verdict {
    linearizable_within(history, Budget::default())
}

/// Judges every register of `history`.
pub fn linearizable_within(history: &History<Call, Reply>, budget: Budget) -> Verdict {
    let mut registers: BTreeMap<&str, Vec<Observed<Op, Reply>>> = BTreeMap::new();
    for operation in history.operations() {
        if matches!(operation.outcome, Outcome::Failed { .. }) {
            continue;
        }
        let answer = operation.outcome.answer().map(|(reply, at)| (*reply, at.order));
        let observed = Observed { id: operation.id, op: operation.op.op, invoked: operation.invoked.order, answer };
        registers.entry(&operation.op.key).or_default().push(observed);
    }
    let registers = registers.into_iter().map(|(name, operations)| Object { name, model: Register, operations });
    linearizability::check_all("every register is linearizable", registers, budget)
}

/// One register.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// Which values somebody saw, or may have compared with, whatever the order.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    values: Vec<u64>,
    /// Somebody was told that the register holds *something else*, which may be any value.
    anything: bool,
}

impl Seen {
    fn contains(&self, value: u64) -> bool {
        self.anything || self.values.binary_search(&value).is_ok()
    }
}

impl Model for Register {
    type State = Option<u64>;
    type Op = Op;
    type Ret = Reply;
    type Facts = Seen;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(&self, seen: &Seen, held: &Option<u64>, op: &Op, reply: Option<&Reply>) -> Option<Option<u64>> {
        let (after, truth) = match *op {
            Op::Read => (*held, Reply::Value(*held)),
            Op::Write(value) => (Some(value), Reply::Written),
            Op::CompareAndSet { expected, new } if expected == *held => (Some(new), Reply::Written),
            Op::CompareAndSet { .. } => (*held, Reply::Mismatch),
        };
        match reply {
            Some(reply) => (*reply == truth).then_some(after),
            // A value that nobody can have seen explains nothing: without it the explanation holds as well.
            None => (after == *held || after.is_some_and(|value| seen.contains(value))).then_some(after),
        }
    }

    fn only_looks(&self, _: &Option<u64>, _: &Op, reply: &Reply) -> bool {
        matches!(reply, Reply::Value(_) | Reply::Mismatch)
    }

    fn describe(&self, op: &Op, reply: Option<&Reply>) -> String {
        reply.map_or_else(|| op.to_string(), |reply| format!("{op}: {reply}"))
    }

    fn learn(&self, operations: &[Observed<Op, Reply>]) -> Result<Seen, Contradiction> {
        let mut written = BTreeSet::new();
        let mut seen = Seen::default();
        for Observed { op, .. } in operations {
            match op {
                Op::Read => {}
                Op::Write(value) | Op::CompareAndSet { new: value, .. } => _ = written.insert(*value),
            }
        }
        for Observed { id, op, answer, .. } in operations {
            if let (Op::Read, Some((Reply::Value(Some(value)), _))) = (op, answer)
                && !written.contains(value)
            {
                let sentence = format!("{id} read {value}, which nobody had asked to write");
                return Err(Contradiction { operations: vec![*id], sentence });
            }
        }
        for Observed { op, answer, .. } in operations {
            match (op, answer) {
                (Op::Read, Some((Reply::Value(value), _))) => seen.values.extend(value),
                (Op::CompareAndSet { .. }, Some((Reply::Mismatch, _))) => seen.anything = true,
                (Op::CompareAndSet { expected, .. }, _) => seen.values.extend(expected),
                _ => {}
            }
        }
        seen.values.sort_unstable();
        Ok(seen)
    }
}
