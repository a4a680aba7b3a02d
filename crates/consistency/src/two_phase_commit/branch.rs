//! The rules of a participant that keeps its promises in rows of its own: what it does with what it is asked, by what it knows.

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// Nothing: it never came.
    Nothing,
    /// It lies below what has ended, says its coordinator.
    Forgotten,
    /// It was promised.
    Prepared,
    /// It was committed.
    Committed,
    /// It was aborted.
    Aborted,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// To promise.
    Prepare,
    /// To do it.
    Commit,
    /// To undo it.
    Abort,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Do the work, write down that it is prepared, and vote.
    Prepare,
    /// It was promised before: say so again, if it is the same work.
    Repeat,
    /// It has ended: vote no.
    Late,
    /// Do what was promised, and remember that it is committed.
    Commit,
    /// Undo it, and remember that it is aborted.
    Abort,
    /// Remember that it is aborted, for a prepare that is still on its way.
    Remember,
    /// Nothing, and well so.
    Nothing,
    /// Nothing: it was ended the other way.
    Contradict,
}

impl Known {
    /// What to do when something is asked.
    pub(super) fn step(self, asked: Asked) -> Step {
        match (self, asked) {
            (Self::Nothing, Asked::Prepare) => Step::Prepare,
            (Self::Prepared, Asked::Prepare) => Step::Repeat,
            (Self::Committed | Self::Aborted | Self::Forgotten, Asked::Prepare) => Step::Late,
            (Self::Prepared, Asked::Commit) => Step::Commit,
            (Self::Committed | Self::Forgotten, Asked::Commit) => Step::Nothing,
            (Self::Prepared, Asked::Abort) => Step::Abort,
            (Self::Nothing, Asked::Abort) => Step::Remember,
            (Self::Aborted | Self::Forgotten, Asked::Abort) => Step::Nothing,
            // Whoever is told to commit has promised: of what nothing is known, the promise was lost.
            (Self::Aborted | Self::Nothing, Asked::Commit) | (Self::Committed, Asked::Abort) => Step::Contradict,
        }
    }
}
