//! Running a program: each term is given an input and hands its outputs on, one after the other.
//!
//! Outputs are pushed into what takes them, so that nothing is kept that nobody asked for, and how deep evaluations lie in
//! each other is known at each of them. An input may come with its [`Path`]; then outputs have theirs, which is what
//! `path(f)`, `del(f)` and all assignments are made of.

mod env;
mod forms;
mod special;

use super::{
    Failed, Limits, Program,
    meter::{Meter, Step, Stop},
    native,
    path::{self, Path},
    stack::roomy,
    term::{Cmp, Id, Math, Term},
    value::{ITEM, Value},
};
use env::{Below, Bound, Env, Item, unbound};
use forms::{Members, Open};

pub(super) fn run(program: &Program, input: Value, limits: Limits) -> Result<Vec<String>, Failed> {
    let mut meter = Meter::knowing(program.patterns.clone(), limits);
    let mut outputs = Vec::new();
    let input = Item { value: input, path: None };
    let ended = Runner { program }.eval(&mut meter, program.main, &Env::default(), input, &mut |meter, item| {
        if outputs.len() == limits.outputs {
            return Err(Stop::Limit(Failed::TooMany { limit: limits.outputs }));
        }
        outputs.push(item.value.to_json(meter)?);
        Ok(())
    });
    match ended {
        Ok(()) => Ok(outputs),
        Err(Stop::Limit(failed)) => Err(failed),
        Err(Stop::Raised(value)) => Err(Failed::Raised { message: message(&value) }),
        // Every label is around its `break`, and whoever stops a source takes that back.
        Err(Stop::Break(_) | Stop::Downstream) => Err(Failed::Raised { message: "break".to_owned() }),
    }
}

fn message(value: &Value) -> String {
    const LONGEST: usize = 500;
    match value {
        Value::Text(text) if text.len() <= LONGEST => text.to_string(),
        Value::Text(text) => format!("{}…", &text[..text.floor_char_boundary(LONGEST)]),
        other => other.shown(),
    }
}

type Sink<'s> = &'s mut dyn FnMut(&mut Meter, Item) -> Step;
type Values<'s> = &'s mut dyn FnMut(&mut Meter, Value) -> Step;

/// Bindings that cost as much as one step when they are passed over.
const FRAMES_PER_STEP: u32 = 16;

#[derive(Clone, Copy)]
struct Runner<'p> {
    program: &'p Program,
}

impl<'p> Runner<'p> {
    fn term(self, id: Id) -> &'p Term {
        &self.program.terms[id.0 as usize]
    }

    fn is_single(self, id: Id) -> bool {
        self.program.single[id.0 as usize]
    }

    /// Runs a term on an input and hands each output to `out`.
    ///
    /// What takes the outputs runs on top of the term, and may itself be inside of many others: there has to be room for
    /// both. So no more than one term and one taker lie between two looks at the stack, and as many of them on it as
    /// [`Limits::depth`] says.
    fn eval(self, meter: &mut Meter, id: Id, env: &Env, input: Item, out: Sink<'_>) -> Step {
        meter.enter()?;
        let ended = roomy(|| self.term_of(meter, id, env, input, &mut |meter, item| roomy(|| out(meter, item))));
        meter.leave();
        ended
    }

    /// Runs a term whose outputs need no path.
    fn values(self, meter: &mut Meter, id: Id, env: &Env, input: Value, out: Values<'_>) -> Step {
        match self.term(id) {
            Term::Identity => out(meter, input),
            Term::Constant(value) => out(meter, value.clone()),
            _ => self.eval(meter, id, env, Item::plain(input), &mut |meter, item| out(meter, item.value)),
        }
    }

    /// The last output of a term, if it has any.
    fn last(self, meter: &mut Meter, id: Id, env: &Env, input: Item) -> Step<Option<Item>> {
        let mut last = None;
        self.eval(meter, id, env, input, &mut |_, item| {
            last = Some(item);
            Ok(())
        })?;
        Ok(last)
    }

    /// The output of a term that has at most one, without its path.
    fn only(self, meter: &mut Meter, id: Id, env: &Env, input: Value) -> Step<Option<Value>> {
        let mut found = None;
        self.values(meter, id, env, input, &mut |_, value| {
            found = Some(value);
            Ok(())
        })?;
        Ok(found)
    }

    /// Gives the input to `then` for each output of `first`; the last time it is given away.
    fn each(
        self,
        meter: &mut Meter,
        first: Id,
        env: &Env,
        input: Item,
        then: &mut dyn FnMut(&mut Meter, Value, Item) -> Step,
    ) -> Step {
        if !self.is_single(first) {
            let value = input.value.clone();
            return self.values(meter, first, env, value, &mut |meter, value| then(meter, value, input.clone()));
        }
        let found = self.only(meter, first, env, input.value.clone())?;
        found.map_or(Ok(()), |value| then(meter, value, input))
    }

    fn term_of(self, meter: &mut Meter, id: Id, env: &Env, input: Item, out: Sink<'_>) -> Step {
        match self.term(id) {
            Term::Identity => out(meter, input),
            Term::Constant(value) => out(meter, Item::made(value.clone(), input.path)?),
            Term::Text(pieces) => {
                let Item { value, path } = input;
                self.text(meter, pieces, env, &value, String::new(), &mut |meter, text| {
                    let text = Value::written(meter, &text)?;
                    out(meter, Item::made(text, path.clone())?)
                })
            }
            Term::List(of) => {
                let mut items = Vec::new();
                if let Some(of) = of {
                    self.values(meter, *of, env, input.value, &mut |meter, value| {
                        meter.build(ITEM)?;
                        items.push(value);
                        Ok(())
                    })?;
                }
                out(meter, Item::made(Value::of_items(items)?, input.path)?)
            }
            Term::Object(members) => {
                let Item { value, path } = input;
                self.object(meter, members, env, &value, Members::new(), &mut |meter, object| {
                    out(meter, Item::made(object, path.clone())?)
                })
            }
            Term::Negate(of) => self.values(meter, *of, env, input.value, &mut |meter, value| match value {
                Value::Number(number) => out(meter, Item::made(Value::Number(number.negated()), input.path.clone())?),
                other => Err(Stop::raise(format!("{} cannot be negated", other.shown()))),
            }),
            Term::Pipe(one, two) => {
                self.eval(meter, *one, env, input, &mut |meter, item| self.eval(meter, *two, env, item, out))
            }
            Term::Bind(source, pattern, body) => self.each(meter, *source, env, input, &mut |meter, value, input| {
                self.bind(meter, env, vec![Open::One(pattern, value)], &mut |meter, env| {
                    self.eval(meter, *body, env, input.clone(), out)
                })
            }),
            Term::Comma(one, two) => {
                self.eval(meter, *one, env, input.clone(), out)?;
                self.eval(meter, *two, env, input, out)
            }
            Term::Alternative(one, two) => {
                let (mut found, mut below) = (false, Below(None));
                let ended = self.eval(meter, *one, env, input.clone(), &mut |meter, item| {
                    if !item.value.is_true() {
                        return Ok(());
                    }
                    found = true;
                    let passed = out(meter, item);
                    below.pass(passed)
                });
                match below.end(ended)? {
                    Ok(()) | Err(Stop::Raised(_)) if found => Ok(()),
                    Ok(()) | Err(Stop::Raised(_)) => self.eval(meter, *two, env, input, out),
                    Err(stop) => Err(stop),
                }
            }
            Term::And(one, two) => self.logic(meter, (*one, *two), env, input, false, out),
            Term::Or(one, two) => self.logic(meter, (*one, *two), env, input, true, out),
            Term::Math(one, op, two) => self.each(meter, *two, env, input, &mut |meter, right, input| {
                self.values(meter, *one, env, input.value, &mut |meter, left| {
                    let value = math(meter, *op, left, right.clone())?;
                    out(meter, Item::made(value, input.path.clone())?)
                })
            }),
            Term::Compare(one, op, two) => self.each(meter, *two, env, input, &mut |meter, right, input| {
                self.values(meter, *one, env, input.value, &mut |meter, left| {
                    let order = left.compare(&right, meter)?;
                    let holds = match op {
                        Cmp::Lt => order.is_lt(),
                        Cmp::Le => order.is_le(),
                        Cmp::Gt => order.is_gt(),
                        Cmp::Ge => order.is_ge(),
                        Cmp::Eq => order.is_eq(),
                        Cmp::Ne => order.is_ne(),
                    };
                    out(meter, Item::made(holds.into(), input.path.clone())?)
                })
            }),
            Term::Assign(place, value) => self.each(meter, *value, env, input, &mut |meter, new, input| {
                let path = input.path.clone();
                let mut value = input.value;
                for way in self.paths(meter, *place, env, &value)? {
                    value = path::update(meter, value, &way, &mut |_, _| Ok(new.clone()))?;
                }
                out(meter, Item::made(value, path)?)
            }),
            Term::Update(place, change) => {
                let path = input.path;
                let value = self.update(meter, *place, env, input.value, &mut |meter, old| {
                    self.first(meter, *change, env, Item::plain(old)).map(|item| item.map(|item| item.value))
                })?;
                out(meter, Item::made(value, path)?)
            }
            Term::UpdateMath(place, op, value) => self.each(meter, *value, env, input, &mut |meter, right, input| {
                let path = input.path;
                let value = self.update(meter, *place, env, input.value, &mut |meter, old| {
                    math(meter, *op, old, right.clone()).map(Some)
                })?;
                out(meter, Item::made(value, path)?)
            }),
            Term::UpdateAlternative(place, value) => {
                self.each(meter, *value, env, input, &mut |meter, other, input| {
                    let path = input.path;
                    let value = self.update(meter, *place, env, input.value, &mut |_, old| {
                        Ok(Some(if old.is_true() { old } else { other.clone() }))
                    })?;
                    out(meter, Item::made(value, path)?)
                })
            }
            Term::If(condition, then, otherwise) => {
                self.each(meter, *condition, env, input, &mut |meter, holds, input| {
                    let branch = if holds.is_true() { *then } else { *otherwise };
                    self.eval(meter, branch, env, input, out)
                })
            }
            Term::Try(body, catch) => {
                let (path, mut below) = (input.path.clone(), Below(None));
                let ended = self.eval(meter, *body, env, input, &mut |meter, item| {
                    let passed = out(meter, item);
                    below.pass(passed)
                });
                match (below.end(ended)?, catch) {
                    (Err(Stop::Raised(error)), Some(catch)) => {
                        self.eval(meter, *catch, env, Item::plain(error), &mut |meter, item| {
                            out(meter, Item::made(item.value, path.clone())?)
                        })
                    }
                    (Ok(()) | Err(Stop::Raised(_)), _) => Ok(()),
                    (Err(stop), _) => Err(stop),
                }
            }
            Term::Reduce { source, pattern, init, update } => {
                let whole = input.value.clone();
                self.eval(meter, *init, env, input, &mut |meter, state| {
                    let mut state = Some(state);
                    self.values(meter, *source, env, whole.clone(), &mut |meter, value| {
                        self.bind(meter, env, vec![Open::One(pattern, value)], &mut |meter, env| {
                            let before = next(&mut state);
                            state = self.last(meter, *update, env, before)?;
                            Ok(())
                        })
                    })?;
                    out(meter, next(&mut state))
                })
            }
            Term::Foreach { source, pattern, init, update, extract } => {
                let whole = input.value.clone();
                self.eval(meter, *init, env, input, &mut |meter, state| {
                    let mut state = Some(state);
                    self.values(meter, *source, env, whole.clone(), &mut |meter, value| {
                        self.bind(meter, env, vec![Open::One(pattern, value)], &mut |meter, env| {
                            let before = next(&mut state);
                            self.eval(meter, *update, env, before, &mut |meter, item| {
                                state = Some(item.clone());
                                match extract {
                                    Some(extract) => self.eval(meter, *extract, env, item, out),
                                    None => out(meter, item),
                                }
                            })
                        })
                    })
                })
            }
            Term::Label(body) => {
                let label = meter.label();
                let ended = self.eval(meter, *body, &env.with(Bound::Label(label)), input, out);
                until(label, ended)
            }
            Term::Break(back) => match seek(meter, env, *back)? {
                Some(Bound::Label(label)) => Err(Stop::Break(*label)),
                _ => Err(unbound()),
            },
            Term::Variable(back) => match seek(meter, env, *back)? {
                Some(Bound::Value(value)) => out(meter, Item::made(value.clone(), input.path)?),
                _ => Err(unbound()),
            },
            Term::Closure(back) => match seek(meter, env, *back)? {
                Some(Bound::Closure(body, env)) => self.eval(meter, *body, env, input, out),
                _ => Err(unbound()),
            },
            Term::Call { definition, arguments, skip } => {
                meter.step((skip / FRAMES_PER_STEP).into())?;
                let mut inside = env.skip(*skip).clone();
                for argument in arguments {
                    // A closure that is handed on is not wrapped once more.
                    let closure = match self.term(*argument) {
                        Term::Closure(back) => seek(meter, env, *back)?.cloned().ok_or_else(unbound)?,
                        _ => Bound::Closure(*argument, env.clone()),
                    };
                    inside = inside.with(closure);
                }
                let body = self.program.definitions[*definition as usize].body;
                self.eval(meter, body, &inside, input, out)
            }
            Term::Native(native, arguments) => self.native(meter, *native, arguments, env, input, Vec::new(), out),
            Term::Special(special, arguments) => self.special(meter, *special, arguments, env, input, out),
            Term::Field { of, key, optional } => {
                self.eval(meter, *of, env, input, &mut |meter, item| self.step(meter, item, key, *optional, out))
            }
            Term::Index { of, key, optional } => self.each(meter, *key, env, input, &mut |meter, key, input| {
                self.eval(meter, *of, env, input, &mut |meter, item| self.step(meter, item, &key, *optional, out))
            }),
            Term::Slice { of, from, to, optional } => {
                let whole = input.value.clone();
                self.bound(meter, *from, env, whole.clone(), &mut |meter, from| {
                    self.bound(meter, *to, env, whole.clone(), &mut |meter, to| {
                        self.eval(meter, *of, env, input.clone(), &mut |meter, item| {
                            self.step(meter, item, &path::slice_key(from.clone(), to.clone()), *optional, out)
                        })
                    })
                })
            }
            Term::Iterate { of, optional } => {
                self.eval(meter, *of, env, input, &mut |meter, item| iterate(meter, item, *optional, out))
            }
        }
    }

    fn bound(self, meter: &mut Meter, of: Option<Id>, env: &Env, input: Value, out: Values<'_>) -> Step {
        match of {
            Some(of) => self.values(meter, of, env, input, out),
            None => out(meter, Value::Null),
        }
    }

    /// One step down from an item.
    fn step(self, meter: &mut Meter, item: Item, key: &Value, optional: bool, out: Sink<'_>) -> Step {
        let found = match path::index(meter, &item.value, key) {
            Err(Stop::Raised(_)) if optional => return Ok(()),
            found => found?,
        };
        let path = item.path.map(|path| path.below(key.clone())).transpose()?;
        drop(item.value);
        out(meter, Item { value: found, path })
    }

    fn first(self, meter: &mut Meter, id: Id, env: &Env, input: Item) -> Step<Option<Item>> {
        if self.is_single(id) {
            return self.last(meter, id, env, input);
        }
        let (label, mut found) = (meter.label(), None);
        let ended = self.eval(meter, id, env, input, &mut |_, item| {
            found = Some(item);
            Err(Stop::Break(label))
        });
        until(label, ended)?;
        Ok(found)
    }

    fn logic(
        self,
        meter: &mut Meter,
        (one, two): (Id, Id),
        env: &Env,
        input: Item,
        decides: bool,
        out: Sink<'_>,
    ) -> Step {
        let path = input.path.clone();
        self.each(meter, one, env, input, &mut |meter, left, input| {
            if left.is_true() == decides {
                return out(meter, Item::made(decides.into(), path.clone())?);
            }
            self.values(meter, two, env, input.value, &mut |meter, right| {
                out(meter, Item::made(right.is_true().into(), path.clone())?)
            })
        })
    }

    /// All places that a term names.
    fn paths(self, meter: &mut Meter, id: Id, env: &Env, input: &Value) -> Step<Vec<Vec<Value>>> {
        let mut paths = Vec::new();
        let input = Item { value: input.clone(), path: Some(Path::default()) };
        self.eval(meter, id, env, input, &mut |meter, item| {
            let way = item.place()?.steps();
            meter.build((way.len() + 1) * ITEM)?;
            paths.push(way);
            Ok(())
        })?;
        Ok(paths)
    }

    /// Changes what stands at all places that a term names; what `change` gives nothing for is deleted.
    fn update(
        self,
        meter: &mut Meter,
        place: Id,
        env: &Env,
        input: Value,
        change: &mut dyn FnMut(&mut Meter, Value) -> Step<Option<Value>>,
    ) -> Step<Value> {
        let (mut value, mut gone) = (input, Vec::new());
        for way in self.paths(meter, place, env, &value)? {
            let mut is_gone = false;
            value = path::update(meter, value, &way, &mut |meter, old| {
                let new = change(meter, old)?;
                is_gone = new.is_none();
                Ok(new.unwrap_or_default())
            })?;
            if is_gone {
                gone.push(Value::list(meter, way)?);
            }
        }
        if gone.is_empty() { Ok(value) } else { path::delete(meter, value, gone) }
    }

    #[expect(clippy::too_many_arguments, reason = "what a term is run with, and what is known of the arguments")]
    fn native(
        self,
        meter: &mut Meter,
        native: native::Native,
        arguments: &'p [Id],
        env: &Env,
        input: Item,
        known: Vec<Value>,
        out: Sink<'_>,
    ) -> Step {
        let Some(argument) = arguments.get(known.len()) else {
            let value = native(meter, input.value, &known)?;
            return out(meter, Item::made(value, input.path)?);
        };
        self.each(meter, *argument, env, input, &mut |meter, value, input| {
            let mut known = known.clone();
            known.push(value);
            self.native(meter, native, arguments, env, input, known, out)
        })
    }
}

/// What a name stands for, which was bound so many bindings ago.
fn seek<'e>(meter: &mut Meter, env: &'e Env, back: u32) -> Step<Option<&'e Bound>> {
    meter.step((back / FRAMES_PER_STEP).into())?;
    Ok(env.get(back))
}

/// The state of a fold, `null` where the last step had no output.
fn next(state: &mut Option<Item>) -> Item {
    state.take().unwrap_or_else(|| Item::plain(Value::Null))
}

/// Takes back a `break` to `label`.
fn until(label: u64, ended: Step) -> Step {
    match ended {
        Err(Stop::Break(to)) if to == label => Ok(()),
        ended => ended,
    }
}

/// What is inside of an item, one after the other.
fn iterate(meter: &mut Meter, item: Item, optional: bool, out: Sink<'_>) -> Step {
    match &item.value {
        Value::List(list) => {
            for (n, value) in list.items.iter().enumerate() {
                meter.step(1)?;
                let path = item.path.as_ref().map(|path| path.below(Value::count(n))).transpose()?;
                out(meter, Item { value: value.clone(), path })?;
            }
            Ok(())
        }
        Value::Object(object) => {
            for (name, value) in &object.members {
                meter.step(1)?;
                let path = item.path.as_ref().map(|path| path.below(Value::Text(name.clone()))).transpose()?;
                out(meter, Item { value: value.clone(), path })?;
            }
            Ok(())
        }
        _ if optional => Ok(()),
        other => Err(Stop::raise(format!("there is nothing inside of {}", other.shown()))),
    }
}

fn math(meter: &mut Meter, op: Math, one: Value, two: Value) -> Step<Value> {
    match op {
        Math::Add => native::add(meter, one, two),
        Math::Sub => native::subtract(meter, one, two),
        Math::Mul => native::multiply(meter, one, two),
        Math::Div => native::divide(meter, one, two),
        Math::Rem => native::modulo(&one, &two),
    }
}
