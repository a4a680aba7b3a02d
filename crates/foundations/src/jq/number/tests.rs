//! Digits are kept, or it is said that they are not.

use proptest::prelude::*;

use super::{NoNumber, Number};

fn read(text: &str) -> Number {
    Number::read(text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn a_number_is_kept_as_it_is_written() {
    for (text, shown) in [
        ("0", "0"),
        ("-0", "0"),
        ("12.50", "12.5"),
        ("1e3", "1000"),
        ("-1.5E-3", "-0.0015"),
        ("9223372036854775808", "9223372036854775808"),
        ("12345678901234567890.12345678901234567", "12345678901234567890.12345678901234567"),
        ("1e300", "1e300"),
        ("1.5e-60", "1.5e-60"),
        ("0.0000000", "0"),
    ] {
        assert_eq!(read(text).to_string(), shown, "{text}");
    }
    for text in ["", "-", "01", "1.", ".5", "1e", "+1", "1e+", "0x1", "1_0", "NaN", "--1"] {
        assert_eq!(Number::read(text).unwrap_err(), NoNumber::Malformed, "{text}");
    }
    assert_eq!(Number::read(&"123456789".repeat(5)).unwrap_err(), NoNumber::TooLong);
    assert_eq!(Number::read("1e999").unwrap_err(), NoNumber::TooLarge);
    assert_eq!(Number::read("1e99999999999999999999").unwrap_err(), NoNumber::TooLarge);
}

/// As jq 1.7 says, but for `nan` and `infinite`, which are no numbers here.
#[test]
fn a_number_in_a_text_need_not_be_as_json_wants_it() {
    for (text, shown) in [
        ("007", "7"),
        ("-007.50", "-7.5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("5.e3", "5000"),
        (".5E+1", "5"),
        ("+5", "5"),
        ("00", "0"),
        ("0.", "0"),
        (" \t5\n", "5"),
        ("000000000000000000000000000000000000000000000009007199254740993", "9007199254740993"),
        ("12.50", "12.5"),
    ] {
        assert_eq!(Number::read_loosely(text).map(|number| number.to_string()).as_deref(), Ok(shown), "{text}");
    }
    for text in
        ["", " ", ".", "-", "+", "-.", "e5", ".e5", "+-5", "--5", "5 5", "1.2.3", "1e", "5.-1", "0x1", "nan", "٣"]
    {
        assert_eq!(Number::read_loosely(text).unwrap_err(), NoNumber::Malformed, "{text}");
    }
    assert_eq!(Number::read_loosely(&"123456789".repeat(5)).unwrap_err(), NoNumber::TooLong);
    assert_eq!(Number::read_loosely("+1e999").unwrap_err(), NoNumber::TooLarge);
}

#[test]
fn money_adds_up_and_whole_numbers_lose_nothing() {
    assert_eq!(read("0.1").plus(read("0.2")).unwrap().to_string(), "0.3");
    assert_eq!(read("9007199254740993").plus(read("1")).unwrap().to_string(), "9007199254740994");
    assert_eq!(read("333").over(read("100")).unwrap().to_string(), "3.33");
    assert_eq!(read("1").over(read("3")).unwrap().to_string(), "0.3333333333333333");
    let thrice = read("1").over(read("3")).unwrap().times(read("3")).unwrap();
    assert_eq!(thrice, read("1"));
    let large = read(&"9".repeat(38));
    assert_eq!(large.times(large).unwrap_err(), NoNumber::TooLarge);
    assert_eq!(large.times(read("0.5")).unwrap().to_string(), "5e37");
    assert_eq!(read("1").over(read("0")).unwrap_err(), NoNumber::DividedByZero);
    assert_eq!(read("-7").modulo(read("3")).unwrap().to_string(), "-1");
    assert_eq!(read("5.9").modulo(read("2")).unwrap().to_string(), "1");
    assert_eq!(read("2.25").sqrt().unwrap().to_string(), "1.5");
    assert_eq!(read("-1").sqrt().unwrap_err(), NoNumber::NoRoot);
}

#[test]
fn rounding_goes_where_it_says() {
    let all = |text: &str| {
        let n = read(text);
        [n.floor(), n.ceil(), n.round(), n.trunc()].map(|rounded| rounded.unwrap().to_string())
    };
    assert_eq!(all("2.5"), ["2", "3", "3", "2"]);
    assert_eq!(all("-2.5"), ["-3", "-2", "-3", "-2"]);
    assert_eq!(all("-2.4"), ["-3", "-2", "-2", "-2"]);
    assert_eq!(all("7"), ["7"; 4]);
    assert_eq!(read("-0.5").floored(), Some(-1));
    assert_eq!(read("1e30").floored(), None);
}

proptest! {
    #[test]
    fn the_order_is_total(texts in prop::collection::vec("-?[1-9][0-9]{0,20}(\\.[0-9]{1,17})?(e-?[0-9]{1,2})?", 3)) {
        let n: Vec<Number> = texts.iter().filter_map(|text| Number::read(text).ok()).collect();
        prop_assume!(n.len() == 3);
        let mixed = [n[0], Number::Double(n[1].double()), n[2]];
        for [a, b, c] in [[n[0], n[1], n[2]], mixed] {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            if a <= b && b <= c {
                prop_assert!(a <= c, "{} {} {}", a, b, c);
            }
        }
    }

    #[test]
    fn what_is_shown_is_read_again_as_the_same(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,10})?(e-?[0-9]{1,3})?") {
        if let Ok(number) = Number::read(&text) {
            prop_assert_eq!(read(&number.to_string()), number);
        }
    }

    #[test]
    fn doubles_add_as_doubles_do(a in -1e15..1e15_f64, b in -1e15..1e15_f64) {
        prop_assert_eq!(Number::Double(a).plus(Number::Double(b)).unwrap().double(), a + b);
    }
}
