//! jq, bounded: programs that strangers write, run where others wait.
//!
//! A [`Program`] makes values of a value, as jq does: `.lines[] | select(.pieces > 0)`. It is for places where the program
//! comes with a request, and has to come out the same on every machine: it reaches no clock, no environment and no chance,
//! and what it takes is counted in steps, bytes and depth ([`Limits`]) rather than in time. So the same program with the same
//! input either gives the same outputs or fails with the same reason, everywhere and always.
//!
//! # How it is bounded
//! Each evaluation of a term is a step, and so is each part of a value that is compared or walked through; 64 bytes that are
//! looked at or copied are one more, and so are 16 bindings between a name and what it stands for. What is built is counted in bytes, also what is thrown away again. Evaluations lie in each other at
//! most [`Limits::depth`] deep, values 256. A limit that is reached ends the run; no `try` catches it. Whatever calls itself,
//! an evaluation or a walk through a value, first looks how much of the stack is left, and has it grow where that is little;
//! so no program overflows it, however small the stack of the thread that it runs on. Regular expressions
//! (crate `regex`) have 1 KiB. What it takes to read one is counted by how it is written: with the program, which is refused
//! where that takes too long, or in the run, for those that a run puts together. Searching takes time in proportion to the
//! text.
//!
//! # Where it differs from jq
//! * Numbers are exact decimals of up to 38 digits, not doubles: 0.1 + 0.2 is 0.3, and whole numbers lose no digits or fail.
//!   Quotients and roots that do not come out are doubles. None is infinite, nor `nan`.
//! * A number in a program has digits before and behind its point: 0.5 and 5.0, not .5 and 5. (`tonumber` takes these, too).
//!   What `fromjson` reads is JSON, without the `007`, `.5` and `nan` that jq takes for it.
//! * Members of objects come in the order of their names.
//! * No `now`, `input`, `env`, `debug`, `halt`, `import`; nothing of the time zone; no logarithms or sines, whose last digits
//!   differ between machines. Regular expressions have no look-around and no back references.
//! * `reduce` and `foreach` whose step has no output go on with `null`; `|= empty` deletes.
//!
//! *When not to use it*: for programs of one's own; write Rust.
//!
//! # Example
//! ```
//! use quorate_foundations::jq::{Limits, Program, Value};
//! let program = Program::compile(r#".lines[] | select(.pieces > 0) | {sku, eur: (.pieces * .each)}"#)?;
//! let order = Value::read(r#"{"lines": [{"sku": "a", "pieces": 3, "each": 0.10}, {"sku": "b", "pieces": 0}]}"#)?;
//! let outputs = program.run(order, Limits::default())?;
//! assert_eq!(outputs, [r#"{"eur":0.3,"sku":"a"}"#]);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//! Source: the jq manual, version 1.7; the grammar is that of the crate `jaq-core`.

mod compile;
mod date;
mod json;
mod meter;
mod native;
mod number;
mod path;
mod pattern;
mod run;
mod stack;
mod term;
mod text;
mod value;

use std::sync::Arc;

pub use json::NotJson;
pub use number::Number;
pub use value::{List, Object, TooDeep, Value};

/// A program whose names are resolved: cheap to run again and again.
#[derive(Debug)]
pub struct Program {
    text: Arc<str>,
    terms: Vec<term::Term>,
    /// Whether a term never has more than one output, so that its input may be given away.
    single: Vec<bool>,
    definitions: Vec<term::Definition>,
    /// The regular expressions that stand in it.
    patterns: Arc<pattern::Patterns>,
    main: term::Id,
}

/// What a run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps. Default 1,000,000, which take some tens of milliseconds.
    pub steps: u64,
    /// Bytes that are built, all together. Default 64 MiB.
    pub bytes: usize,
    /// How deep evaluations lie in each other. Default 4,000: a definition may call itself some 1,000 deep.
    pub depth: u32,
    /// Outputs. Default 10,000.
    pub outputs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 1_000_000, bytes: 64 << 20, depth: 4_000, outputs: 10_000 }
    }
}

/// Why a text is no program, and at which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    /// At which byte, counted from 0.
    pub at: usize,
    /// What is wrong there, and what could stand there.
    pub what: String,
}

/// Why a run gave no outputs. Run again with the same input it fails with the same reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// The program said so: `error`, or an operation on values that it does not fit.
    #[error("{message}")]
    Raised {
        /// What it said.
        message: String,
    },
    /// It takes too many steps.
    #[error("it takes more than {limit} steps")]
    TooManySteps {
        /// The limit.
        limit: u64,
    },
    /// It builds too much.
    #[error("it builds more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// It calls itself too deep.
    #[error("its evaluations lie in each other more than {limit} deep")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// It has too many outputs.
    #[error("it has more than {limit} outputs")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl Program {
    /// The longest program, in bytes.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Reads a program.
    ///
    /// # Errors
    /// It is none, names what there is not, or has a regular expression that is none.
    pub fn compile(text: &str) -> Result<Self, Fault> {
        compile::program(text)
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its outputs for `input`, each as JSON without blanks, in order.
    ///
    /// # Errors
    /// The program failed, or a limit was reached. There are no outputs then, not even those before the failure.
    pub fn run(&self, input: Value, limits: Limits) -> Result<Vec<String>, Failed> {
        run::run(self, input, limits)
    }
}

#[cfg(test)]
mod tests;
