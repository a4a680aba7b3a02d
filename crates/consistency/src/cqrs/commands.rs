//! The write side: commands in, receipts out.

use std::{
    fmt::{Debug, Display},
    sync::Arc,
};

use quorate_data::{
    event::Version,
    store::{DynTx, SqlError, Store, Token},
};
use quorate_foundations::name::Name;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    CommandError, Config, Key, SetupError,
    kept::{self, Kept},
};
use crate::event_sourcing::{Aggregate, Aggregates, Decider, HandleError, LoadError, Metadata};

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How many events it led to. None where there was nothing to do.
    pub events: u64,
    /// The version of the aggregate's stream after them.
    pub version: Version,
    /// Presented to a question, the answer holds what the command did; without events: what it was decided on.
    pub token: Token,
    /// Whether it had been carried out before: this is the answer of the first time.
    pub repeated: bool,
}

/// The commands on the aggregates of one kind. Cheap to clone; clones are the same.
///
/// # Guarantees
/// * A command, the events it leads to and the answer to its key commit together. Repeated with its key it is answered as
///   the first time, accepted or rejected, for [`Config::keep_answers`]. After that an accepted one that wrote events is, as
///   long as it has the same JSON form: where its type has another member since, repeating it is
///   [refused](CommandError::KeyReused).
/// * An [erasure](Store::erase) forgets all kept answers, which may tell of whoever is erased, before it is answered. As after
///   [`Config::keep_answers`], accepted commands that wrote events are still known; a rejection, and a command without events,
///   is decided anew.
/// * Every answer has a token, and the token stands for an append of this aggregate's history and not for the end of the log:
///   nobody waits for strangers. On an engine whose appends are not numbered by positions this is so for answers with events;
///   without, the token is that of the newest append that could be read.
pub struct Commands<D: Aggregate> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Aggregate> {
    aggregates: Aggregates<D>,
    config: Config,
}

impl<D: Aggregate> Clone for Commands<D> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// A command under way.
struct Wish<D: Decider> {
    id: String,
    stream: Name,
    command: D::Command,
    key: Key,
    fingerprint: String,
    metadata: Metadata,
}

impl<D> Commands<D>
where
    D: Aggregate<Command: Serialize, Rejection: Debug + Serialize + DeserializeOwned + Send + Sync>,
{
    /// Takes commands for `aggregates`. Their answers are kept in a table that is made if it is not there.
    pub async fn open(aggregates: Aggregates<D>, config: Config) -> Result<Self, SetupError> {
        config.check()?;
        let store = aggregates.store();
        store.declare(kept::TABLES).await?;
        store.on_erase("commands", Arc::new(|store, _| Box::pin(kept::forget(store, i64::MAX))));
        if store.capabilities().erasure {
            // A store that learnt of erasures elsewhere, from the ledger with which an older backup was restored, or in a
            // program without this desk, still has the answers of before.
            let erasures = store.erasures().await.map_err(SqlError::from)?.erasures;
            if let Some(newest) = erasures.iter().map(|erasure| erasure.erased_at.unix_nanos()).max() {
                kept::forget(store.clone(), newest).await.map_err(SqlError::from)?;
            }
        }
        Ok(Self { inner: Arc::new(Inner { aggregates, config }) })
    }

    /// Carries out `command` on the aggregate `id`.
    ///
    /// # Errors
    /// [`CommandError::Rejected`] is an answer of the domain; the others are not. After one whose
    /// [outcome is unknown](CommandError::is_outcome_unknown) repeat the command with its key.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the command: the outcome is then unknown.
    pub async fn send(
        &self,
        id: impl Display + Send,
        command: D::Command,
        key: &Key,
    ) -> Result<Receipt, CommandError<D::Rejection>> {
        self.send_with(id, command, key, Metadata::default()).await
    }

    /// As [`send`](Self::send), with what else is known of the command. Its command id is the key, and its digest is made of the
    /// command unless there is one: another command under the key is refused for as long as the events of the first are there,
    /// also when its answer is kept no more. Events about a data subject carry no digest; of a command that wrote only such, or
    /// none, that holds as long as the [answer is kept](super::Config::keep_answers).
    pub async fn send_with(
        &self,
        id: impl Display + Send,
        command: D::Command,
        key: &Key,
        metadata: Metadata,
    ) -> Result<Receipt, CommandError<D::Rejection>> {
        let id = id.to_string();
        let stream = D::stream(&id).map_err(|cause| CommandError::handling(LoadError::Name(cause).into()))?;
        let formless = |cause: serde_json::Error| {
            CommandError::sql(SqlError::Failed { what: format!("it has no JSON form: {cause}") })
        };
        let json = serde_json::to_vec(&command).map_err(formless)?;
        let fingerprint = blake3::hash(&json).to_hex().to_string();
        // Kept with the events, and so for longer than the answer. What has no such digest, for a number beyond 64 bits, is
        // known by its bytes.
        let asked = || Metadata::default().asking(&command).ok()?.digest;
        let digest = metadata.digest.clone().or_else(asked).or_else(|| Some(fingerprint.as_str().into()));
        let metadata = Metadata { command_id: Some(key.shared()), digest, ..metadata };
        let wish = Arc::new(Wish::<D> { id, stream, command, key: key.clone(), fingerprint, metadata });
        // A long stream is folded here and not while the one writer waits; the transaction only looks for what is newer. What
        // fails here fails there as well, unless the answer was kept.
        let _warm = self.inner.aggregates.load(&wish.id).await;
        let inner = self.inner.clone();
        let done = self.store().transact(move |tx| {
            let (inner, wish) = (inner.clone(), wish.clone());
            Box::pin(async move { inner.carry_out(tx, &wish).await })
        });
        match done.await.map_err(CommandError::of_transaction)? {
            Answer::Receipt(receipt) => Ok(receipt),
            Answer::Rejected { rejection, token, repeated } => {
                Err(CommandError::Rejected { rejection, token, repeated })
            }
        }
    }

    /// The store that it writes to.
    pub fn store(&self) -> &Store {
        self.inner.aggregates.store()
    }
}

/// An answer, which commits whether it is a yes or a no.
enum Answer<R> {
    Receipt(Receipt),
    Rejected { rejection: R, token: Token, repeated: bool },
}

impl<D> Inner<D>
where
    D: Aggregate<Command: Serialize, Rejection: Debug + Serialize + DeserializeOwned + Send + Sync>,
{
    async fn carry_out(
        &self,
        tx: &mut DynTx,
        wish: &Wish<D>,
    ) -> Result<Answer<D::Rejection>, CommandError<D::Rejection>> {
        let store = self.aggregates.store();
        let now = store.env().wall();
        if let Some(kept) = kept::find(tx, &wish.stream, &wish.key, now).await.map_err(CommandError::sql)? {
            store.env().reached("command: a kept answer was given");
            return answer_again(store, wish, &kept);
        }
        // Only borrowed by the decision: a command need not be `Clone`.
        let decided = self.aggregates.handle_ref_in(tx, &wish.id, &wish.command, &wish.metadata).await;
        let (kept, answer) = match decided {
            Ok(outcome) => {
                let events = outcome.events.len() as u64;
                let (version, token, repeated) = (outcome.version, outcome.token, outcome.repeated);
                let receipt = Receipt { events, version, token, repeated };
                (wish.kept(String::new(), &receipt), Answer::Receipt(receipt))
            }
            Err(HandleError::Rejected(rejection)) => {
                let seen = self
                    .aggregates
                    .seen_in(tx, &wish.id)
                    .await
                    .map_err(|cause| CommandError::handling(cause.into()))?;
                let json = serde_json::to_string(&rejection).unwrap_or_default();
                #[cfg(feature = "museum")]
                let json = if store.env().planted("rejection-forgotten") { String::new() } else { json };
                #[cfg(feature = "museum")]
                let seen = if store.env().planted("stale-rejection") { before(store, seen) } else { seen };
                let receipt = Receipt { events: 0, version: seen.0, token: seen.1, repeated: false };
                let answer = Answer::Rejected { rejection, token: seen.1, repeated: false };
                if json.is_empty() || json.len() > self.config.rejection_bytes {
                    // Too large to keep: repeated, it is decided anew.
                    return Ok(answer);
                }
                (wish.kept(json, &receipt), answer)
            }
            Err(HandleError::CommandIdReused { .. }) => {
                return Err(CommandError::KeyReused { key: wish.key.clone() });
            }
            Err(failed) => return Err(CommandError::handling(failed)),
        };
        let span = self.config.keep_answers;
        kept::keep(tx, &wish.stream, &wish.key, &kept, now, span).await.map_err(CommandError::sql)?;
        Ok(answer)
    }
}

/// What stood there one append earlier.
#[cfg(feature = "museum")]
fn before(store: &Store, (version, token): (Version, Token)) -> (Version, Token) {
    (version, Token::new(store.timeline(), token.append().saturating_sub(1)))
}

impl<D: Decider> Wish<D> {
    fn kept(&self, answer: String, receipt: &Receipt) -> Kept {
        Kept {
            fingerprint: self.fingerprint.clone(),
            answer,
            version: receipt.version.get(),
            token: receipt.token.append(),
            events: receipt.events,
        }
    }
}

fn answer_again<D>(
    store: &Store,
    wish: &Wish<D>,
    kept: &Kept,
) -> Result<Answer<D::Rejection>, CommandError<D::Rejection>>
where
    D: Decider<Rejection: Debug + DeserializeOwned>,
{
    if kept.fingerprint != wish.fingerprint {
        return Err(CommandError::KeyReused { key: wish.key.clone() });
    }
    let token = Token::new(store.timeline(), kept.token);
    if kept.answer.is_empty() {
        let version = Version::new(kept.version);
        return Ok(Answer::Receipt(Receipt { events: kept.events, version, token, repeated: true }));
    }
    let rejection = serde_json::from_str(&kept.answer).map_err(|cause| {
        let what = format!("the kept answer to key `{}` is no rejection of this code: {cause}", wish.key);
        CommandError::sql(SqlError::Failed { what })
    })?;
    Ok(Answer::Rejected { rejection, token, repeated: true })
}
