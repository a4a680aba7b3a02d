//! What is put together of several outputs, and what is taken apart into several names.
//!
//! Parts that have one output at most are taken one after the other; only a part that has several calls its form again, for
//! each of them. So a form may be as wide as a program is long: how deep it lies on the stack is told by the evaluations in it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        meter::{Meter, Step, Stop},
        native, path,
        term::{Id, Pattern, Piece},
        value::{ITEM, MEMBER, Value},
    },
    Runner, Values,
    env::{Bound, Env},
};

/// The members of an object that is being put together.
pub(super) type Members = BTreeMap<Arc<str>, Value>;

/// What is still to be taken apart.
#[derive(Clone)]
pub(super) enum Open<'p> {
    One(&'p Pattern, Value),
    /// Members of one object.
    Members(&'p [(Id, Pattern)], Value),
}

impl<'p> Runner<'p> {
    pub(super) fn text(
        self,
        meter: &mut Meter,
        pieces: &'p [Piece],
        env: &Env,
        input: &Value,
        behind: String,
        out: &mut dyn FnMut(&mut Meter, String) -> Step,
    ) -> Step {
        let put = |meter: &mut Meter, said: &str, behind: &str| {
            meter.build(said.len() + behind.len())?;
            Ok(format!("{said}{behind}"))
        };
        let (mut pieces, mut behind) = (pieces, behind);
        // As jq does: the last piece changes slowest.
        while let Some((piece, before)) = pieces.split_last() {
            meter.step(1)?;
            behind = match piece {
                Piece::Said(said) => put(meter, said, &behind)?,
                Piece::Term(id) if self.is_single(*id) => {
                    let Some(value) = self.only(meter, *id, env, input.clone())? else { return Ok(()) };
                    put(meter, &native::as_text(&value)?, &behind)?
                }
                Piece::Term(id) => {
                    return self.values(meter, *id, env, input.clone(), &mut |meter, value| {
                        let behind = put(meter, &native::as_text(&value)?, &behind)?;
                        self.text(meter, before, env, input, behind, out)
                    });
                }
            };
            pieces = before;
        }
        out(meter, behind)
    }

    pub(super) fn object(
        self,
        meter: &mut Meter,
        members: &'p [(Id, Id)],
        env: &Env,
        input: &Value,
        before: Members,
        out: Values<'_>,
    ) -> Step {
        let (mut members, mut known) = (members, before);
        while let Some(((name, value), rest)) = members.split_first() {
            if !(self.is_single(*name) && self.is_single(*value)) {
                return self.values(meter, *name, env, input.clone(), &mut |meter, name| {
                    let name = member_name(name)?;
                    self.values(meter, *value, env, input.clone(), &mut |meter, value| {
                        meter.build(known.len() * MEMBER)?;
                        meter.look(name.len())?;
                        let mut known = known.clone();
                        known.insert(name.clone(), value);
                        self.object(meter, rest, env, input, known, out)
                    })
                });
            }
            let Some(name) = self.only(meter, *name, env, input.clone())? else { return Ok(()) };
            let name = member_name(name)?;
            let Some(value) = self.only(meter, *value, env, input.clone())? else { return Ok(()) };
            meter.look(name.len())?;
            known.insert(name, value);
            members = rest;
        }
        let object = native::object(meter, known)?;
        out(meter, object)
    }

    /// Gives each way in which patterns fit values, the last of `open` first, to `then`.
    pub(super) fn bind(
        self,
        meter: &mut Meter,
        env: &Env,
        open: Vec<Open<'p>>,
        then: &mut dyn FnMut(&mut Meter, &Env) -> Step,
    ) -> Step {
        let (mut env, mut open) = (env.clone(), open);
        while let Some(next) = open.pop() {
            meter.step(1)?;
            match next {
                Open::One(Pattern::Variable, value) => env = env.with(Bound::Value(value)),
                Open::One(Pattern::List(all), value) => {
                    if !matches!(value, Value::List(_) | Value::Null) {
                        return Err(Stop::raise(format!("{} is no array to take apart", value.shown())));
                    }
                    for (n, pattern) in all.iter().enumerate().rev() {
                        open.push(Open::One(pattern, path::index(meter, &value, &Value::count(n))?));
                    }
                }
                Open::One(Pattern::Object(all), value) => open.push(Open::Members(all, value)),
                Open::Members(all, value) => {
                    let Some(((key, pattern), rest)) = all.split_first() else { continue };
                    if !self.is_single(*key) {
                        return self.values(meter, *key, &env, value.clone(), &mut |meter, key| {
                            let member = path::index(meter, &value, &key)?;
                            meter.build((open.len() + 2) * ITEM)?;
                            let mut open = open.clone();
                            open.extend([Open::Members(rest, value.clone()), Open::One(pattern, member)]);
                            self.bind(meter, &env, open, then)
                        });
                    }
                    let Some(key) = self.only(meter, *key, &env, value.clone())? else { return Ok(()) };
                    let member = path::index(meter, &value, &key)?;
                    open.extend([Open::Members(rest, value), Open::One(pattern, member)]);
                }
            }
        }
        then(meter, &env)
    }
}

fn member_name(name: Value) -> Step<Arc<str>> {
    match name {
        Value::Text(name) => Ok(name),
        other => Err(Stop::raise(format!("the name of a member is a string, not {}", other.shown()))),
    }
}
