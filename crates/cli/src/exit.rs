//! How a command ends: the exit codes, and errors as people read them.

use std::{fmt, io, process::ExitCode};

use crate::client::{ClientError, Problem};

/// Exit codes. Scripts rely on them: numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The node said no: a conflict, a failed precondition, a broken rule.
    Refused = 1,
    /// The arguments or the configuration cannot be used.
    Usage = 2,
    /// What was asked for is not there.
    NotFound = 3,
    /// The node cannot be reached, is overloaded, stopping or out of disk: later it may work.
    Unavailable = 4,
    /// It may or may not have happened: repeat with the same ids or key.
    Unknown = 5,
    /// A check found damage.
    Damaged = 6,
    /// Something ails the database; nothing is damaged.
    Ailing = 7,
    /// The input is not what it should be.
    BadInput = 65,
    /// Something failed inside.
    Failed = 70,
    /// A file of this machine could not be read or written.
    Io = 74,
}

/// The exit codes as `--help` tells them.
pub(crate) const HELP: &str = "\
Exit codes:
  0   done
  1   refused: a conflict, a failed precondition, a broken rule
  2   usage: arguments or configuration that cannot be used
  3   not found
  4   unavailable: the node cannot be reached, is overloaded, stopping or out of disk
  5   outcome unknown: repeat with the same ids or key
  6   damaged: a check found damage
  7   ailing: the doctor found something to mend
  65  bad input data
  70  something failed inside
  74  a file could not be read or written

Data goes to standard output, everything else to standard error. NO_COLOR is respected.";

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The node answered with a problem document.
    Problem(Problem),
    /// The node could not be talked to.
    Client(ClientError),
    /// Anything found on this side.
    Local {
        /// How to exit.
        exit: Exit,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: Option<String>,
    },
    /// Whoever read our output stopped reading: nothing is wrong.
    OutputClosed,
}

impl Failure {
    /// A failure of this side.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self::Local { exit, what: what.into(), advice: None }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub(crate) fn advise(self, text: impl Into<String>) -> Self {
        match self {
            Self::Local { exit, what, .. } => Self::Local { exit, what, advice: Some(text.into()) },
            other => other,
        }
    }

    /// A failure told by an error and its causes.
    pub(crate) fn of(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(exit, chain(error))
    }

    /// A file that could not be read or written.
    pub(crate) fn io(doing: impl fmt::Display, cause: &io::Error) -> Self {
        Self::new(Exit::Io, format!("{doing}: {cause}"))
    }

    /// Whether what was asked may have been done all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        self.exit() == Some(Exit::Unknown)
    }

    fn exit(&self) -> Option<Exit> {
        match self {
            Self::Problem(problem) => Some(problem.exit()),
            Self::Client(error) => Some(error.exit()),
            Self::Local { exit, .. } => Some(*exit),
            Self::OutputClosed => None,
        }
    }

    /// Says on standard error what went wrong, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let Some(exit) = self.exit() else { return ExitCode::SUCCESS };
        crate::output::complain(&self.to_string());
        ExitCode::from(exit as u8)
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => problem.fmt(f),
            Self::Client(error) => write!(f, "{}\n  what to do: {}", chain(error), error.advice()),
            Self::Local { what, advice: Some(advice), .. } => write!(f, "{what}\n  what to do: {advice}"),
            Self::Local { what, .. } => f.write_str(what),
            Self::OutputClosed => Ok(()),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}
