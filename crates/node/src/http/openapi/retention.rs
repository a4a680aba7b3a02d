//! What streams keep.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};

pub(super) fn paths() -> Value {
    let metadata = || json_reply("The stream's metadata", "Metadata", &["ETag"]);
    json!({
        "/v1/streams/{stream}/truncate": {
            "parameters": [parameter("stream")],
            "post": with_body(operation("streams", "truncateStream", "Forgets the data of a stream's events before a version", &["ifMatch", "idempotencyKey"],
                &[("200", json_reply("What was forgotten", "Retired", &["Quorate-Token"]))]), "Truncate"),
        },
        "/v1/streams/{stream}/tombstone": {
            "parameters": [parameter("stream")],
            "post": operation("streams", "tombstoneStream", "Forgets all data of a stream and closes it for good", &["ifMatch", "idempotencyKey"],
                &[("200", json_reply("What was forgotten", "Retired", &["Quorate-Token"]))]),
        },
        "/v1/streams/{stream}/metadata": {
            "parameters": [parameter("stream")],
            "get": operation("streams", "readMetadata", "Reads a stream's metadata: what it keeps, and values of the user's own",
                &["token", "prefer"], &[("200", metadata())]),
            "put": with_body(operation("streams", "setMetadata", "Sets a stream's metadata, which need not exist; the preconditions are about the version of the metadata",
                &["ifMatch", "ifNoneMatch", "idempotencyKey"], &[("200", metadata())]), "SetMetadata"),
        },
        "/v1/streams/{stream}/archive": {
            "parameters": [parameter("stream")],
            "post": with_body(operation("streams", "archiveStream", "Moves a stream's events to a file in the folder for archives", &["idempotencyKey"],
                &[("201", json_reply("The archive", "Archive", &[]))]), "ToArchive"),
            "get": operation("streams", "listArchives", "Lists the archives of a stream in order of their versions", &[],
                &[("200", json_reply("The archives", "ArchiveList", &[]))]),
        },
        "/v1/store/scavenge": {
            "post": operation("store", "scavenge", "Forgets what no stream's rules keep any more", &["idempotencyKey"],
                &[("200", json_reply("What was forgotten", "Scavenged", &[]))]),
        },
    })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let given = json!({ "oneOf": [{ "type": "integer", "format": "int64", "minimum": 0 }, reference("Count")] });
    let open = super::schemas::object;
    let closed = super::schemas::closed;
    let age = json!({ "type": "string", "description": "Keep events recorded at most so long ago: `30days`, `12h`" });
    let values = json!({ "type": "object", "maxProperties": 64, "additionalProperties": { "type": "string" } });
    json!({
        "Truncate": closed(&["before"], json!({ "before": given })),
        "Retired": open(&["stream", "retired", "token"], json!({
            "stream": text,
            "retired": { "type": "integer", "description": "How many events lost their data" },
            "token": text,
        })),
        "SetMetadata": closed(&[], json!({
            "stream": { "type": "string", "description": "As it was read; the stream of the path" },
            "metadataversion": { "description": "As it was read: what the metadata have to be at still, as `If-Match` says it, or `If-None-Match: *` for 0", "allOf": [given] },
            "max-count": { "description": "Keep the newest so many events; at least 1", "allOf": [given] },
            "max-age": age,
            "values": values,
        })),
        "Metadata": open(&["stream", "metadataversion", "values"], json!({
            "stream": text,
            "metadataversion": { "description": "How often they were set", "allOf": [reference("Count")] },
            "max-count": reference("Count"),
            "max-age": age,
            "values": values,
        })),
        "ToArchive": closed(&["to"], json!({
            "to": { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", "description": "The file's name" },
            "before": { "description": "The first version to keep; without it everything is moved", "allOf": [given] },
        })),
        "Archive": open(&["archiveid", "to", "path", "stream", "first", "last", "hash", "bytes", "made"], json!({
            "archiveid": reference("Count"),
            "to": text,
            "path": text,
            "stream": text,
            "first": { "description": "The first version in it", "allOf": [reference("Count")] },
            "last": { "description": "The last version in it", "allOf": [reference("Count")] },
            "hash": { "type": "string", "description": "The stream's hash chain at the last version: what the file leads to" },
            "bytes": number,
            "made": { "type": "string", "format": "date-time" },
        })),
        "ArchiveList": open(&["archives"], json!({ "archives": { "type": "array", "items": reference("Archive") } })),
        "Scavenged": open(&["streams", "retired"], json!({ "streams": number, "retired": number })),
    })
}
