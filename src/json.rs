//! Checks that a stream of bytes is one JSON value (RFC 8259), in constant memory.
//!
//! `serde_json` checks a stream as well, but its depth can't be bounded without
//! losing deep answers, it lets invalid UTF-8 pass, and it takes two to three times
//! as long. It has the last word wherever an answer is read into memory; the two are
//! compared by property tests.

use std::fmt;
use std::str;

/// How deep a value may be nested: a bit a level, so 1.25 MB at the most.
const MAX_DEPTH: usize = 10_000_000;

/// Takes the bytes piece by piece.
pub(crate) struct Checker {
    expected: Expected,
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
    Text {
        is_key: bool,
    },
    Escape {
        is_key: bool,
    },
    Hex {
        is_key: bool,
        left: u8,
    },
    /// The rest of `true`, `false` or `null`.
    Literal(&'static [u8]),
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

    fn may_end(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::Exponent
        )
    }
}

/// The open brackets, a bit each: set for an object.
#[derive(Default)]
struct Nesting {
    bits: Vec<u64>,
    depth: usize,
}

impl Nesting {
    fn open(&mut self, object: bool) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        Ok(())
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
            nesting: Nesting::default(),
            cut_character: Vec::new(),
            taken: 0,
        }
    }

    /// Checks the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.check_utf8(piece)?;
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            at += match self.expected {
                Expected::Text { is_key } => self.text(&piece[at..], is_key),
                Expected::Number(number) => Some(self.number(&piece[at..], number)),
                _ => self.step(byte)?.then_some(1),
            }
            .ok_or(Fault::Syntax {
                at: self.taken + at as u64,
            })?;
        }
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

    /// Takes as much of a string as there is in one go: most of most answers.
    fn text(&mut self, rest: &[u8], is_key: bool) -> Option<usize> {
        let special = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
        let Some(end) = rest.iter().position(special) else {
            return Some(rest.len());
        };
        self.expected = match rest[end] {
            b'"' if is_key => Expected::Colon,
            b'"' => Expected::Next,
            b'\\' => Expected::Escape { is_key },
            _ => return None,
        };
        Some(end + 1)
    }

    /// Takes as much of a number as there is; the byte after it is looked at anew.
    fn number(&mut self, rest: &[u8], mut number: Number) -> usize {
        let mut length = 0;
        while let Some(then) = rest.get(length).and_then(|byte| number.then(*byte)) {
            number = then;
            length += 1;
        }
        self.expected = match length < rest.len() {
            true if number.may_end() => Expected::Next,
            // Nothing fits an unfinished number, so the next step refuses it.
            true => Expected::Literal(b""),
            false => Expected::Number(number),
        };
        length
    }

    /// Takes one byte; `false` where it doesn't fit.
    fn step(&mut self, byte: u8) -> Result<bool, Fault> {
        use Expected::*;
        let next = match (self.expected, byte) {
            (Literal([only]), _) if byte == *only => Some(Next),
            (Literal([first, rest @ ..]), _) if byte == *first => Some(Literal(rest)),
            (Escape { is_key }, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                Some(Text { is_key })
            }
            (Escape { is_key }, b'u') => Some(Hex { is_key, left: 4 }),
            (Hex { is_key, left }, _) if byte.is_ascii_hexdigit() => Some(match left {
                1 => Text { is_key },
                _ => Hex {
                    is_key,
                    left: left - 1,
                },
            }),
            (Literal(_) | Escape { .. } | Hex { .. }, _) => None,
            (_, b' ' | b'\t' | b'\n' | b'\r') => Some(self.expected),
            (KeyOrEnd, b'}') | (ValueOrEnd, b']') => Some(self.close()),
            (Key | KeyOrEnd, b'"') => Some(Text { is_key: true }),
            (Colon, b':') => Some(Value),
            (Next, _) => self.after_value(byte),
            (Value | ValueOrEnd, _) => self.value(byte)?,
            _ => None,
        };
        if let Some(next) = next {
            self.expected = next;
        }
        Ok(next.is_some())
    }

    fn value(&mut self, first: u8) -> Result<Option<Expected>, Fault> {
        Ok(Some(match first {
            b'"' => Expected::Text { is_key: false },
            b'-' => Expected::Number(Number::Minus),
            b'0' => Expected::Number(Number::Zero),
            b'1'..=b'9' => Expected::Number(Number::Integer),
            b't' => Expected::Literal(b"rue"),
            b'f' => Expected::Literal(b"alse"),
            b'n' => Expected::Literal(b"ull"),
            b'[' => {
                self.nesting.open(false)?;
                Expected::ValueOrEnd
            }
            b'{' => {
                self.nesting.open(true)?;
                Expected::KeyOrEnd
            }
            _ => return Ok(None),
        }))
    }

    fn after_value(&mut self, byte: u8) -> Option<Expected> {
        match (self.nesting.in_object()?, byte) {
            (true, b',') => Some(Expected::Key),
            (false, b',') => Some(Expected::Value),
            (true, b'}') | (false, b']') => Some(self.close()),
            _ => None,
        }
    }

    fn close(&mut self) -> Expected {
        self.nesting.depth -= 1;
        Expected::Next
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
            (b"\"\\x\"", Fault::Syntax { at: 2 }),
            (b"<html>", Fault::Syntax { at: 0 }),
            (b"\xef\xbb\xbf{}", Fault::Syntax { at: 0 }),
            (b"\"\xff\"", Fault::NotUtf8),
        ] {
            for piece in 1..6 {
                assert_eq!(check(text, piece), Err(fault), "{text:?}");
            }
        }
    }

    #[test]
    fn depth_is_bounded_and_generous() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert_eq!(check(&nested(5_000_000), 65_536), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1), 65_536), Err(Fault::TooDeep));
    }

    #[test]
    fn lone_surrogates_and_the_range_of_numbers_are_not_judged() {
        assert_eq!(check(br#"["\ud800", 1e400, -0.0E-1]"#, 3), Ok(()));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"([\[\]{}:,"\\ untrfalse0-9.eE+\-]|"[a-zé]{0,3}"|\{"a":|null|true){0,12}"#, piece in 1usize..8) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(check(text.as_bytes(), piece).is_ok(), theirs);
        }

        #[test]
        fn accepts_what_serde_json_writes(values in prop::collection::vec(any::<(String, f64, Option<i64>, bool)>(), 0..5), piece in 1usize..9) {
            let text = serde_json::to_vec(&values).unwrap();
            prop_assert_eq!(check(&text, piece), Ok(()));
        }
    }
}
