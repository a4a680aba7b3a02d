//! Events as they are handed in ([`NewEvent`]) and as the log keeps them ([`Recorded`]).
//!
//! Both carry the attributes of CloudEvents 1.0; what the log adds is the stream, the version in it, the position in
//! the whole log, the time of recording and a link of the stream's hash chain. Data is bytes, kept as received.

mod chain;
mod codec;
mod key;
mod new;
mod recorded;
mod tags;
mod timestamp;

use std::fmt;

pub(crate) use chain::blake3_of;
pub use chain::{ChainHash, DataHash};
pub use codec::DecodeError;
pub(crate) use codec::{Place, Prepared};
pub(crate) use key::KeyId;
pub(crate) use new::check_data_subject;
pub use new::{Extensions, InvalidEvent, NewEvent, Scalar};
pub(crate) use recorded::Opened;
pub use recorded::{Recorded, Stub};
pub use tags::{TagError, Tags};
pub use timestamp::{Timestamp, TimestampError};

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Before the first one.
            pub const ZERO: Self = Self(0);

            /// The `n`-th, counted from 1; 0 means "before the first".
            pub const fn new(n: u64) -> Self {
                Self(n)
            }

            /// As a number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after this; the last of all is its own successor.
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counted! {
    /// Where an event stands in the whole log: dense, in commit order, never reused. Counted from 1.
    Position
}

counted! {
    /// Where an event stands in its stream. Counted from 1; a stream's version is that of its last event.
    Version
}

counted! {
    /// An archive of a store: a file that some of its events were moved to. Counted from 1.
    ArchiveId
}
