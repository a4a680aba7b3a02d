//! NATS JetStream: a stream in files, and one pull consumer that all lanes share.

use async_nats::jetstream::{
    self, AckKind, Context, ErrorCode, Message,
    consumer::{AckPolicy, PullConsumer, pull},
    context::GetStreamErrorKind,
    stream::{RetentionPolicy, StorageType},
};
use futures_util::StreamExt as _;
use quorate_runtime::BoxFuture;

use super::{super::BATCH, Broker, LULL, Lane, PATIENCE};

const CONSUMER: &str = "workers";

/// A server.
pub(super) struct Nats {
    url: String,
    context: Context,
}

struct Client {
    context: Context,
    queue: String,
    consumer: PullConsumer,
    held: Vec<Message>,
}

async fn connect(url: &str) -> Result<Context, String> {
    let options = async_nats::ConnectOptions::new().connection_timeout(PATIENCE).request_timeout(Some(PATIENCE));
    let client = options.connect(url).await.map_err(|cause| cause.to_string())?;
    Ok(jetstream::new(client))
}

impl Nats {
    pub(super) async fn connect(url: &str) -> Result<Self, String> {
        let context = connect(url).await?;
        // A stream that nobody has: whoever says so has JetStream.
        if let Err(failed) = context.get_stream(format!("quorate-bench-{}", std::process::id())).await
            && !matches!(failed.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
        {
            return Err(format!("JetStream: {failed}"));
        }
        Ok(Self { url: url.to_owned(), context })
    }
}

impl Broker for Nats {
    fn begin<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let config = jetstream::stream::Config {
                name: queue.to_owned(),
                subjects: vec![queue.to_owned()],
                storage: StorageType::File,
                retention: RetentionPolicy::WorkQueue,
                ..Default::default()
            };
            let stream = self.context.create_stream(config).await.map_err(|cause| cause.to_string())?;
            let consumer = pull::Config {
                durable_name: Some(CONSUMER.to_owned()),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: 10_000,
                ..Default::default()
            };
            stream.create_consumer(consumer).await.map(|_| ()).map_err(|cause| cause.to_string())
        })
    }

    fn lane<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Box<dyn Lane>, String>> {
        Box::pin(async move {
            let context = connect(&self.url).await?;
            let stream = context.get_stream(queue).await.map_err(|cause| cause.to_string())?;
            let consumer = stream.get_consumer(CONSUMER).await.map_err(|cause| cause.to_string())?;
            Ok(Box::new(Client { context, queue: queue.to_owned(), consumer, held: Vec::new() }) as Box<dyn Lane>)
        })
    }

    fn end<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.context.delete_stream(queue).await.map(|_| ()).map_err(|cause| cause.to_string()) })
    }
}

impl Client {
    async fn hold(&mut self, mut messages: pull::Batch) -> Result<(), String> {
        while let Some(message) = messages.next().await {
            self.held.push(message.map_err(|cause| cause.to_string())?);
        }
        Ok(())
    }
}

impl Lane for Client {
    fn send<'a>(&'a mut self, body: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let sent = self.context.publish(self.queue.clone(), body.to_vec().into()).await;
            let acked = sent.map_err(|cause| cause.to_string())?.await;
            acked.map(|_| ()).map_err(|cause| cause.to_string())
        })
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, String>> {
        Box::pin(async move {
            self.held.clear();
            let there = self.consumer.fetch().max_messages(BATCH).messages().await;
            self.hold(there.map_err(|cause| cause.to_string())?).await?;
            if self.held.is_empty() {
                let next = self.consumer.batch().max_messages(1).expires(LULL).messages().await;
                self.hold(next.map_err(|cause| cause.to_string())?).await?;
            }
            Ok(self.held.iter().map(|message| message.payload.to_vec()).collect())
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            for message in self.held.drain(..) {
                message.ack_with(AckKind::Ack).await.map_err(|cause| cause.to_string())?;
            }
            Ok(())
        })
    }
}
