//! RabbitMQ over AMQP 0.9.1: a topic is a direct exchange, a group a quorum queue for each partition with one active consumer, and a parking
//! queue behind them for what the broker gives up on.
//!
//! Works with brokers from 3.10 on. The client brings its own socket and timers, so that this is no part of simulations.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{
    StreamExt as _,
    future::join_all,
    stream::{self, BoxStream, SelectAll},
};
use lapin::{
    Acker, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use quorate_data::event::{Scalar, Timestamp};
use quorate_foundations::time::Wall;
use quorate_runtime::{BoxFuture, Env};
use tokio::sync::Mutex;

use super::{
    Capabilities, Confirmed, Confirms, Delivery, Hold, Holds, Label, Outgoing, PublishError, Receiver, Topic,
    Transport, TransportError,
    binding::{self, Raw},
    message::MAX_DATA_BYTES,
};
use crate::attributes;

/// How long connecting, declaring and a confirm may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the broker hands a message out before it parks it: far more often than an inbox tries.
const DELIVERY_LIMIT: i32 = 1_000;
/// How long queues that were just made are left alone before anything is routed to them: a broker that is killed within half a second
/// of making a quorum queue comes back without what was in it, confirmed or not (RabbitMQ 3.10: `ra_directory` saves after 500 ms).
const SETTLING: Duration = Duration::from_millis(1_500);
/// The prefix of attributes that is written, and the other one of the binding (CloudEvents, AMQP binding, 3.1.3.1).
const PREFIXES: [&str; 2] = ["cloudEvents_", "cloudEvents:"];

/// The transport over one RabbitMQ broker or cluster.
pub(super) struct RabbitMq {
    link: Arc<Link>,
}

struct Link {
    env: Env,
    uri: String,
    /// Receivers have connections of their own: one that publishes too much is held up by the broker. Whoever publishes has it to himself, and
    /// takes it out meanwhile, so that one that was left in the middle is not used again.
    publishing: Mutex<Option<Publishing>>,
}

/// A connection to publish on.
struct Publishing {
    /// Held, since dropping it ends it.
    _connection: Connection,
    channel: Channel,
    /// Topics whose exchange is known to be there.
    declared: BTreeSet<Label>,
}

/// What came of a message that was sent: its id, and the broker's word, or that there is none.
type Sent = (Arc<str>, Result<Confirmation, PublishError>);

impl RabbitMq {
    pub(super) fn new(env: &Env, address: &str) -> Self {
        // A broker that is gone without a word is found out by its missing heartbeats.
        let separator = if address.contains('?') { '&' } else { '?' };
        let beats = address.contains("heartbeat=");
        let uri = if beats { address.to_owned() } else { format!("{address}{separator}heartbeat=10") };
        Self { link: Arc::new(Link { env: env.clone(), uri, publishing: Mutex::default() }) }
    }
}

impl Link {
    /// What `work` does, if it does it in time.
    async fn in_time<T>(&self, work: impl Future<Output = lapin::Result<T>>) -> Result<T, TransportError> {
        match self.env.timeout(PATIENCE, work).await {
            Some(done) => done.map_err(|failed| told(&failed)),
            None => Err(TransportError::unavailable(format!("no answer within {PATIENCE:?}"))),
        }
    }

    async fn connect(&self) -> Result<Connection, TransportError> {
        let properties = ConnectionProperties::default().with_connection_name("quorate".into());
        self.in_time(Connection::connect(&self.uri, properties)).await
    }

    /// A new connection to publish on.
    async fn publishing(&self) -> Result<Publishing, TransportError> {
        let connection = self.connect().await?;
        let channel = self.in_time(connection.create_channel()).await?;
        self.in_time(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Publishing { _connection: connection, channel, declared: BTreeSet::new() })
    }

    /// A channel of its own for work that the broker may refuse, which ends a channel.
    async fn channel(&self) -> Result<(Connection, Channel), TransportError> {
        let connection = self.connect().await?;
        let channel = self.in_time(connection.create_channel()).await?;
        Ok((connection, channel))
    }

    /// Makes a topic's exchange, and the queue that holds nothing but the number of its partitions, which the broker compares.
    async fn declare_topic(&self, channel: &Channel, topic: &Topic) -> Result<(), TransportError> {
        let mut arguments = FieldTable::default();
        arguments.insert(short("x-max-length"), AMQPValue::LongLongInt(topic.partitions.into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let marker = format!("{}.partitions", topic.name);
        self.in_time(channel.queue_declare(short(&marker), durable, arguments)).await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let name = short(topic.name.as_str());
        self.in_time(channel.exchange_declare(name, ExchangeKind::Direct, durable, FieldTable::default())).await
    }

    /// Whether a group's queues are there, all of them.
    async fn is_made(&self, topic: &Topic, group: &Label) -> Result<bool, TransportError> {
        let (_connection, channel) = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        for partition in 0..topic.partitions {
            let queue = queue(topic, group, partition);
            match self.in_time(channel.queue_declare(short(&queue), passive, FieldTable::default())).await {
                Ok(_) => {}
                Err(TransportError::Refused { .. }) => return Ok(false),
                Err(failed) => return Err(failed),
            }
        }
        Ok(true)
    }

    /// Makes a group's queues and binds them.
    async fn declare_group(&self, channel: &Channel, topic: &Topic, group: &Label) -> Result<(), TransportError> {
        let is_made = self.is_made(topic, group).await?;
        self.declare_topic(channel, topic).await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let parked = parking(topic, group);
        let quorum = || {
            let mut arguments = FieldTable::default();
            arguments.insert(short("x-queue-type"), text("quorum"));
            arguments
        };
        self.in_time(channel.queue_declare(short(&parked), durable, quorum())).await?;
        let share = topic.max_messages.div_ceil(topic.partitions.into());
        for partition in 0..topic.partitions {
            let mut arguments = quorum();
            arguments.insert(short("x-single-active-consumer"), AMQPValue::Boolean(true));
            arguments.insert(short("x-delivery-limit"), AMQPValue::LongInt(DELIVERY_LIMIT));
            arguments.insert(short("x-max-length"), AMQPValue::LongLongInt(i64::try_from(share).unwrap_or(i64::MAX)));
            arguments.insert(short("x-overflow"), text("reject-publish"));
            arguments.insert(short("x-dead-letter-exchange"), text(""));
            arguments.insert(short("x-dead-letter-routing-key"), text(&parked));
            arguments.insert(short("x-dead-letter-strategy"), text("at-least-once"));
            let queue = queue(topic, group, partition);
            self.in_time(channel.queue_declare(short(&queue), durable, arguments)).await?;
        }
        if !is_made {
            self.env.sleep(SETTLING).await;
        }
        for partition in 0..topic.partitions {
            let queue = queue(topic, group, partition);
            let (exchange, key) = (short(topic.name.as_str()), route(topic, partition));
            let bind = QueueBindOptions::default();
            self.in_time(channel.queue_bind(short(&queue), exchange, key, bind, FieldTable::default())).await?;
        }
        Ok(())
    }

    /// Sends all, waits for all confirms, and only then says what came of each: the client hands a message that was returned out with
    /// whichever confirm comes next, its own or not.
    async fn publish(
        &self,
        topic: &Topic,
        messages: Vec<Outgoing>,
    ) -> Result<Vec<Result<Confirmed, PublishError>>, TransportError> {
        topic.check()?;
        let mut kept = self.publishing.lock().await;
        let mut there = match kept.take().filter(|there| there.channel.status().connected()) {
            Some(there) => there,
            None => self.publishing().await?,
        };
        if !there.declared.contains(&topic.name) {
            let (_connection, channel) = self.channel().await?;
            self.declare_topic(&channel, topic).await?;
            there.declared.insert(topic.name.clone());
        }
        let sent = join_all(messages.into_iter().map(|message| self.send(&there, topic, message))).await;
        let is_unknown = sent.iter().any(|(_, word)| word.as_ref().is_err_and(PublishError::is_unknown));
        if !is_unknown {
            *kept = Some(there);
        }
        Ok(judged(topic, sent, is_unknown))
    }

    async fn send(&self, there: &Publishing, topic: &Topic, message: Outgoing) -> Sent {
        let identity = message.identity();
        if let Err(wrong) = message.check(MAX_DATA_BYTES) {
            return (identity, Err(PublishError::refused(wrong)));
        }
        let key = route(topic, topic.partition(&message.key));
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let data = message.event.data.clone().unwrap_or_default();
        let sent = async {
            let exchange = short(topic.name.as_str());
            there.channel.basic_publish(exchange, key, mandatory, &data, properties(&message)).await?.await
        };
        let word = match self.env.timeout(PATIENCE, sent).await {
            None => Err(PublishError::unknown(format!("no confirm within {PATIENCE:?}"))),
            Some(Err(failed)) => Err(PublishError::unknown(&failed)),
            Some(Ok(word)) => Ok(word),
        };
        (identity, word)
    }

    /// Consumers on `queues`, one message at a time on each.
    async fn consume(&self, queues: &[String]) -> Result<Consuming, TransportError> {
        let (connection, channel) = self.channel().await?;
        self.in_time(channel.basic_qos(1, BasicQosOptions::default())).await?;
        let mut consumers = SelectAll::new();
        for queue in queues {
            let options = BasicConsumeOptions::default();
            let consuming = channel.basic_consume(short(queue), short(""), options, FieldTable::default());
            let consumer = self.in_time(consuming).await?;
            // One that ends says so: its queue was deleted, say, and whoever goes on with the others would never hear of it again.
            consumers.push(consumer.map(Some).chain(stream::iter([None])).boxed());
        }
        Ok(Consuming { _connection: connection, _channel: channel, consumers })
    }
}

/// What the broker's words come to. A message was returned if any of them brought it back; each return came before the confirm of its
/// message, so that all are there once all confirms are. Where one is missing, nobody can tell which of the others were returned.
fn judged(topic: &Topic, mut sent: Vec<Sent>, is_unknown: bool) -> Vec<Result<Confirmed, PublishError>> {
    let mut returned = BTreeSet::new();
    for (_, word) in &mut sent {
        if let Ok(Confirmation::Ack(back @ Some(_)) | Confirmation::Nack(back @ Some(_))) = word
            && let Some(id) = back.take().and_then(|back| back.delivery.properties.message_id().clone())
        {
            returned.insert(id.as_str().to_owned());
        }
    }
    let judge = |(identity, word): Sent| match word {
        Err(failed) => Err(failed),
        Ok(_) if returned.contains(&*identity) => Err(PublishError::unroutable(topic)),
        Ok(Confirmation::Nack(_)) => {
            Err(PublishError::full(topic, "the broker refused it: a queue holds as many messages as it may"))
        }
        Ok(_) if is_unknown => Err(PublishError::unknown("the confirm of another message of the batch did not come")),
        Ok(_) => Ok(Confirmed { repeated: false }),
    };
    sent.into_iter().map(judge).collect()
}

fn short(text: &str) -> ShortString {
    ShortString::from(text)
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn queue(topic: &Topic, group: &Label, partition: u16) -> String {
    format!("{}.{group}.{partition}", topic.name)
}

fn parking(topic: &Topic, group: &Label) -> String {
    format!("{}.{group}.parked", topic.name)
}

/// The number of partitions is in it, so that whoever believes in another finds out: it is not routable.
fn route(topic: &Topic, partition: u16) -> ShortString {
    ShortString::from(format!("{partition}-of-{}", topic.partitions))
}

fn told(failed: &lapin::Error) -> TransportError {
    match failed.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => {
                TransportError::Invalid { what: format!("it is there with other numbers: {}", said.get_message()) }
            }
            AMQPErrorKind::Soft(_) => TransportError::refused(said.get_message()),
            AMQPErrorKind::Hard(_) => TransportError::unavailable(said.get_message()),
        },
        _ => TransportError::unavailable(failed),
    }
}

fn properties(message: &Outgoing) -> BasicProperties {
    let written = binding::write(message);
    let mut headers = FieldTable::default();
    for (name, value) in &written.attributes {
        let value = match value {
            Scalar::Boolean(value) => AMQPValue::Boolean(*value),
            Scalar::Integer(value) => AMQPValue::LongInt(*value),
            Scalar::Text(value) => text(value),
        };
        headers.insert(ShortString::from(format!("{}{name}", PREFIXES[0])), value);
    }
    for (name, value) in &written.plain {
        headers.insert(short(name), text(value));
    }
    let persistent = 2;
    let mut properties =
        BasicProperties::default().with_delivery_mode(persistent).with_message_id(short(&message.identity()));
    match message.event.content_type.as_deref() {
        // A short text of AMQP has 255 bytes.
        Some(kind) if kind.len() <= 255 => properties = properties.with_content_type(short(kind)),
        Some(kind) => drop(headers.insert(ShortString::from(format!("{}datacontenttype", PREFIXES[0])), text(kind))),
        None => {}
    }
    properties.with_headers(headers)
}

fn read(delivered: &lapin::message::Delivery, topic: &Topic) -> (Raw, u32) {
    let properties = &delivered.properties;
    let mut raw = Raw {
        content_type: properties.content_type().as_ref().map(|kind| kind.as_str().to_owned()),
        message_id: properties.message_id().as_ref().map(|id| id.as_str().to_owned()),
        data: delivered.data.clone().into(),
        topic: topic.name.to_string(),
        ..Raw::default()
    };
    let mut returned = 0;
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        let Some(value) = scalar(value) else { continue };
        let name = name.as_str();
        match PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            Some(attribute) => drop(raw.attributes.insert(attribute.to_ascii_lowercase(), value)),
            None if name == "x-delivery-count" => returned = attributes::text(&value).parse().unwrap_or(0),
            None => drop(raw.plain.insert(name.to_owned(), attributes::text(&value).into())),
        }
    }
    (raw, returned)
}

/// A header's value; nothing for tables, arrays and the like.
fn scalar(value: &AMQPValue) -> Option<Scalar> {
    let number = |value: i64| i32::try_from(value).map_or_else(|_| Scalar::Text(value.to_string()), Scalar::Integer);
    let of_bytes = |bytes: &[u8]| Scalar::Text(String::from_utf8_lossy(bytes).into_owned());
    Some(match value {
        AMQPValue::LongString(text) => of_bytes(text.as_bytes()),
        AMQPValue::ShortString(text) => Scalar::Text(text.as_str().to_owned()),
        AMQPValue::ByteArray(bytes) => of_bytes(bytes.as_slice()),
        AMQPValue::Boolean(value) => Scalar::Boolean(*value),
        AMQPValue::ShortShortInt(value) => number((*value).into()),
        AMQPValue::ShortShortUInt(value) => number((*value).into()),
        AMQPValue::ShortInt(value) => number((*value).into()),
        AMQPValue::ShortUInt(value) => number((*value).into()),
        AMQPValue::LongInt(value) => number((*value).into()),
        AMQPValue::LongUInt(value) => number((*value).into()),
        AMQPValue::LongLongInt(value) => number(*value),
        // In seconds.
        AMQPValue::Timestamp(at) => {
            let nanos = i64::try_from(*at).ok().and_then(|at| at.checked_mul(1_000_000_000));
            Scalar::Text(
                nanos.map_or_else(
                    || at.to_string(),
                    |at| Timestamp::from(Wall::from_unix_nanos(at)).as_str().to_owned(),
                ),
            )
        }
        _ => return None,
    })
}

impl Transport for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "rabbitmq",
            confirms: Confirms::Synced,
            dedupe: None,
            holds: Holds::WhileConnected,
            delays: false,
            max_message_bytes: MAX_DATA_BYTES,
            compares_partitions: true,
            gives_up: Some("the group's queue `….parked`".into()),
        }
    }

    fn declare<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            topic.check()?;
            let (_connection, channel) = self.link.channel().await?;
            self.link.declare_topic(&channel, topic).await
        })
    }

    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        messages: Vec<Outgoing>,
    ) -> BoxFuture<'a, Vec<Result<Confirmed, PublishError>>> {
        Box::pin(async move {
            let count = messages.len();
            match self.link.publish(topic, messages).await {
                Ok(outcomes) => outcomes,
                Err(failed) => (0..count).map(|_| Err(failed.clone().into())).collect(),
            }
        })
    }

    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Box<dyn Receiver>, TransportError>> {
        Box::pin(async move {
            topic.check()?;
            let (_connection, channel) = self.link.channel().await?;
            self.link.declare_group(&channel, topic, group).await?;
            let queues = (0..topic.partitions).map(|partition| queue(topic, group, partition)).collect();
            Ok(Box::new(Member { link: self.link.clone(), topic: topic.clone(), queues, at_work: None })
                as Box<dyn Receiver>)
        })
    }

    fn join_given_up<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Receiver>>, TransportError>> {
        let (link, topic, queues) = (self.link.clone(), topic.clone(), vec![parking(topic, group)]);
        let member: Box<dyn Receiver> = Box::new(Member { link, topic, queues, at_work: None });
        Box::pin(std::future::ready(Ok(Some(member))))
    }

    fn remove<'a>(&'a self, topic: &'a Topic, group: &'a Label) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            let (_connection, channel) = self.link.channel().await?;
            let queues = (0..topic.partitions).map(|partition| queue(topic, group, partition));
            for queue in queues.chain([parking(topic, group)]) {
                // Deleting what is not there is fine with the broker.
                self.link.in_time(channel.queue_delete(short(&queue), QueueDeleteOptions::default())).await?;
            }
            Ok(())
        })
    }
}

/// A receiver: a consumer on each queue.
struct Member {
    link: Arc<Link>,
    topic: Topic,
    queues: Vec<String>,
    at_work: Option<Consuming>,
}

struct Consuming {
    /// Held, since dropping them ends the consumers, and gives back what they hold.
    _connection: Connection,
    _channel: Channel,
    consumers: SelectAll<BoxStream<'static, Option<lapin::Result<lapin::message::Delivery>>>>,
}

impl Receiver for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>> {
        Box::pin(async move {
            if self.at_work.is_none() {
                self.at_work = Some(self.link.consume(&self.queues).await?);
            }
            let consuming = self.at_work.as_mut().unwrap_or_else(|| unreachable!("invariant: it was just made"));
            let failed = match consuming.consumers.next().await {
                Some(Some(Ok(delivered))) => {
                    let (raw, returned) = read(&delivered, &self.topic);
                    let attempt = returned.saturating_add(1).max(1 + u32::from(delivered.redelivered));
                    let message = binding::read(raw, delivered.redelivered || attempt > 1, attempt);
                    let hold = Held { env: self.link.env.clone(), acker: delivered.acker };
                    return Ok(Delivery { message, hold: Box::new(hold) });
                }
                Some(Some(Err(failed))) => told(&failed),
                Some(None) | None => TransportError::refused("it ended a consumer: a queue of the group was deleted"),
            };
            self.at_work = None;
            Err(failed)
        })
    }
}

struct Held {
    env: Env,
    acker: Acker,
}

fn settled(done: lapin::Result<bool>) -> Result<(), TransportError> {
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(TransportError::lost("it was settled before, or its channel has ended")),
        Err(failed) => Err(TransportError::unavailable(failed)),
    }
}

impl Hold for Held {
    fn ack(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move { settled(self.acker.ack(BasicAckOptions::default()).await) })
    }

    fn nack<'a>(&'a self, delay: Duration, _: &'a str) -> BoxFuture<'a, Result<(), TransportError>> {
        let (acker, env) = (self.acker.clone(), self.env.clone());
        let give_back = async move {
            let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
            settled(acker.nack(requeue).await)
        };
        if delay.is_zero() {
            return Box::pin(give_back);
        }
        if !self.acker.usable() {
            return Box::pin(std::future::ready(Err(TransportError::lost("its channel has ended"))));
        }
        self.env.tasks().spawn("message given back", async move {
            let stop = env.tasks().stop().clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = env.sleep(delay) => {}
            }
            // Where that fails the channel has ended, and the message came back by itself.
            let _given_back = give_back.await;
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn extend(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        let held = self.acker.usable();
        Box::pin(async move { if held { Ok(()) } else { Err(TransportError::lost("its channel has ended")) } })
    }
}
