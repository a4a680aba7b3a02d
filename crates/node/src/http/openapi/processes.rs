//! Choreographed processes.

use quorate_consistency::saga::choreography::Standing;
use serde_json::{Value, json};

use super::{content, json_reply, operation, parameter, reference, views::with_document_of, with_body};
use crate::http::{
    declaration::{TOML, YAML},
    processes::{DOT, MERMAID},
    reply,
};

pub(super) fn paths() -> Value {
    let text = || json!({ "type": "string" });
    let resume = operation(
        "processes",
        "resumeCourse",
        "Has a stopped course go on: what stopped it and what came since is taken in now",
        &["idempotencyKey"],
        &[("200", json_reply("It goes on, durably", "CourseResumed", &[]))],
    );
    json!({
        "/v1/processes": {
            "get": operation("processes", "listProcesses", "Lists processes in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Processes", "ProcessList", &["Link"]))]),
        },
        "/v1/processes/{name}": {
            "parameters": [parameter("process")],
            "put": with_document_of("ProcessDocument", operation("processes", "declareProcess",
                "Declares a process: it is followed from now on and after every restart; declared anew it goes on where it is", &["idempotencyKey"],
                &[("201", json_reply("There was none of this name", "ProcessDeclared", &[])), ("200", json_reply("There was one", "ProcessDeclared", &[]))])),
            "get": operation("processes", "describeProcess", "Says how a process stands, and what it says", &[],
                &[("200", json_reply("The process", "Process", &[]))]),
            "delete": operation("processes", "deleteProcess", "Takes a process back with its courses; what it told stays in the log", &["idempotencyKey"],
                &[("200", json_reply("It is deleted", "ProcessDeleted", &[]))]),
        },
        "/v1/processes/{name}/document": {
            "parameters": [parameter("process")],
            "get": operation("processes", "readProcessDocument", "Reads a document as it was declared", &[],
                &[("200", content("The document", &[], &[(TOML, text()), (YAML, text()), (reply::JSON, reference("ProcessDocument"))]))]),
        },
        "/v1/processes/{name}/check": {
            "parameters": [parameter("process")],
            "post": with_document_of("ProcessDocument", operation("processes", "checkProcess",
                "Reads a document as declaring it does, and changes nothing", &[],
                &[("200", json_reply("Nothing is wrong with it by itself", "ProcessChecked", &[]))])),
        },
        "/v1/processes/{name}/courses": {
            "parameters": [parameter("process")],
            "get": operation("processes", "listCourses", "Lists the courses of a process in order of their keys", &["courseState", "afterName", "limit"],
                &[("200", json_reply("Courses", "CourseList", &["Link"]))]),
        },
        "/v1/processes/{name}/courses/{key}": {
            "parameters": [parameter("process"), parameter("courseKey")],
            "get": operation("processes", "describeCourse", "Says what has happened in a course, and what is expected until when", &[],
                &[("200", json_reply("The course", "Course", &[]))]),
        },
        "/v1/processes/{name}/courses/{key}/graph": {
            "parameters": [parameter("process"), parameter("courseKey")],
            "get": operation("processes", "drawCourse", "Draws which event of a course led to which, and what is missing", &["graphFormat"],
                &[("200", content("The graph", &[], &[(reply::JSON, reference("CourseGraph")), (MERMAID, text()), (DOT, text()), ("text/plain", text())]))]),
        },
        "/v1/processes/{name}/courses/{key}/resume": { "parameters": [parameter("process"), parameter("courseKey")], "post": with_body(resume, "CourseResume") },
    })
}

pub(super) fn parameters(one: fn(&str, &str, &str, &Value) -> Value) -> Value {
    let text = json!({ "type": "string" });
    json!({
        "process": one("path", "name", "The process's name: 1 to 200 bytes of UTF-8; `/` is written `%2F`", &text),
        "courseKey": one("path", "key", "What the course is found by: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "courseState": one("query", "state", "Only those that stand so", &states()),
        "graphFormat": one("query", "format", "Which form; without it, what `Accept` likes best", &json!({ "enum": ["json", "mermaid", "dot", "tree"] })),
    })
}

/// How a course may stand.
fn states() -> Value {
    json!({ "enum": Standing::ALL.map(Standing::word) })
}

pub(super) fn schemas() -> Value {
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let text = json!({ "type": "string" });
    let maybe = json!({ "type": ["string", "null"] });
    let flag = json!({ "type": "boolean" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let time = json!({ "type": "string", "format": "date-time" });
    let maybe_time = json!({ "type": ["string", "null"], "format": "date-time", "description": "By the wall clock; spans go by the boot clock" });
    let list = |of: Value| json!({ "type": "array", "items": of });
    let about = "How many courses stand how: of each state at most 100,000 are counted";
    let courses = json!({ "type": "object", "description": about, "additionalProperties": number });
    let or_null = "; null where they cannot be counted right now";
    let maybe_courses = json!({ "type": ["object", "null"], "description": format!("{about}{or_null}"), "additionalProperties": number });
    let more = json!({ "type": "array", "description": "The states of which there are more than are counted", "items": states() });
    let trouble = json!({ "type": ["string", "null"], "description": "Why it does not go on right now" });
    let place = json!({ "type": "string", "description": "So far the log was followed" });
    let event = json!({
        "logposition": text, "id": text, "type": text, "stream": text, "causationid": maybe,
        "depth": { "type": "integer", "minimum": 0, "description": "How many events of the course led to it" },
    });
    let (mut of_course, mut of_graph) = (event.clone(), event);
    (of_course["source"], of_course["recordedtime"]) = (text.clone(), time.clone());
    of_graph["cause"] =
        json!({ "type": ["string", "null"], "description": "The position of the event of the course that caused it" });
    json!({
        "ProcessDocument": { "type": "object", "description": "A process: `process`, `begins`, `ends` and `expect`, as the page on sagas describes it" },
        "ProcessDeclared": open(&["process", "new", "changed"], json!({ "process": text, "new": flag, "changed": flag })),
        "ProcessDeleted": open(&["process", "deleted"], json!({ "process": text, "deleted": { "const": true } })),
        "ProcessChecked": open(&["process", "valid"], json!({ "process": text, "valid": { "const": true } })),
        "ProcessList": open(&["processes"], json!({ "processes": list(open(&["process", "courses", "more", "logposition", "lag-events", "trouble"], json!({
            "process": text, "courses": maybe_courses, "more": more, "overdue-since-start": number,
            "logposition": { "type": ["string", "null"], "description": "So far the log was followed; null where that cannot be read right now" },
            "lag-events": { "type": ["integer", "null"], "minimum": 0 }, "trouble": trouble,
        }))) })),
        "Process": open(&["process", "declared-by", "courses", "more", "logposition", "lag-events", "trouble", "stream"], json!({
            "process": text, "declared-by": { "enum": ["document", "program"] },
            "rules": { "type": ["object", "null"], "description": "What it says; null where nobody who runs here does" },
            "courses": courses, "more": more, "logposition": place, "lag-events": number, "trouble": trouble,
            "stream": { "type": "string", "description": "The stream in which it tells what is overdue" },
            "since-start": { "type": "object", "description": "What happened since the node began", "additionalProperties": number },
        })),
        "CourseList": open(&["courses"], json!({ "courses": list(open(&["course", "state", "started", "updated", "due"], json!({
            "course": text, "state": states(), "started": time, "updated": time, "due": maybe_time,
        }))) })),
        "Course": open(&["process", "course", "state", "reason", "begun", "expected", "events", "late", "repeated"], json!({
            "process": text, "course": text, "state": states(), "reason": { "type": ["string", "null"], "description": "Why it was stopped" },
            "begun": flag, "started": time, "late": number, "repeated": number,
            "expected": list(open(&["after", "events", "within", "until", "overdue"], json!({
                "after": open(&["type", "id", "logposition"], json!({ "type": text, "id": text, "logposition": text })),
                "events": list(text.clone()), "within": text, "until": maybe_time, "overdue": flag,
            }))),
            "events": list(open(&["logposition", "source", "id", "type", "stream"], of_course)),
        })),
        "CourseGraph": open(&["process", "course", "state", "events", "missing"], json!({
            "process": text, "course": text, "state": states(), "events": list(open(&["logposition", "id", "type", "stream", "cause"], of_graph)),
            "missing": list(open(&["after", "events", "overdue"], json!({ "after": text, "events": list(text.clone()), "overdue": flag }))),
        })),
        "CourseResume": closed(&["by"], json!({
            "by": { "type": "string", "description": "Who has it go on" }, "note": { "type": "string", "description": "Why" },
        })),
        "CourseResumed": open(&["process", "course", "state"], json!({ "process": text, "course": text, "state": states() })),
    })
}
