use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use quorate_foundations::time::Wall;

use super::{Opened, Recorded, Stub};
use crate::event::{
    ArchiveId, ChainHash, KeyId, NewEvent, Position, Scalar, Tags, Version,
    codec::{Place, Prepared},
};

fn record(event: &NewEvent) -> Recorded {
    let place = Place {
        version: Version::new(3),
        position: Position::new(9),
        recorded_at: Wall::from_unix_nanos(1_700_000_000_000_000_001),
        previous: ChainHash::START,
    };
    Prepared::new(event, "account-17").record(&place, &mut BytesMut::new())
}

fn full() -> NewEvent {
    let mut event = NewEvent::new("id-1", "/bank", "money.moved").json(&br#"{"amount":17}"#[..]);
    event.subject = Some("an account ☂".into());
    event.time = Some("2011-10-01T00:38:44.546+02:00".parse().unwrap());
    event.schema = Some("/schemas/money.moved/2".into());
    event.correlation_id = Some("c".into());
    event.causation_id = Some("".into());
    event.tags = Tags::new(["account:17", "customer:4"]).unwrap();
    event.extensions.insert("tenant".into(), Scalar::Text("x".into()));
    event
}

#[test]
fn what_is_written_is_read_back() {
    for event in [full(), NewEvent::new("1", "/s", "t")] {
        let recorded = record(&event);
        let read = Recorded::decode(recorded.position(), recorded.bytes().clone()).unwrap();
        assert_eq!(read, recorded);
        assert_eq!(read.to_new(), event);
        assert!(Prepared::new(&event, "account-17").is(&read) && read.follows(&ChainHash::START));
        assert_eq!((read.stream(), read.version().get(), read.category()), ("account-17", 3, "account"));
    }
}

#[test]
fn absent_and_empty_are_different() {
    let mut event = NewEvent::new("1", "/s", "t");
    let absent = record(&event);
    event.subject = Some("".into());
    event.data = Some(Bytes::new());
    let empty = record(&event);
    assert_eq!((absent.subject(), absent.data()), (None, None));
    assert_eq!((empty.subject(), empty.data()), (Some(""), Some(&b""[..])));
}

#[test]
fn a_stub_forgets_the_data_and_keeps_the_chain() {
    let whole = record(&full());
    let stub = whole.to_stub(Stub::Truncated);
    let read = Recorded::decode(stub.position(), stub.bytes().clone()).unwrap();
    assert_eq!((read.stub(), read.data(), read.id()), (Some(Stub::Truncated), None, "id-1"));
    assert!(read.follows(&ChainHash::START) && Prepared::new(&full(), "account-17").is(&read));
    assert!(!memchr(read.bytes(), b"17}"));
    assert_eq!(read.to_stub(Stub::Tombstoned).data_hash(), whole.data_hash());
}

/// The least that sealed data can look like: a key's id, a nonce, and the data turned round.
fn sealed(event: &NewEvent) -> Prepared {
    Prepared::sealed(event, "account-17", |header, data| {
        let mut sealed = KeyId { generation: 3, check: header.len() as u32 }.to_bytes().to_vec();
        sealed.extend_from_slice(&[7; 24]);
        sealed.extend(data.iter().rev());
        sealed
    })
}

fn record_sealed(event: &NewEvent) -> Recorded {
    let place = Place {
        version: Version::new(1),
        position: Position::new(9),
        recorded_at: Wall::default(),
        previous: ChainHash::START,
    };
    sealed(event).record(&place, &mut BytesMut::new())
}

#[test]
fn sealed_data_is_told_only_once_it_is_opened() {
    let event = full().about("customer-4");
    let recorded = record_sealed(&event);
    let read = Recorded::decode(recorded.position(), recorded.bytes().clone()).unwrap();
    assert_eq!((read.data(), read.data_bytes(), read.erased()), (None, None, false));
    assert_eq!((read.data_subject(), read.is_encrypted()), (Some("customer-4"), true));
    assert_eq!(read.key_id().unwrap().generation, 3);
    let plain = read.clone().opened(Opened::Plain(event.data.clone().unwrap()));
    assert!(plain.follows(&ChainHash::START) && plain.to_new() == event && plain.data_hash() == read.data_hash());
    let erased = read.clone().opened(Opened::Erased);
    assert!(erased.follows(&ChainHash::START) && erased.erased() && erased.data().is_none());
    assert!(sealed(&event).is(&erased) && !sealed(&full().about("another")).is_alike(&erased));
}

#[test]
fn a_stub_of_sealed_data_keeps_its_key() {
    let whole = record_sealed(&full().about("customer-4"));
    let stub = whole.to_stub(Stub::Truncated).to_stub(Stub::Archived(ArchiveId::new(9)));
    let read = Recorded::decode(stub.position(), stub.bytes().clone()).unwrap();
    assert_eq!((read.key_id(), read.data_hash()), (whole.key_id(), whole.data_hash()));
    assert!(read.follows(&ChainHash::START) && read.data().is_none() && read.stored_data().is_none());
    assert_eq!(read.stub(), Some(Stub::Archived(ArchiveId::new(9))));
}

#[test]
fn data_of_a_subject_that_is_not_sealed_is_no_event() {
    let mut bytes = record_sealed(&full().about("customer-4")).bytes().to_vec();
    bytes[1] = 0;
    assert!(Recorded::decode(Position::new(9), bytes.into()).is_err());
    let without = NewEvent { data: None, ..full() }.about("customer-4");
    let recorded = record(&without);
    assert!(!recorded.is_encrypted() && recorded.data_subject().is_some());
    let mut bytes = recorded.bytes().to_vec();
    bytes[1] = super::codec::ENCRYPTED;
    assert!(Recorded::decode(Position::new(9), bytes.into()).is_err());
}

fn memchr(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn any_flipped_byte_is_noticed() {
    let recorded = record(&full());
    for at in 0..recorded.bytes().len() {
        let mut bytes = recorded.bytes().to_vec();
        bytes[at] ^= 0x55;
        let noticed = match Recorded::decode(recorded.position(), bytes.into()) {
            Ok(read) => !read.follows(&ChainHash::START) || read.stub() != recorded.stub() || at == 1,
            Err(_) => true,
        };
        assert!(noticed, "byte {at}");
    }
}

proptest! {
    #[test]
    fn decoding_survives_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Recorded::decode(Position::new(1), bytes.clone().into());
        if let Some(first) = bytes.first_mut() { *first = 1; }
        let _ = Recorded::decode(Position::new(1), bytes.into());
    }

    #[test]
    fn decoding_survives_any_damage_to_an_event(at in 0..200_usize, byte in any::<u8>(), cut in 0..200_usize) {
        let mut bytes = record(&full()).bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut % 50);
        if let Ok(read) = Recorded::decode(Position::new(1), bytes.into()) {
            let _ = (read.to_new(), read.data_hash(), format!("{read:?}"));
        }
    }
}
