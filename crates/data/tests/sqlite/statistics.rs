//! What a store says of itself, compared with what its files say.

use crate::shared::{Folder, batch, event, with_suffix};

#[tokio::test]
async fn the_size_of_the_write_ahead_log_is_that_of_its_file() {
    let folder = Folder::new();
    let store = folder.store().await;
    let wal = with_suffix(&folder.file(), "-wal");
    let mut before = 0;
    for n in 0..3 {
        store.append(batch("s", (0..500).map(|m| event(format!("{n}-{m}"))).collect())).await.unwrap();
        let told = store.statistics().wal_bytes;
        assert_eq!(told, std::fs::metadata(&wal).unwrap().len());
        assert!(told > before, "{told} bytes after {before}");
        before = told;
    }
    store.close().await.unwrap();
    assert_eq!(store.statistics().wal_bytes, 0, "closing empties it");
}
