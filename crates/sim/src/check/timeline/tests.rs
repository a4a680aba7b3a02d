use super::*;
use crate::check::{
    history::ClientId,
    reference::{Size, world},
    stream,
    verdict::Kind,
};

fn at(nanos: u64) -> Mono {
    Mono::from_nanos(nanos)
}

#[test]
fn whatever_a_history_says_is_escaped() {
    let hostile = "</title><script>alert('1')&\"\u{1}";
    let mut history: History<String, String> = History::new();
    let ok = history.invoke(ClientId(0), hostile.into(), at(1));
    history.ok(ok, hostile.into(), at(900));
    let failed = history.invoke(ClientId(1), hostile.into(), at(1_000));
    history.failed(failed, hostile, at(2_000));
    let violation = Violation::new(Kind::Lost, hostile).by([ok, failed]);
    let page = Timeline::of(&history)
        .titled(hostile)
        .with_band(Band::new(hostile, at(0), at(1_500)))
        .marking([&violation])
        .to_html();
    assert!(!page.contains("<script") && !page.contains('\u{1}'), "{page}");
    assert!(page.contains("&lt;/title&gt;&lt;script&gt;alert(&#39;1&#39;)&amp;&quot;\u{fffd}"));
}

#[test]
fn a_page_draws_a_bar_per_operation_and_marks_those_to_blame() {
    let world = world(3, Size::SMALL);
    let blamed: Vec<OpId> = world.history.operations().iter().skip(40).step_by(7).take(3).map(|op| op.id).collect();
    let violation = Violation::new(Kind::Lost, "something is lost").by(blamed);
    let page = Timeline::of(&world.history).marking([&violation]).to_html();
    assert_eq!(page.matches("<rect class=\"bar ").count(), world.history.operations().len());
    assert_eq!(page.matches("<rect class=\"bar bad\"").count(), 3);
    assert_eq!(page.matches("<tr>").count(), 4, "a heading and three operations");
    assert!(page.contains("<li>something is lost</li>"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(stream::expected_versions(&world.history).holds());
}

#[test]
fn a_page_of_a_long_history_shows_what_is_around_the_violation() {
    let world = world(3, Size::SMALL);
    let blamed = OpId(150);
    let violation = Violation::new(Kind::Lost, "lost").by([blamed]);
    let page = Timeline::of(&world.history).marking([&violation]).showing(20).to_html();
    assert_eq!(page.matches("<rect class=\"bar ").count(), 20);
    assert_eq!(page.matches("<rect class=\"bar bad\"").count(), 1);
    let left_out = world.history.operations().len() - 20;
    assert!(page.contains(&format!("{left_out} further away are not shown")));
}

#[test]
fn overlapping_operations_of_one_client_do_not_cover_each_other() {
    let mut history: History<&str, &str> = History::new();
    let first = history.invoke(ClientId(0), "first", at(0));
    let second = history.invoke(ClientId(0), "second", at(50));
    history.ok(first, "done", at(100));
    history.ok(second, "done", at(150));
    let third = history.invoke(ClientId(0), "third", at(500));
    history.ok(third, "done", at(600));
    let timeline = Timeline::of(&history);
    let layout = layout::Layout::of(&timeline);
    let rows: Vec<f64> = layout.bars.iter().map(|bar| bar.y - layout.lanes[0].y).collect();
    assert_eq!(rows, [0.0, layout::ROW, 0.0]);
}

#[test]
fn a_history_in_which_nothing_happened_is_a_page_too() {
    let page = Timeline::of(&History::<String, String>::new()).to_html();
    assert!(page.contains("0 operations answered") && page.ends_with("</html>\n"));
}

#[test]
fn a_figure_is_the_page_without_its_frame_and_calls_clients_by_their_names() {
    let mut history: History<String, String> = History::new();
    let named = history.invoke(ClientId(0), "ask".into(), at(1));
    history.ok(named, "answer".into(), at(2));
    let other = history.invoke(ClientId(1), "ask".into(), at(3));
    history.unknown(other, "silence", at(4));
    let figure = Timeline::of(&history).naming(["<the first>".to_owned()]).to_figure();
    assert!(!figure.contains("<html") && !figure.contains("<style"), "{figure}");
    assert!(figure.contains(">&lt;the first&gt;</text>") && figure.contains(">client 1</text>"), "{figure}");
}

#[test]
fn names_of_bands_do_not_cover_each_other() {
    let mut history: History<&str, &str> = History::new();
    let long = history.invoke(ClientId(0), "ask", at(0));
    history.ok(long, "answer", at(1_000));
    let band = |label: &str, from| Band::new(label, at(from), at(from + 1)).telling(format!("all of {label}"));
    let timeline = Timeline::of(&history).with_band(band("first", 100)).with_band(band("second", 101));
    let page = timeline.with_band(band("third", 900)).to_html();
    assert_eq!(["first", "second", "third"].map(|name| page.contains(&format!(">{name}</text>"))), [true, false, true]);
    assert!(page.contains("<title>all of second\n101ns to 102ns</title>"), "{page}");
}
