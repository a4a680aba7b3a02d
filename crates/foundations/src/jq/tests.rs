//! What programs say, and that they end.

mod room;

use proptest::prelude::*;

use super::{Failed, Limits, Program, Value};

/// Programs, inputs and outputs, as jq's own tests are written: three lines and more, then an empty one. Checked against
/// jq 1.6 and its manual.
const CASES: &str = include_str!("tests/cases.jq-test");

fn run(program: &str, input: &str) -> Result<Vec<String>, Failed> {
    let program = Program::compile(program).unwrap_or_else(|fault| panic!("{program}: {fault:?}"));
    program.run(Value::read(input).unwrap_or_else(|why| panic!("{input}: {why}")), Limits::default())
}

fn outputs(program: &str, input: &str) -> Vec<String> {
    run(program, input).unwrap_or_else(|why| panic!("{program}: {why}"))
}

fn message(program: &str, input: &str) -> String {
    match run(program, input) {
        Err(Failed::Raised { message }) => message,
        other => panic!("{program}: {other:?}"),
    }
}

fn fault(program: &str) -> (usize, String) {
    match Program::compile(program) {
        Ok(_) => panic!("{program}"),
        Err(fault) => (fault.at, fault.what),
    }
}

#[test]
fn programs_say_what_jq_says() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for case in CASES.split("\n\n") {
        let lines: Vec<&str> = case.lines().filter(|line| !line.starts_with("# ")).collect();
        let [program, input, expected @ ..] = lines.as_slice() else { continue };
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string()).ok();
        let said = outputs(program, input);
        let is_same =
            said.len() == expected.len() && said.iter().zip(expected).all(|(one, two)| json(one) == json(two));
        if !is_same {
            wrong.push(format!("{program} of {input}: {said:?}, not {expected:?}"));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 150, "{checked}");
}

#[test]
fn numbers_keep_their_digits() {
    assert_eq!(outputs(".", "12345678901234567890.10"), ["12345678901234567890.1"]);
    assert_eq!(
        outputs(".[] | . + 1", "[9007199254740993, 9223372036854775807]"),
        ["9007199254740994", "9223372036854775808"]
    );
    assert_eq!(outputs("[.[].eur] | add", r#"[{"eur": 0.1}, {"eur": 0.2}, {"eur": 19.99}]"#), ["20.29"]);
    assert_eq!(outputs("1/3, 2/4, (1/3*3 == 1)", "null"), ["0.3333333333333333", "0.5", "true"]);
    assert_eq!(message(".[0] * .[1]", "[99999999999999999999, 99999999999999999999]"), "it is too large");
    assert_eq!(outputs("007, (\"007\", \".5\", \"5.\" | tonumber)", "null"), ["7", "7", "0.5", "5"]);
    assert_eq!(outputs("tostring, tojson, (\"12.50\" | tonumber)", "12.50"), [r#""12.5""#, r#""12.5""#, "12.5"]);
}

#[test]
fn what_is_wrong_with_a_program_is_told_with_its_place() {
    for (program, at, what) in [
        ("", 0, "a term stands here, not the end of the program"),
        (".a | ", 5, "a term stands here"),
        (".a | foo", 5, "there is no `foo`"),
        (".a | map", 5, "`map` takes 1 argument, not no arguments"),
        ("range(1;2;3;4)", 0, "`range` takes 1 argument or 2 arguments or 3 arguments, not 4 arguments"),
        (".a + $x", 5, "there is no variable `$x`"),
        ("break $out", 6, "there is no label `$out`"),
        ("(.a", 3, "`(` is never closed"),
        (". & .", 2, "nothing of a program begins so"),
        ("if .a then 1", 12, "else or end stands here"),
        (".a | now", 5, "the time of day"),
        ("$ENV.HOME", 0, "there is no environment"),
        ("input", 0, "there is no environment"),
        ("1 | log", 4, "differ from machine to machine"),
        (r#".a | test("[")"#, 5, "is no regular expression: unclosed character class"),
        (r#"test("(?=a)")"#, 0, "look-around"),
        ("reduce .[] as $x (0)", 0, "`reduce` takes two filters"),
        (".5", 1, "stands here, not `5`"),
        ("5. + 1", 2, "this is no"),
    ] {
        let (place, said) = fault(program);
        assert!(said.contains(what), "{program}: {said}");
        assert_eq!(place, at, "{program}: {said}");
    }
    assert!(fault(&" ".repeat(Program::MAX_BYTES + 1)).1.contains("at most 16384 bytes"));
}

#[test]
fn errors_say_what_did_not_fit() {
    for (program, input, said) in [
        (".a", "[1]", r#"cannot index array [1] with string "a""#),
        (".[0]", "{}", "cannot index object {} with number 0"),
        (".[]", "7", "there is nothing inside of number 7"),
        (".a + 1", r#"{"a": "x"}"#, r#"string "x" and number 1 cannot be added"#),
        ("error", r#""no""#, "no"),
        ("error({a: 1})", "null", r#"object {"a":1}"#),
        ("1 / 0", "null", "the divisor is zero"),
        ("path(1)", "null", "number 1 is not a place in the input"),
        ("tonumber", r#""abc""#, r#"string "abc" cannot be read as a number: this is no number"#),
        ("fromjson", r#""[1,""#, "this is not JSON"),
        ("[.] | implode", "-1", "number -1 is no character"),
        ("fromdate", r#""2026-13-01T00:00:00Z""#, "is no timestamp"),
        ("test(.; \"q\")", "\"a\"", "is no flag"),
        (".[-2] = 1", "[1]", "there is no item number -2 to set"),
        (".[9000000] = 1", "[1]", "is too large"),
        ("range(0; \"a\")", "null", "numbers as its bounds"),
    ] {
        let message = message(program, input);
        assert!(message.contains(said), "{program}: {message}");
    }
}

/// Programs that would run forever, or take everything, in other jqs.
const HOSTILE: [&str; 35] = [
    "def f: f; f",
    "def f: f, f; f",
    "def f: 1 + f; f",
    "def f: f?; f",
    "def f: try f catch f; f",
    "def f: [f]; f",
    "def f: f | f; f",
    "def f(g): f(g | g); f(.)",
    "[repeat(1)]",
    "repeat(empty, .)",
    "last(range(1e30))",
    "[range(1e30)]",
    "range(0; 10; 0.0000000001)",
    "until(false; .)",
    "[while(true; . + 1)]",
    "[recurse(. + 1)]",
    "\"x\" * 1e12",
    "reduce range(100) as $i (\"x\"; . + .)",
    "reduce range(100) as $i ([0]; . + .)",
    "reduce range(1e6) as $i (0; [.])",
    "reduce range(60) as $i (0; [., .]) | tojson",
    "reduce range(60) as $i (0; [., .]) | . == .",
    "reduce range(60) as $i (0; [., .]) | [., .] | sort",
    "reduce range(60) as $i (0; [., .]) | flatten | length",
    "reduce range(60) as $i (0; {a: ., b: .}) | [..] | length",
    "[range(1e5) | [0]] | combinations",
    "[[range(100)], [range(100)], [range(100)], [range(100)]] | [combinations]",
    "[range(1e5) | tostring] | join(\",\") | gsub(\"(?<x>.)\"; .x + .x) | length",
    "(\"a\" * 1e6) as $x | [range(1e6) | $x | test(\"(a|a)*b\")]",
    "(\"a\" * 1e5) as $x | [$x | match(\"a.*z|a\"; \"g\")] | length",
    "(\"ab\" * 1e5) as $x | [range(1e6) | $x | test(\"(a|b)*a(a|b){40}c\")]",
    "[limit(1e9; repeat(1))]",
    "null | path(repeat(.a))",
    "def f: reduce .[] as $x (.; f); [[1]] | f",
    "[range(1e3)] | [.[] as $a | .[] as $b | .[] as $c | 1] | length",
];

#[test]
fn hostile_programs_end_and_always_for_the_same_reason() {
    for program in HOSTILE {
        let limits = Limits { steps: 100_000, outputs: 1_000, ..Limits::default() };
        let compiled = Program::compile(program).unwrap_or_else(|fault| panic!("{program}: {fault:?}"));
        let first = compiled.run(0_i64.into(), limits);
        assert!(first.is_err(), "{program}: {first:?}");
        if let Err(Failed::Raised { message }) = &first {
            assert!(message.contains("at most 256"), "{program}: {message}");
        }
        assert_eq!(compiled.run(0_i64.into(), limits), first, "{program}");
    }
    // What is caught is an error, never a limit.
    assert_eq!(run("try repeat(1) catch 2", "0"), Err(Failed::TooMany { limit: 10_000 }));
    assert_eq!(run("try last(repeat(1)) catch 2", "0"), Err(Failed::TooManySteps { limit: 1_000_000 }));
    assert_eq!(run("def f: 1 + f; try f catch 2", "0"), Err(Failed::TooDeep { limit: 4_000 }));
    assert_eq!(run("try (\"x\" * 1e9) catch 2", "0"), Err(Failed::TooLarge { limit: 64 << 20 }));
}

#[test]
fn searching_a_text_costs_by_what_is_read() {
    let text = format!("\"{}\"", "word and  another,\\n".repeat(800));
    assert_eq!(outputs(r#"gsub("\\s+"; " ") | length"#, &text), ["14400"]);
    assert_eq!(outputs(r#"[scan("[a-z]+")] | length"#, &text), ["2400"]);
}

#[test]
fn an_object_costs_by_its_members_and_not_by_their_square() {
    let steps = |members: usize| {
        let all: Vec<String> = (0..members).map(|n| format!("a{n}: 1")).collect();
        let program = Program::compile(&format!("{{{}}} | length", all.join(","))).unwrap();
        let ends = |steps: &u64| program.run(Value::Null, Limits { steps: *steps, ..Limits::default() }).is_ok();
        (0..100_000).step_by(10).find(ends).unwrap()
    };
    let (few, many) = (steps(100), steps(800));
    assert!(many < few * 9, "{few} {many}");
}

/// Each does little that is a step of its own, with much work in it.
#[test]
fn what_is_looked_at_is_counted() {
    const LONG: &str = "(\"a\" * 1e6) as $t | ";
    let far = (0..1_900).map(|n| format!(",$b{n}")).collect::<String>();
    for program in [
        "(\"a\" * 20000) | indices(.[:10000]) | length".to_owned(),
        format!("{LONG} last(range(20000) | $t | startswith($t))"),
        format!("{LONG} last(range(20000) | $t | endswith($t))"),
        format!("{LONG} last(range(20000) | $t | ltrimstr($t))"),
        format!("{LONG} last(range(20000) | $t | rtrimstr($t))"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o[$t])"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o | has($t))"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o | contains($o))"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o == $o)"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o + $o)"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o * $o)"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o | .[$t] = 2)"),
        format!("{LONG} {{($t): 1}} as $o | last(range(20000) | $o | del(.[$t]))"),
        format!("{LONG} last(range(20000) | {{($t): 1}})"),
        format!("{LONG} last(range(20000) | $t | try fromdate catch 1)"),
        format!("{LONG} last(range(20000) | \"b\" | split($t))"),
        format!("{LONG} last(range(20000) | \"b\" | try test(\"b\"; $t) catch 1)"),
        "reduce range(20000) as $i ([range(1e4)]; .[0:0] = [])".to_owned(),
        format!("null as [$a{far}] | last(range(100000) | $a)"),
        format!("def f: 1; null as [$a{far}] | last(range(100000) | f)"),
    ] {
        let ended = run(&program, "null").map(|outputs| outputs.len());
        assert_eq!(ended, Err(Failed::TooManySteps { limit: 1_000_000 }), "{}", &program[..program.len().min(200)]);
    }
    for (program, said) in [
        ("[1, 2, 1, 2, 1] | indices([1, 2, 1])", "[0,2]"),
        ("[1, 2, 1] | indices(1)", "[0,2]"),
        ("\"aéaéa\" | indices(\"aéa\")", "[0,2]"),
        ("[1, 2, 3, 2] - [2, 9]", "[1,3]"),
        ("[range(3000)] | indices([range(1; 1500)]) | length", "1"),
        ("[range(3000)] - [range(300)] | length", "2700"),
    ] {
        assert_eq!(outputs(program, "null"), [said], "{program}");
    }
}

/// Classes take long where case is ignored: each of their characters is looked at.
#[test]
fn reading_a_regular_expression_costs_by_how_it_is_written() {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let wide = r"[a-\u{10FFFF}]";
    for (pattern, flags) in [
        (format!("(?i){}", wide.repeat(40)), ""),
        (wide.repeat(40), "i"),
        (format!("(?i){}{wide}{}", "[".repeat(20), "]".repeat(20)), ""),
        (format!("(?i)[{wide}&&{wide}&&{wide}&&{wide}&&{wide}&&{wide}]"), ""),
        (format!("(?:(?i:{}))", r"\p{Any}".repeat(40)), ""),
        (r"(?i)[\P{Lu}][\P{Lu}][\P{Lu}][\P{Lu}]".to_owned(), ""),
        (format!("(?i){}", r"[\W]".repeat(20)), ""),
        (format!("(?i){}", "[^[^x]]".repeat(20)), ""),
    ] {
        let pattern = quoted(&pattern);
        let (at, what) = fault(&format!("1 | test({pattern}; \"{flags}\")"));
        assert!(at == 4 && what.contains("take too long to read"), "{pattern}: {what}");
        let within = run(&format!("\"a\" | test(. + {pattern}; \"{flags}\")"), "null");
        assert_eq!(within, Err(Failed::TooManySteps { limit: 1_000_000 }), "{pattern}");
    }
    for words in [r"\w".repeat(500), r"[\w\W]".repeat(140), r"[\w\d]".repeat(140)] {
        let words = quoted(&words);
        let program = format!("last(range(1e5) | tostring as $n | \"a\" | try test($n + {words}) catch .)");
        assert_eq!(run(&program, "null"), Err(Failed::TooManySteps { limit: 1_000_000 }), "{words}");
    }
    assert_eq!(outputs("test(\"(?i)^[\\\\w.+-]+@[\\\\w-]+\\\\.[\\\\w.-]+$|[\\\\s\\\\S]b\")", "\"ab\""), ["true"]);
    // What is there twice is read once.
    for (n, is_taken) in [(3, true), (4, false)] {
        let any = |n: usize| format!("test({}) or ", quoted(&format!(r"(?i)[\s\S]{n}")));
        let program = (0..n).map(any).collect::<String>() + &any(0).repeat(50) + "1";
        assert_eq!(Program::compile(&program).is_ok(), is_taken, "{n}");
    }
    assert!(fault(&format!("test(\"{}\")", "a".repeat(1_025))).1.contains("at most 1024 bytes, this one has 1025"));
    assert!(message(". as $x | test($x * 1e6)", "\"a\"").contains("at most 1024 bytes"));
}

#[test]
fn an_expression_that_stands_in_the_program_costs_a_run_nothing_to_read() {
    let program = r#"test("(?i)[\\s\\S]+\\w+"), test("B"; "i"), test("b"; null), [scan("a"; "g")], sub("A"; "x"; "i")"#;
    let program = Program::compile(program).unwrap();
    let outputs = program.run("ab".into(), Limits { steps: 500, ..Limits::default() }).unwrap();
    assert_eq!(outputs, ["true", "true", "true", r#"["a"]"#, r#""xb""#]);
    assert_eq!(message(r#"test("a"; "q")"#, "\"a\""), "'q' is no flag of regular expressions; g, i, n, s, x are");
}

#[test]
fn programs_nested_as_deep_as_they_may_be_long_are_read_or_refused() {
    let most = Program::MAX_BYTES;
    for (open, middle, close) in [
        ("(", ".", ")"),
        ("[", ".", "]"),
        ("{a:", ".", "}"),
        ("-", "1", ""),
        ("try ", ".", ""),
        (". as $x|", ".", ""),
        (". as [$x]|", ".", ""),
        ("1+", "1", ""),
        (".|", ".", ""),
        (".,", ".", ""),
        ("def f:", "1", ";1"),
        ("if . then ", ".", " end"),
        ("reduce . as $x (.;", ".", ")"),
        ("\"\\(", "1", ")\""),
        (".[", "0", "]"),
        ("label $x|", ".", ""),
        ("map(", ".", ")"),
        ("1//", "1", ""),
        ("1 as [", "$x", "]"),
        ("", ".", "?"),
        ("", ".", "[0]"),
        ("", ".", ".a"),
    ] {
        for n in [100, (most - middle.len()) / (open.len() + close.len())] {
            let text = format!("{}{middle}{}", open.repeat(n), close.repeat(n));
            if let Ok(program) = Program::compile(&text) {
                let ended = program.run(Value::Null, Limits { steps: 100_000, ..Limits::default() });
                assert!(ended.is_ok() || n > 20, "{open}{close}: {ended:?}");
            }
        }
    }
    let (_, what) = fault(&format!("{}.{}", "(".repeat(5_000), ")".repeat(5_000)));
    assert!(what.contains("nested at most"), "{what}");
}

/// Programs put together from pieces; many of them are none.
fn programs() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        ".",
        "..",
        ".a",
        ".[0]",
        ".[]",
        ".[]?",
        ".a?",
        ".[1:]",
        ".[:-1]",
        "null",
        "true",
        "1",
        "-2.5",
        "1e40",
        "\"x\"",
        "\"é\\u0000\"",
        "[]",
        "{}",
        "empty",
        "error",
        "length",
        "keys",
        "sort",
        "add",
        "tojson",
        "tostring",
        "tonumber",
        "not",
        "floor",
        "sqrt",
        "reverse",
        "min",
        "max",
        "unique",
        "flatten",
        "to_entries",
        "from_entries",
        "explode",
        "implode",
        "paths",
        "leaf_paths",
        "first",
        "last",
        "transpose",
        "fromjson",
        "@csv",
        "@base64",
        "@base64d",
        "@sh",
        "@html",
        "@uri",
        "ascii_upcase",
        "trim",
        "any",
        "all",
        "type",
        "todate",
        "fromdate",
        "$__x",
        "f",
        "recurse",
        "combinations",
        "isempty(.[])",
        "splits(\"\")",
        "[match(\"(?<y>.)?\";\"g\")]",
        "delpaths([[0],[1,\"a\"],[{\"start\":1}]])",
    ]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(6, 60, 3, |inner| {
        let one = prop::sample::select(vec![
            "[@]",
            "{a: @}",
            "{(@): @}",
            "map(@)",
            "map_values(@)",
            "select(@)",
            "path(@)",
            "del(@)",
            "first(@)",
            "last(@)",
            "limit(3; @)",
            "-@",
            "try (@) catch .",
            "(@)?",
            "sort_by(@)",
            "group_by(@)",
            "unique_by(@)",
            "min_by(@)",
            "walk(@)",
            "with_entries(@)",
            "until(@; @)",
            "while(@; @)",
            "repeat(@)",
            "recurse(@)",
            "range(@)",
            "range(@; @)",
            "reduce @ as $__x (@; @)",
            "foreach @ as $__x (@; @; @)",
            "label $l | @ , break $l",
            "@ as $__x | @",
            "@ as [$__x, {a: $y}] | @",
            "def f: @; @",
            "def f(g): @; f(@)",
            "if @ then @ else @ end",
            "\"a\\(@)b\"",
            "@ | @",
            "@ , @",
            "@ // @",
            "@ and @",
            "@ or @",
            "@ + @",
            "@ - @",
            "@ * @",
            "@ / @",
            "@ % @",
            "@ == @",
            "@ < @",
            "@ = @",
            "@ |= @",
            "@ += @",
            "@ //= @",
            "getpath(@)",
            "setpath(@; @)",
            "has(@)",
            "contains(@)",
            "inside(@)",
            "indices(@)",
            "join(@)",
            "split(@)",
            "test(@)",
            "sub(@; @)",
            "gsub(\"x|é\"; @)",
            "startswith(@)",
            "ltrimstr(@)",
            ".[@]",
            ".[@:@]",
            "any(@)",
            "IN(@)",
            "INDEX(@)",
            "pick(@)",
            "skip(1; @)",
            "nth(2; @)",
            "paths(@)",
            "add(@)",
            "error(@)",
        ]);
        (one, prop::collection::vec(inner, 3)).prop_map(|(form, parts)| {
            let mut parts = parts.into_iter().cycle();
            let pieces: Vec<&str> = form.split('@').collect();
            let mut text = String::from(pieces[0]);
            for piece in &pieces[1..] {
                text.push_str(&format!("({})", parts.next().unwrap_or_default()));
                text.push_str(piece);
            }
            text
        })
    })
}

fn inputs() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "null",
        "0",
        "-1.5",
        "\"é x\"",
        "[]",
        "{}",
        "[1,[2,{\"a\":null}],\"x\"]",
        "{\"a\":{\"a\":[1,2]},\"b\":\"y\"}",
        "[[3,1],[2]]",
        "[{\"key\":\"k\",\"value\":1}]",
        "[\"a\",null,1e300,true]",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_program_ends_within_its_limits_twice_alike(program in programs(), input in inputs()) {
        let limits = Limits { steps: 20_000, bytes: 1 << 20, depth: 500, outputs: 100 };
        let program = program.replace("(", " ( ");
        let Ok(program) = Program::compile(&program) else { return Ok(()) };
        let input = Value::read(&input).unwrap();
        let first = program.run(input.clone(), limits);
        if let Ok(outputs) = &first {
            prop_assert!(outputs.len() <= 100);
            for output in outputs {
                prop_assert!(serde_json::from_str::<serde_json::Value>(output).is_ok(), "{}", output);
            }
        }
        prop_assert_eq!(program.run(input, limits), first);
    }

    #[test]
    fn any_text_is_a_program_or_refused(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
        program in programs(),
        noise in "[ -~é\n]{0,6}",
    ) {
        let mut text = program;
        for (at, length) in cuts {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let first = at.index(starts.len());
            let end = starts[(first + length.index(4)).min(starts.len() - 1)];
            text.replace_range(starts[first]..end, &noise);
        }
        if let Err(fault) = Program::compile(&text) {
            prop_assert!(fault.at <= text.len() && text.is_char_boundary(fault.at) && !fault.what.is_empty());
        }
    }
}
