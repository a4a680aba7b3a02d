//! PostgreSQL as a queue by hand: a table, and `FOR UPDATE SKIP LOCKED`.

use quorate_runtime::BoxFuture;
use tokio_postgres::{Client, Statement};

use super::{super::super::over_postgres::connect, super::BATCH, Broker, LULL, Lane};

/// A database.
pub(super) struct Postgres {
    url: String,
    client: Client,
}

struct Session {
    client: Client,
    insert: Statement,
    take: Statement,
}

async fn open(url: &str) -> Result<Client, String> {
    connect(url).await.map_err(|failed| failed.to_string())
}

impl Postgres {
    pub(super) async fn connect(url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_owned(), client: open(url).await? })
    }
}

impl Broker for Postgres {
    fn begin<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let sql = format!(
                r#"CREATE TABLE "{queue}" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL)"#
            );
            self.client.batch_execute(&sql).await.map_err(|cause| cause.to_string())
        })
    }

    fn lane<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Box<dyn Lane>, String>> {
        Box::pin(async move {
            let client = open(&self.url).await?;
            let insert = client.prepare(&format!(r#"INSERT INTO "{queue}" (body) VALUES ($1)"#)).await;
            let take = format!(
                r#"DELETE FROM "{queue}" WHERE id IN
                   (SELECT id FROM "{queue}" ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED) RETURNING body"#
            );
            let take = client.prepare(&take).await.map_err(|cause| cause.to_string())?;
            let session = Session { insert: insert.map_err(|cause| cause.to_string())?, take, client };
            Ok(Box::new(session) as Box<dyn Lane>)
        })
    }

    fn end<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let sql = format!(r#"DROP TABLE "{queue}""#);
            self.client.batch_execute(&sql).await.map_err(|cause| cause.to_string())
        })
    }
}

impl Lane for Session {
    fn send<'a>(&'a mut self, body: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.client.execute(&self.insert, &[&body]).await.map(|_| ()).map_err(|cause| cause.to_string())
        })
    }

    /// The rows are taken and locked; the commit in `settle` is what removes them.
    fn receive(&mut self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, String>> {
        Box::pin(async move {
            self.client.batch_execute("BEGIN").await.map_err(|cause| cause.to_string())?;
            let rows = self.client.query(&self.take, &[]).await.map_err(|cause| cause.to_string())?;
            if rows.is_empty() {
                self.client.batch_execute("COMMIT").await.map_err(|cause| cause.to_string())?;
                tokio::time::sleep(LULL / 10).await;
            }
            Ok(rows.iter().map(|row| row.get(0)).collect())
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.client.batch_execute("COMMIT").await.map_err(|cause| cause.to_string()) })
    }
}
