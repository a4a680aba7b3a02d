use http::{
    HeaderMap, HeaderValue, Uri,
    header::{IF_MATCH, IF_NONE_MATCH},
};
use proptest::prelude::*;
use quorate_data::{event::Version, store::ExpectedVersion};

use super::{Code, Params, expected, stream, wait, whole};

fn headers(name: http::HeaderName, values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn a_precondition_names_a_version_or_whether_there_is_a_stream() {
    assert_eq!(expected(&HeaderMap::new()).unwrap(), ExpectedVersion::Any);
    assert_eq!(expected(&headers(IF_MATCH, &["\"17\""])).unwrap(), ExpectedVersion::Exact(Version::new(17)));
    assert_eq!(expected(&headers(IF_MATCH, &["*"])).unwrap(), ExpectedVersion::StreamExists);
    assert_eq!(expected(&headers(IF_NONE_MATCH, &["*"])).unwrap(), ExpectedVersion::NoStream);
}

#[test]
fn a_precondition_that_could_be_misread_is_refused_with_the_reason() {
    let cases = [
        ("W/\"17\"", "weak"),
        ("\"1\", \"2\"", "list"),
        ("\"0\"", "names no version"),
        ("17", "no quoted version"),
        ("\"017\"", "holds no version"),
        ("\"-1\"", "holds no version"),
        ("\"99999999999999999999\"", "holds no version"),
        ("\"\"", "holds no version"),
        ("\"", "no quoted version"),
        ("", "no quoted version"),
    ];
    for (tag, why) in cases {
        let problem = expected(&headers(IF_MATCH, &[tag])).unwrap_err();
        assert_eq!(problem.code(), Code::InvalidPrecondition, "{tag}");
        assert!(problem.document()["detail"].as_str().unwrap().contains(why), "{tag}: {}", problem.document());
    }
    assert!(expected(&headers(IF_NONE_MATCH, &["\"17\""])).is_err());
    assert!(expected(&headers(IF_MATCH, &["\"1\"", "\"2\""])).is_err());
}

#[test]
fn the_streams_name_is_decoded_once_and_strictly() {
    let name = |path: &str| stream(&path.parse::<Uri>().unwrap());
    assert_eq!(name("/v1/streams/a%2Fb%20%E2%98%82/events").unwrap().as_str(), "a/b ☂");
    assert_eq!(name("/v1/streams/%252F/events").unwrap().as_str(), "%2F");
    for path in ["/v1/streams/%2e%2e/events", "/v1/streams/./events", "/v1/streams/%ff/events", "/v1/streams/%0/events"]
    {
        assert_eq!(name(path).unwrap_err().code(), Code::InvalidName, "{path}");
    }
}

#[test]
fn parameters_are_those_that_are_known_each_once() {
    let uri: Uri = "/v1/events?type=a%26b&type=c+d&after=7".parse().unwrap();
    let params = Params::of(&uri, &["type", "after"]).unwrap();
    assert_eq!(params.all("type").collect::<Vec<_>>(), ["a&b", "c d"]);
    assert_eq!(params.number("after").unwrap(), Some(7));
    assert!(params.one("type").is_err());
    for uri in [
        "/?aftr=1",
        "/?after=x",
        "/?after=-1",
        "/?after=18446744073709551616",
        "/?after=",
        "/?after",
        "/?after=%f",
        "/?%ff=1",
    ] {
        let uri: Uri = uri.parse().unwrap();
        let refused = Params::of(&uri, &["after"]).and_then(|params| params.number("after"));
        assert_eq!(refused.unwrap_err().code(), Code::InvalidParameter, "{uri}");
    }
}

#[test]
fn patience_is_read_from_prefer() {
    let prefer = |value| headers(super::PREFER, &[value]);
    assert_eq!(wait(&prefer("respond-async, wait=2")).unwrap().as_secs(), 2);
    assert_eq!(wait(&HeaderMap::new()).unwrap().as_secs(), 0);
    assert!(wait(&prefer("wait=soon")).is_err());
}

proptest! {
    #[test]
    fn a_whole_number_survives_its_digits_and_nothing_else_is_one(n in any::<u64>(), text in "[0-9+-]{0,4}") {
        prop_assert_eq!(whole(&n.to_string()), Some(n));
        if let Some(number) = whole(&text) {
            prop_assert_eq!(number.to_string(), text);
        }
    }
}
