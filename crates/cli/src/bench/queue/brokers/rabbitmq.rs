//! RabbitMQ: a quorum queue, and a channel with confirms for each lane.

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use quorate_runtime::BoxFuture;

use super::{super::BATCH, Broker, LULL, Lane};

/// A broker.
pub(super) struct RabbitMq {
    url: String,
    connection: Connection,
}

struct Client {
    _connection: Connection,
    channel: Channel,
    queue: ShortString,
    consumer: Option<Consumer>,
    last: Option<Delivery>,
}

async fn connect(url: &str) -> Result<Connection, String> {
    Connection::connect(url, ConnectionProperties::default()).await.map_err(|cause| cause.to_string())
}

impl RabbitMq {
    pub(super) async fn connect(url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_owned(), connection: connect(url).await? })
    }

    async fn channel(&self) -> Result<Channel, String> {
        self.connection.create_channel().await.map_err(|cause| cause.to_string())
    }
}

impl Broker for RabbitMq {
    fn begin<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut quorum = FieldTable::default();
            quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let durable = QueueDeclareOptions { durable: true, ..Default::default() };
            let declared = self.channel().await?.queue_declare(queue.into(), durable, quorum).await;
            declared.map(|_| ()).map_err(|cause| cause.to_string())
        })
    }

    fn lane<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Box<dyn Lane>, String>> {
        Box::pin(async move {
            let connection = connect(&self.url).await?;
            let channel = connection.create_channel().await.map_err(|cause| cause.to_string())?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|cause| cause.to_string())?;
            let client = Client { _connection: connection, channel, queue: queue.into(), consumer: None, last: None };
            Ok(Box::new(client) as Box<dyn Lane>)
        })
    }

    fn end<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let deleted = self.channel().await?.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
            deleted.map(|_| ()).map_err(|cause| cause.to_string())
        })
    }
}

impl Client {
    async fn consumer(&mut self) -> Result<&mut Consumer, String> {
        if self.consumer.is_none() {
            let many = u16::try_from(BATCH).unwrap_or(u16::MAX);
            let asked = self.channel.basic_qos(many, BasicQosOptions::default()).await;
            asked.map_err(|cause| cause.to_string())?;
            let (name, options) = (ShortString::from(""), BasicConsumeOptions::default());
            let consuming = self.channel.basic_consume(self.queue.clone(), name, options, FieldTable::default()).await;
            self.consumer = Some(consuming.map_err(|cause| cause.to_string())?);
        }
        self.consumer.as_mut().ok_or_else(|| "no consumer".to_owned())
    }
}

impl Lane for Client {
    fn send<'a>(&'a mut self, body: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let sent = self.channel.basic_publish("".into(), self.queue.clone(), options, body, properties).await;
            match sent.map_err(|cause| cause.to_string())?.await.map_err(|cause| cause.to_string())? {
                Confirmation::Ack(None) => Ok(()),
                other => Err(format!("a message was not taken: {other:?}")),
            }
        })
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, String>> {
        Box::pin(async move {
            let consumer = self.consumer().await?;
            let mut deliveries = Vec::new();
            match tokio::time::timeout(LULL, consumer.next()).await {
                Ok(Some(first)) => deliveries.push(first.map_err(|cause| cause.to_string())?),
                Ok(None) => return Err("the broker ended a consumer".to_owned()),
                Err(_) => return Ok(Vec::new()),
            }
            while deliveries.len() < BATCH
                && let Some(Some(next)) = consumer.next().now_or_never()
            {
                deliveries.push(next.map_err(|cause| cause.to_string())?);
            }
            let bodies = deliveries.iter_mut().map(|delivery| std::mem::take(&mut delivery.data)).collect();
            self.last = deliveries.pop();
            Ok(bodies)
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let Some(last) = self.last.take() else { return Ok(()) };
            let acked = last.acker.ack(BasicAckOptions { multiple: true }).await;
            acked.map(|_| ()).map_err(|cause| cause.to_string())
        })
    }
}
