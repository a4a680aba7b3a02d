//! Where a service reads and appends: the store itself, or a transaction in progress.

use quorate_data::store::{
    AppendBatch, AppendError, Appended, DynTx, ReadStream, Row, SqlError, Store, StoreError, StreamPage, Value,
};

/// Reads and appends.
pub(super) trait Log: Send {
    /// A page of a stream.
    fn page(&mut self, read: ReadStream) -> impl Future<Output = Result<StreamPage, StoreError>> + Send;
    /// Rows of a room's table.
    fn rows(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send;
    /// Appends a batch.
    fn append(&mut self, batch: AppendBatch) -> impl Future<Output = Result<Appended, AppendError>> + Send;
}

impl Log for &Store {
    async fn page(&mut self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.read_stream(read).await
    }

    async fn rows(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.room_query(sql, params).await
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<Appended, AppendError> {
        Store::append(self, batch).await
    }
}

impl Log for &mut DynTx {
    async fn page(&mut self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.read_stream(read).await
    }

    async fn rows(&mut self, sql: &'static str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.room_query(sql, &params).await
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.append_batch(batch).await
    }
}
