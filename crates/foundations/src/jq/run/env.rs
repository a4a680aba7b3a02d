//! What an evaluation is given: an input on its way, and what names stand for.

use std::rc::Rc;

use super::super::{
    meter::{Step, Stop},
    path::Path,
    term::Id,
    value::Value,
};

/// A value on its way through the program, with the way to it where somebody asked for that.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) path: Option<Path>,
}

impl Item {
    pub(super) fn plain(value: Value) -> Self {
        Self { value, path: None }
    }

    /// What has no path because it isn't a part of the input.
    pub(super) fn made(value: Value, of: Option<Path>) -> Step<Self> {
        match of {
            None => Ok(Self::plain(value)),
            Some(_) => Err(Stop::raise(format!("{} is not a place in the input", value.shown()))),
        }
    }
}

impl Item {
    /// Where it stands in the input, whoever asked for that.
    pub(super) fn place(&self) -> Step<Path> {
        let nowhere = || Stop::raise(format!("{} is not a place in the input", self.value.shown()));
        self.path.clone().ok_or_else(nowhere)
    }
}

/// What names stand for, the newest first.
#[derive(Clone, Default)]
pub(super) struct Env(Option<Rc<Frame>>);

struct Frame {
    bound: Bound,
    older: Env,
}

impl Drop for Env {
    /// One after the other: there may be as many as a program is long, each inside of the one before.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut frame) = next.and_then(Rc::into_inner) {
            next = frame.older.0.take();
        }
    }
}

#[derive(Clone)]
pub(super) enum Bound {
    Value(Value),
    Closure(Id, Env),
    Label(u64),
}

impl Env {
    pub(super) fn with(&self, bound: Bound) -> Self {
        Self(Some(Rc::new(Frame { bound, older: self.clone() })))
    }

    pub(super) fn skip(&self, frames: u32) -> &Self {
        let mut at = self;
        for _ in 0..frames {
            if let Some(frame) = &at.0 {
                at = &frame.older;
            }
        }
        at
    }

    pub(super) fn get(&self, back: u32) -> Option<&Bound> {
        self.skip(back).0.as_ref().map(|frame| &frame.bound)
    }
}

/// Hands a value on to `then`, keeping apart what went wrong there from what goes wrong before.
pub(super) struct Below(pub(super) Option<Stop>);

impl Below {
    pub(super) fn pass(&mut self, passed: Step) -> Step {
        passed.map_err(|stop| {
            self.0 = Some(stop);
            Stop::Downstream
        })
    }

    /// What came of it: what went wrong behind is told as it was.
    pub(super) fn end(self, ended: Step) -> Result<Step, Stop> {
        match (ended, self.0) {
            (Err(Stop::Downstream), Some(stop)) => Err(stop),
            (ended, _) => Ok(ended),
        }
    }
}

pub(super) fn unbound() -> Stop {
    Stop::raise("a name is not bound")
}
