//! UmaDB's core in this process: its storage and its writer thread as its server starts them, without gRPC before it.
//!
//! The writer commits together what has gathered, as quorate's does, with two syncs each time. There are no streams, so
//! no versions: a stream is one more tag, and "as it was read" is a condition on that tag. Plain appends have no
//! condition. An id is stored, but not compared without a condition.

use std::{path::Path, sync::Arc, thread};

use peer::{Context as _, Event, Log, Result, anyhow};
use tokio::sync::{mpsc, oneshot, watch};
use umadb_core::{
    db::UmaDb,
    mvcc::{Mvcc, StorageOptions},
    writer_thread_blocking::writer_thread_blocking,
    writer_thread_request::WriterThreadRequest,
};
use umadb_dcb::{DcbAppendCondition, DcbEvent, DcbEventStoreSync as _, DcbQuery, DcbQueryItem};

/// Requests that may wait for the writer, and events it commits together, as in UmaDB's server.
const WAITING: usize = 1_024;
const TOGETHER: usize = 2_048;

/// Events of one page of catch-up, as many as quorate's own bench asks for.
const PAGE: u32 = 4_096;

fn main() -> Result<()> {
    peer::main::<Uma>()
}

#[derive(Clone)]
struct Uma {
    store: Arc<UmaDb>,
    writer: mpsc::Sender<WriterThreadRequest>,
}

impl Log for Uma {
    async fn open(folder: &Path) -> Result<Self> {
        let storage = Arc::new(Mvcc::new(false, StorageOptions::default().db_path(folder))?);
        let (writer, requests) = mpsc::channel(WAITING);
        let (head, _) = watch::channel(None);
        let of_writer = storage.clone();
        thread::spawn(move || writer_thread_blocking(of_writer, requests, head, TOGETHER));
        Ok(Self { store: Arc::new(UmaDb::from_arc(storage)), writer })
    }

    async fn append(&self, events: Vec<Event>) -> Result<()> {
        self.append_if(None, events).await
    }

    async fn load_and_append(&self, event: Event) -> Result<usize> {
        let query = DcbQuery::new().item(DcbQueryItem::new().tags([stream_tag(&event)]));
        let (loaded, _) = self.store.read_with_head(Some(query.clone()), None, true, Some(100))?;
        let newest = loaded.first().context("nothing was loaded")?.position;
        self.append_if(Some(DcbAppendCondition::new(query).after(Some(newest))), vec![event]).await?;
        Ok(loaded.len())
    }

    async fn read_everything(&self) -> Result<u64> {
        let (mut start, mut read) = (None, 0);
        loop {
            let (events, _) = self.store.read_with_head(None, start, false, Some(PAGE))?;
            let Some(last) = events.last() else { return Ok(read) };
            start = Some(last.position + 1);
            read += events.len() as u64;
        }
    }
}

impl Uma {
    async fn append_if(&self, condition: Option<DcbAppendCondition>, events: Vec<Event>) -> Result<()> {
        let events = events.into_iter().map(its_own).collect::<Result<_>>()?;
        let (response_tx, response) = oneshot::channel();
        let request = WriterThreadRequest::Append { events, condition, tracking_info: None, response_tx, cancel: None };
        self.writer.send(request).await.map_err(|_| anyhow!("the writer has ended"))?;
        response.await.context("the writer did not answer")??;
        Ok(())
    }
}

fn stream_tag(event: &Event) -> String {
    format!("stream:{}", event.stream)
}

fn its_own(event: Event) -> Result<DcbEvent> {
    let data = serde_json::to_vec(&event.data)?;
    let stream = stream_tag(&event);
    let tags = event.tags.into_iter().chain([stream]);
    Ok(DcbEvent::new().event_type(peer::TYPE).data(data).tags(tags).uuid(event.id))
}
