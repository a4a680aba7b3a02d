//! What an event becomes on its way out.

use quorate_data::{
    event::{Recorded, Scalar},
    subscription::Delivery,
};

use super::{RelayConfig, Route};
use crate::transports::{Label, Outgoing, Topic, fitting, under_its_own_id};

/// The message that says what `delivery`'s event does, and its topic; nothing for an event whose data subject was erased; or why it
/// cannot be published.
pub(super) fn seal(config: &RelayConfig, delivery: &Delivery) -> Result<Option<(Topic, Outgoing)>, String> {
    let event = &delivery.event;
    if let Some(stub) = event.stub() {
        return Err(format!("its data was gone before it could be published: {stub:?}"));
    }
    if event.erased() {
        return Ok(None);
    }
    if event.data_subject().is_some() && !config.personal {
        return Err("it is about a data subject, and nobody could erase it at the broker: see the relay's `personal`"
            .to_owned());
    }
    let topic = match &config.route {
        Route::Topic(topic) => topic.clone(),
        Route::ByCategory(like) => {
            let name: Label =
                event.category().parse().map_err(|wrong| format!("its category names no topic: {wrong}"))?;
            Topic { name, ..like.clone() }
        }
    };
    // What an inbox took in and kept under its whole identity goes on as the message that it was.
    let kept = event.to_new();
    let kept_id = kept.id.clone();
    let mut out = under_its_own_id(kept);
    // It names its aggregate itself, or has none: another one would make it another message.
    if out.id == kept_id {
        let (kind, id) = aggregate(event);
        for (name, value) in [("aggregatetype", kind), ("aggregateid", id)] {
            out.extensions.entry(name.to_owned()).or_insert_with(|| Scalar::Text(value.to_owned()));
        }
    }
    Ok(Some((topic, Outgoing::new(fitting(&delivery.key), out))))
}

/// A stream's category and the rest of its name, as Debezium's router tells them apart.
fn aggregate(event: &Recorded) -> (&str, &str) {
    let stream = event.stream();
    stream.split_once('-').filter(|(_, id)| !id.is_empty()).unwrap_or((stream, stream))
}
