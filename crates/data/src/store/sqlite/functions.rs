//! Functions of SQL that end in time.
//!
//! SQLite looks at the clock between the steps of a statement, and a function is one step, however long it takes. Its own
//! `instr`, `replace`, `trim`, `LIKE` and `GLOB` compare everything with everything: over values of a few megabytes one
//! call takes hours. Ours give the same answers. What can be done in one pass is; what cannot counts its steps, and looks at
//! the clock by itself every so often.
//!
//! Others of SQLite's functions pass over their arguments once, whose length is bounded; those that do more are not for
//! statements of views (see the authorizer).
#![expect(unsafe_code, reason = "SQLite's functions are C, and only there a number becomes a text as SQLite spells it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use memchr::memmem;
use rusqlite::{Connection, ffi};

use super::pattern::{Pattern, Wildcards};

/// Steps of a statement between two looks at the clock. Between two of them a function may go over a few megabytes.
const STEPS: c_int = 250;
/// Bytes, or comparisons, that functions go over between two looks at the clock.
const STRIDE: usize = 1 << 18;

type Enough = Box<dyn FnMut() -> bool + Send>;

/// Interrupts what a connection does once it is enough.
#[derive(Clone, Default)]
pub(super) struct Watch(Arc<Watched>);

#[derive(Default)]
struct Watched {
    enough: Mutex<Option<Enough>>,
    spent: AtomicUsize,
}

impl Watch {
    /// Interrupts statements, and functions within them, once `enough` says so; `None` lets them run.
    pub(super) fn set<F: FnMut() -> bool + Send + 'static>(&self, enough: Option<F>) {
        let boxed = enough.map(|enough| -> Enough { Box::new(enough) });
        *self.0.enough.lock().unwrap_or_else(PoisonError::into_inner) = boxed;
    }

    fn is_enough(&self) -> bool {
        let mut enough = self.0.enough.lock().unwrap_or_else(PoisonError::into_inner);
        enough.as_mut().is_some_and(|enough| enough())
    }

    /// Counts work.
    pub(super) fn spend(&self, work: usize) -> Result<(), Refusal> {
        // Ordering: only the connection's thread counts.
        let spent = self.0.spent.load(Ordering::Relaxed).saturating_add(work);
        if spent < STRIDE {
            self.0.spent.store(spent, Ordering::Relaxed);
            return Ok(());
        }
        self.0.spent.store(0, Ordering::Relaxed);
        if self.is_enough() { Err(Refusal::Interrupted) } else { Ok(()) }
    }
}

/// Why a function gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is enough.
    Interrupted,
    TooBig,
    NoMemory,
    Says(&'static str),
}

enum Answer {
    Null,
    Number(i64),
    Text(Vec<u8>),
}

type Body = fn(&Call<'_>) -> Result<Answer, Refusal>;

struct Function {
    body: Body,
    watch: Watch,
}

const ALL: [(&CStr, c_int, Body); 11] = [
    (c"instr", 2, instr),
    (c"replace", 3, replace),
    (c"trim", 1, trim),
    (c"trim", 2, trim),
    (c"ltrim", 1, trim_left),
    (c"ltrim", 2, trim_left),
    (c"rtrim", 1, trim_right),
    (c"rtrim", 2, trim_right),
    (c"like", 2, like),
    (c"like", 3, like),
    (c"glob", 2, glob),
];

/// Puts ours in the place of SQLite's, and has statements of `connection` watched.
pub(super) fn install(connection: &mut Connection) -> rusqlite::Result<Watch> {
    let watch = Watch::default();
    let looking = watch.clone();
    connection.progress_handler(STEPS, Some(move || looking.is_enough()))?;
    for (name, arguments, body) in ALL {
        let function = Box::into_raw(Box::new(Function { body, watch: watch.clone() }));
        let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
        // SAFETY: the connection is open; SQLite calls `drop_function` once it needs the function no more, also where this fails.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                connection.handle(),
                name.as_ptr(),
                arguments,
                flags,
                function.cast(),
                Some(call),
                None,
                None,
                Some(drop_function),
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
    }
    Ok(watch)
}

unsafe extern "C" fn drop_function(function: *mut c_void) {
    // SAFETY: it was made by `Box::into_raw`, and SQLite drops it once.
    drop(unsafe { Box::from_raw(function.cast::<Function>()) });
}

unsafe extern "C" fn call(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite gives what was registered, and as many values as it says; both live as long as the call.
    let (function, values) = unsafe {
        let function = &*ffi::sqlite3_user_data(context).cast::<Function>();
        (function, slice::from_raw_parts(values, usize::try_from(count).unwrap_or_default()))
    };
    let call = Call { context, values, watch: &function.watch };
    let answer = catch_unwind(AssertUnwindSafe(|| (function.body)(&call)));
    call.answer(answer.unwrap_or(Err(Refusal::Says("a function panicked"))));
}

struct Call<'c> {
    context: *mut ffi::sqlite3_context,
    values: &'c [*mut ffi::sqlite3_value],
    watch: &'c Watch,
}

impl Call<'_> {
    fn kind(&self, n: usize) -> c_int {
        // SAFETY: the value lives as long as the call.
        unsafe { ffi::sqlite3_value_type(self.values[n]) }
    }

    /// An argument as a text; `None`: it is null.
    fn text(&self, n: usize) -> Result<Option<&[u8]>, Refusal> {
        if self.kind(n) == ffi::SQLITE_NULL {
            return Ok(None);
        }
        // SAFETY: the text lives as long as the call, since nothing asks for this value in another form afterwards; its
        // length is asked for after it, as SQLite wants it.
        let text = unsafe {
            let text = ffi::sqlite3_value_text(self.values[n]);
            if text.is_null() {
                return Err(Refusal::NoMemory);
            }
            let bytes = ffi::sqlite3_value_bytes(self.values[n]);
            slice::from_raw_parts(text, usize::try_from(bytes).unwrap_or_default())
        };
        self.watch.spend(text.len())?;
        Ok(Some(text))
    }

    /// A limit of the connection.
    fn limit(&self, which: c_int) -> usize {
        // SAFETY: it only reads a number of the connection that calls.
        let limit = unsafe { ffi::sqlite3_limit(ffi::sqlite3_context_db_handle(self.context), which, -1) };
        usize::try_from(limit).unwrap_or_default()
    }

    fn answer(&self, answer: Result<Answer, Refusal>) {
        let context = self.context;
        // SAFETY: SQLite copies what it is given before it returns.
        unsafe {
            match answer {
                Ok(Answer::Null) => ffi::sqlite3_result_null(context),
                Ok(Answer::Number(n)) => ffi::sqlite3_result_int64(context, n),
                Ok(Answer::Text(text)) => ffi::sqlite3_result_text64(
                    context,
                    text.as_ptr().cast(),
                    text.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                    u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1),
                ),
                Err(Refusal::Interrupted) => ffi::sqlite3_result_error_code(context, ffi::SQLITE_INTERRUPT),
                Err(Refusal::TooBig) => ffi::sqlite3_result_error_toobig(context),
                Err(Refusal::NoMemory) => ffi::sqlite3_result_error_nomem(context),
                Err(Refusal::Says(what)) => {
                    let length = c_int::try_from(what.len()).unwrap_or_default();
                    ffi::sqlite3_result_error(context, what.as_ptr().cast(), length);
                }
            }
        }
    }
}

/// Where a text, or the bytes of a blob, first occur in another, counted from 1; 0: nowhere.
fn instr(call: &Call<'_>) -> Result<Answer, Refusal> {
    let are_bytes = call.kind(0) == ffi::SQLITE_BLOB && call.kind(1) == ffi::SQLITE_BLOB;
    let (Some(hay), Some(needle)) = (call.text(0)?, call.text(1)?) else { return Ok(Answer::Null) };
    // Texts are gone through character by character: none but the first begins amid one.
    let is_amid = !are_bytes && needle.first().is_some_and(|byte| *byte & 0xc0 == 0x80);
    let found = if is_amid { hay.starts_with(needle).then_some(0) } else { memmem::find(hay, needle) };
    let Some(at) = found else { return Ok(Answer::Number(0)) };
    // The first byte begins one whatever it is.
    let begins = |(n, byte): &(usize, &u8)| are_bytes || *n == 0 || **byte & 0xc0 != 0x80;
    let count = hay[..at].iter().enumerate().filter(begins).count();
    Ok(Answer::Number(i64::try_from(count + 1).unwrap_or(i64::MAX)))
}

fn replace(call: &Call<'_>) -> Result<Answer, Refusal> {
    let (Some(text), Some(old)) = (call.text(0)?, call.text(1)?) else { return Ok(Answer::Null) };
    if old.first().is_none_or(|first| *first == 0) {
        return Ok(Answer::Text(text.to_vec()));
    }
    let Some(new) = call.text(2)? else { return Ok(Answer::Null) };
    let finder = memmem::Finder::new(old);
    let found = finder.find_iter(text).count();
    call.watch.spend(text.len())?;
    let length = found.checked_mul(new.len()).and_then(|more| more.checked_add(text.len() - found * old.len()));
    let length = length.filter(|length| *length <= call.limit(ffi::SQLITE_LIMIT_LENGTH)).ok_or(Refusal::TooBig)?;
    call.watch.spend(length)?;
    let (mut replaced, mut from) = (Vec::with_capacity(length), 0);
    for at in finder.find_iter(text) {
        replaced.extend_from_slice(&text[from..at]);
        replaced.extend_from_slice(new);
        from = at + old.len();
    }
    replaced.extend_from_slice(&text[from..]);
    Ok(Answer::Text(replaced))
}

fn trim(call: &Call<'_>) -> Result<Answer, Refusal> {
    trimmed(call, true, true)
}

fn trim_left(call: &Call<'_>) -> Result<Answer, Refusal> {
    trimmed(call, true, false)
}

fn trim_right(call: &Call<'_>) -> Result<Answer, Refusal> {
    trimmed(call, false, true)
}

fn trimmed(call: &Call<'_>, left: bool, right: bool) -> Result<Answer, Refusal> {
    let Some(mut text) = call.text(0)? else { return Ok(Answer::Null) };
    let Some(set) = (if call.values.len() > 1 { call.text(1)? } else { Some(&b" "[..]) }) else {
        return Ok(Answer::Null);
    };
    let given = Given::read(set, call.watch)?;
    while left && let Some(length) = given.first(|length| text.get(..length), call.watch)? {
        text = &text[length..];
    }
    let end = |text: &'_ [u8], length| text.len().checked_sub(length);
    while right && let Some(length) = given.first(|length| text.get(end(text, length)?..), call.watch)? {
        text = &text[..text.len() - length];
    }
    Ok(Answer::Text(text.to_vec()))
}

/// The characters to trim, as SQLite tells them apart. What is no UTF-8 has some of which one begins as another.
struct Given<'s> {
    /// Which one in the list it is.
    places: BTreeMap<&'s [u8], usize>,
    lengths: BTreeSet<usize>,
}

impl<'s> Given<'s> {
    fn read(list: &'s [u8], watch: &Watch) -> Result<Self, Refusal> {
        let (mut places, mut lengths) = (BTreeMap::new(), BTreeSet::new());
        // A zero ends the list.
        let mut rest = list.split(|byte| *byte == 0).next().unwrap_or_default();
        while !rest.is_empty() {
            let (first, behind) = rest.split_at(first_character(rest));
            watch.spend(first.len())?;
            let place = places.len();
            places.entry(first).or_insert(place);
            lengths.insert(first.len());
            rest = behind;
        }
        Ok(Self { places, lengths })
    }

    /// How long that one is which comes first in the list, of those that `part`, the part of a text that has a length, is.
    fn first<'t>(&self, part: impl Fn(usize) -> Option<&'t [u8]>, watch: &Watch) -> Result<Option<usize>, Refusal> {
        let mut found: Option<(usize, usize)> = None;
        for length in &self.lengths {
            let Some(part) = part(*length) else { break };
            watch.spend(*length)?;
            let here = self.places.get(part).map(|place| (*place, *length));
            found = found.into_iter().chain(here).min();
        }
        Ok(found.map(|(_, length)| length))
    }
}

/// How many bytes the first character has.
fn first_character(text: &[u8]) -> usize {
    if text.first().is_none_or(|byte| *byte < 0xc0) {
        return 1;
    }
    1 + text.iter().skip(1).take_while(|byte| **byte & 0xc0 == 0x80).count()
}

fn like(call: &Call<'_>) -> Result<Answer, Refusal> {
    let escape = match call.values.len() {
        3 => {
            let Some(escape) = call.text(2)? else { return Ok(Answer::Null) };
            let mut letters = String::from_utf8_lossy(escape).chars().collect::<Vec<_>>().into_iter();
            let (Some(escape), None) = (letters.next(), letters.next()) else {
                return Err(Refusal::Says("ESCAPE expression must be a single character"));
            };
            Some(escape)
        }
        _ => None,
    };
    matched(call, Wildcards::Like { escape })
}

fn glob(call: &Call<'_>) -> Result<Answer, Refusal> {
    matched(call, Wildcards::Glob)
}

fn matched(call: &Call<'_>, wildcards: Wildcards) -> Result<Answer, Refusal> {
    let (Some(pattern), Some(text)) = (call.text(0)?, call.text(1)?) else { return Ok(Answer::Null) };
    if pattern.len() > call.limit(ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH) {
        return Err(Refusal::Says("LIKE or GLOB pattern too complex"));
    }
    let found = Pattern::read(pattern, wildcards).matches(text, call.watch)?;
    Ok(Answer::Number(i64::from(found)))
}

#[cfg(test)]
mod tests;
