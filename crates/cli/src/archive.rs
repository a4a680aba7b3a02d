//! `quorate archive`: files that events were moved to. They are read here, without a node.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Subcommand;
use quorate_data::{
    event::{Recorded, Scalar, Timestamp},
    store::archive::{ArchiveReader, DamagedArchive},
};
use quorate_runtime::Env;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    event::one_line,
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table, note},
};

/// Verbs on an archive's file.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Check an archive by itself: every byte, and the hash chain from its first event to its last
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Write an archive's events as CloudEvents, one per line; `stream import --stream-from stream` takes them
    Cat {
        /// The file
        file: PathBuf,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, env: &Env, format: Format) -> Result<(), Failure> {
        let of_file = env.clone();
        let work = move || match self {
            Self::Verify { file } => verify(&of_file, &file, format),
            Self::Cat { file } => cat(&of_file, &file),
        };
        env.run_blocking(work).await
    }
}

fn open(env: &Env, file: &Path) -> Result<ArchiveReader, Failure> {
    let read = env.disk().open(file).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => Failure::new(Exit::NotFound, format!("{}: {cause}", file.display())),
        _ => Failure::io(file.display(), &cause),
    })?;
    ArchiveReader::open(read).map_err(|damage| damaged(file, &damage))
}

fn damaged(file: &Path, damage: &DamagedArchive) -> Failure {
    let exit = if matches!(damage, DamagedArchive::Io(_)) { Exit::Io } else { Exit::Damaged };
    Failure::new(exit, format!("{}: {}", file.display(), crate::exit::chain(damage)))
}

fn verify(env: &Env, file: &Path, format: Format) -> Result<(), Failure> {
    let (manifest, events) = open(env, file)?.verify().map_err(|damage| damaged(file, &damage))?;
    let mut out = Out::new();
    match format {
        Format::Json => out.json(&json!({
            "sound": true,
            "stream": manifest.stream.as_str(),
            "first": manifest.first.to_string(),
            "last": manifest.last.to_string(),
            "events": events,
            "hash": manifest.hash.to_string(),
            "store": manifest.store.to_string(),
        }))?,
        Format::Table => {
            let columns = [Column::Left("STREAM"), Column::Right("FIRST"), Column::Right("LAST"), Column::Left("HASH")];
            let mut table = Table::new(columns);
            let (first, last) = (manifest.first.to_string(), manifest.last.to_string());
            table.row([manifest.stream.as_str(), &first, &last, &manifest.hash.to_string()]);
            table.print(&mut out)?;
            out.line(&format!("sound: {events} events checked"))?;
        }
    }
    out.flush()
}

fn cat(env: &Env, file: &Path) -> Result<(), Failure> {
    let mut archive = open(env, file)?;
    let (mut out, mut sealed) = (Out::new(), 0_u64);
    while let Some(event) = archive.next_event().map_err(|damage| damaged(file, &damage))? {
        sealed += u64::from(event.is_encrypted());
        out.line(&line(&event)?)?;
    }
    out.flush()?;
    if sealed > 0 {
        note(&format!("the data of {sealed} events is sealed with keys of their data subjects and was left out"));
    }
    Ok(())
}

/// The event as the log would serve it. Sealed data is left out, as a stub's is: without its key it says nothing.
fn line(event: &Recorded) -> Result<String, Failure> {
    let mut line = Map::new();
    let recorded = Timestamp::from(event.recorded_at());
    let (version, position) = (event.version().to_string(), event.position().to_string());
    let attributes = [
        ("specversion", Some("1.0")),
        ("id", Some(event.id())),
        ("source", Some(event.source())),
        ("type", Some(event.kind())),
        ("subject", event.subject()),
        ("time", event.time_text()),
        ("datacontenttype", event.content_type()),
        ("dataschema", event.schema()),
        ("stream", Some(event.stream())),
        ("streamversion", Some(&version)),
        ("logposition", Some(&position)),
        ("recordedtime", Some(recorded.as_str())),
        ("correlationid", event.correlation_id()),
        ("causationid", event.causation_id()),
        ("tags", event.tags_text()),
        ("datasubject", event.data_subject()),
        ("stub", event.is_encrypted().then_some("sealed")),
    ];
    line.extend(attributes.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into()))));
    line.extend(event.extensions().into_iter().map(|(name, value)| {
        let value = match value {
            Scalar::Boolean(value) => value.into(),
            Scalar::Integer(value) => value.into(),
            Scalar::Text(text) => text.into(),
        };
        (name.to_string(), value)
    }));
    let is_json = event.content_type().is_none_or(|media| media.contains("json"));
    let json = event.data().filter(|_| is_json).and_then(|data| serde_json::from_slice::<&RawValue>(data).ok());
    if let Some(data) = event.data().filter(|_| json.is_none()) {
        line.insert("data_base64".to_owned(), STANDARD.encode(data).into());
    }
    let mut line = Value::Object(line).to_string();
    if let Some(data) = json {
        // As it was received: reading it as a number or a map could change it.
        line.truncate(line.len() - 1);
        line.push_str(&format!(",\"data\":{}}}", data.get()));
    }
    Ok(one_line(&line)?.into_owned())
}
