//! Moving a stream's events to an archive.
//!
//! Ordering: the file is complete, durable under its name and read back; then one transaction writes the archive's row and
//! forgets the events. A crash before it leaves a file too many, which says what was ordered: the same order finds it again
//! and goes on with it, where it ends, however much the stream has grown since.

use std::{
    io,
    path::{Path, PathBuf},
};

use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::{Env, disk::unfinished};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    connection::{corrupt, explained, failed},
    core::Core,
    index::{self, StreamRow},
    retire, run,
    shared::{Shared, View},
};
use crate::{
    event::{ArchiveId, ChainHash, Recorded, Stub, Version},
    store::{
        Archive, ArchiveError, ArchiveOrder, StoreError, StreamHead,
        archive::{ArchiveReader, ArchiveWriter, DamagedArchive, Manifest},
    },
};

const ARCHIVING: &str = "archiving events";
/// Events that are read at a time at most, so that no read holds the write-ahead log for long.
const PAGE: u64 = 1_000;

/// A file that is durable and read back.
pub(super) struct Made {
    manifest: Manifest,
    name: String,
    path: PathBuf,
    bytes: u64,
}

/// A row of `quorate_archive`.
pub(super) struct Entry {
    pub(super) archive: Archive,
    /// The first version to keep, as it was ordered; 0 for none. It can lie far behind the archive's last version: the
    /// same order is known by it when the stream has grown.
    before: u64,
}

/// What became of the first half of an order.
pub(super) enum Copied {
    /// All of it was done before.
    Known(Archive),
    /// The file is there.
    Made(Made),
}

/// Writes the archive's file, or finds the one that is there. Everything to archive must be in the tables.
pub(super) fn copy(env: &Env, shared: &Shared, order: &ArchiveOrder) -> Result<Copied, ArchiveError> {
    let (known, target) = shared.reading::<_, StoreError>(|reader| {
        let known = named(&reader.connection, &order.name)?;
        Ok((known, target(shared, reader.view(), order)?))
    })?;
    let exists = || ArchiveError::Exists { name: order.name.clone() };
    if let Some(Entry { archive, before }) = known {
        let same = before == ordered(order) || archive.last == target.last;
        let same = same && archive.stream == order.stream;
        return if same { Ok(Copied::Known(archive)) } else { Err(exists()) };
    }
    let Some(mut manifest) = target.manifest else {
        let stream = order.stream.clone();
        return Err(match target.is_there {
            true => ArchiveError::Nothing { stream, before: target.last.next() },
            false => ArchiveError::NoStream { stream },
        });
    };
    let disk = env.disk();
    let partial = unfinished::of(&order.to).map_err(ArchiveError::Io)?;
    if disk.exists(&order.to).map_err(io_error)? {
        // Of an attempt that died before its second half, or of somebody else.
        let Ok(begun) = read_back(env, &order.to) else { return Err(exists()) };
        if begun != manifest && !is_begun(shared, order, &manifest, &begun)? {
            return Err(exists());
        }
        manifest = begun;
        // It got its name when it was durable; that the name is may have been left undone.
        disk.sync(&order.to).and_then(|()| disk.rename(&order.to, &order.to)).map_err(io_error)?;
    } else {
        write(env, shared, &partial, &order.to, &manifest)?;
    }
    let bytes = disk.size(&order.to).map_err(io_error)?;
    let (name, path) = (order.name.clone(), order.to.clone());
    Ok(Copied::Made(Made { manifest, name, path, bytes }))
}

/// Whether `begun` is the file of this very order, from when the stream was shorter than it is for `now`.
fn is_begun(shared: &Shared, order: &ArchiveOrder, now: &Manifest, begun: &Manifest) -> Result<bool, StoreError> {
    if begun.before != order.before || begun.stream != order.stream || begun.last >= now.last {
        return Ok(false);
    }
    let then = shared.reading::<_, StoreError>(|reader| {
        let row = index::stream(&reader.connection, order.stream.as_str())?;
        row.map(|row| manifest(shared, reader.view(), order, &row, begun.last)).transpose()
    })?;
    Ok(then.flatten().is_some_and(|then| then == *begun))
}

/// What a row says of `order`: see [`Entry::before`].
fn ordered(order: &ArchiveOrder) -> u64 {
    order.before.map_or(0, Version::get)
}

/// What an order asks for.
struct Target {
    /// Whether there is such a stream, or was one.
    is_there: bool,
    last: Version,
    /// `None` where there is nothing to move.
    manifest: Option<Manifest>,
}

fn target(shared: &Shared, view: View<'_>, order: &ArchiveOrder) -> Result<Target, StoreError> {
    let row = index::stream(view.connection, order.stream.as_str())?;
    // As it is stored: what its rules hide still has its data, and would be in neither place if it were left out.
    let head = row.as_ref().map_or_else(StreamHead::default, |row| row.head);
    let is_there = head.version > Version::ZERO || head.tombstoned;
    let asked = order.before.map_or(head.version.get(), |before| before.get().saturating_sub(1));
    let last = Version::new(asked.min(head.version.get()));
    let manifest = row.map(|row| manifest(shared, view, order, &row, last)).transpose()?.flatten();
    Ok(Target { is_there, last, manifest })
}

/// What an archive of `order` that ends with version `last` says of itself; `None` where there is nothing to move.
fn manifest(
    shared: &Shared,
    view: View<'_>,
    order: &ArchiveOrder,
    row: &StreamRow,
    last: Version,
) -> Result<Option<Manifest>, StoreError> {
    let first = row.head.first;
    if last < first {
        return Ok(None);
    }
    let hash = |version: u64| -> Result<ChainHash, StoreError> {
        if version == 0 {
            return Ok(ChainHash::START);
        }
        let positions = index::versions(view.connection, row.id, version, version, 1)?;
        let event = shared.events(view, &positions).next().transpose()?;
        Ok(event.map_or(ChainHash::START, |event| event.hash()))
    };
    let (previous, hash) = (hash(first.get() - 1)?, hash(last.get())?);
    let (store, stream, before) = (shared.timeline.store, order.stream.clone(), order.before);
    Ok(Some(Manifest { store, stream, before, first, last, previous, hash }))
}

/// Writes the file as `partial`; it gets its name when it is complete, durable and read back.
fn write(env: &Env, shared: &Shared, partial: &Path, to: &Path, manifest: &Manifest) -> Result<(), ArchiveError> {
    let disk = env.disk();
    unfinished::clear(&**disk, partial).map_err(io_error)?;
    let file = disk.create_new(partial).map_err(io_error)?;
    let written = (|| {
        let mut writer = ArchiveWriter::begin(file, manifest).map_err(io_error)?;
        let mut next = manifest.first.get();
        while next <= manifest.last.get() {
            let last = (next + PAGE - 1).min(manifest.last.get());
            for event in shared.reading(|reader| page(shared, reader.view(), &manifest.stream, next, last))? {
                if event.stub().is_some() {
                    return Err(ArchiveError::Overtaken { stream: manifest.stream.clone() });
                }
                writer.event(&event).map_err(io_error)?;
                next = event.version().get() + 1;
            }
        }
        writer.finish().map_err(io_error)?;
        match read_back(env, partial).map_err(ArchiveError::Unreadable)? {
            found if found == *manifest => disk.rename(partial, to).map_err(io_error),
            _ => Err(ArchiveError::Unreadable(DamagedArchive::Damaged {
                what: "the manifest is another one".to_owned(),
            })),
        }
    })();
    if written.is_err() {
        let _ = unfinished::clear(&**disk, partial);
    }
    written
}

/// Events from version `first` on: up to `last`, or to a page's bytes; at least one.
fn page(shared: &Shared, view: View<'_>, stream: &Name, first: u64, last: u64) -> Result<Vec<Recorded>, StoreError> {
    let row = index::stream(view.connection, stream.as_str())?;
    let row = row.ok_or_else(|| corrupt("quorate_stream", format!("there is no stream `{stream}`")))?;
    let positions = index::versions(view.connection, row.id, first, last, PAGE as usize)?;
    let (mut bytes, mut page) = (0, Vec::new());
    for event in shared.events(view, &positions) {
        let event = event?;
        bytes += event.bytes().len();
        page.push(event);
        if bytes > shared.limits.page_bytes {
            break;
        }
    }
    Ok(page)
}

/// Reads the whole file as somebody would who has nothing but it.
fn read_back(env: &Env, path: &Path) -> Result<Manifest, DamagedArchive> {
    let file = env.disk().open(path).map_err(DamagedArchive::Io)?;
    ArchiveReader::open(file)?.verify().map(|(manifest, _)| manifest)
}

fn io_error(cause: io::Error) -> ArchiveError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match cause.kind() {
        FileTooLarge | QuotaExceeded | StorageFull => StoreError::DiskFull.into(),
        _ => ArchiveError::Io(cause),
    }
}

/// The second half: has the events become stubs that name the archive. Between groups only.
pub(super) fn enter(core: &mut Core, made: &Made) -> Result<Archive, ArchiveError> {
    core.asked = 0;
    core.begin()?;
    let entered = forget(core, made).and_then(|archive| Ok(core.commit().map(|()| archive)?));
    let entered = entered.map_err(|cause| match cause {
        ArchiveError::Store(cause) => ArchiveError::Store(explained(&core.connection, cause)),
        other => other,
    });
    match &entered {
        Ok(_) => {}
        Err(ArchiveError::Store(cause)) => {
            core.roll_back();
            core.end_if_fatal(cause);
        }
        Err(ArchiveError::Overtaken { .. }) => {
            core.roll_back();
            // It holds data that was to be forgotten meanwhile.
            let _ = core.env.disk().remove(&made.path);
        }
        Err(_) => core.roll_back(),
    }
    entered
}

fn forget(core: &mut Core, made: &Made) -> Result<Archive, ArchiveError> {
    let Manifest { stream, before, first, last, hash, .. } = &made.manifest;
    let known = retire::known(core, stream)?;
    if known.first != *first || known.version < *last {
        return Err(ArchiveError::Overtaken { stream: stream.clone() });
    }
    let newest: i64 = core
        .connection
        .query_row("SELECT coalesce(max(id), 0) FROM quorate_archive", [], |row| row.get(0))
        .map_err(failed(ARCHIVING))?;
    let archive = Archive {
        id: ArchiveId::new(newest.cast_unsigned() + 1),
        stream: stream.clone(),
        name: made.name.clone(),
        first: *first,
        last: *last,
        hash: *hash,
        bytes: made.bytes,
        made_at: core.env.wall(),
    };
    let entry = Entry { archive, before: before.map_or(0, Version::get) };
    insert(&core.connection, &entry).map_err(failed(ARCHIVING))?;
    let head = StreamHead { first: last.next(), ..known };
    retire::change(core, stream, &known, head, Stub::Archived(entry.archive.id))?;
    Ok(entry.archive)
}

fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    let Entry { archive, before } = entry;
    connection
        .prepare_cached(
            "INSERT INTO quorate_archive (id, name, stream, first, last, before, hash, bytes, made_at, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            archive.id.get().cast_signed(),
            archive.name,
            archive.stream.as_str(),
            archive.first.get().cast_signed(),
            archive.last.get().cast_signed(),
            before.cast_signed(),
            archive.hash.as_bytes(),
            archive.bytes.cast_signed(),
            archive.made_at.unix_nanos(),
            sum(entry)
        ])
        .map(|_| ())
}

fn sum(Entry { archive, before }: &Entry) -> u32 {
    let mut bytes = archive.hash.as_bytes().to_vec();
    let made_at = archive.made_at.unix_nanos().cast_unsigned();
    for number in [archive.first.get(), archive.last.get(), *before, archive.bytes, made_at] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for text in [archive.name.as_str(), archive.stream.as_str()] {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    run::checksum(&archive.id.get().to_le_bytes(), &bytes)
}

/// Columns of a row, as [`read`] takes them.
pub(super) const SELECT: &str =
    "SELECT id, name, stream, first, last, before, hash, bytes, made_at, sum FROM quorate_archive";

/// Reads and judges a row.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Result<Entry, StoreError>> {
    let number = |n| row.get::<_, i64>(n).map(i64::cast_unsigned);
    let id = ArchiveId::new(number(0)?);
    let damaged = || corrupt(format!("quorate_archive, row {id}"), "the checksum does not match");
    let Ok(stream) = Name::new(row.get::<_, String>(2)?) else { return Ok(Err(damaged())) };
    let archive = Archive {
        id,
        name: row.get(1)?,
        stream,
        first: Version::new(number(3)?),
        last: Version::new(number(4)?),
        hash: ChainHash::from_bytes(row.get(6)?),
        bytes: number(7)?,
        made_at: Wall::from_unix_nanos(row.get(8)?),
    };
    let entry = Entry { archive, before: number(5)? };
    let sound = row.get::<_, u32>(9)? == sum(&entry);
    Ok(if sound { Ok(entry) } else { Err(damaged()) })
}

fn named(connection: &Connection, name: &str) -> Result<Option<Entry>, StoreError> {
    let row = connection
        .prepare_cached(&format!("{SELECT} WHERE name = ?1"))
        .and_then(|mut select| select.query_row([name], read).optional())
        .map_err(failed(ARCHIVING))?;
    row.transpose()
}

/// The archives of `stream`, in order of their versions.
pub(super) fn of_stream(connection: &Connection, stream: &Name) -> Result<Vec<Archive>, StoreError> {
    let mut select =
        connection.prepare_cached(&format!("{SELECT} WHERE stream = ?1 ORDER BY first")).map_err(failed(ARCHIVING))?;
    let rows = select.query_map([stream.as_str()], read).map_err(failed(ARCHIVING))?;
    rows.map(|row| row.map_err(failed(ARCHIVING))?.map(|entry| entry.archive)).collect()
}

/// At most `limit` archives behind archive `after`; those whose rows are damaged are left out.
pub(super) fn all(connection: &Connection, after: ArchiveId, limit: usize) -> Result<Vec<Archive>, StoreError> {
    let sql = format!("{SELECT} WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut select = connection.prepare_cached(&sql).map_err(failed(ARCHIVING))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map([after.get().cast_signed(), limit], read).map_err(failed(ARCHIVING))?;
    let read: Vec<_> = rows.collect::<Result<_, _>>().map_err(failed(ARCHIVING))?;
    Ok(read.into_iter().flatten().map(|entry| entry.archive).collect())
}
