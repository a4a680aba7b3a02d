//! Documents that declare something, read from files, and what is wrong with them by file, line and field.

use quorate_foundations::document::{Fault, Faults, Format as Form};
use quorate_runtime::Env;
use serde_json::{Map, Value, json};

use crate::{
    exit::{Exit, Failure},
    input,
    output::{Column, Format, Out, Table},
};

/// Something that is wrong, and the file that it stands in.
pub(crate) struct Found<'f> {
    pub(crate) file: &'f str,
    pub(crate) fault: Fault,
}

impl Found<'_> {
    fn to_json(&self) -> Value {
        let Self { file, fault: Fault { line, column, field, what } } = self;
        json!({ "file": file, "line": line, "column": column, "field": field, "what": what })
    }
}

/// The text of a file, and what it is written in, by its name; `-` is YAML on standard input.
pub(crate) async fn read(file: &str, env: &Env) -> Result<(String, Form), Failure> {
    let form = if file == "-" { Some(Form::Yaml) } else { Form::of_file(file) };
    let form = form.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{file}: what it is written in isn't told by its name"))
            .advise("call it .yaml, .yml, .toml or .json")
    })?;
    let text = String::from_utf8(input::read(file, env).await?)
        .map_err(|wrong| Failure::new(Exit::BadInput, format!("{file} is not UTF-8: {}", wrong.utf8_error())))?;
    Ok((text, form))
}

/// The document in a file, as `parse` reads it. `what`: what it is, for whoever is told that it cannot be read.
pub(crate) async fn one<D>(
    file: &str,
    env: &Env,
    what: &str,
    parse: impl Fn(&str, Form) -> Result<D, Faults>,
) -> Result<D, Failure> {
    let (text, form) = read(file, env).await?;
    parse(&text, form).map_err(|faults| {
        let all: Vec<String> = faults.list.iter().map(|fault| format!("{file}:{fault}")).collect();
        Failure::new(Exit::BadInput, format!("the {what} cannot be read:\n{}", all.join("\n")))
    })
}

/// Reads all of `files` as `parse` does, and says what is wrong with them. `what`: what they are, as several; `shown`: how
/// one is shown to programs.
pub(crate) async fn check<D>(
    files: &[String],
    env: &Env,
    what: &str,
    parse: impl Fn(&str, Form) -> Result<D, Faults>,
    shown: impl Fn(&D) -> Value,
    format: Format,
) -> Result<(), Failure> {
    let (mut documents, mut found) = (Vec::new(), Vec::new());
    for file in files {
        let (text, form) = read(file, env).await?;
        match parse(&text, form) {
            Ok(document) => documents.push(shown(&document)),
            Err(faults) => found.extend(faults.list.into_iter().map(|fault| Found { file, fault })),
        }
    }
    let fine = format!("{} {what}, and nothing is wrong with them", documents.len());
    show(what, documents, &found, &fine, format)?;
    match found.len() {
        0 => Ok(()),
        n => Err(Failure::new(Exit::BadInput, format!("what is wrong with these {what}: {n}"))),
    }
}

/// Shows what was found in documents, or says that all is `fine`.
pub(crate) fn show(
    what: &str,
    documents: Vec<Value>,
    found: &[Found<'_>],
    fine: &str,
    format: Format,
) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        let found: Vec<Value> = found.iter().map(Found::to_json).collect();
        let mut shown = Map::new();
        shown.insert(what.to_owned(), documents.into());
        shown.insert("found".to_owned(), found.into());
        out.json(&Value::Object(shown))?;
    } else if found.is_empty() {
        out.line(fine)?;
    } else {
        let mut table = Table::new([Column::Left("PLACE"), Column::Left("FIELD"), Column::Left("WHAT")]);
        for Found { file, fault } in found {
            table.row([&format!("{file}:{}:{}", fault.line, fault.column), &fault.field, &fault.what]);
        }
        table.print(&mut out)?;
    }
    out.flush()
}
