//! Variables that a platform sets in every container for the services beside it: Kubernetes for each Service of the
//! namespace, as Docker did for links. For one called `quorate`, or `quorate-db`, they begin as our settings do.
//!
//! Source: Kubernetes, "Discovering services: environment variables"; Docker, "Legacy container links".

/// Whether a platform sets the variable `name` to `value` for a Service whose name begins with `quorate`.
pub(super) fn sets(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix("QUORATE") else { return false };
    let is_number = is_number(value);
    rest.ends_with("_SERVICE_HOST")
        || (is_number && (rest.ends_with("_SERVICE_PORT") || rest.contains("_SERVICE_PORT_")))
        || (is_url(value) && rest.ends_with("_PORT"))
        || rest.match_indices("_PORT_").any(|(at, mark)| is_link(&rest[at + mark.len()..]))
}

/// Whether `tail` is what follows `…_PORT_`: `7400_TCP`, or that with `_ADDR`, `_PORT` or `_PROTO`.
fn is_link(tail: &str) -> bool {
    let mut parts = tail.split('_');
    let port = parts.next().is_some_and(is_number);
    let protocol = parts.next().is_some_and(|part| ["TCP", "UDP", "SCTP"].contains(&part));
    let what = parts.next().is_none_or(|part| ["ADDR", "PORT", "PROTO"].contains(&part));
    port && protocol && what && parts.next().is_none()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

fn is_url(text: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use crate::config::{Layers, Settings};

    /// What Kubernetes sets for Services called `quorate` and `quorate-db-1` with a port of its own name.
    const SET: [(&str, &str); 15] = [
        ("QUORATE_SERVICE_HOST", "10.96.0.17"),
        ("QUORATE_SERVICE_PORT", "7400"),
        ("QUORATE_SERVICE_PORT_HTTP_MAIN", "7400"),
        ("QUORATE_PORT", "tcp://10.96.0.17:7400"),
        ("QUORATE_PORT_7400_TCP", "tcp://10.96.0.17:7400"),
        ("QUORATE_PORT_7400_TCP_PROTO", "tcp"),
        ("QUORATE_PORT_7400_TCP_PORT", "7400"),
        ("QUORATE_PORT_7400_TCP_ADDR", "10.96.0.17"),
        ("QUORATE_PORT_53_UDP", "udp://10.96.0.17:53"),
        ("QUORATE_DB_1_SERVICE_HOST", "10.96.0.18"),
        ("QUORATE_DB_1_SERVICE_PORT", "5432"),
        ("QUORATE_DB_1_SERVICE_PORT_SQL", "5432"),
        ("QUORATE_DB_1_PORT", "tcp://10.96.0.18:5432"),
        ("QUORATE_DB_1_PORT_5432_TCP", "tcp://10.96.0.18:5432"),
        ("QUORATE_DB_1_PORT_5432_TCP_ADDR", "10.96.0.18"),
    ];

    fn owned((name, value): (&str, &str)) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_node_starts_beside_services_that_are_called_as_it_is() {
        let layers = Layers::defaults().environment(SET.map(owned)).unwrap();
        assert_eq!(layers.settings(), Settings::default());
    }

    #[test]
    fn what_only_looks_like_it_is_an_unknown_setting() {
        for pair in [
            ("QUORATE_PORT", "7400"),
            ("QUORATE_HTTP_PORT", "7400"),
            ("QUORATE_SERVICE_PORT", "http"),
            ("QUORATE_SERVICE_NAME", "quorate"),
            ("QUORATE_PORT_7400", "tcp://10.96.0.17:7400"),
            ("QUORATE_PORT_7400_ICMP", "7400"),
            ("QUORATE_PORT_7400_TCP_MODE", "x"),
            ("QUORATE_PORT_X_TCP", "tcp://10.96.0.17:7400"),
            ("QUORATE_LISTN", "127.0.0.1:1"),
        ] {
            let wrong = Layers::defaults().environment([owned(pair)]).unwrap_err().to_string();
            assert!(wrong.starts_with(&format!("there is no setting `{}`", pair.0)), "{wrong}");
        }
    }
}
