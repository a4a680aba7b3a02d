//! What is put together of several outputs, and what is taken apart into several names.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        meter::{Meter, Step, Stop},
        native, path,
        term::{Id, Pattern, Piece},
        value::Value,
    },
    Runner, Values,
    env::{Bound, Env},
};

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
        meter.step(1)?;
        // As jq does: the last piece changes slowest.
        match pieces.split_last() {
            None => out(meter, behind),
            Some((Piece::Said(said), before)) => {
                meter.build(said.len() + behind.len())?;
                self.text(meter, before, env, input, format!("{said}{behind}"), out)
            }
            Some((Piece::Term(id), before)) => self.values(meter, *id, env, input.clone(), &mut |meter, value| {
                let said = native::as_text(&value)?;
                meter.build(said.len() + behind.len())?;
                self.text(meter, before, env, input, format!("{said}{behind}"), out)
            }),
        }
    }

    pub(super) fn object(
        self,
        meter: &mut Meter,
        members: &'p [(Id, Id)],
        env: &Env,
        input: &Value,
        before: BTreeMap<Arc<str>, Value>,
        out: Values<'_>,
    ) -> Step {
        let Some(((name, value), rest)) = members.split_first() else {
            let object = native::object(meter, before)?;
            return out(meter, object);
        };
        self.values(meter, *name, env, input.clone(), &mut |meter, name| {
            let Value::Text(name) = name else {
                return Err(Stop::raise(format!("the name of a member is a string, not {}", name.shown())));
            };
            self.values(meter, *value, env, input.clone(), &mut |meter, value| {
                meter.build(before.len() * 8)?;
                let mut members = before.clone();
                members.insert(name.clone(), value);
                self.object(meter, rest, env, input, members, out)
            })
        })
    }

    /// Gives each way in which a pattern fits a value to `then`.
    pub(super) fn bind(
        self,
        meter: &mut Meter,
        pattern: &'p Pattern,
        env: &Env,
        value: Value,
        then: &mut dyn FnMut(&mut Meter, &Env) -> Step,
    ) -> Step {
        meter.step(1)?;
        match pattern {
            Pattern::Variable => then(meter, &env.with(Bound::Value(value))),
            Pattern::List(all) => {
                if !matches!(value, Value::List(_) | Value::Null) {
                    return Err(Stop::raise(format!("{} is no array to take apart", value.shown())));
                }
                self.bind_items(meter, all, 0, env, &value, then)
            }
            Pattern::Object(all) => self.bind_members(meter, all, env, &value, then),
        }
    }

    fn bind_items(
        self,
        meter: &mut Meter,
        all: &'p [Pattern],
        n: usize,
        env: &Env,
        value: &Value,
        then: &mut dyn FnMut(&mut Meter, &Env) -> Step,
    ) -> Step {
        let Some(pattern) = all.get(n) else { return then(meter, env) };
        let item = path::index(meter, value, &Value::count(n))?;
        self.bind(meter, pattern, env, item, &mut |meter, env| self.bind_items(meter, all, n + 1, env, value, then))
    }

    fn bind_members(
        self,
        meter: &mut Meter,
        all: &'p [(Id, Pattern)],
        env: &Env,
        value: &Value,
        then: &mut dyn FnMut(&mut Meter, &Env) -> Step,
    ) -> Step {
        let Some(((key, pattern), rest)) = all.split_first() else { return then(meter, env) };
        self.values(meter, *key, env, value.clone(), &mut |meter, key| {
            let member = path::index(meter, value, &key)?;
            self.bind(meter, pattern, env, member, &mut |meter, env| self.bind_members(meter, rest, env, value, then))
        })
    }
}
