//! Programs as wide and values as deep as they may be, on the stack of a thread as node and tests have it.

use crate::jq::{Failed, Limits, Program, Value};

/// What a thread gets where nobody says otherwise.
const STACK: usize = 2 << 20;

fn on_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).unwrap();
        if let Err(why) = thread.join() {
            std::panic::resume_unwind(why);
        }
    });
}

fn limits() -> Limits {
    Limits { steps: 10_000_000, bytes: 1 << 30, depth: 20_000, outputs: 10_000 }
}

/// A part again and again, each with its number for `#`.
fn wide(part: &str, between: &str, times: usize) -> String {
    (0..times).map(|n| part.replace('#', &n.to_string())).collect::<Vec<_>>().join(between)
}

#[test]
fn programs_as_wide_as_they_may_be_run() {
    on_a_small_stack(|| {
        for (program, said) in [
            (format!("null as [{}] | $a", wide("$a", ",", 1_900)), Some("null")),
            (format!("{{}} as {{{}}} | $a", wide("a:$a", ",", 900)), Some("null")),
            (format!("{{}} as {{{}}} | $a", wide("(\"a\",empty):$a", ",", 350)), Some("null")),
            (format!("first(reduce 1 as [{}] (1; 2))", wide("$a", ",", 1_900)), None),
            (format!("{{{}}} | length", wide("a#:1", ",", 950)), Some("950")),
            (format!("{{{}}} | length", wide("a#:(1,empty)", ",", 400)), Some("400")),
            (format!("{{{}}} | length", wide("a#:.", ",", 950)), Some("950")),
            (format!("\"{}\" | length", wide("\\(1)", "", 950)), Some("950")),
            (format!("\"{}\" | length", wide("\\(1,empty)", "", 480)), Some("480")),
            (format!("\"{}\" | length", wide("\\(.)", "", 950)), Some("3800")),
            (format!(".{}", wide("a", ".", 1_950)), Some("null")),
            (format!(".{}", wide("[0]", "", 1_300)), Some("null")),
            (format!("[{}] | length", wide("1", ",", 490)), Some("490")),
            (wide("1", "+", 490), Some("490")),
            (wide(".", "|", 490), Some("null")),
            (wide(". as $a|", "", 490) + "$a", Some("null")),
            (format!("def f({}): g0; f({})", wide("g#", ";", 900), wide("1", ";", 900)), Some("1")),
            (format!("def f({}): $g0; f({})", wide("$g#", ";", 400), wide("1", ";", 400)), Some("1")),
        ] {
            let short = &program[..40];
            let compiled = Program::compile(&program).unwrap_or_else(|fault| panic!("{short}: {fault:?}"));
            let ended = compiled.run(Value::Null, limits());
            match said {
                Some(said) => assert_eq!(ended.as_deref(), Ok(&[said.to_owned()][..]), "{short}"),
                None => assert!(matches!(ended, Err(Failed::Raised { .. })), "{short}: {ended:?}"),
            }
        }
    });
}

#[test]
fn values_as_deep_as_they_may_be_are_worked_on_from_every_depth() {
    const DEEP: &str = "reduce range(250) as $i (1; {a: .})";
    on_a_small_stack(|| {
        for body in [
            "setpath([range(250) | \"a\"]; 1)".to_owned(),
            "setpath([range(250)]; 1) | length".to_owned(),
            "setpath([range(250) | 0]; 1)".to_owned(),
            format!("({DEEP}) | delpaths([[range(250) | \"a\"]])"),
            format!("({DEEP}) | getpath([range(250) | \"a\"])"),
            format!("[({DEEP}), ({DEEP})] | sort, unique, min, (.[0] == .[1])"),
            format!("({DEEP}) | . * ., contains(.), tojson"),
            format!("[({DEEP}), ({DEEP})] | group_by(.), (. - .), indices([.[0]])"),
            format!("({DEEP}) | tojson | fromjson | path(.. | select(. == 1)) | length"),
            "reduce range(250) as $i (1; [.]) | tojson | fromjson | flatten | length".to_owned(),
            format!("({DEEP}) | try error catch (.. |= .)"),
            format!("(({DEEP}) | error)?, 1"),
        ] {
            let program = format!("def f($n): if $n > 0 then f($n - 1) else (null | {body}) end; f(.)");
            let compiled = Program::compile(&program).unwrap_or_else(|fault| panic!("{program}: {fault:?}"));
            let first = compiled.run(0_i64.into(), limits());
            assert!(first.is_ok(), "{program}: {first:?}");
            for depth in (0..60).chain((60..=1_000).step_by(94)) {
                assert_eq!(compiled.run(Value::from(depth), limits()), first, "{program} from {depth}");
            }
        }
    });
}

/// A change runs in the middle of an update, and may itself update.
#[test]
fn updates_inside_of_updates_lie_only_as_deep_as_their_evaluations() {
    on_a_small_stack(|| {
        let way = format!(".{}", wide("a", ".", 200));
        let program = format!("def f: if . == null then {way} |= f else . end; null | f");
        let ended = Program::compile(&program).unwrap().run(Value::Null, Limits::default());
        assert!(matches!(ended, Err(Failed::TooDeep { .. } | Failed::TooManySteps { .. })), "{ended:?}");
    });
}
