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
    state: State,
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

/// Where in a value the next byte stands. The order counts: whatever comes before
/// [`Text`](Self::Text) asks for nothing but to be kept.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// After a value: at a comma, a closing bracket, or the end of it all.
    Next,
    /// In an escape of a string: after the backslash, or with so many digits left.
    Escape,
    Hex4,
    Hex3,
    Hex2,
    Hex1,
    KeyEscape,
    KeyHex4,
    KeyHex3,
    KeyHex2,
    KeyHex1,
    /// In a literal, of which these letters are left.
    Rue,
    Ue,
    Alse,
    Lse,
    Se,
    E,
    Ull,
    Ll,
    L,
    /// In a number, after this part of it.
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exp,
    ExpSign,
    Exponent,
    /// In a string: most bytes leave it at that.
    Text,
    KeyText,
    /// What a byte may ask for instead.
    OpenArray,
    OpenObject,
    Close,
    Misfit,
}

/// The states in which a byte may come, in their order.
const STATES: [State; 35] = {
    use State::*;
    [
        Value, ValueOrEnd, Key, KeyOrEnd, Colon, Next, Escape, Hex4, Hex3, Hex2, Hex1, KeyEscape,
        KeyHex4, KeyHex3, KeyHex2, KeyHex1, Rue, Ue, Alse, Lse, Se, E, Ull, Ll, L, Minus, Zero,
        Integer, Point, Fraction, Exp, ExpSign, Exponent, Text, KeyText,
    ]
};

/// What a value stands in.
#[derive(Clone, Copy)]
enum Within {
    Nothing,
    Array,
    Object,
}

/// The grammar: where a byte leads to.
const fn after(within: Within, state: State, byte: u8) -> State {
    use State::*;
    match (state, byte) {
        (Value | ValueOrEnd | Key | KeyOrEnd | Colon | Next, b' ' | b'\t' | b'\n' | b'\r') => state,
        (Value | ValueOrEnd, b'"') => Text,
        (Value | ValueOrEnd, b'[') => OpenArray,
        (Value | ValueOrEnd, b'{') => OpenObject,
        (Value | ValueOrEnd, b't') => Rue,
        (Value | ValueOrEnd, b'f') => Alse,
        (Value | ValueOrEnd, b'n') => Ull,
        (Value | ValueOrEnd, b'-') => Minus,
        (Value | ValueOrEnd | Minus, b'0') => Zero,
        (Value | ValueOrEnd | Minus, b'1'..=b'9') => Integer,
        (Key | KeyOrEnd, b'"') => KeyText,
        (Colon, b':') => Value,
        (ValueOrEnd, b']') | (KeyOrEnd, b'}') => Close,

        (Text, b'"') => Next,
        (KeyText, b'"') => Colon,
        (Text, b'\\') => Escape,
        (KeyText, b'\\') => KeyEscape,
        (Text | KeyText, b' '..) => state,
        (Escape, b'u') => Hex4,
        (KeyEscape, b'u') => KeyHex4,
        (Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Text,
        (KeyEscape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => KeyText,
        (Hex4, _) if byte.is_ascii_hexdigit() => Hex3,
        (Hex3, _) if byte.is_ascii_hexdigit() => Hex2,
        (Hex2, _) if byte.is_ascii_hexdigit() => Hex1,
        (Hex1, _) if byte.is_ascii_hexdigit() => Text,
        (KeyHex4, _) if byte.is_ascii_hexdigit() => KeyHex3,
        (KeyHex3, _) if byte.is_ascii_hexdigit() => KeyHex2,
        (KeyHex2, _) if byte.is_ascii_hexdigit() => KeyHex1,
        (KeyHex1, _) if byte.is_ascii_hexdigit() => KeyText,

        (Rue, b'r') => Ue,
        (Alse, b'a') => Lse,
        (Lse, b'l') => Se,
        (Ue, b'u') | (Se, b's') => E,
        (Ull, b'u') => Ll,
        (Ll, b'l') => L,
        (E, b'e') | (L, b'l') => Next,

        (Integer, b'0'..=b'9') => Integer,
        (Zero | Integer, b'.') => Point,
        (Point | Fraction, b'0'..=b'9') => Fraction,
        (Zero | Integer | Fraction, b'e' | b'E') => Exp,
        (Exp, b'+' | b'-') => ExpSign,
        (Exp | ExpSign | Exponent, b'0'..=b'9') => Exponent,
        // What comes after a number tells that it has ended.
        (Zero | Integer | Fraction | Exponent, _) => after(within, Next, byte),

        (Next, _) => match (within, byte) {
            (Within::Array, b',') => Value,
            (Within::Object, b',') => Key,
            (Within::Array, b']') | (Within::Object, b'}') => Close,
            _ => Misfit,
        },
        _ => Misfit,
    }
}

/// The grammar as a table for each thing that a value stands in: a look into it takes
/// the same time whatever the byte, where branches would be mispredicted.
static TABLES: [[[State; 256]; STATES.len()]; 3] = {
    let mut tables = [[[State::Misfit; 256]; STATES.len()]; 3];
    let mut state = 0;
    while state < STATES.len() {
        assert!(STATES[state] as usize == state);
        let mut byte = 0;
        while byte < 256 {
            let mut within = 0;
            while within < 3 {
                let container = [Within::Nothing, Within::Array, Within::Object][within];
                tables[within][state][byte] = after(container, STATES[state], byte as u8);
                within += 1;
            }
            byte += 1;
        }
        state += 1;
    }
    tables
};

/// A one in each byte.
const ONES: u64 = u64::MAX / 255;

/// How many bytes stand for themselves in a string, the last seven left aside: they are
/// most of most answers, so they are looked at eight at a time.
fn plain(bytes: &[u8]) -> usize {
    // The high bit is set in the lowest byte that is below the limit, and in no lower
    // one; what is set above it may be wrong.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let mut length = 0;
    while let Some(eight) = bytes[length..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let special = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        let special = special & (ONES << 7);
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    length
}

/// The open brackets, a bit each: set for an object.
#[derive(Default)]
struct Nesting {
    bits: Vec<u64>,
    depth: usize,
}

impl Nesting {
    /// Opens or closes a bracket, and tells what may come then.
    fn change(&mut self, bracket: State) -> Result<State, Fault> {
        if bracket == State::Close {
            self.depth -= 1;
            return Ok(State::Next);
        }
        if self.depth == MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let object = bracket == State::OpenObject;
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        Ok(match object {
            true => State::KeyOrEnd,
            false => State::ValueOrEnd,
        })
    }

    fn table(&self) -> &'static [[State; 256]; STATES.len()] {
        let within = match self.depth.checked_sub(1) {
            None => Within::Nothing,
            Some(top) if self.bits[top / 64] >> (top % 64) & 1 == 1 => Within::Object,
            Some(_) => Within::Array,
        };
        &TABLES[within as usize]
    }
}

impl Checker {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Value,
            nesting: Nesting::default(),
            cut_character: Vec::new(),
            taken: 0,
        }
    }

    /// Checks the next piece.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.check_utf8(piece)?;
        let mut state = self.state;
        let mut table = self.nesting.table();
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            let next = table[state as usize][usize::from(byte)];
            at += 1;
            // One branch for most bytes outside of strings.
            if (next as u8) < State::Text as u8 {
                state = next;
                continue;
            }
            state = match next {
                State::OpenArray | State::OpenObject | State::Close => {
                    let then = self.nesting.change(next)?;
                    table = self.nesting.table();
                    then
                }
                State::Misfit => {
                    let at = self.taken + at as u64 - 1;
                    return Err(Fault::Syntax { at });
                }
                text => {
                    at += plain(&piece[at..]);
                    text
                }
            };
        }
        self.state = state;
        self.taken += piece.len() as u64;
        Ok(())
    }

    /// Checks that nothing is missing.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        // A blank ends a number, and changes nothing else.
        match after(Within::Nothing, self.state, b' ') {
            _ if self.taken == 0 => Err(Fault::Empty),
            State::Next if self.nesting.depth == 0 => Ok(()),
            _ => Err(Fault::Unfinished),
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
    fn a_value_of_every_kind_is_accepted_in_pieces_of_any_size() {
        let text = "{\"a\":[{},[],\"\",\"é\\n\\u00E9\"],\"\\\"\\u00e9\": \
                    {\"\":-0,\"b\":[1.5,0.25e+3,10E-2,7e9]},\n\t\"c\":[true,false,null]}\r\n";
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
        for piece in 1..text.len() {
            assert_eq!(check(text.as_bytes(), piece), Ok(()), "{piece}");
        }
    }

    #[test]
    fn lone_surrogates_and_the_range_of_numbers_are_not_judged() {
        assert_eq!(check(br#"["\ud800", 1e400, -0.0E-1]"#, 3), Ok(()));
    }

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_are_read_as_one_at_a_time(
            bytes in prop::collection::vec(prop_oneof![0u8..0x40, 0x50u8..0x60, 0x7eu8..=0xff], 0..40),
            repeated in 0usize..40,
        ) {
            let bytes = [&b"a".repeat(repeated), &bytes[..]].concat();
            let special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
            match bytes.iter().position(special) {
                Some(first) if first < bytes.len() / 8 * 8 => prop_assert_eq!(plain(&bytes), first),
                _ => prop_assert_eq!(plain(&bytes), bytes.len() / 8 * 8),
            }
        }

        #[test]
        fn keys_and_strings_agree_with_serde_json(
            text in r#""([a-f0-9é\t]|\\["\\/bfnrtu0]|\\u[0-9a-fA-F]{4}){0,8}""#, piece in 1usize..40
        ) {
            for text in [format!("[{text}]"), format!("{{{text}:0}}")] {
                let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
                prop_assert_eq!(check(text.as_bytes(), piece).is_ok(), theirs, "{}", text);
            }
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
