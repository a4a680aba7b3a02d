//! Functions that run their arguments themselves.

use super::{
    super::{
        meter::{Meter, Step, Stop},
        native::{self, Special},
        number::Number,
        path::{self, Path},
        term::Id,
        value::{ITEM, Value, paid},
    },
    Runner, Sink,
    env::{Env, Item},
    iterate, until,
};

impl<'p> Runner<'p> {
    pub(super) fn special(
        self,
        meter: &mut Meter,
        special: Special,
        arguments: &'p [Id],
        env: &Env,
        input: Item,
        out: Sink<'_>,
    ) -> Step {
        match (special, arguments) {
            (Special::Error, []) => Err(Stop::Raised(input.value)),
            (Special::Error, [message, ..]) => {
                self.values(meter, *message, env, input.value, &mut |_, value| Err(Stop::Raised(value)))
            }
            (Special::Path, [of, ..]) => {
                let Item { value, path } = input;
                let start = Item { value, path: Some(Path::default()) };
                self.eval(meter, *of, env, start, &mut |meter, item| {
                    let way = Value::list(meter, item.place()?.steps())?;
                    out(meter, Item::made(way, path.clone())?)
                })
            }
            (Special::GetPath, [way, ..]) => self.each(meter, *way, env, input, &mut |meter, way, input| {
                let way = native::way(&way)?;
                let value = path::get(meter, &input.value, &way.items)?;
                let mut path = input.path;
                for key in &way.items {
                    path = path.map(|path| path.below(key.clone())).transpose()?;
                }
                out(meter, Item { value, path })
            }),
            (Special::Range, [from, rest @ ..]) => self.range(meter, *from, rest, env, input, out),
            (Special::Select, [condition, ..]) => {
                self.each(meter, *condition, env, input, &mut |meter, holds, input| {
                    if holds.is_true() { out(meter, input) } else { Ok(()) }
                })
            }
            (Special::Recurse, []) => {
                self.unfold(meter, input, out, &mut |meter, item, more| iterate(meter, item, true, more))
            }
            (Special::Recurse | Special::Repeat, [next, ..]) => {
                self.unfold(meter, input, out, &mut |meter, item, more| self.eval(meter, *next, env, item, more))
            }
            (Special::While, [condition, next]) => self.loops(meter, (*condition, *next), env, input, false, out),
            (Special::Until, [condition, next]) => self.loops(meter, (*condition, *next), env, input, true, out),
            (Special::First, [of, ..]) => match self.first(meter, *of, env, input)? {
                Some(item) => out(meter, item),
                None => Ok(()),
            },
            (Special::Last, [of, ..]) => match self.last(meter, *of, env, input)? {
                Some(item) => out(meter, item),
                None => Ok(()),
            },
            (Special::Limit, [count, of]) => self.each(meter, *count, env, input, &mut |meter, count, input| {
                let mut left = self.count(&count)?;
                if left == 0 {
                    return Ok(());
                }
                let label = meter.label();
                let ended = self.eval(meter, *of, env, input, &mut |meter, item| {
                    left -= 1;
                    out(meter, item)?;
                    if left == 0 { Err(Stop::Break(label)) } else { Ok(()) }
                });
                until(label, ended)
            }),
            (Special::Skip, [count, of]) => self.each(meter, *count, env, input, &mut |meter, count, input| {
                let mut left = self.count(&count)?;
                self.eval(meter, *of, env, input, &mut |meter, item| {
                    if left == 0 {
                        return out(meter, item);
                    }
                    left -= 1;
                    Ok(())
                })
            }),
            (Special::Any, [of, condition]) => self.decide(meter, (*of, *condition), env, input, true, out),
            (Special::All, [of, condition]) => self.decide(meter, (*of, *condition), env, input, false, out),
            (Special::SortBy | Special::GroupBy | Special::UniqueBy | Special::MinBy | Special::MaxBy, [by, ..]) => {
                let value = self.ordered(meter, special, *by, env, input.value)?;
                out(meter, Item::made(value, input.path)?)
            }
            _ => Ok(()),
        }
    }

    fn count(self, count: &Value) -> Step<u64> {
        match count {
            Value::Number(number) if *number <= Number::ZERO => Ok(0),
            Value::Number(number) => {
                Ok(number.ceil().ok().and_then(Number::floored).map_or(u64::MAX, |count| count.unsigned_abs()))
            }
            other => Err(Stop::raise(format!("a number is needed, not {}", other.shown()))),
        }
    }

    fn range(self, meter: &mut Meter, from: Id, rest: &'p [Id], env: &Env, input: Item, out: Sink<'_>) -> Step {
        let (value, path) = (input.value, input.path);
        let mut count = |meter: &mut Meter, from: Value, to: Value, by: Value| {
            let (Value::Number(mut at), Value::Number(to), Value::Number(by)) = (from, to, by) else {
                return Err(Stop::raise("a range has numbers as its bounds"));
            };
            let is_in = |at: Number| if by > Number::ZERO { at < to } else { at > to };
            while by != Number::ZERO && is_in(at) {
                meter.step(1)?;
                out(meter, Item::made(Value::Number(at), path.clone())?)?;
                at = at.plus(by).map_err(Stop::raise_from)?;
            }
            Ok(())
        };
        let one = || Value::from(1_i64);
        self.values(meter, from, env, value.clone(), &mut |meter, from| match rest {
            [] => count(meter, 0_i64.into(), from, one()),
            [to] => self.values(meter, *to, env, value.clone(), &mut |meter, to| count(meter, from.clone(), to, one())),
            [to, by, ..] => self.values(meter, *to, env, value.clone(), &mut |meter, to| {
                self.values(meter, *by, env, value.clone(), &mut |meter, by| count(meter, from.clone(), to.clone(), by))
            }),
        })
    }

    /// Hands on the item, and then whatever `next` gives for it, and for that, depth first.
    fn unfold(
        self,
        meter: &mut Meter,
        input: Item,
        out: Sink<'_>,
        next: &mut dyn FnMut(&mut Meter, Item, Sink<'_>) -> Step,
    ) -> Step {
        let mut waiting = vec![input];
        while let Some(item) = waiting.pop() {
            meter.step(1)?;
            out(meter, item.clone())?;
            let first = waiting.len();
            next(meter, item, &mut |meter, item| {
                meter.build(ITEM)?;
                waiting.push(item);
                Ok(())
            })?;
            waiting[first..].reverse();
        }
        Ok(())
    }

    /// `until` where it ends with an item that holds, `while` where it hands on all that do.
    fn loops(
        self,
        meter: &mut Meter,
        (condition, next): (Id, Id),
        env: &Env,
        input: Item,
        ends: bool,
        out: Sink<'_>,
    ) -> Step {
        let mut waiting = vec![input];
        while let Some(item) = waiting.pop() {
            meter.step(1)?;
            let first = waiting.len();
            self.each(meter, condition, env, item, &mut |meter, holds, item| {
                match (holds.is_true(), ends) {
                    (true, true) => return out(meter, item),
                    (false, false) => return Ok(()),
                    (true, false) => out(meter, item.clone())?,
                    (false, true) => {}
                }
                self.eval(meter, next, env, item, &mut |meter, item| {
                    meter.build(ITEM)?;
                    waiting.push(item);
                    Ok(())
                })
            })?;
            waiting[first..].reverse();
        }
        Ok(())
    }

    /// Whether any, or all, outputs fulfil a condition.
    fn decide(
        self,
        meter: &mut Meter,
        (of, condition): (Id, Id),
        env: &Env,
        input: Item,
        decides: bool,
        out: Sink<'_>,
    ) -> Step {
        let (label, mut decided) = (meter.label(), false);
        let ended = self.values(meter, of, env, input.value, &mut |meter, value| {
            self.values(meter, condition, env, value, &mut |_, holds| {
                if holds.is_true() == decides {
                    decided = true;
                    return Err(Stop::Break(label));
                }
                Ok(())
            })
        });
        until(label, ended)?;
        out(meter, Item::made((decided == decides).into(), input.path)?)
    }

    /// Sorts, groups or finds the least by what a filter says of each item.
    fn ordered(self, meter: &mut Meter, special: Special, by: Id, env: &Env, input: Value) -> Step<Value> {
        let items = native::items(meter, input)?;
        let mut keyed = Vec::with_capacity(items.len());
        meter.build(items.len() * 2 * ITEM)?;
        for item in items {
            let mut key = Vec::new();
            self.values(meter, by, env, item.clone(), &mut |meter, value| {
                meter.build(ITEM)?;
                key.push(value);
                Ok(())
            })?;
            keyed.push((Value::of_items(key)?, item));
        }
        native::pay(meter, keyed.iter().map(|(key, _)| key))?;
        let order = paid;
        match special {
            Special::MinBy => {
                let least =
                    keyed.into_iter().reduce(|best, next| if order(&next.0, &best.0).is_lt() { next } else { best });
                return Ok(least.map(|(_, item)| item).unwrap_or_default());
            }
            Special::MaxBy => {
                let most =
                    keyed.into_iter().reduce(|best, next| if order(&next.0, &best.0).is_ge() { next } else { best });
                return Ok(most.map(|(_, item)| item).unwrap_or_default());
            }
            _ => keyed.sort_by(|(one, _), (two, _)| order(one, two)),
        }
        if special == Special::UniqueBy {
            keyed.dedup_by(|(one, _), (two, _)| order(one, two).is_eq());
        }
        if special != Special::GroupBy {
            return Value::of_items(keyed.into_iter().map(|(_, item)| item).collect());
        }
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for (key, item) in keyed {
            match groups.last_mut() {
                Some((known, group)) if order(known, &key).is_eq() => group.push(item),
                _ => {
                    meter.build(ITEM)?;
                    groups.push((key, vec![item]));
                }
            }
        }
        let groups = groups.into_iter().map(|(_, group)| Value::of_items(group)).collect::<Step<Vec<_>>>()?;
        Value::list(meter, groups)
    }
}
