//! Numbers: exact decimals, and doubles where there is no exact answer.

use std::{cmp::Ordering, fmt};

/// A number, always finite.
///
/// What JSON says is kept exactly, with up to 38 digits. Sums, differences, products and quotients that come out are exact
/// as well; a quotient that doesn't (1/3), a root, and what has more than 38 digits and a fraction, is the nearest double.
/// Whole numbers never become doubles without a word: too large a result is an error.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// `units / 10^places`, with as few places as possible.
    Exact {
        /// The digits, with their sign.
        units: i128,
        /// How many of them stand behind the point, 0 to 38.
        places: u8,
    },
    /// A double that is no such decimal, or came from one.
    Double(f64),
}

/// The most places behind the point.
const MAX_PLACES: u8 = 38;
/// The most places that are looked for in a quotient.
const MAX_QUOTIENT_PLACES: u8 = 20;
/// A double's text has no more digits than this.
const DOUBLE_DIGITS: usize = 17;

/// Powers of ten that a double holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Why there is no such number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoNumber {
    #[error("this is no number")]
    Malformed,
    #[error("it has more than 38 digits, and would lose some")]
    TooLong,
    #[error("it is too large")]
    TooLarge,
    #[error("the divisor is zero")]
    DividedByZero,
    #[error("there is no such root")]
    NoRoot,
}

use NoNumber::{DividedByZero, Malformed, NoRoot, TooLarge, TooLong};

impl Number {
    pub(super) const ZERO: Self = Self::Exact { units: 0, places: 0 };

    /// The number that a JSON text says.
    pub(super) fn read(text: &str) -> Result<Self, NoNumber> {
        if text.len() < 19
            && let Some(whole) = small(text)
        {
            return Ok(Self::from(whole));
        }
        let parts = Parts::of(text).ok_or(Malformed)?;
        match parts.exact() {
            Some(exact) => Ok(exact),
            None if parts.significant() <= DOUBLE_DIGITS => finite(text.parse().map_err(|_| Malformed)?),
            None => Err(TooLong),
        }
    }

    /// The number that a text says which need not be as JSON wants it: `007`, `.5`, `5.`, `+5`, with blanks around it.
    pub(super) fn read_loosely(text: &str) -> Result<Self, NoNumber> {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        let is_strict = |c: char| c.is_ascii_digit() || c == '-';
        if let Some(number) =
            text.starts_with(is_strict).then(|| Self::read(text)).filter(|read| *read != Err(Malformed))
        {
            return number;
        }
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => ("-", rest),
            None => ("", text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, exponent) = rest.split_at(rest.find(['e', 'E']).unwrap_or(rest.len()));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if digits.len() <= usize::from(digits.contains('.')) || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed);
        }
        let whole = whole.trim_start_matches('0');
        let (whole, point) = (if whole.is_empty() { "0" } else { whole }, if fraction.is_empty() { "" } else { "." });
        Self::read(&format!("{sign}{whole}{point}{fraction}{exponent}"))
    }

    fn exact(units: i128, places: u8) -> Self {
        let (mut units, mut places) = (units, places);
        while places > 0 && units % 10 == 0 {
            units /= 10;
            places -= 1;
        }
        Self::Exact { units, places }
    }

    /// The nearest double.
    pub(super) fn double(self) -> f64 {
        match self {
            Self::Double(x) => x,
            #[expect(clippy::cast_precision_loss, reason = "only where nothing is lost")]
            Self::Exact { units, places } if units.unsigned_abs() < 1 << 53 && usize::from(places) < TENS.len() => {
                units as f64 / TENS[usize::from(places)]
            }
            Self::Exact { .. } => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Exact { places: 0, .. })
    }

    /// The whole number below or at it, where it is one of 64 bits.
    pub(super) fn floored(self) -> Option<i64> {
        self.rounded(f64::floor, |units, one| units.div_euclid(one)).ok()?.whole()?.try_into().ok()
    }

    fn whole(self) -> Option<i128> {
        match self {
            Self::Exact { units, places: 0 } => Some(units),
            _ => None,
        }
    }

    /// What it is without its fraction.
    fn truncated(self) -> Result<i128, NoNumber> {
        self.rounded(f64::trunc, |units, one| units / one)?.whole().ok_or(TooLarge)
    }

    pub(super) fn floor(self) -> Result<Self, NoNumber> {
        self.rounded(f64::floor, |units, one| units.div_euclid(one))
    }

    pub(super) fn ceil(self) -> Result<Self, NoNumber> {
        self.rounded(f64::ceil, |units, one| -(-units).div_euclid(one))
    }

    /// Half away from zero.
    pub(super) fn round(self) -> Result<Self, NoNumber> {
        self.rounded(f64::round, |units, one| {
            let rest = units % one;
            let up = i128::from(rest.unsigned_abs() >= one.unsigned_abs().div_ceil(2));
            units / one + up * units.signum()
        })
    }

    pub(super) fn trunc(self) -> Result<Self, NoNumber> {
        self.rounded(f64::trunc, |units, one| units / one)
    }

    fn rounded(self, double: fn(f64) -> f64, exact: fn(i128, i128) -> i128) -> Result<Self, NoNumber> {
        match self {
            Self::Exact { places: 0, .. } => Ok(self),
            Self::Exact { units, places } => Ok(Self::exact(exact(units, ten(places).ok_or(TooLarge)?), 0)),
            Self::Double(x) => {
                let text = format!("{:.0}", double(x));
                Parts::of(&text).and_then(|parts| parts.exact()).ok_or(TooLarge)
            }
        }
    }

    pub(super) fn sqrt(self) -> Result<Self, NoNumber> {
        let root = self.double().sqrt();
        if root.is_nan() {
            return Err(NoRoot);
        }
        // A root that comes out is exact.
        let exact = Self::read(&spell(root)).ok().filter(|exact| {
            exact.times(*exact).is_ok_and(|square| matches!(square, Self::Exact { .. }) && square == self)
        });
        exact.map_or_else(|| finite(root), Ok)
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Exact { units, places } => Self::Exact { units: -units, places },
            Self::Double(x) => Self::Double(-x),
        }
    }

    pub(super) fn abs(self) -> Self {
        if self < Self::ZERO { self.negated() } else { self }
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, NoNumber> {
        self.joined(other, i128::checked_add, |x, y| x + y)
    }

    pub(super) fn minus(self, other: Self) -> Result<Self, NoNumber> {
        self.joined(other, i128::checked_sub, |x, y| x - y)
    }

    fn joined(
        self,
        other: Self,
        exact: fn(i128, i128) -> Option<i128>,
        double: fn(f64, f64) -> f64,
    ) -> Result<Self, NoNumber> {
        if let Some((one, two, places)) = aligned(self, other)
            && let Some(units) = exact(one, two).filter(|units| *units != i128::MIN)
        {
            return Ok(Self::exact(units, places));
        }
        self.nearly(other, double)
    }

    pub(super) fn times(self, other: Self) -> Result<Self, NoNumber> {
        if let (Self::Exact { units: one, places: p }, Self::Exact { units: two, places: q }) = (self, other)
            && let Some(units) = one.checked_mul(two).filter(|units| *units != i128::MIN)
            && p + q <= MAX_PLACES
        {
            return Ok(Self::exact(units, p + q));
        }
        self.nearly(other, |x, y| x * y)
    }

    pub(super) fn over(self, other: Self) -> Result<Self, NoNumber> {
        if other == Self::ZERO {
            return Err(DividedByZero);
        }
        if let Some((mut rest, divisor, _)) = aligned(self, other) {
            for places in 0..=MAX_QUOTIENT_PLACES {
                if rest % divisor == 0 {
                    return Ok(Self::exact(rest / divisor, places));
                }
                match rest.checked_mul(10) {
                    Some(more) => rest = more,
                    None => break,
                }
            }
        }
        finite(self.double() / other.double())
    }

    /// What is left of a division of the whole parts, with the sign of `self`.
    pub(super) fn modulo(self, other: Self) -> Result<Self, NoNumber> {
        let (one, two) = (self.truncated()?, other.truncated()?);
        if two == 0 { Err(DividedByZero) } else { Ok(Self::exact(one.checked_rem(two).unwrap_or(0), 0)) }
    }

    /// In doubles, unless whole numbers would lose digits by that.
    fn nearly(self, other: Self, double: fn(f64, f64) -> f64) -> Result<Self, NoNumber> {
        if self.is_whole() && other.is_whole() {
            return Err(TooLarge);
        }
        finite(double(self.double(), other.double()))
    }
}

fn finite(x: f64) -> Result<Number, NoNumber> {
    // There is one zero.
    if x.is_finite() { Ok(Number::Double(x + 0.0)) } else { Err(TooLarge) }
}

fn ten(places: u8) -> Option<i128> {
    10_i128.checked_pow(places.into())
}

/// A short whole number.
fn small(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let is_plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Both in units of the same place.
fn aligned(one: Number, two: Number) -> Option<(i128, i128, u8)> {
    let (Number::Exact { units: one, places: p }, Number::Exact { units: two, places: q }) = (one, two) else {
        return None;
    };
    let places = p.max(q);
    Some((one.checked_mul(ten(places - p)?)?, two.checked_mul(ten(places - q)?)?, places))
}

/// A JSON number taken apart.
struct Parts<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
    exponent: i64,
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (digits, exponent) = match rest.split_once(['e', 'E']) {
            None => (rest, 0),
            Some((digits, exponent)) => (digits, self::exponent(exponent)?),
        };
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let is_whole = is_digits(whole) && (whole.len() == 1 || !whole.starts_with('0'));
        let is_right = is_whole && fraction.is_none_or(is_digits);
        is_right.then_some(Self { negative, whole, fraction: fraction.unwrap_or_default(), exponent })
    }

    fn digits(&self) -> impl DoubleEndedIterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    /// How many digits there are without zeros before and behind.
    fn significant(&self) -> usize {
        let all = self.whole.len() + self.fraction.len();
        let before = self.digits().take_while(|digit| *digit == b'0').count();
        let behind = self.digits().rev().take_while(|digit| *digit == b'0').count();
        all.saturating_sub(before + behind)
    }

    fn exact(&self) -> Option<Number> {
        let all = self.whole.len() + self.fraction.len();
        let behind = self.digits().rev().take_while(|digit| *digit == b'0').count();
        let mut units = 0_i128;
        for digit in self.digits().take(all - behind) {
            units = units.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        if units == 0 {
            return Some(Number::ZERO);
        }
        let dropped = i64::try_from(self.fraction.len()).ok()? - i64::try_from(behind).ok()?;
        let places = dropped.checked_sub(self.exponent)?;
        if places < 0 {
            units = units.checked_mul(ten(u8::try_from(-places).ok()?)?)?;
        }
        let places = u8::try_from(places.max(0)).ok().filter(|places| *places <= MAX_PLACES)?;
        Some(Number::exact(if self.negative { -units } else { units }, places))
    }
}

fn exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse::<i64>().unwrap_or(1 << 32).min(1 << 32);
    Some(if text.starts_with('-') { -size } else { size })
}

/// A double in the fewest digits that say it.
fn spell(x: f64) -> String {
    let size = x.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if (1e-5..1e17).contains(&size) {
        x.to_string()
    } else {
        format!("{x:e}")
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Double(x) => f.write_str(&spell(x)),
            Self::Exact { units, places: 0 } => write!(f, "{units}"),
            Self::Exact { units, places } => {
                let one = ten(places).unwrap_or(i128::MAX).unsigned_abs();
                let (sign, size) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
                write!(f, "{sign}{}.{:0width$}", size / one, size % one, width = usize::from(places))
            }
        }
    }
}

impl From<i64> for Number {
    fn from(whole: i64) -> Self {
        Self::Exact { units: whole.into(), places: 0 }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Self::Exact { .. }, Self::Exact { .. }) = (self, other) {
            return exactly(*self, *other);
        }
        // Ordering: by the nearest double first, which no exact order contradicts; within one of those by the decimals. So
        // this is a total order, which sorting relies on.
        self.double().total_cmp(&other.double()).then_with(|| exactly(self.decimal(), other.decimal()))
    }
}

impl Number {
    /// The decimal that a double's text says, where it is one of ours.
    fn decimal(self) -> Self {
        match self {
            Self::Double(x) => Parts::of(&spell(x)).and_then(|parts| parts.exact()).unwrap_or(self),
            exact @ Self::Exact { .. } => exact,
        }
    }
}

fn exactly(one: Number, two: Number) -> Ordering {
    let (Number::Exact { units, places }, Number::Exact { units: others, places: of_other }) = (one, two) else {
        // A double beyond all decimals stands before those that round to it.
        return matches!(one, Number::Exact { .. }).cmp(&matches!(two, Number::Exact { .. }));
    };
    if let Some((one, two, _)) = aligned(one, two) {
        return one.cmp(&two);
    }
    let split = |units: i128, places: u8| {
        let one = ten(places).unwrap_or(i128::MAX);
        let rest = ten(MAX_PLACES - places).and_then(|scale| (units.rem_euclid(one)).checked_mul(scale));
        (units.div_euclid(one), rest.unwrap_or(i128::MAX))
    };
    split(units, places).cmp(&split(others, of_other))
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

#[cfg(test)]
mod tests;
