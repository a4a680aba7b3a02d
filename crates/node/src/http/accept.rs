//! Which of the forms that a reply can have its client wants.
//!
//! Source: RFC 9110, sections 12.4.2 (quality values) and 12.5.1 (`Accept`).

use http::{HeaderMap, HeaderValue, header::ACCEPT, header::VARY};

use super::cloud_events::essence;

/// The one of `candidates`, named in the order in which we like them, that `Accept` likes best; `None` if it takes none.
pub(super) fn accepted(headers: &HeaderMap, candidates: &[&str]) -> Option<usize> {
    let text = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range<'_>> = text.flat_map(elements).filter_map(Range::of).collect();
    let liked = |media: &str| {
        let of_it = ranges.iter().filter_map(|range| Some((range.fits(media)?, range.quality)));
        // What says most about a type is what holds for it.
        of_it.max().map_or(if ranges.is_empty() { 1_000 } else { 0 }, |(_, quality)| quality)
    };
    let liked = candidates.iter().map(|media| liked(media)).enumerate();
    liked.rev().max_by_key(|(_, quality)| *quality).filter(|(_, quality)| *quality > 0).map(|(at, _)| at)
}

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
            _ if self.media.eq_ignore_ascii_case(media) => Some(2),
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
    use super::accepted;
    use http::{HeaderMap, HeaderValue, header::ACCEPT};

    fn chosen(accept: &[&str], candidates: &[&'static str]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for text in accept {
            headers.append(ACCEPT, HeaderValue::from_str(text).unwrap());
        }
        accepted(&headers, candidates).map(|at| candidates[at])
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
