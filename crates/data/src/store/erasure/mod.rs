//! Erasure of a data subject by destroying its key (crypto-shredding).
//!
//! The log never changes, and a person has the right to be forgotten. So what is about a person goes into the log in an
//! envelope that only the person's own key opens; the keys lie in another drawer. To forget the person, the key is
//! burnt: the envelopes stay where they are, their seals can still be checked, and nobody can read them again.
//!
//! An event names its subject in [`data_subject`](crate::event::NewEvent::data_subject). Its data, and nothing else, is
//! encrypted: attributes stay readable, `datasubject` included, so put pseudonyms there. Every read of the store opens the
//! data while the key lives; afterwards the event is delivered without data and says that it is
//! [`erased`](crate::event::Recorded::erased). Appending for an erased subject begins a new *generation* with a new key.
//!
//! # Encryption
//! ChaCha20-Poly1305 with a nonce that is derived, by keyed BLAKE3, from the event's attributes and its data (a synthetic
//! initialisation vector). A nonce can only come twice for the same attributes and the same data, and then the ciphertext is
//! the same too, so that nothing is given away that a copy of the event would not give; what an event is authenticated with
//! takes part in the nonce, so that no one-time key ever serves two messages. Up to 2^32 events per subject the chance of
//! an accidental repetition is below 2^-32. Thanks to this a repeated append gives the same bytes and is recognised. What
//! leaks: the length of the data, and that two events are the very same event.
//!
//! # Two files, and what an operator does with them
//! Keys are in `<store>.keys` beside the store's file. A key is durable before the first event that it seals.
//! [`Store::backup`](super::Store::backup) copies events, sealed as they are, and the *erasure ledger*; it never copies
//! keys. [`Store::backup_keys`](super::Store::backup_keys) does that, into a file of its own.
//!
//! * **Back up keys** right after each backup of the store, so that every event in it finds its key, and keep those copies
//!   apart from the others: lost keys are lost data. Keep them for a short time (30 days, say), for whoever holds an old copy of the keys and of the store can read what was
//!   erased since; an erasure has reached every copy when the last older copy of the keys is gone.
//! * **Export the ledger** ([`Store::erasures`](super::Store::erasures)) after every erasure, to where the backups are.
//! * **To restore**, put the keys at `<store>.keys`: the surviving file, with its `<store>.keys-wal` if that is there, or
//!   else the newest copy, and then without the `-wal` of another. Then restore with the newest exported ledger
//!   ([`sqlite::restore_with`](super::sqlite::restore_with)). Without the ledger an erasure is still known if either the
//!   backup or the keys are newer than it; it would be forgotten only if both are older. When the store is opened, ledger and keys learn from one another what was erased, before anything is read.
//! * **[Archives](super::archive)** hold sealed data as it is, and never keys: an erasure reaches them wherever they are.
//! * **If the keys are lost for good**, opening is refused until [`sqlite::give_up_keys`](super::sqlite::give_up_keys) says
//!   that everything sealed so far counts as erased.
//!
//! Readers that hold a page in memory ([`CatchUp`](crate::subscription::CatchUp), a durable subscription, a follower over
//! HTTP) let go of it: once an erasure was answered, none hands out what it read before. Whoever keeps a page of its own
//! does the same with [`Store::forgotten`](super::Store::forgotten).
//!
//! What lies outside the files is out of reach: blocks that a file system, a snapshot of it or an SSD keeps of what was
//! overwritten, what readers have read already, and pages of memory. Encrypt the disk, and keep swap off it.
//!
//! # Copies
//! What is derived from a subject's data must be forgotten too: register a hook with
//! [`Store::on_erase`](super::Store::on_erase). An erasure is complete when [`Store::erase`](super::Store::erase) returned
//! `Ok`; after any other ending, a crash above all, repeat it. quorate's own rooms finish what a crash left when they are
//! opened again; a hook of the application's runs again when the erasure is repeated.
//!
//! *When not to use it*: for data that no person is behind, for secrets from whoever runs the store (the keys lie beside
//! it), or to save space (nothing becomes smaller; truncate instead).
//!
//! Sources: RFC 8439 for the cipher; Rogaway and Shrimpton, "Deterministic Authenticated-Encryption" (2006), for the
//! synthetic nonce; Regulation (EU) 2016/679, article 17.

mod cipher;
mod ledger;
mod service;

use quorate_foundations::time::Wall;

pub(crate) use cipher::SubjectKey;
pub use ledger::{Entry, Erasure, Ledger, LedgerError, SubjectHash};
pub use service::{EraseError, EraseHook};

/// What an erasure did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// How many events became unreadable by this call. None if it was a repetition.
    pub events: u64,
    /// How many of the subject's keys this call destroyed. None if it was a repetition.
    pub keys: u32,
    /// How many of the subject's keys were destroyed so far. Zero: nothing was ever sealed for it, nothing is recorded.
    pub generation: u32,
    /// When the last of them was; `None` if there was none.
    pub erased_at: Option<Wall>,
    /// The entry of the ledger that says so, counted from 1; `None` if there is none.
    pub entry: Option<u64>,
}

/// What is known of a data subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSubject {
    /// Its name in the ledger.
    pub name: SubjectHash,
    /// Its newest entry in the ledger; `None` if it was never erased.
    pub erasure: Option<Entry>,
    /// Whether a key of it lives that has sealed an event: data about it can be read. A key that was made for an event which
    /// was refused in the end does not count.
    pub live: bool,
    /// Whether an event about it is sealed with a key that is not here although it was never erased: the file of keys is
    /// lost, or an older copy. Put the right one back, or erase the subject.
    pub key_missing: bool,
    /// Whether an erasure has begun and is not complete, as far as this process knows: its key may still lie in the file of
    /// keys, or a room keeps copies. Repeat the erasure.
    pub incomplete: bool,
}

impl DataSubject {
    /// Whether it was erased completely, and nothing was written about it since.
    pub fn is_erased(&self) -> bool {
        self.erasure.is_some() && !self.live && !self.key_missing && !self.incomplete
    }
}
