//! The key ring: sealing and opening, for the writer and all readers.
//!
//! Who needs a key finds it in memory as a rule. New keys are made durable in groups: while one caller's sync is under
//! way, the wishes of others gather, and the next one fulfils them all.
//!
//! Lock order: `file`, then `wanted` or `cache`. The writer's own locks are never taken while one of these is held.

mod cache;
mod file;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use quorate_runtime::{Env, random::Rng};

use self::cache::KeyCache;
pub(super) use self::{
    cache::Subject,
    file::{APPLICATION_ID, KeyFile, holds_nothing, path_of},
};
use super::connection::{corrupt, is_fatal};
use crate::{
    event::{KeyId, Opened, Recorded},
    store::{
        OpenError, StoreError, Verified,
        erasure::{Erasure, SubjectHash, SubjectKey},
    },
};

/// Living keys by subject.
pub(super) type Keys = BTreeMap<SubjectHash, Arc<SubjectKey>>;

/// All keys of a store.
pub(super) struct KeyRing {
    env: Env,
    path: PathBuf,
    store: u64,
    file: Mutex<Holder>,
    wanted: Mutex<BTreeSet<SubjectHash>>,
    cache: Mutex<KeyCache>,
    erasures: AtomicU64,
    /// How many keys were ever made, and are durable unless they were destroyed.
    made: AtomicI64,
}

/// The file, which comes into being with the first key.
struct Holder {
    file: Option<KeyFile>,
    closed: bool,
    random: Rng,
}

/// What can be said of the key that sealed an event.
pub(super) enum KeyState {
    Lives(Arc<SubjectKey>),
    Erased,
    Missing,
}

impl KeyRing {
    /// The ring of the store at `store_path`, with its file if there is one.
    pub(super) fn new(env: &Env, path: PathBuf, store: u64, file: Option<KeyFile>) -> Self {
        let mut random = env.random("store/keys");
        let cache = Mutex::new(KeyCache::new(random.u64()));
        let made = AtomicI64::new(file.as_ref().map_or(0, KeyFile::made));
        let holder = Holder { file, closed: false, random };
        Self {
            env: env.clone(),
            path,
            store,
            file: Mutex::new(holder),
            wanted: Mutex::default(),
            cache,
            erasures: AtomicU64::new(0),
            made,
        }
    }

    /// The name of `subject` in this file and in the ledger.
    pub(super) fn hash(&self, subject: &str) -> SubjectHash {
        SubjectHash::of(self.store, subject)
    }

    /// Counts erasures: keys taken before this number moved may be destroyed.
    pub(super) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    /// How many keys were ever made: the file of a store that has seen them has no fewer, unless it is an older copy.
    pub(super) fn made(&self) -> i64 {
        self.made.load(Ordering::Acquire)
    }

    /// The living keys of `subjects`. Those that were not there are made, and are durable. Blocks.
    pub(super) fn living(&self, subjects: BTreeSet<SubjectHash>) -> Result<Keys, StoreError> {
        let mut keys = Keys::new();
        let mut missing = BTreeSet::new();
        {
            let mut cache = self.cache();
            for subject in subjects {
                match cache.get(&subject).and_then(|known| known.live) {
                    Some(key) => drop(keys.insert(subject, key)),
                    None => drop(missing.insert(subject)),
                }
            }
        }
        if missing.is_empty() {
            return Ok(keys);
        }
        lock(&self.wanted).extend(&missing);
        let mut holder = lock(&self.file);
        self.destroy_doomed(&mut holder, None)?;
        let mut batch = std::mem::take(&mut *lock(&self.wanted));
        batch.extend(&missing);
        let made = {
            let (file, random) = self.opened(&mut holder)?;
            let made = self.or_fatal(file.live(batch, random))?;
            // Ordering: once they are durable, so that a store never knows of more keys than the file had.
            self.made.store(file.made(), Ordering::Release);
            made
        };
        let mut cache = self.cache();
        for (subject, found) in made {
            let found = cache.put(subject, found);
            keys.extend(found.live.filter(|_| missing.contains(&subject)).map(|key| (subject, key)));
        }
        Ok(keys)
    }

    /// What is known of `subject`. May block.
    pub(super) fn find(&self, subject: &SubjectHash) -> Result<Option<Subject>, StoreError> {
        if let Some(found) = self.cache().get(subject) {
            return Ok(Some(found));
        }
        // Ordering: held until the cache is filled, so that no key is remembered that was destroyed meanwhile.
        let holder = lock(&self.file);
        if holder.closed {
            return Err(StoreError::Closed);
        }
        let found = holder.file.as_ref().map_or(Ok(None), |file| file.find(subject))?;
        Ok(found.map(|found| self.cache().put(*subject, found)))
    }

    /// What became of the key `id` of `subject`. May block.
    pub(super) fn state(&self, subject: &SubjectHash, id: KeyId) -> Result<KeyState, StoreError> {
        let Some(known) = self.find(subject)? else { return Ok(KeyState::Missing) };
        Ok(match known.live {
            _ if id.generation <= known.erased => KeyState::Erased,
            Some(key) if key.id() == id => KeyState::Lives(key),
            _ => KeyState::Missing,
        })
    }

    /// The state of the key that `event` is sealed with; `None` where it is not sealed.
    pub(super) fn state_of(&self, event: &Recorded) -> Result<Option<KeyState>, StoreError> {
        let (Some(subject), Some(id)) = (event.data_subject(), event.key_id()) else { return Ok(None) };
        self.state(&self.hash(subject), id).map(Some)
    }

    /// `event` with what its data says, if it is sealed. May block.
    pub(super) fn open(&self, event: Recorded) -> Result<Recorded, StoreError> {
        let Some(sealed) = event.stored_data().filter(|_| event.is_encrypted()) else { return Ok(event) };
        match self.state_of(&event)? {
            Some(KeyState::Lives(key)) => match key.open(event.header(), sealed) {
                Some(plain) => Ok(event.opened(Opened::Plain(plain))),
                None => Err(corrupt(place(&event), "its key does not open its data")),
            },
            Some(KeyState::Erased) => Ok(event.opened(Opened::Erased)),
            Some(KeyState::Missing) | None => Err(missing(&event)),
        }
    }

    /// All `events`, opened. May block.
    pub(super) fn open_all(&self, events: Vec<Recorded>) -> Result<Vec<Recorded>, StoreError> {
        if !any_sealed(&events) {
            return Ok(events);
        }
        events.into_iter().map(|event| self.open(event)).collect()
    }

    /// Destroys the keys that `erasure` names, for good. It must stand in the ledger already, which
    /// has the `chain` now: if this fails it counts as erased all the same, and is tried again later.
    pub(super) fn destroy(&self, erasure: Erasure, chain: i64) -> Result<(), StoreError> {
        let mut holder = lock(&self.file);
        self.cache().doom(erasure);
        self.erasures.fetch_add(1, Ordering::AcqRel);
        self.destroy_doomed(&mut holder, Some(chain))
    }

    /// Whether a key of `subject` counts as destroyed and may be in the file still.
    pub(super) fn is_doomed(&self, subject: &SubjectHash) -> bool {
        self.cache().is_doomed(subject)
    }

    fn destroy_doomed(&self, holder: &mut Holder, chain: Option<i64>) -> Result<(), StoreError> {
        let doomed = self.cache().doomed();
        if doomed.is_empty() {
            return Ok(());
        }
        let (file, _) = self.opened(holder)?;
        let followed = chain.map_or_else(|| file.followed(), Ok)?;
        self.or_fatal(file.destroy(doomed, followed))?;
        self.cache().destroyed();
        Ok(())
    }

    /// Writes a copy of the file to `to`.
    pub(super) fn copy(&self, to: &str) -> Result<(), StoreError> {
        let mut holder = lock(&self.file);
        self.destroy_doomed(&mut holder, None)?;
        self.opened(&mut holder)?.0.copy(to)
    }

    /// Checks every byte of the file.
    pub(super) fn verify(&self, found: &mut Verified) -> Result<(), StoreError> {
        lock(&self.file).file.as_ref().map_or(Ok(()), |file| file.verify(found))
    }

    /// Closes the file and forgets every key.
    pub(super) fn close(&self) {
        let mut holder = lock(&self.file);
        (holder.closed, holder.file) = (true, None);
        self.cache().clear();
    }

    /// The file, made if it is not there, and where keys come from.
    fn opened<'h>(&self, holder: &'h mut Holder) -> Result<(&'h KeyFile, &'h mut Rng), StoreError> {
        if holder.closed {
            return Err(StoreError::Closed);
        }
        let Holder { file, random, .. } = holder;
        let file = match file {
            Some(file) => file,
            None => {
                let made = KeyFile::open(&self.path, self.store, true).map_err(|cause| match cause {
                    OpenError::Store(cause) => cause,
                    other => StoreError::Engine { doing: "making the file of keys", cause: Arc::new(other) },
                });
                file.insert(self.or_fatal(made)?)
            }
        };
        Ok((file, random))
    }

    /// After a failed sync nothing that follows is sure to be durable.
    fn or_fatal<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(cause) = &done
            && is_fatal(cause)
        {
            self.env.fatal(&format!("a sync of {} failed: {cause:?}", self.path.display()));
        }
        done
    }

    fn cache(&self) -> MutexGuard<'_, KeyCache> {
        lock(&self.cache)
    }
}

/// Whether any of `events` is sealed and not opened yet.
pub(super) fn any_sealed(events: &[Recorded]) -> bool {
    events.iter().any(|event| event.is_encrypted() && event.stub().is_none())
}

/// Where an event stands, for messages.
pub(super) fn place(event: &Recorded) -> String {
    format!("event {} (stream `{}`, version {})", event.position(), event.stream(), event.version())
}

/// The error of an event whose key is not there although nobody was erased.
pub(super) fn missing(event: &Recorded) -> StoreError {
    StoreError::KeyMissing { position: event.position(), stream: event.stream().into(), version: event.version() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
