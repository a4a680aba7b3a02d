//! NATS JetStream: a topic is a stream with a subject for each partition, a group a durable consumer for each of them.
//!
//! Works with servers from 2.9 on. The client brings its own socket and timers, so that this is no part of simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, HeaderMap, ServerAddr, connection,
    jetstream::{
        self, AckKind, Context,
        consumer::{AckPolicy, Consumer, DeliverPolicy, FromConsumer as _, pull},
        context::{ConsumerInfoError, ConsumerInfoErrorKind, GetStreamErrorKind, PublishErrorKind},
        message::{Acker, PublishMessage},
        stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream::SelectAll};
use quorate_data::event::Scalar;
use quorate_foundations::time::Mono;
use quorate_runtime::{BoxFuture, Env};
use tokio::sync::OnceCell;

use super::{
    Capabilities, Confirmed, Confirms, Delivery, Hold, Holds, Label, Outgoing, PublishError, Receiver, Topic,
    Transport, TransportError,
    binding::{self, Raw, TYPES},
};
use crate::{attributes::text, cloud_events::percent};

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the answer to who listens is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// The prefix of attributes (CloudEvents, NATS binding, 3.1.3.1).
const PREFIX: &str = "ce-";
/// The server's limit unless it is set to another: the client knows the real one once it is connected.
const MAX_PAYLOAD: usize = 1 << 20;

/// The transport over one NATS system.
pub(super) struct Nats {
    link: Arc<Link>,
}

/// What all receivers and publishers share.
struct Link {
    env: Env,
    address: Arc<str>,
    client: OnceCell<(Client, Context)>,
    /// Topics that somebody listens to, with their numbers of partitions, and when that was last seen.
    heard: Mutex<BTreeMap<(Label, u16), Mono>>,
}

impl Nats {
    pub(super) fn new(env: &Env, address: &Arc<str>) -> Self {
        let (client, heard) = (OnceCell::new(), Mutex::default());
        Self { link: Arc::new(Link { env: env.clone(), address: address.clone(), client, heard }) }
    }
}

impl Link {
    /// The client, which goes on trying to connect by itself.
    async fn client(&self) -> Result<&(Client, Context), TransportError> {
        let connect = || async {
            let options = ConnectOptions::new()
                .name("quorate")
                .retry_on_initial_connect()
                .connection_timeout(PATIENCE)
                .request_timeout(Some(PATIENCE))
                .ping_interval(PATIENCE)
                .reconnect_delay_callback(|attempt| Duration::from_millis(100 * attempt.min(20) as u64));
            let options = with_credentials(options, &self.address)?;
            let client = options.connect(&*self.address).await.map_err(TransportError::unavailable)?;
            let mut context = jetstream::new(client.clone());
            context.set_timeout(PATIENCE);
            Ok((client, context))
        };
        self.client.get_or_try_init(connect).await
    }

    /// The context of a connection that is there.
    async fn context(&self) -> Result<&Context, TransportError> {
        let (client, context) = self.client().await?;
        match client.connection_state() {
            connection::State::Connected => Ok(context),
            // It has only just begun, or is about to be there again: a short while is given.
            _ => match self.env.timeout(PATIENCE, client.flush()).await {
                Some(Ok(())) if client.connection_state() == connection::State::Connected => Ok(context),
                _ => Err(TransportError::unavailable(format!("not connected to {}", shown(&self.address)))),
            },
        }
    }

    async fn declare(&self, topic: &Topic) -> Result<stream::Stream, TransportError> {
        topic.check()?;
        let context = self.context().await?;
        let wanted = config(topic);
        let stream = match context.get_stream(topic.name.as_str()).await {
            Ok(stream) => stream,
            Err(missing) if is_missing(&missing.kind()) => {
                context.create_stream(wanted.clone()).await.map_err(|failed| of_request(&failed))?
            }
            Err(failed) => return Err(of_request(&failed)),
        };
        let found = &stream.cached_info().config;
        let subjects: BTreeSet<&String> = found.subjects.iter().collect();
        let keeps_all = found.retention == wanted.retention
            && found.discard == wanted.discard
            && found.max_age.is_zero()
            && found.max_messages_per_subject <= 0;
        if subjects != wanted.subjects.iter().collect() || !keeps_all {
            let (name, found, wanted) = (&topic.name, found.subjects.len(), wanted.subjects.len());
            let what = format!(
                "stream `{name}` is there with {found} partitions, or drops messages by other rules, and {wanted} were asked for"
            );
            return Err(TransportError::Invalid { what });
        }
        Ok(stream)
    }

    /// Whether some group has a consumer for each partition: what is published without is dropped by the server.
    async fn is_heard(&self, topic: &Topic) -> Result<bool, TransportError> {
        let (now, of) = (self.env.mono(), (topic.name.clone(), topic.partitions));
        let seen = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&of).copied();
        if seen.is_some_and(|seen| now.saturating_since(seen) < BELIEVED) {
            return Ok(true);
        }
        let context = self.context().await?;
        let stream = match context.get_stream(topic.name.as_str()).await {
            Ok(stream) => stream,
            Err(missing) if is_missing(&missing.kind()) => return Ok(false),
            Err(failed) => return Err(of_request(&failed)),
        };
        // By another number keys would be in other partitions, and out of order.
        let (found, wanted) = (&stream.cached_info().config.subjects, config(topic).subjects);
        if found.iter().collect::<BTreeSet<_>>() != wanted.iter().collect() {
            let (name, found, wanted) = (&topic.name, found.len(), wanted.len());
            let what = format!("stream `{name}` has {found} partitions, and {wanted} were asked for");
            return Err(TransportError::Invalid { what });
        }
        let names: Vec<String> = stream.consumer_names().try_collect().await.map_err(TransportError::unavailable)?;
        let mut members: BTreeMap<&str, usize> = BTreeMap::new();
        for name in &names {
            if let Some((group, partition)) = name.rsplit_once('-')
                && partition.parse::<u16>().is_ok_and(|partition| partition < topic.partitions)
            {
                *members.entry(group).or_default() += 1;
            }
        }
        let is_heard = members.values().any(|count| *count == usize::from(topic.partitions));
        if is_heard {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(of, now);
        }
        Ok(is_heard)
    }

    async fn send(&self, topic: &Topic, message: Outgoing, max_bytes: usize) -> Result<Confirmed, PublishError> {
        message.check(max_bytes).map_err(PublishError::refused)?;
        let context = self.context().await?;
        let subject = format!("{}.{}", topic.name, topic.partition(&message.key));
        let publish = PublishMessage::build()
            .headers(headers(&message))
            .payload(message.event.data.clone().unwrap_or_default())
            .expected_stream(topic.name.as_str());
        let confirm = match context.send_publish(subject, publish).await {
            Ok(confirm) => confirm.await,
            Err(failed) => Err(failed),
        };
        confirm.map(|confirm| Confirmed { repeated: confirm.duplicate }).map_err(|failed| {
            let said = failed.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
            match (failed.kind(), said.map(|said| said.error_code().0)) {
                (PublishErrorKind::StreamNotFound, _) => PublishError::unroutable(topic),
                (PublishErrorKind::MaxPayloadExceeded, _) => PublishError::refused(chain(&failed)),
                // What the store refuses: it holds as many messages or bytes as it may, or its disk is full.
                (_, Some(10077 | 10002 | 10023 | 10047)) => PublishError::full(topic, chain(&failed)),
                // A message larger than the stream takes, or another stream than expected.
                (_, Some(10054)) => PublishError::refused(chain(&failed)),
                (_, Some(10060)) => PublishError::unroutable(topic),
                (_, Some(_)) | (PublishErrorKind::MaxAckPending, _) => PublishError::unavailable(chain(&failed)),
                _ => PublishError::unknown(chain(&failed)),
            }
        })
    }

    /// The group's consumers, one for each partition, made to begin as `begin` says where they are not there.
    async fn consumers(
        &self,
        topic: &Topic,
        group: &Label,
        begin: Begin,
    ) -> Result<Vec<Consumer<pull::Config>>, TransportError> {
        let stream = self.declare(topic).await?;
        let deliver_policy = match begin {
            // By its number: a server that lost the state of a consumer begins there once more, and not with what is new by then.
            Begin::Now => {
                let start_sequence = stream.cached_info().state.last_sequence.saturating_add(1);
                DeliverPolicy::ByStartSequence { start_sequence }
            }
            Begin::WithAllThatIsKept => DeliverPolicy::All,
        };
        let mut consumers = Vec::with_capacity(topic.partitions.into());
        for partition in 0..topic.partitions {
            let name = format!("{group}-{partition}");
            // Ordering: looked for first, for a consumer that is there keeps its place, whatever it would be made with now.
            let consumer = match stream.get_consumer::<pull::Config>(&name).await {
                Ok(consumer) => {
                    let found = &consumer.cached_info().config;
                    let keeps_order = found.max_ack_pending == 1 && found.ack_policy == AckPolicy::Explicit;
                    if !keeps_order || found.max_deliver > 0 {
                        let what = format!(
                            "consumer `{name}` is there, and gives up on messages or hands out several at a time"
                        );
                        return Err(TransportError::Invalid { what });
                    }
                    if found.ack_wait == topic.hold {
                        consumer
                    } else {
                        // Otherwise it would hand out again what is still held, or hold what nobody has any more.
                        let found = pull::Config::try_from_consumer_config(found.clone());
                        let config = pull::Config { ack_wait: topic.hold, ..found.map_err(TransportError::refused)? };
                        stream.create_consumer(config).await.map_err(|failed| of_request(&failed))?
                    }
                }
                Err(failed) if !is_unknown(&*failed) => return Err(of_request(&*failed)),
                Err(_) => {
                    let config = pull::Config {
                        durable_name: Some(name),
                        filter_subject: format!("{}.{partition}", topic.name),
                        deliver_policy,
                        ack_policy: AckPolicy::Explicit,
                        ack_wait: topic.hold,
                        // The server drops what it gives up on: it must not give up.
                        max_deliver: -1,
                        max_ack_pending: 1,
                        ..pull::Config::default()
                    };
                    stream.create_consumer(config).await.map_err(|failed| of_request(&failed))?
                }
            };
            consumers.push(consumer);
        }
        Ok(consumers)
    }
}

/// Where a consumer begins that was just made.
#[derive(Clone, Copy)]
enum Begin {
    Now,
    WithAllThatIsKept,
}

/// A stream that keeps what a group has not acknowledged, and refuses more than it takes.
fn config(topic: &Topic) -> stream::Config {
    stream::Config {
        name: topic.name.to_string(),
        subjects: (0..topic.partitions).map(|partition| format!("{}.{partition}", topic.name)).collect(),
        retention: RetentionPolicy::Interest,
        discard: DiscardPolicy::New,
        max_messages: i64::try_from(topic.max_messages).unwrap_or(i64::MAX),
        duplicate_window: topic.dedupe,
        storage: StorageType::File,
        num_replicas: topic.replicas.into(),
        ..stream::Config::default()
    }
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(said) if said.code() == 404)
}

/// Whether the server says that there is no such consumer.
fn is_unknown(failed: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let failed = failed.downcast_ref::<ConsumerInfoError>();
    failed.is_some_and(|failed| failed.kind() == ConsumerInfoErrorKind::NotFound)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

fn of_request(failed: &dyn std::error::Error) -> TransportError {
    let text = chain(failed);
    // The server answered, and said no: trying again would not help.
    if text.contains("error code") { TransportError::refused(text) } else { TransportError::unavailable(text) }
}

/// What the address says of who connects: a user with a password, or a token alone. The client passes over both.
fn with_credentials(options: ConnectOptions, address: &str) -> Result<ConnectOptions, TransportError> {
    let address: ServerAddr = address.parse().map_err(|wrong| TransportError::Invalid {
        what: format!("`{}` is no address of NATS: {wrong}", shown(address)),
    })?;
    Ok(match (address.username(), address.password()) {
        (Some(user), Some(password)) => options.user_and_password(percent::decode(user), percent::decode(password)),
        (Some(token), None) => options.token(percent::decode(token)),
        (None, _) => options,
    })
}

/// The address without a password.
fn shown(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, host)| host)
}

fn headers(message: &Outgoing) -> HeaderMap {
    let written = binding::write(message);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", percent::encode(&message.identity()));
    for (name, value) in &written.attributes {
        headers.insert(format!("{PREFIX}{name}"), percent::encode(&text(value)));
    }
    if let Some(types) = binding::types(&written.attributes) {
        headers.insert(TYPES, types);
    }
    for (name, value) in &written.plain {
        headers.insert(*name, percent::encode(value));
    }
    if let Some(kind) = &message.event.content_type {
        headers.insert("content-type", &**kind);
    }
    headers
}

fn read(message: async_nats::Message, topic: &Topic) -> Raw {
    let mut raw = Raw { data: message.payload, topic: topic.name.to_string(), ..Raw::default() };
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        let Some(value) = values.last() else { continue };
        let (name, value) = (AsRef::<str>::as_ref(name), value.as_str());
        match name.strip_prefix(PREFIX).or_else(|| name.strip_prefix("Ce-")) {
            Some(attribute) => {
                raw.attributes.insert(attribute.to_ascii_lowercase(), Scalar::Text(percent::decode(value)));
            }
            None if name.eq_ignore_ascii_case("content-type") => raw.content_type = Some(value.to_owned()),
            None if name == "Nats-Msg-Id" => raw.message_id = Some(percent::decode(value)),
            None => drop(raw.plain.insert(name.to_owned(), percent::decode(value))),
        }
    }
    if let Some(types) = raw.plain.remove(TYPES) {
        binding::typed(&mut raw.attributes, &types);
    }
    raw
}

impl Transport for Nats {
    fn capabilities(&self) -> Capabilities {
        let known =
            self.link.client.get().and_then(|(client, _)| client.try_server_info()).map(|info| info.max_payload);
        Capabilities {
            name: "nats",
            confirms: Confirms::Written,
            dedupe: Some(Duration::from_secs(120)),
            holds: Holds::ForAWhile,
            delays: true,
            max_message_bytes: known.filter(|max| *max > 0).unwrap_or(MAX_PAYLOAD),
            compares_partitions: true,
            gives_up: None,
        }
    }

    fn declare<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move { self.link.declare(topic).await.map(drop) })
    }

    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        messages: Vec<Outgoing>,
    ) -> BoxFuture<'a, Vec<Result<Confirmed, PublishError>>> {
        Box::pin(async move {
            let failed = match self.link.is_heard(topic).await {
                Ok(true) => {
                    let max = self.capabilities().max_message_bytes;
                    return join_all(messages.into_iter().map(|message| self.link.send(topic, message, max))).await;
                }
                Ok(false) => PublishError::unroutable(topic),
                Err(failed) => PublishError::from(failed),
            };
            messages.iter().map(|_| Err(failed.clone())).collect()
        })
    }

    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Box<dyn Receiver>, TransportError>> {
        Box::pin(async move {
            self.link.consumers(topic, group, Begin::Now).await?;
            let (link, topic, group) = (self.link.clone(), topic.clone(), group.clone());
            Ok(Box::new(Member { link, topic, group, pulls: None }) as Box<dyn Receiver>)
        })
    }

    fn remove<'a>(&'a self, topic: &'a Topic, group: &'a Label) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            let context = self.link.context().await?;
            let stream = match context.get_stream(topic.name.as_str()).await {
                Ok(stream) => stream,
                Err(missing) if is_missing(&missing.kind()) => return Ok(()),
                Err(failed) => return Err(of_request(&failed)),
            };
            let names: Vec<String> =
                stream.consumer_names().try_collect().await.map_err(TransportError::unavailable)?;
            for name in names.iter().filter(|name| name.rsplit_once('-').is_some_and(|(of, _)| of == group.as_str())) {
                stream.delete_consumer(name).await.map_err(|failed| of_request(&failed))?;
            }
            let mut heard = self.link.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.retain(|(name, _), _| *name != topic.name);
            Ok(())
        })
    }
}

/// A receiver: one pull on each partition, of one message at a time.
struct Member {
    link: Arc<Link>,
    topic: Topic,
    group: Label,
    pulls: Option<SelectAll<pull::Stream>>,
}

impl Member {
    async fn pull(&self) -> Result<SelectAll<pull::Stream>, TransportError> {
        let mut pulls = SelectAll::new();
        // They were there when it joined. Should somebody have deleted them, all that the stream still holds comes: what was handled is known.
        for consumer in self.link.consumers(&self.topic, &self.group, Begin::WithAllThatIsKept).await? {
            let pull = consumer.stream().max_messages_per_batch(1).heartbeat(PATIENCE / 2).expires(6 * PATIENCE);
            pulls.push(pull.messages().await.map_err(TransportError::unavailable)?);
        }
        Ok(pulls)
    }
}

impl Receiver for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>> {
        Box::pin(async move {
            if self.pulls.is_none() {
                self.pulls = Some(self.pull().await?);
            }
            let pulls = self.pulls.as_mut().unwrap_or_else(|| unreachable!("invariant: they were just made"));
            let said = match pulls.next().await {
                Some(Ok(message)) => {
                    let attempt = message.info().map_or(1, |info| u32::try_from(info.delivered).unwrap_or(u32::MAX));
                    let (message, acker) = message.split();
                    let message = binding::read(read(message, &self.topic), attempt > 1, attempt.max(1));
                    return Ok(Delivery { message, hold: Box::new(Held(acker)) });
                }
                Some(Err(failed)) => chain(&failed),
                None => "the subscription ended".to_owned(),
            };
            self.pulls = None;
            Err(TransportError::unavailable(said))
        })
    }
}

struct Held(Acker);

impl Hold for Held {
    fn ack(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move { self.0.double_ack().await.map_err(TransportError::unavailable) })
    }

    fn nack<'a>(&'a self, delay: Duration, _: &'a str) -> BoxFuture<'a, Result<(), TransportError>> {
        let nak = AckKind::Nak((!delay.is_zero()).then_some(delay));
        Box::pin(async move { self.0.ack_with(nak).await.map_err(TransportError::unavailable) })
    }

    fn extend(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move { self.0.ack_with(AckKind::Progress).await.map_err(TransportError::unavailable) })
    }
}
