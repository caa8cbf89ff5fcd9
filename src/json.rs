//! Checks that a stream of bytes is one JSON value (RFC 8259), in constant memory.
//!
//! `serde_json` checks a stream as well, but its depth can't be bounded without
//! losing deep answers, it lets invalid UTF-8 pass, and it asks for a reader, which
//! it pulls a byte at a time. It has the last word wherever an answer is read into
//! memory; the two are compared by property tests.

use std::fmt;
use std::str;

/// How deep a value may be nested: a bit a level, so 1.25 MB at the most.
const MAX_DEPTH: usize = 10_000_000;

/// Takes the bytes piece by piece.
pub(crate) struct Checker {
    expected: Expected,
    /// Whether the string that is under way is a key.
    in_key: bool,
    /// What is left of `true`, `false` or `null`.
    literal: &'static [u8],
    nesting: Nesting,
    /// The beginning of a character that the last piece cut.
    cut_character: Vec<u8>,
    /// How many bytes came in the pieces before.
    taken: u64,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Empty,
    /// Good so far, but not at its end.
    Unfinished,
    Syntax {
        at: u64,
    },
    NotUtf8,
    TooDeep,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty, not JSON"),
            Self::Unfinished => f.write_str("the JSON ends too early"),
            Self::Syntax { at } => write!(f, "not JSON (at byte {at})"),
            Self::NotUtf8 => f.write_str("not JSON in UTF-8"),
            Self::TooDeep => f.write_str("JSON nested too deeply"),
        }
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// A comma, a closing bracket, or the end of it all.
    Next,
    Text,
    Escape,
    /// So many hexadecimal digits.
    Hex(u8),
    Literal,
    Number(Number),
}

/// The part of a number that was last seen.
#[derive(Clone, Copy, PartialEq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ESign,
    Exponent,
}

impl Number {
    /// The part after one more byte; `None` where that doesn't belong to the number.
    fn then(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::E,
            (Self::E, b'+' | b'-') => Self::ESign,
            (Self::E | Self::ESign | Self::Exponent, b'0'..=b'9') => Self::Exponent,
            _ => return None,
        })
    }

    /// Takes as much of a number as there is: its length, and its last part.
    fn run(mut self, bytes: &[u8]) -> (usize, Self) {
        let mut length = 0;
        loop {
            if matches!(self, Self::Integer | Self::Fraction | Self::Exponent) {
                length += digits(&bytes[length..]);
            }
            match bytes.get(length).and_then(|byte| self.then(*byte)) {
                Some(then) => self = then,
                None => return (length, self),
            }
            length += 1;
        }
    }

    fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::Exponent
        )
    }
}

/// A one in each byte.
const ONES: u64 = u64::MAX / 255;

/// How many bytes there are before the first that `is_end` marks by its high bit. It is
/// given eight at a time, as most answers are strings and numbers; the lowest mark
/// counts, so those above it may be wrong.
fn length_before(bytes: &[u8], is_end: impl Fn(u64) -> u64) -> usize {
    let mut length = 0;
    while let Some(eight) = bytes[length..].first_chunk() {
        let ends = is_end(u64::from_le_bytes(*eight)) & (ONES << 7);
        if ends != 0 {
            return length + ends.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = bytes[length..].iter();
    length
        + rest
            .take_while(|byte| is_end(u64::from(**byte)) & 0x80 == 0)
            .count()
}

/// How many bytes stand for themselves in a string.
fn plain(bytes: &[u8]) -> usize {
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    length_before(bytes, |word| {
        below(word, 0x20) | equal(word, b'"') | equal(word, b'\\')
    })
}

fn digits(bytes: &[u8]) -> usize {
    length_before(bytes, |word| {
        let value = word ^ (ONES * u64::from(b'0'));
        value | value.wrapping_add(ONES * (0x80 - 10))
    })
}

/// The open brackets, a bit each: set for an object.
#[derive(Default)]
struct Nesting {
    bits: Vec<u64>,
    depth: usize,
}

impl Nesting {
    /// `false` if that is too deep.
    fn open(&mut self, object: bool) -> bool {
        if self.depth == MAX_DEPTH {
            return false;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        true
    }

    fn in_object(&self) -> Option<bool> {
        let top = self.depth.checked_sub(1)?;
        Some(self.bits[top / 64] >> (top % 64) & 1 == 1)
    }
}

impl Checker {
    pub(crate) fn new() -> Self {
        Self {
            expected: Expected::Value,
            in_key: false,
            literal: b"",
            nesting: Nesting::default(),
            cut_character: Vec::new(),
            taken: 0,
        }
    }

    /// Checks the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        use Expected::*;
        self.check_utf8(piece)?;
        // A local, as each byte depends on it: in memory it takes half as long again.
        let mut expected = self.expected;
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            expected = match (expected, byte) {
                (Text, _) => {
                    at += plain(&piece[at..]);
                    match piece.get(at) {
                        Some(b'"') if self.in_key => Colon,
                        Some(b'"') => Next,
                        Some(b'\\') => Escape,
                        Some(_) => return Err(self.misfit(at)),
                        None => break,
                    }
                }
                (Number(number), _) => {
                    let (length, number) = number.run(&piece[at..]);
                    at += length;
                    expected = match at < piece.len() {
                        false => Number(number),
                        true if number.may_end() => Next,
                        true => return Err(self.misfit(at)),
                    };
                    // The byte after the number is looked at anew.
                    continue;
                }
                (Escape | Hex(_) | Literal, _) => self
                    .within_token(expected, byte)
                    .ok_or_else(|| self.misfit(at))?,
                (_, b' ' | b'\t' | b'\n' | b'\r') => expected,
                (Value | ValueOrEnd | Key | KeyOrEnd, b'"') => {
                    self.in_key = matches!(expected, Key | KeyOrEnd);
                    Text
                }
                (Colon, b':') => Value,
                (Next, b',') if self.nesting.in_object() == Some(true) => Key,
                (Next, b',') if self.nesting.in_object() == Some(false) => Value,
                (Next | KeyOrEnd, b'}') if self.nesting.in_object() == Some(true) => self.close(),
                (Next | ValueOrEnd, b']') if self.nesting.in_object() == Some(false) => {
                    self.close()
                }
                (Value | ValueOrEnd, _) => match self.value(byte) {
                    Some(next) => next,
                    None if matches!(byte, b'[' | b'{') => return Err(Fault::TooDeep),
                    None => return Err(self.misfit(at)),
                },
                _ => return Err(self.misfit(at)),
            };
            at += 1;
        }
        self.expected = expected;
        self.taken += piece.len() as u64;
        Ok(())
    }

    /// Checks that nothing is missing.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        match self.expected {
            _ if self.taken == 0 => Err(Fault::Empty),
            Expected::Next if self.nesting.depth == 0 => Ok(()),
            Expected::Number(number) if number.may_end() && self.nesting.depth == 0 => Ok(()),
            _ => Err(Fault::Unfinished),
        }
    }

    /// What follows the first byte of a value that is no string; `None` if no value
    /// begins so, or if it is a bracket too many.
    fn value(&mut self, first: u8) -> Option<Expected> {
        use Expected::*;
        Some(match first {
            b'-' => Number(self::Number::Minus),
            b'0' => Number(self::Number::Zero),
            b'1'..=b'9' => Number(self::Number::Integer),
            b'[' => self.nesting.open(false).then_some(ValueOrEnd)?,
            b'{' => self.nesting.open(true).then_some(KeyOrEnd)?,
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            _ => return None,
        })
    }

    fn literal(&mut self, rest: &'static [u8]) -> Expected {
        self.literal = rest;
        Expected::Literal
    }

    fn close(&mut self) -> Expected {
        self.nesting.depth -= 1;
        Expected::Next
    }

    /// What follows one more byte of an escape or a literal.
    fn within_token(&mut self, expected: Expected, byte: u8) -> Option<Expected> {
        use Expected::*;
        Some(match (expected, byte) {
            (Literal, _) => match self.literal {
                [only] if *only == byte => Next,
                [first, rest @ ..] if *first == byte => self.literal(rest),
                _ => return None,
            },
            (Escape, b'u') => Hex(4),
            (Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Text,
            (Hex(1), _) if byte.is_ascii_hexdigit() => Text,
            (Hex(left), _) if byte.is_ascii_hexdigit() => Hex(left - 1),
            _ => return None,
        })
    }

    /// A byte of this piece may not stand where it does.
    fn misfit(&self, at: usize) -> Fault {
        Fault::Syntax {
            at: self.taken + at as u64,
        }
    }

    fn check_utf8(&mut self, mut piece: &[u8]) -> Result<(), Fault> {
        while !self.cut_character.is_empty() {
            let Some((first, rest)) = piece.split_first() else {
                return Ok(());
            };
            self.cut_character.push(*first);
            piece = rest;
            match str::from_utf8(&self.cut_character) {
                Ok(_) => self.cut_character.clear(),
                Err(error) if error.error_len().is_some() => return Err(Fault::NotUtf8),
                Err(_) => {}
            }
        }
        match str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(Fault::NotUtf8),
            Err(error) => {
                self.cut_character
                    .extend_from_slice(&piece[error.valid_up_to()..]);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], piece: usize) -> Result<(), Fault> {
        let mut checker = Checker::new();
        for piece in bytes.chunks(piece) {
            checker.feed(piece)?;
        }
        checker.finish()
    }

    #[test]
    fn faults_are_told_apart() {
        for (text, fault) in [
            (&b""[..], Fault::Empty),
            (b" ", Fault::Unfinished),
            (b"{\"a\":", Fault::Unfinished),
            (b"\"a", Fault::Unfinished),
            (b"-", Fault::Unfinished),
            (b"[1e+]", Fault::Syntax { at: 4 }),
            (b"01", Fault::Syntax { at: 1 }),
            (b"[1,]", Fault::Syntax { at: 3 }),
            (b"{\"a\"}", Fault::Syntax { at: 4 }),
            (b"{1:2}", Fault::Syntax { at: 1 }),
            (b"[1}", Fault::Syntax { at: 2 }),
            (b"{} {}", Fault::Syntax { at: 3 }),
            (b"\"\n\"", Fault::Syntax { at: 1 }),
            (b"\"abcdefghij\x1f\"", Fault::Syntax { at: 11 }),
            (b"\"\\x\"", Fault::Syntax { at: 2 }),
            (b"\"\\u12g4\"", Fault::Syntax { at: 5 }),
            (b"[nul]", Fault::Syntax { at: 4 }),
            (b"<html>", Fault::Syntax { at: 0 }),
            (b"\xef\xbb\xbf{}", Fault::Syntax { at: 0 }),
            (b"\"\xff\"", Fault::NotUtf8),
        ] {
            for piece in 1..20 {
                assert_eq!(check(text, piece), Err(fault), "{text:?}");
            }
        }
    }

    #[test]
    fn depth_is_bounded_and_generous() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert_eq!(check(&nested(5_000_000), 65_536), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1), 65_536), Err(Fault::TooDeep));
        let misplaced = [&b"[".repeat(MAX_DEPTH)[..], b"1["].concat();
        let at = MAX_DEPTH as u64 + 1;
        assert_eq!(check(&misplaced, 65_536), Err(Fault::Syntax { at }));
    }

    #[test]
    fn lone_surrogates_and_the_range_of_numbers_are_not_judged() {
        assert_eq!(check(br#"["\ud800", 1e400, -0.0E-1]"#, 3), Ok(()));
    }

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_are_read_as_one_at_a_time(
            bytes in prop::collection::vec(prop_oneof![0u8..0x40, 0x50u8..0x60, 0x7eu8..=0xff], 0..40),
            repeated in 0usize..20,
        ) {
            let count = |bytes: &[u8], fits: fn(&&u8) -> bool| bytes.iter().take_while(fits).count();
            let in_string = |byte: &&u8| **byte >= b' ' && !matches!(byte, b'"' | b'\\');
            let bytes = [&b"a".repeat(repeated), &bytes[..]].concat();
            prop_assert_eq!(plain(&bytes), count(&bytes, in_string));
            let bytes = [&b"90817"[..].repeat(repeated), &bytes[repeated..]].concat();
            prop_assert_eq!(digits(&bytes), count(&bytes, |byte| byte.is_ascii_digit()));
        }

        #[test]
        fn agrees_with_serde_json(text in r#"([\[\]{}:,"\\ untrfalse0-9.eE+\-]|"[a-zé]{0,20}"|\{"a":|null|true){0,12}"#, piece in 1usize..40) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(check(text.as_bytes(), piece).is_ok(), theirs);
        }

        #[test]
        fn accepts_what_serde_json_writes(values in prop::collection::vec(any::<(String, f64, Option<i64>, bool)>(), 0..5), piece in 1usize..40) {
            let text = serde_json::to_vec(&values).unwrap();
            prop_assert_eq!(check(&text, piece), Ok(()));
        }
    }
}
