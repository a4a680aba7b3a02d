//! The few pages for people: where things are, and what an error means.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header::CONTENT_SECURITY_POLICY};
use maud::{DOCTYPE, Markup, html};

use super::{
    Shared,
    problem::{Code, Problem},
    reply, request, routes,
};

type Reply = Result<axum::response::Response, Problem>;

/// `GET /`
pub(super) async fn index(State(node): State<Shared>) -> Reply {
    let head = node.streams.store().head();
    Ok(page(
        "quorate",
        &html! {
            p { "This node keeps a log of " strong { (head) } " events." }
            ul {
                @for (path, what) in routes::LINKS {
                    li { a href=(path) { (path) } " " (what) }
                }
                li { "What can go wrong: " @for code in Code::ALL { a href=(code.address()) { (code.slug()) } " " } }
            }
        },
    ))
}

/// `GET /errors/{code}`
pub(super) async fn error(request: Request) -> Reply {
    let slug = request.uri().path().rsplit('/').next().unwrap_or_default();
    let code = Code::named(slug)
        .ok_or_else(|| Problem::new(Code::NotFound, format!("there is no error called `{}`", request::short(slug))))?;
    let (_, text) = code.page().split_once('\n').unwrap_or_default();
    Ok(page(code.title(), &html! { pre { (text.trim()) } }))
}

/// Whatever has no route.
pub(super) async fn not_found(request: Request) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("there is nothing at `{}`; see /openapi.json", request::short(request.uri().path())),
    )
}

/// A route that has no such method.
pub(super) async fn no_method(request: Request) -> Problem {
    let path = request.uri().path();
    let allowed = routes::methods(path);
    let detail = format!(
        "{} does not apply to `{}`: {allowed} does",
        request::short(request.method().as_str()),
        request::short(path)
    );
    Problem::new(Code::MethodNotAllowed, detail).allow(&allowed)
}

fn page(title: &str, content: &Markup) -> axum::response::Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { "body{font:1rem/1.5 system-ui;max-width:46rem;margin:3rem auto;padding:0 1rem}pre{white-space:pre-wrap;font:inherit}" }
            }
            body { h1 { (title) } (content) }
        }
    };
    let body = Bytes::from(page.into_string());
    let mut response: Response<Bytes> = reply::bytes(StatusCode::OK, "text/html; charset=utf-8", body);
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    reply::whole(response)
}
