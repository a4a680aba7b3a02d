//! Which of the forms that a reply can have its client wants.
//!
//! Source: RFC 9110, sections 12.4.2 (quality values) and 12.5.1 (`Accept`).

use http::{HeaderMap, HeaderValue, header::ACCEPT, header::VARY};

use super::cloud_events::essence;

/// The one of `candidates`, named in the order in which we like them, that `Accept` likes best; `None` if it takes none.
pub(super) fn accepted(headers: &HeaderMap, candidates: &[&str]) -> Option<usize> {
    let accepts = Accepts::of(headers);
    let liked = candidates.iter().map(|media| accepts.liked(media).quality).enumerate();
    liked.rev().max_by_key(|(_, quality)| *quality).filter(|(_, quality)| *quality > 0).map(|(at, _)| at)
}

/// Whether `Accept` names `special` and likes it no less than `common`.
pub(super) fn asks_for(headers: &HeaderMap, special: &str, common: &str) -> bool {
    let accepts = Accepts::of(headers);
    let liked = accepts.liked(special);
    liked.quality > 0 && liked.fit == Some(NAMED) && liked.quality >= accepts.liked(common).quality
}

/// What a client accepts.
struct Accepts<'h>(Vec<Range<'h>>);

/// How much a type is liked, in thousandths, and how exactly what says so fits it.
struct Liked {
    fit: Option<u8>,
    quality: u16,
}

impl<'h> Accepts<'h> {
    fn of(headers: &'h HeaderMap) -> Self {
        let text = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        Self(text.flat_map(elements).filter_map(Range::of).collect())
    }

    fn liked(&self, media: &str) -> Liked {
        let of_it = self.0.iter().filter_map(|range| Some((range.fits(media)?, range.quality)));
        // What says most about a type is what holds for it.
        match of_it.max() {
            Some((fit, quality)) => Liked { fit: Some(fit), quality },
            None => Liked { fit: None, quality: if self.0.is_empty() { 1_000 } else { 0 } },
        }
    }
}

/// How exactly a range fits that names the type itself.
const NAMED: u8 = 2;

/// Says to caches that `Accept` chose the form of a reply.
pub(super) fn varies(headers: &mut HeaderMap) {
    headers.insert(VARY, HeaderValue::from_static("accept"));
}

/// The elements of a list; a comma in quotes parts nothing.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    let mut state = (false, false);
    list.split(move |letter: char| {
        let (quoted, escaped) = state;
        state = (quoted ^ (letter == '"' && !escaped), quoted && letter == '\\' && !escaped);
        letter == ',' && !quoted
    })
}

/// A media range, and how much it is liked, in thousandths.
struct Range<'h> {
    media: &'h str,
    quality: u16,
}

impl<'h> Range<'h> {
    /// The range of an element that is one.
    fn of(element: &'h str) -> Option<Self> {
        let media = essence(element);
        let weight = element.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        let quality = weight.map_or(Some(1_000), thousandths)?;
        media.contains('/').then_some(Self { media, quality })
    }

    /// How much it says about `media`, if it holds for that.
    fn fits(&self, media: &str) -> Option<u8> {
        let (kind, _) = media.split_once('/').unwrap_or((media, ""));
        match self.media.split_once('/')? {
            ("*", "*") => Some(0),
            (own, "*") if own.eq_ignore_ascii_case(kind) => Some(1),
            _ if self.media.eq_ignore_ascii_case(media) => Some(NAMED),
            _ => None,
        }
    }
}

/// `0.25` as 250: at most 1, with at most three digits behind the point.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, behind) = weight.split_once('.').unwrap_or((weight, ""));
    if !matches!(whole, "0" | "1") || behind.len() > 3 || !behind.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u16 = format!("{whole}{behind:0<3}").parse().ok()?;
    (number <= 1_000).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{accepted, asks_for};
    use http::{HeaderMap, HeaderValue, header::ACCEPT};

    fn chosen(accept: &[&str], candidates: &[&'static str]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for text in accept {
            headers.append(ACCEPT, HeaderValue::from_str(text).unwrap());
        }
        accepted(&headers, candidates).map(|at| candidates[at])
    }

    #[test]
    fn a_form_for_those_who_name_it_is_not_chosen_for_those_who_take_anything() {
        for (accept, asks) in [
            ("special/one", true),
            ("special/one, */*", true),
            ("application/json, special/one", true),
            ("special/one;q=0.5, application/json;q=0.9", false),
            ("special/one;q=0", false),
            ("special/*", false),
            ("*/*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(ACCEPT, HeaderValue::from_str(accept).unwrap());
            assert_eq!(asks_for(&headers, "special/one", "application/json"), asks, "{accept}");
        }
    }

    #[test]
    fn the_best_liked_is_chosen_and_of_equals_the_first() {
        const FORMS: [&str; 2] = ["application/json", "text/plain"];
        for (accept, form) in [
            (&[][..], Some("application/json")),
            (&[""], Some("application/json")),
            (&["*/*"], Some("application/json")),
            (&["text/plain"], Some("text/plain")),
            (&["TEXT/Plain; charset=utf-8"], Some("text/plain")),
            (&["text/*"], Some("text/plain")),
            (&["text/plain, application/json"], Some("application/json")),
            (&["application/json;q=0.1", "text/plain;q=0.25"], Some("text/plain")),
            (&["application/json;Q=0.001, */*;q=0"], Some("application/json")),
            (&["text/plain;q=0"], None),
            (&["text/plain;q=0, */*;q=0.5"], Some("application/json")),
            (&["application/*;q=0, */*"], Some("text/plain")),
            (&["application/*, application/json;q=0, text/plain;q=0.1"], Some("text/plain")),
            (&["image/png;note=\"a, text/plain\""], None),
            (&["image/png"], None),
            (&["text/plain;q=2, text/plain;q=0.0001, text, */*;q=0.1"], Some("application/json")),
        ] {
            assert_eq!(chosen(accept, &FORMS), form, "{accept:?}");
        }
    }
}
