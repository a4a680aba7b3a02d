//! Which address does what. The table is also what the OpenAPI document is held against.

use axum::{
    Router,
    middleware::from_fn,
    routing::{MethodRouter, get, post, put},
};

use super::{
    Shared, append, breakers, erasure, event_types, health, heeds::Heeds, inboxes, log, openapi, pages, policies,
    processes, queues, rate_limits, relays, requests, retention, sagas, schemas, store, streams, subscriptions,
    transactions, views, views::declared, webhooks,
};

/// An address, its methods and what answers it. `HEAD` goes with `GET`.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) methods: &'static [&'static str],
    pub(super) heeds: Heeds,
    handler: MethodRouter<Shared>,
}

impl Route {
    /// Its unsafe methods look at preconditions.
    fn conditional(mut self) -> Self {
        self.heeds.preconditions = Ok(());
        self
    }

    /// Its unsafe methods look at no preconditions, and say why.
    fn unconditional(mut self, why: &'static str) -> Self {
        self.heeds.preconditions = Err(why);
        self
    }

    /// No answer of its unsafe methods is kept for a key.
    fn keyless(mut self, why: &'static str) -> Self {
        self.heeds.keys = Err(why);
        self
    }

    /// What answers it, and before it who refuses what it would pass over.
    fn guarded(self) -> MethodRouter<Shared> {
        let Self { heeds, handler, methods, .. } = self;
        let changes = methods.iter().any(|method| *method != "GET");
        if !changes || heeds == Heeds::EVERYTHING {
            return handler;
        }
        handler.route_layer(from_fn(move |request, next| heeds.answer(request, next)))
    }
}

/// Why no answer is kept where something is lent.
const LENT: &str = "it hands out leases, and a kept answer would hand out leases that others may hold by then";

/// Why no answer is kept where a secret may be told.
const TOLD: &str = "its answer may hold a secret, which is told once and not kept in an answer";

/// Why no answer is kept where somebody is asked, or answers.
const ASKED: &str = "who asks is answered by whoever is there, and nothing of it is kept, or asks under an id; who answers does so once";

/// Why no answer is kept where what is begun has a name.
const NAMED: &str =
    "a transaction is known by its `id`: the same again is told what became of the first, whatever became of it since";

/// Where a person may want to go.
pub(super) const LINKS: [(&str, &str); 24] = [
    ("/openapi.json", "describes everything that can be asked for"),
    ("/v1/events?limit=20", "the log from its beginning"),
    ("/v1/streams", "the streams by name"),
    ("/v1/subscriptions", "the durable subscriptions by name"),
    ("/v1/queues", "the message queues by name"),
    ("/v1/request-types", "the types of requests by name"),
    ("/v1/sagas", "the sagas by name and id"),
    ("/v1/processes", "the choreographed processes by name"),
    ("/v1/transactions", "the transactions in doubt by name"),
    ("/v1/participants", "who takes part in transactions"),
    ("/v1/webhooks", "the webhooks by name"),
    ("/v1/relays", "the relays by name"),
    ("/v1/inboxes", "the inboxes by name"),
    ("/v1/views", "the views by name"),
    ("/v1/breakers", "the circuit breakers by name"),
    ("/v1/policies", "the resilience policies by name"),
    ("/v1/limits", "the rate limits by name"),
    ("/v1/erasures", "the data subjects that were erased, without their names"),
    ("/v1/event-types", "the event types by name: who sends them, and who takes them"),
    ("/v1/asyncapi.json", "describes the events, for programs"),
    ("/v1/schemas", "the schemas by event type"),
    ("/readyz", "whether it takes requests"),
    ("/livez", "whether it is alive"),
    ("/metrics", "what it counts"),
];

/// Every route.
pub(super) fn table() -> Vec<Route> {
    const GET: &[&str] = &["GET"];
    const POST: &[&str] = &["POST"];
    const BOTH: &[&str] = &["GET", "POST"];
    let route = |path, methods, handler| Route { path, methods, heeds: Heeds::default(), handler };
    vec![
        route("/v1/streams/{stream}/events", BOTH, post(append::to_stream).get(streams::read)).conditional(),
        route("/v1/streams/{stream}/events/{version}", GET, get(streams::event)),
        route("/v1/streams/{stream}/subscribe", GET, get(streams::subscribe)),
        route("/v1/streams/{stream}/truncate", POST, post(retention::truncate)).conditional(),
        route("/v1/streams/{stream}/tombstone", POST, post(retention::tombstone)).conditional(),
        route("/v1/streams/{stream}/metadata", &["GET", "PUT"], put(retention::set_metadata).get(retention::metadata))
            .conditional(),
        route("/v1/streams/{stream}/archive", BOTH, post(retention::archive).get(retention::archives))
            .unconditional("an archive loses nothing, and `before` says how far it goes"),
        route("/v1/streams/{stream}", GET, get(streams::head)),
        route("/v1/streams", GET, get(streams::list)),
        route("/v1/events", BOTH, post(append::to_streams).get(log::read))
            .unconditional("an append to several streams says what it expects of each in its body, as `expected`"),
        route("/v1/events/subscribe", GET, get(log::subscribe)),
        route("/v1/subscriptions", GET, get(subscriptions::list)),
        route(
            "/v1/subscriptions/{name}",
            &["GET", "PUT", "DELETE"],
            put(subscriptions::create).get(subscriptions::describe).delete(subscriptions::delete),
        ),
        route("/v1/subscriptions/{name}/pull", POST, post(subscriptions::pull)).keyless(LENT),
        route("/v1/subscriptions/{name}/ack", POST, post(subscriptions::ack)),
        route("/v1/subscriptions/{name}/nack", POST, post(subscriptions::nack)),
        route("/v1/subscriptions/{name}/extend", POST, post(subscriptions::extend)),
        route("/v1/subscriptions/{name}/park", POST, post(subscriptions::park)),
        route("/v1/subscriptions/{name}/parked", GET, get(subscriptions::parked)),
        route("/v1/subscriptions/{name}/replay", POST, post(subscriptions::replay)),
        route("/v1/subscriptions/{name}/discard", POST, post(subscriptions::discard)),
        route("/v1/queues", GET, get(queues::list)),
        route(
            "/v1/queues/{name}",
            &["GET", "PUT", "DELETE"],
            put(queues::declare).get(queues::describe).delete(queues::delete),
        ),
        route("/v1/queues/{name}/messages", POST, post(queues::send)),
        route("/v1/queues/{name}/receive", POST, post(queues::receive)).keyless(LENT),
        route("/v1/queues/{name}/subscribe", GET, get(queues::subscribe)),
        route("/v1/queues/{name}/schedules", GET, get(queues::schedules::list)),
        route(
            "/v1/queues/{name}/schedules/{schedule}",
            &["GET", "PUT", "DELETE"],
            put(queues::schedules::declare).get(queues::schedules::describe).delete(queues::schedules::delete),
        ),
        route("/v1/queues/{name}/ack", POST, post(queues::ack)),
        route("/v1/queues/{name}/nack", POST, post(queues::nack)),
        route("/v1/queues/{name}/extend", POST, post(queues::extend)),
        route("/v1/queues/{name}/park", POST, post(queues::park)),
        route("/v1/queues/{name}/parked", GET, get(queues::parked)),
        route("/v1/queues/{name}/replay", POST, post(queues::replay)),
        route("/v1/queues/{name}/discard", POST, post(queues::discard)),
        route("/v1/request-types", GET, get(requests::list)),
        route(
            "/v1/request-types/{type}",
            &["GET", "PUT", "DELETE"],
            put(requests::declare).get(requests::describe).delete(requests::delete),
        ),
        route("/v1/request-types/{type}/serve", GET, get(requests::serve)),
        route("/v1/request-types/{type}/requests/{request}/answer", POST, post(requests::answer)).keyless(ASKED),
        route("/v1/request-types/{type}/requests/{request}/fault", POST, post(requests::fault)).keyless(ASKED),
        route("/v1/request-types/{type}/requests/{request}/let-go", POST, post(requests::let_go)).keyless(ASKED),
        route("/v1/requests/{type}", POST, post(requests::ask)).keyless(ASKED),
        route("/v1/requests/{type}/{id}", GET, get(requests::status)),
        route("/v1/sagas", GET, get(sagas::list)),
        route("/v1/sagas/{name}", BOTH, post(sagas::start).get(sagas::list)),
        route("/v1/sagas/{name}/{id}", GET, get(sagas::describe)),
        route("/v1/sagas/{name}/{id}/signal", POST, post(sagas::signal)),
        route("/v1/sagas/{name}/{id}/retry", POST, post(sagas::retry)),
        route("/v1/sagas/{name}/{id}/skip", POST, post(sagas::skip)),
        route("/v1/sagas/{name}/{id}/mark-compensated", POST, post(sagas::mark_compensated)),
        route("/v1/sagas/{name}/{id}/mark-refused", POST, post(sagas::mark_refused)),
        route("/v1/sagas/{name}/{id}/abort", POST, post(sagas::abort)),
        route("/v1/sagas/{name}/{id}/force", POST, post(sagas::force)),
        route("/v1/saga-definitions", GET, get(sagas::definitions)),
        route("/v1/saga-definitions/{name}", &["GET", "PUT"], put(sagas::declare).get(sagas::definition)),
        route("/v1/saga-definitions/{name}/check", POST, post(sagas::check)),
        route("/v1/processes", GET, get(processes::list)),
        route(
            "/v1/processes/{name}",
            &["GET", "PUT", "DELETE"],
            put(processes::declare).get(processes::describe).delete(processes::delete),
        ),
        route("/v1/processes/{name}/document", GET, get(processes::document_of)),
        route("/v1/processes/{name}/check", POST, post(processes::check)),
        route("/v1/processes/{name}/courses", GET, get(processes::courses)),
        route("/v1/processes/{name}/courses/{key}", GET, get(processes::describe_course)),
        route("/v1/processes/{name}/courses/{key}/graph", GET, get(processes::graph)),
        route("/v1/processes/{name}/courses/{key}/resume", POST, post(processes::resume)),
        route("/v1/transactions", BOTH, post(transactions::begin).get(transactions::list)).keyless(NAMED),
        route("/v1/transactions/{transaction}", GET, get(transactions::describe)),
        route("/v1/transactions/{transaction}/resolve", POST, post(transactions::resolve)),
        route("/v1/participants", GET, get(transactions::participants::list)),
        route("/v1/participants/{participant}/remove", POST, post(transactions::participants::remove)),
        route("/v1/webhooks", GET, get(webhooks::list)),
        route(
            "/v1/webhooks/{name}",
            &["GET", "PUT", "DELETE"],
            put(webhooks::declare).get(webhooks::describe).delete(webhooks::delete),
        )
        .keyless(TOLD),
        route("/v1/webhooks/{name}/secrets", POST, post(webhooks::rotate)).keyless(TOLD),
        route("/v1/webhooks/{name}/test", POST, post(webhooks::test)),
        route("/v1/webhooks/{name}/enable", POST, post(webhooks::enable)),
        route("/v1/webhooks/{name}/disable", POST, post(webhooks::disable)),
        route("/v1/webhooks/{name}/attempts", GET, get(webhooks::attempts)),
        route("/v1/webhooks/{name}/parked", GET, get(webhooks::parked)),
        route("/v1/webhooks/{name}/replay", POST, post(webhooks::replay)),
        route("/v1/webhooks/{name}/discard", POST, post(webhooks::discard)),
        route("/v1/relays", GET, get(relays::list)),
        route("/v1/relays/{name}", GET, get(relays::describe)),
        route("/v1/relays/{name}/pause", POST, post(relays::pause)),
        route("/v1/relays/{name}/resume", POST, post(relays::resume)),
        route("/v1/relays/{name}/wake", POST, post(relays::wake)),
        route("/v1/relays/{name}/parked", GET, get(relays::parked)),
        route("/v1/relays/{name}/replay", POST, post(relays::replay)),
        route("/v1/relays/{name}/discard", POST, post(relays::discard)),
        route("/v1/inboxes", GET, get(inboxes::list)),
        route("/v1/inboxes/{name}", GET, get(inboxes::describe)),
        route("/v1/inboxes/{name}/parked", GET, get(inboxes::parked)),
        route("/v1/inboxes/{name}/replay", POST, post(inboxes::replay)),
        route("/v1/inboxes/{name}/discard", POST, post(inboxes::discard)),
        route("/v1/views", GET, get(views::list)),
        route("/v1/views/{name}", &["GET", "DELETE"], get(views::describe).delete(declared::delete)),
        route("/v1/views/{name}/document", &["GET", "PUT"], put(declared::declare).get(declared::document)),
        route("/v1/views/{name}/check", POST, post(declared::check)),
        route("/v1/views/{name}/explain", GET, get(declared::explain)),
        route("/v1/views/{name}/rebuild", POST, post(views::rebuild)),
        route("/v1/views/{name}/pause", POST, post(views::pause)),
        route("/v1/views/{name}/resume", POST, post(views::resume)),
        route("/v1/views/{name}/switch", POST, post(views::switch)),
        route("/v1/views/{name}/drop", POST, post(views::drop_build)),
        route("/v1/views/{name}/audit", POST, post(views::audit)),
        route("/v1/views/{name}/parked", GET, get(views::parked)),
        route("/v1/views/{name}/skipped", GET, get(views::skipped)),
        route("/v1/views/{name}/replay", POST, post(views::replay)),
        route("/v1/views/{name}/skip", POST, post(views::skip)),
        route("/v1/views/{name}/effects", GET, get(views::effects::list)),
        route("/v1/views/{name}/effects/retry", POST, post(views::effects::retry)),
        route("/v1/views/{name}/effects/skip", POST, post(views::effects::skip)),
        route("/v1/views/{name}/tables", GET, get(views::tables)),
        route("/v1/views/{name}/tables/{table}/rows", GET, get(views::rows)),
        route("/v1/views/{name}/tables/{table}/rows/{key}", GET, get(views::row)),
        route("/v1/views/{name}/tables/{table}/follow", GET, get(views::follow)),
        route("/v1/views/{name}/query", POST, post(views::sql)),
        route("/v1/breakers", GET, get(breakers::list)),
        route("/v1/breakers/{name}", GET, get(breakers::describe)),
        route("/v1/breakers/{name}/mode", &["PUT"], put(breakers::set_mode)),
        route("/v1/breakers/{name}/reset", POST, post(breakers::reset)),
        route("/v1/policies", GET, get(policies::list)),
        route("/v1/policies/{name}", &["GET", "DELETE"], get(policies::describe).delete(policies::delete)),
        route("/v1/policies/{name}/document", &["GET", "PUT"], put(policies::declare).get(policies::document)),
        route("/v1/policies/{name}/check", POST, post(policies::check)),
        route("/v1/limits", GET, get(rate_limits::list)),
        route("/v1/limits/{name}", GET, get(rate_limits::describe)),
        route("/v1/limits/{name}/reset", POST, post(rate_limits::reset)),
        route("/v1/subjects/{subject}", GET, get(erasure::subject)),
        route("/v1/subjects/{subject}/erase", POST, post(erasure::erase)),
        route("/v1/erasures", GET, get(erasure::ledger)),
        route("/v1/erasures/export", GET, get(erasure::export)),
        route("/v1/event-types", GET, get(event_types::list)),
        route("/v1/event-types/{type}", GET, get(event_types::describe)),
        route("/v1/asyncapi.json", GET, get(event_types::document)),
        route("/v1/schemas", GET, get(schemas::list)),
        route("/v1/schemas/{type}", GET, get(schemas::describe)),
        route("/v1/schemas/{type}/versions", POST, post(schemas::register)),
        route("/v1/schemas/{type}/versions/{version}", GET, get(schemas::show)),
        route("/v1/schemas/{type}/check", POST, post(schemas::check)),
        route("/v1/schemas/{type}/mode", &["PUT"], put(schemas::set_mode)),
        route("/v1/store/verify", POST, post(store::verify)),
        route("/v1/store/backup", POST, post(store::backup)),
        route("/v1/store/scavenge", POST, post(retention::scavenge)),
        route("/v1/store/backup-keys", POST, post(store::backup_keys)),
        route("/livez", GET, get(health::live)),
        route("/readyz", GET, get(health::ready)),
        route("/startupz", GET, get(health::started)),
        route("/metrics", GET, get(health::metrics)),
        route("/openapi.json", GET, get(openapi::document)),
        route("/view.schema.json", GET, get(declared::schema)),
        route("/policy.schema.json", GET, get(policies::schema)),
        route("/errors/{code}", GET, get(pages::error)),
        route("/", GET, get(pages::index)),
    ]
}

/// The routes over `node`.
pub(super) fn router(node: Shared) -> Router {
    let routes = table().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.guarded()));
    routes.fallback(pages::not_found).method_not_allowed_fallback(pages::no_method).with_state(node)
}

/// The methods that apply at `path`, with commas.
pub(super) fn methods(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').collect();
    let fits = |route: &Route| {
        let pattern: Vec<&str> = route.path.split('/').collect();
        pattern.len() == segments.len()
            && pattern.iter().zip(&segments).all(|(pattern, segment)| pattern.starts_with('{') || pattern == segment)
    };
    let methods = table().into_iter().find(fits).map_or(&[] as &[&str], |route| route.methods);
    let head = methods.contains(&"GET").then_some("HEAD");
    methods.iter().copied().chain(head).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::methods;

    #[test]
    fn a_path_knows_its_methods() {
        assert_eq!(methods("/v1/streams/a/events"), "GET, POST, HEAD");
        assert_eq!(methods("/v1/streams/a/truncate"), "POST");
        assert_eq!(methods("/nowhere"), "");
    }
}
