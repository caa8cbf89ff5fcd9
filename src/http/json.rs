//! An incremental JSON checker: tells in constant memory whether bytes that arrive in
//! chunks are one JSON text (RFC 8259) in UTF-8.
//!
//! It accepts what `serde_json` parses into a `Value`, and what RFC 8259 leaves open
//! besides: lone surrogates in `\u` escapes (section 8.2) and numbers of any range
//! (section 6) aren't judged.

use std::{borrow::Cow, fmt, mem, str};

/// How many arrays and objects may be open at once. `serde_json`'s recursion limit of
/// 128 is the first depth that it refuses.
const MAX_DEPTH: u32 = 127;

/// Checks a JSON text that arrives in chunks. It mustn't be used after an error.
pub(crate) struct Checker {
    state: State,
    /// A one, then a bit for each array and object that is open, the innermost lowest:
    /// whether it is an object.
    open: u128,
    /// Before a value and in a string: whether that is the name of a member.
    is_name: bool,
    /// A UTF-8 sequence whose end is in the next chunk: three bytes at most.
    partial: Vec<u8>,
    /// The length of what has been checked.
    length: u64,
}

/// Why a text isn't JSON. Offsets count from 0 at the beginning of the text, however it
/// is cut into chunks.
///
/// `Unfinished` is what more bytes could complete. `NotUtf8` is told of strings, where an
/// invalid sequence begins; elsewhere, whatever isn't ASCII is a syntax error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    Empty,
    Unfinished,
    Syntax { at: u64 },
    NotUtf8 { at: u64 },
    TooDeep { at: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty, not JSON"),
            Self::Unfinished => f.write_str("the JSON ends too early"),
            Self::Syntax { at } => write!(f, "not JSON at byte {at}"),
            Self::NotUtf8 { at } => write!(f, "not UTF-8 at byte {at}"),
            Self::TooDeep { at } => write!(f, "the JSON is nested too deeply at byte {at}"),
        }
    }
}

/// Where in the grammar the next byte is.
#[derive(Clone, Copy)]
enum State {
    /// Before a value, or before a name, which is a value that can only be a string.
    Value,
    /// After `[` or `{`: before a value or a name, or the closing bracket.
    First,
    /// After a name: before `:`.
    Colon,
    AfterValue,
    /// In a string.
    Text,
    /// After a backslash in a string.
    Escape,
    /// After `\u`, with this many hexadecimal digits missing.
    Unicode(u8),
    /// In `true`, `false` or `null`, with these bytes missing.
    Literal(&'static [u8]),
    Minus,
    /// After a leading zero, which no digit may follow.
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    ExponentSign,
    Exponent,
}

use State::*;

impl Checker {
    pub(crate) fn new() -> Self {
        Self { state: Value, open: 1, is_name: false, partial: Vec::new(), length: 0 }
    }

    /// Checks the next chunk.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let mut chunk = Cow::Borrowed(chunk);
        if !self.partial.is_empty() {
            chunk = Cow::Owned([&self.partial, &*chunk].concat());
        }
        let not_utf8 = str::from_utf8(&chunk).err();
        let text_end = not_utf8.map_or(chunk.len(), |error| error.valid_up_to());
        let (text, partial) = chunk.split_at(text_end);
        let rest = self.advance(text);
        self.length += (text.len() - rest.len()) as u64;
        self.partial = partial.to_vec();
        let at = self.length;
        match (self.state, rest, not_utf8) {
            (_, [], None) => Ok(()),
            (Text, [], Some(error)) if error.error_len().is_none() => Ok(()),
            (Text, [], Some(_)) => Err(Error::NotUtf8 { at }),
            // Nothing but the depth speaks against it.
            (Value | First, [b'[' | b'{', ..], _) if !self.is_name => Err(Error::TooDeep { at }),
            _ => Err(Error::Syntax { at }),
        }
    }

    /// Checks that the text is complete.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        match self.state {
            _ if self.length == 0 => Err(Error::Empty),
            AfterValue | Zero | Integer | Fraction | Exponent if self.open == 1 => Ok(()),
            _ => Err(Error::Unfinished),
        }
    }

    /// Takes the bytes that the grammar allows, and returns what is left.
    fn advance<'a>(&mut self, mut rest: &'a [u8]) -> &'a [u8] {
        // A local variable is faster than a field.
        let mut state = self.state;
        while let [byte, tail @ ..] = rest {
            let is_digit = byte.is_ascii_digit();
            (state, rest) = match state {
                Text if *byte == b'"' => (self.end_string(), tail),
                Text if *byte == b'\\' => (Escape, tail),
                Text if *byte >= b' ' => (Text, skip_unescaped(tail)),
                Escape if b"\"\\/bfnrt".contains(byte) => (Text, tail),
                Escape if *byte == b'u' => (Unicode(4), tail),
                Unicode(1) if byte.is_ascii_hexdigit() => (Text, tail),
                Unicode(missing) if byte.is_ascii_hexdigit() => (Unicode(missing - 1), tail),
                Literal([last]) if byte == last => (AfterValue, tail),
                Literal([next, missing @ ..]) if byte == next => (Literal(missing), tail),
                Minus if *byte == b'0' => (Zero, tail),
                Zero | Integer if *byte == b'.' => (Point, tail),
                Zero | Integer | Fraction if matches!(byte, b'e' | b'E') => (E, tail),
                E if matches!(byte, b'+' | b'-') => (ExponentSign, tail),
                Minus | Integer if is_digit => (Integer, skip_digits(tail)),
                Point | Fraction if is_digit => (Fraction, skip_digits(tail)),
                E | ExponentSign | Exponent if is_digit => (Exponent, skip_digits(tail)),
                AfterValue | Zero | Integer | Fraction | Exponent => match (byte, self.in_object())
                {
                    (b',', Some(is_object)) => {
                        self.is_name = is_object;
                        (Value, tail)
                    }
                    (b'}', Some(true)) | (b']', Some(false)) => (self.close(), tail),
                    _ if is_blank(*byte) => (AfterValue, skip_while(tail, is_blank)),
                    _ => break,
                },
                Value | First | Colon if is_blank(*byte) => (state, skip_while(tail, is_blank)),
                Colon if *byte == b':' => (Value, tail),
                First if *byte == b'}' && self.is_name => (self.close(), tail),
                First if *byte == b']' && !self.is_name => (self.close(), tail),
                Value | First if *byte == b'"' => (Text, skip_unescaped(tail)),
                Value | First if !self.is_name => match self.value(*byte) {
                    Some(state) => (state, tail),
                    None => break,
                },
                _ => break,
            };
        }
        self.state = state;
        rest
    }

    /// Returns the state after the first byte of a value that is no string.
    fn value(&mut self, byte: u8) -> Option<State> {
        Some(match byte {
            b'-' => Minus,
            b'0' => Zero,
            b'1'..=b'9' => Integer,
            b't' => Literal(b"rue"),
            b'f' => Literal(b"alse"),
            b'n' => Literal(b"ull"),
            b'[' | b'{' if self.open >> MAX_DEPTH == 0 => {
                self.is_name = byte == b'{';
                self.open = self.open << 1 | u128::from(self.is_name);
                First
            }
            _ => return None,
        })
    }

    fn end_string(&mut self) -> State {
        if mem::take(&mut self.is_name) { Colon } else { AfterValue }
    }

    /// Whether the innermost of what is open is an object.
    fn in_object(&self) -> Option<bool> {
        (self.open > 1).then_some(self.open & 1 == 1)
    }

    fn close(&mut self) -> State {
        self.open >>= 1;
        AfterValue
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn skip_digits(bytes: &[u8]) -> &[u8] {
    skip_while(bytes, |byte| byte.is_ascii_digit())
}

fn skip_while(bytes: &[u8], predicate: impl Fn(u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|byte| !predicate(*byte));
    &bytes[end.unwrap_or(bytes.len())..]
}

/// Skips what comes before a quotation mark, a backslash or a control character: most of
/// most texts, and so eight bytes at a time, as words whose lowest byte comes first.
fn skip_unescaped(mut bytes: &[u8]) -> &[u8] {
    const ONES: u64 = u64::MAX / 255;
    // The high bit is set in the lowest byte that is below the limit, and in no lower
    // one. In higher bytes it means nothing.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    while let Some((eight, tail)) = bytes.split_first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let special = below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
        let stops = special & (ONES << 7);
        if stops != 0 {
            return &bytes[stops.trailing_zeros() as usize / 8..];
        }
        bytes = tail;
    }
    skip_while(bytes, |byte| byte >= b' ' && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde::de::IgnoredAny;
    use serde_json::Value;

    fn check(text: &[u8], chunk_size: usize) -> Result<(), Error> {
        let mut checker = Checker::new();
        for chunk in text.chunks(chunk_size) {
            checker.feed(chunk)?;
        }
        checker.finish()
    }

    /// Whether `serde_json` accepts the text. Not as a `Value`, which refuses 1e400 and lone
    /// surrogates: `IgnoredAny` follows the grammar alone. It has no limit of depth.
    fn serde_accepts(text: &[u8]) -> bool {
        str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
    }

    /// Whether by `serde_json` a JSON text can begin with this: whether one of these ends
    /// leads to a text that is good or only too short.
    fn serde_accepts_as_beginning(text: &[u8]) -> bool {
        let ends = ["", "1111", "n", "rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l"];
        // Of a `\u` that ends early `serde_json` doesn't tell a wrong digit: hence the blanks.
        ends.iter().any(|end| {
            let text = [text, end.as_bytes(), b"    "].concat();
            match serde_json::from_slice::<IgnoredAny>(&text) {
                Ok(_) => true,
                Err(error) => error.is_eof(),
            }
        })
    }

    fn nested(depth: usize, pattern: &str) -> Vec<u8> {
        let opening: Vec<u8> = pattern.bytes().cycle().take(depth).collect();
        let mut text = Vec::new();
        for (level, byte) in opening.iter().enumerate() {
            text.push(*byte);
            if *byte == b'{' && level + 1 < depth {
                text.extend(b"\"\":");
            }
        }
        text.extend(opening.iter().rev().map(|byte| byte + 2));
        text
    }

    #[test]
    fn errors_tell_what_is_wrong_and_where_however_the_text_is_cut() {
        let syntax = |at| Error::Syntax { at };
        let not_utf8 = |at| Error::NotUtf8 { at };
        let cases: &[(&[u8], Error)] = &[
            (b"", Error::Empty),
            (b" \n", Error::Unfinished),
            (b"[", Error::Unfinished),
            (b"[1,", Error::Unfinished),
            (b"[1", Error::Unfinished),
            (b"{", Error::Unfinished),
            (b"{\"a\"", Error::Unfinished),
            (b"{\"a\":", Error::Unfinished),
            (b"{\"a\":1,", Error::Unfinished),
            (b"\"a", Error::Unfinished),
            (b"\"\\", Error::Unfinished),
            (b"\"\\u00e", Error::Unfinished),
            (b"\"\xc3", Error::Unfinished),
            (b"-", Error::Unfinished),
            (b"1.", Error::Unfinished),
            (b"1e", Error::Unfinished),
            (b"1e+", Error::Unfinished),
            (b"tru", Error::Unfinished),
            (b"<html>", syntax(0)),
            (b",", syntax(0)),
            (b"]", syntax(0)),
            (b"}", syntax(0)),
            (b"{} {}", syntax(3)),
            (b"1,", syntax(1)),
            (b"1]", syntax(1)),
            (b"1}", syntax(1)),
            (b"[1}", syntax(2)),
            (b"[}", syntax(1)),
            (b"[1,]", syntax(3)),
            (b"[,1]", syntax(1)),
            (b"[1:2]", syntax(2)),
            (b"[[1] 2]", syntax(5)),
            (b"{]", syntax(1)),
            (b"{[", syntax(1)),
            (b"{{", syntax(1)),
            (b"{1:2}", syntax(1)),
            (b"{\"a\"}", syntax(4)),
            (b"{\"a\",1}", syntax(4)),
            (b"{\"a\":}", syntax(5)),
            (b"{\"a\":1]", syntax(6)),
            (b"{\"a\":1,}", syntax(7)),
            (b"{\"a\":1,2:3}", syntax(7)),
            (b"{\"a\":1:", syntax(6)),
            (b"\"\n\"", syntax(1)),
            (b"\"abcdefghij\x1f\"", syntax(11)),
            (b"\"\\x\"", syntax(2)),
            (b"\"\\U0000\"", syntax(2)),
            (b"\"\\\n\"", syntax(2)),
            (b"\"\\ug\"", syntax(3)),
            (b"\"\\u12g4\"", syntax(5)),
            (b"\"\\u123\"", syntax(6)),
            (b"[nul]", syntax(4)),
            (b"nulL", syntax(3)),
            (b"truee", syntax(4)),
            (b"falze", syntax(3)),
            (b"True", syntax(0)),
            (b"01", syntax(1)),
            (b"-01", syntax(2)),
            (b"-a", syntax(1)),
            (b"+1", syntax(0)),
            (b".5", syntax(0)),
            (b"1.e1", syntax(2)),
            (b"1.5.5", syntax(3)),
            (b"1e5.5", syntax(3)),
            (b"1e5e5", syntax(3)),
            (b"1e5+", syntax(3)),
            (b"1e+-5", syntax(3)),
            (b"[1e+]", syntax(4)),
            (b"123456789012345678a", syntax(18)),
            (b"1.5\xa0", syntax(3)),
            (b"1\x0c", syntax(1)),
            (b"\xef\xbb\xbf{}", syntax(0)),
            (b"[\xc3\xa9]", syntax(1)),
            (b"[\xff]", syntax(1)),
            (b"\"\\\xc3\xa9\"", syntax(2)),
            (b"\"\\\xff\"", syntax(2)),
            (b"\"\xc3\xa9\n\xff\"", syntax(3)),
            (b"\"\xff\"", not_utf8(1)),
            (b"\"abcdefghijklm\xff\n\"", not_utf8(14)),
            (b"\"\xc3\"", not_utf8(1)),
            (b"\"\xc3\n\"", not_utf8(1)),
            (b"\"\xe2\x82\"", not_utf8(1)),
            (b"\"\xe2\x82\xac\xf0\x9f\x98x\"", not_utf8(4)),
            (b"{\"\xc0\xaf\":1", not_utf8(2)),
            (b"\"\xed\xa0\x80\"", not_utf8(1)),
            (b"\"\xf4\x90\x80\x80\"", not_utf8(1)),
        ];
        for (text, error) in cases {
            for chunk_size in 1..=20 {
                let result = check(text, chunk_size);
                assert_eq!(result, Err(*error), "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn offsets_count_from_the_beginning_of_the_whole_text() {
        let long = [b"[\"".as_slice(), &b"x".repeat(100_000), b"\",\n 1.5x"].concat();
        let error = Error::Syntax { at: 100_009 };
        for chunk_size in [1, 7, 4096, 65_536, 1 << 20] {
            assert_eq!(check(&long, chunk_size), Err(error));
        }
    }

    #[test]
    fn messages_name_the_offset() {
        for (error, message) in [
            (Error::Empty, "empty, not JSON"),
            (Error::Unfinished, "the JSON ends too early"),
            (Error::Syntax { at: 7 }, "not JSON at byte 7"),
            (Error::NotUtf8 { at: 8 }, "not UTF-8 at byte 8"),
            (Error::TooDeep { at: 9 }, "the JSON is nested too deeply at byte 9"),
        ] {
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn nesting_is_limited_exactly_as_by_serde_json() {
        for pattern in ["[", "{", "[{", "{[", "[[{", "{{[{"] {
            for depth in 1..=200 {
                let text = nested(depth, pattern);
                let theirs = serde_json::from_slice::<Value>(&text).is_ok();
                for chunk_size in [1, 1000] {
                    let ours = check(&text, chunk_size);
                    assert_eq!(ours.is_ok(), theirs, "{depth} {pattern}");
                    assert_eq!(ours.is_ok(), depth <= 127, "{depth} {pattern}");
                }
            }
        }
    }

    #[test]
    fn too_deep_is_told_at_the_bracket_that_is_too_many() {
        for (text, at) in [
            (nested(200, "["), 127),
            (nested(200, "{"), 127 * 4),
            (nested(200, "[{"), 64 + 63 * 4),
            ([&b"[[],{},".repeat(126)[..], b"[{"].concat(), 126 * 7 + 1),
        ] {
            for chunk_size in [1, 3, 1000] {
                assert_eq!(check(&text, chunk_size), Err(Error::TooDeep { at }));
            }
        }
        let misplaced = [&b"[".repeat(127)[..], b"1["].concat();
        assert_eq!(check(&misplaced, 9), Err(Error::Syntax { at: 128 }));
    }

    #[test]
    fn depth_counts_what_is_open_and_not_what_was() {
        let text = format!("[{}[{{\"a\":[]}}]]", "[[]],{\"a\":{}},".repeat(1000));
        assert_eq!(check(text.as_bytes(), 11), Ok(()));
    }

    /// Cases after those of the test suite nst/JSONTestSuite: `y_` must be accepted, `n_`
    /// refused.
    #[test]
    fn what_must_be_accepted_is_and_what_must_be_refused_is() {
        let accepted = [
            "[]",
            "[[]   ]",
            "[\"\"]",
            "[\"a\"]",
            "[false]",
            "[null, 1, \"1\", {}]",
            "[null]",
            "[1\n]",
            " [1]",
            "[1,null,null,null,2]",
            "[2] ",
            "[123e65]",
            "[0e+1]",
            "[0e1]",
            "[ 4]",
            "[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
            "[20e1]",
            "[-0]",
            "[-123]",
            "[-1]",
            "[1E22]",
            "[1E-2]",
            "[1E+2]",
            "[123e45]",
            "[123.456e78]",
            "[1e-2]",
            "[1e+2]",
            "[123]",
            "[123.456789]",
            "{\"a\":\"b\",\"c\":\"d\"}",
            "{\"a\":\"b\"}",
            "{\"a\":\"b\",\"a\":\"c\"}",
            "{\"a\":\"b\",\"a\":\"b\"}",
            "{}",
            "{\"\":0}",
            "{\"a\\u0000b\": 12}",
            "{ \"min\": -1.0e+28, \"max\": 1.0e+28 }",
            "{\"x\":[{\"id\": \"x\"}], \"id\": \"x\"}",
            "{\"a\":[]}",
            "{\n\"a\": \"b\"\n}",
            "[\"\\u0060\\u012a\\u12AB\"]",
            "[\"\\uD801\\udc37\"]",
            "[\"\\ud83d\\ude39\"]",
            "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
            "[\"\\\\u0000\"]",
            "[\"\\\"\"]",
            "[\"a/*b*/c\"]",
            "[\"\\\\a\"]",
            "[\"\\\\n\"]",
            "[\"\\u0012\"]",
            "[\"\\uFFFF\"]",
            "[ \"asd\"]",
            "[\"\u{10ffff}\"]",
            "[\"\u{fdd0}\u{fffe}\u{ffff}\u{feff}\"]",
            "[\"\u{2028}\u{2029}\"]",
            "[\"\u{7f}\"]",
            "[\"π ⍂ é 𝄞\"]",
            "[\"new\\u000Aline\"]",
            "\" \"",
            "[\"\\u005C\\u0022\"]",
            "false",
            "42",
            "-0.1",
            "null",
            "\"asd\"",
            "true",
            "\"\"",
            "[\"a\"]\n",
            "[true]",
            " [] ",
            "\t\n\r [\t\n\r {\t\n\r }\t\n\r ,\t\n\r 1\t\n\r ]\t\n\r ",
        ];
        let refused = [
            "[1 true]",
            "[a",
            "[\"\": 1]",
            "[\"\"],",
            "[,1]",
            "[1,,2]",
            "[\"x\",,]",
            "[\"x\"]]",
            "[\"\",]",
            "[\"x\"",
            "[x",
            "[3[4]]",
            "[1:2]",
            "[,]",
            "[-]",
            "[   , \"\"]",
            "[\"a\",\n4",
            "[1,]",
            "[1,,]",
            "[\"\u{b}a\"\\f]",
            "[*]",
            "[\"\"",
            "[1,\n1\n,1",
            "[{}",
            "[fals]",
            "[nul]",
            "[tru]",
            "[++1234]",
            "[+1]",
            "[+Inf]",
            "[-01]",
            "[-1.0.]",
            "[-2.]",
            "[-NaN]",
            "[.-1]",
            "[.2e-3]",
            "[0.1.2]",
            "[0.3e+]",
            "[0.3e]",
            "[0.e1]",
            "[0E+]",
            "[0E]",
            "[0e+]",
            "[0e]",
            "[1.0e+]",
            "[1.0e-]",
            "[1.0e]",
            "[1 000.0]",
            "[1eE2]",
            "[2.e+3]",
            "[2.e-3]",
            "[2.e3]",
            "[9.e+]",
            "[Inf]",
            "[NaN]",
            "[\u{ff11}]",
            "[1+2]",
            "[0x1]",
            "[0x42]",
            "[Infinity]",
            "[0e+-1]",
            "[-123.123foo]",
            "[-Infinity]",
            "[-foo]",
            "[- 1]",
            "[-012]",
            "[-.123]",
            "[-1x]",
            "[1ea]",
            "[1.]",
            "[.123]",
            "[1.2a-3]",
            "[1.8011670033376514H-308]",
            "[012]",
            "[\"x\", truth]",
            "{[: \"x\"}\n",
            "{\"x\", null}",
            "{\"x\"::\"b\"}",
            "{🇨🇭}",
            "{\"a\":\"a\" 123}",
            "{key: 'value'}",
            "{\"a\" b}",
            "{:\"b\"}",
            "{\"a\" \"b\"}",
            "{\"a\":",
            "{\"a\"",
            "{1:1}",
            "{9999E9999:1}",
            "{null:null,null:null}",
            "{\"id\":0,,,,,}",
            "{'a':0}",
            "{\"id\":0,}",
            "{\"a\":\"b\"}/**/",
            "{\"a\":\"b\"}/",
            "{\"a\":\"b\"}//",
            "{\"a\":\"b\",,\"c\":1}",
            "{a: \"b\"}",
            "{\"a\":\"a",
            "{ \"foo\" : \"bar\", \"a\" }",
            "{\"a\":\"b\"}#",
            " ",
            "",
            "[\"\\uD800\\\"]",
            "[\"\\uD800\\u\"]",
            "[\"\\uD800\\u1\"]",
            "[\"\\uD800\\u1x\"]",
            "[é]",
            "[\"\\x00\"]",
            "[\"\\\\\\\"]",
            "[\"\\\t\"]",
            "[\"\\🌀\"]",
            "[\"\\\"]",
            "[\"\\u00A\"]",
            "[\"\\a\"]",
            "[\"\\uqqqq\"]",
            "[\\u0020\"asd\"]",
            "[\\n]",
            "\"",
            "['single quote']",
            "abc",
            "[\"\\",
            "[\"a\u{0}a\"]",
            "[\"new\nline\"]",
            "[\"\t\"]",
            "\"\\UA66D\"",
            "\"\"x",
            "<.>",
            "[<null>]",
            "[1]x",
            "[1]]",
            "[\"asd]",
            "aå",
            "[True]",
            "1]",
            "{\"x\": true,",
            "[][]",
            "]",
            "{}}",
            "{\"\":",
            "{\"a\":/*comment*/\"b\"}",
            "{\"a\": true} \"x\"",
            "['",
            "[,",
            "[{",
            "[\"a",
            "[\"a\"",
            "{",
            "{]",
            "{,",
            "{[",
            "{\"a",
            "{'a'",
            "*",
            "{\"a\":\"b\"}#{}",
            "[\u{feff}]",
            "\u{feff}",
            "[\u{c}]",
            "[\u{2060}]",
            "[\u{a0}]",
            "å",
            "[1",
            "[ false, nul",
            "[ true, fals",
            "[ false, tru",
            "{\"asd\":\"asd\"",
            "\u{feff}{}",
            "123\u{0}",
            "[1e1.5]",
            "--1",
            "00",
        ];
        for chunk_size in 1..=20 {
            for text in accepted {
                assert_eq!(check(text.as_bytes(), chunk_size), Ok(()), "{text}");
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
            }
            for text in refused {
                assert!(check(text.as_bytes(), chunk_size).is_err(), "{text}");
            }
        }
    }

    /// The suite's `i_` cases, where a parser may decide.
    #[test]
    fn what_rfc_8259_leaves_open_is_decided_like_this() {
        let accepted = [
            "[1e400, -1e400, 0.4e00669999999999999999999999999999999999999999999999999999]",
            "[123.456e-789, 1.5e+9999, -237462374673276894279832749832423479823246327846]",
            "[100000000000000000000, -123123123123123123123123123123]",
            "[\"\\uDADA\", \"\\uD888\\u1234\", \"\\ud800\\n\", \"\\uDd1ea\", \"\\uDFAA\"]",
            "[\"\\uD800\\uD800\\n\", \"\\ud800abc\", \"\\uDd1e\\uD834\"]",
        ];
        let five_hundred_deep = nested(500, "[");
        let refused: &[(&[u8], Error)] = &[
            (&five_hundred_deep, Error::TooDeep { at: 127 }),
            (b"\xef\xbb\xbf{}", Error::Syntax { at: 0 }),
            (b"\xff\xfe[\0\"\0\xe9\0\"\0]\0", Error::Syntax { at: 0 }),
            (b"\0[\0\"\0\xe9\0\"\0]", Error::Syntax { at: 0 }),
            (b"[\"\xe6\x97\xa5\xd1\x88\xfa\"]", Error::NotUtf8 { at: 7 }),
            (b"[\"\xe9\"]", Error::NotUtf8 { at: 2 }),
            (b"[\"\x81\"]", Error::NotUtf8 { at: 2 }),
            (b"[\"\xe0\xff\"]", Error::NotUtf8 { at: 2 }),
            (b"[\"\xed\xa0\x80\"]", Error::NotUtf8 { at: 2 }),
            (b"[\"\xf4\xbf\xbf\xbf\"]", Error::NotUtf8 { at: 2 }),
            (b"[\"\xc0\xaf\"]", Error::NotUtf8 { at: 2 }),
            (b"[\"\xfc\x80\x80\x80\x80\x80\"]", Error::NotUtf8 { at: 2 }),
        ];
        for chunk_size in 1..=20 {
            for text in accepted {
                assert_eq!(check(text.as_bytes(), chunk_size), Ok(()), "{text}");
            }
            for (text, error) in refused {
                let result = check(text, chunk_size);
                assert_eq!(result, Err(*error), "{}", text.escape_ascii());
            }
        }
    }

    /// Compares with `serde_json` every text of at most so many of these parts.
    fn compare_all(parts: &[&str], most: usize, before: &str, after: &str) {
        let mut texts = vec![before.to_owned()];
        let mut longest = 0..1;
        for _ in 0..most {
            for index in longest.clone() {
                let longer = parts.iter().map(|part| format!("{}{part}", texts[index]));
                let longer: Vec<_> = longer.collect();
                texts.extend(longer);
            }
            longest = longest.end..texts.len();
        }
        let mut accepted = 0;
        for text in texts {
            let text = text + after;
            let ours = check(text.as_bytes(), usize::MAX);
            assert_eq!(ours.is_ok(), serde_accepts(text.as_bytes()), "{text}");
            assert_eq!(ours, check(text.as_bytes(), 1), "{text}");
            accepted += usize::from(ours.is_ok());
        }
        assert!(accepted >= 3);
    }

    #[test]
    fn all_short_texts_of_brackets_commas_and_colons_agree_with_serde_json() {
        compare_all(&["[", "]", "{", "}", ",", ":", "\"\"", "1"], 6, "", "");
        compare_all(&["[", "]", "{}", ",", "1", " "], 6, "", "");
        compare_all(&["{", "}", ",", ":", "\"\"", "1"], 6, "{\"\":", "}");
        compare_all(&["[", "]", "{\"\":", "}", ",", "-1", "\n"], 5, "[", "]");
    }

    #[test]
    fn all_short_numbers_agree_with_serde_json() {
        compare_all(&["-", "0", "1", ".", "e", "+"], 6, "", "");
        compare_all(&["-", "0", "1", ".", "E", ",", " "], 5, "[", "]");
    }

    #[test]
    fn all_short_strings_agree_with_serde_json() {
        compare_all(&["\"", "\\", "u", "0", "n", "é"], 6, "\"", "\"");
        compare_all(&["\"", "\\", "\\u00", "0", "aB", "\t", "/"], 5, "{\"", "\":0}");
    }

    #[test]
    fn all_short_literals_agree_with_serde_json() {
        compare_all(&["t", "r", "u", "e", "f", "a", "l", "s", "n"], 5, "", "");
        compare_all(&["true", "false", "null", "n", "e", " ", ","], 5, "[", "]");
    }

    #[test]
    fn every_byte_in_every_place_agrees_with_serde_json() {
        let text =
            "{\"aé\": [\"\\u00e9\\n\u{20ac}\u{1f600}\", -1.5e+7, 0, true, false, null, {}]} ";
        for place in 0..text.len() {
            for byte in 0..=255 {
                let mut text = text.as_bytes().to_vec();
                text[place] = byte;
                compare(&text).unwrap();
            }
        }
    }

    /// Checks the result, that the chunks don't matter, and that a syntax error is told of
    /// the first byte that no JSON text has there.
    fn compare(text: &[u8]) -> Result<(), TestCaseError> {
        let ours = check(text, usize::MAX);
        prop_assert_eq!(ours.is_ok(), serde_accepts(text));
        for chunk_size in 1..=20 {
            prop_assert_eq!(ours, check(text, chunk_size));
        }
        match ours {
            Err(Error::Syntax { at }) => {
                prop_assert!(serde_accepts_as_beginning(&text[..at as usize]));
                prop_assert!(!serde_accepts_as_beginning(&text[..=at as usize]));
            }
            Err(Error::NotUtf8 { at }) => {
                let at = at as usize;
                prop_assert_eq!(str::from_utf8(text).map_err(|error| error.valid_up_to()), Err(at));
                prop_assert!(serde_accepts_as_beginning(&text[..at]));
            }
            _ => {}
        }
        Ok(())
    }

    fn whitespace() -> impl Strategy<Value = String> {
        prop_oneof![3 => Just(String::new()), 1 => "[ \t\n\r]{1,20}"]
    }

    fn string() -> impl Strategy<Value = String> {
        let characters = prop_oneof![
            4 => "[^\"\\\\\\x00-\\x1f]{1,9}",
            2 => "[a-z \\x7f]{1,30}",
            1 => r#"\\["\\/bfnrt]"#,
            1 => r"\\u([0-9abcefABCEF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2}",
            1 => Just(r"\ud83d\uDE00".to_owned()),
        ];
        let parts = prop::collection::vec(characters, 0..6);
        parts.prop_map(|parts| format!("\"{}\"", parts.concat()))
    }

    /// JSON texts; all are valid, and within the limits of `Value`.
    fn json() -> impl Strategy<Value = String> {
        let number = r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,2})?";
        let scalar = prop_oneof![
            3 => number,
            3 => string(),
            1 => prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
        ];
        let value = scalar.prop_recursive(8, 40, 5, |inner| {
            let element = spaced(inner.clone());
            let member = (spaced(string()), spaced(inner))
                .prop_map(|(name, value)| format!("{name}:{value}"));
            prop_oneof![
                container("[", prop::collection::vec(element, 0..5), "]"),
                container("{", prop::collection::vec(member, 0..5), "}"),
            ]
        });
        spaced(value)
    }

    fn spaced(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        (whitespace(), value, whitespace())
            .prop_map(|(before, value, after)| [before, value, after].concat())
    }

    fn container(
        open: &'static str,
        items: impl Strategy<Value = Vec<String>>,
        close: &'static str,
    ) -> impl Strategy<Value = String> {
        (items, whitespace()).prop_map(move |(items, blank)| {
            let inner = if items.is_empty() { blank.clone() } else { items.join(",") };
            [open, &inner, close].concat()
        })
    }

    proptest! {
        #[test]
        fn valid_texts_are_accepted(text in json()) {
            prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
            for chunk_size in (1..=20).chain([usize::MAX]) {
                prop_assert_eq!(check(text.as_bytes(), chunk_size), Ok(()));
            }
        }

        #[test]
        fn a_valid_text_cut_short_is_unfinished_or_valid(text in json(), end in any::<Index>()) {
            let text = &text.as_bytes()[..end.index(text.len())];
            match check(text, 7) {
                Ok(()) => prop_assert!(serde_accepts(text)),
                Err(Error::Empty) => prop_assert!(text.is_empty()),
                Err(error) => {
                    prop_assert_eq!(error, Error::Unfinished);
                    prop_assert!(!serde_accepts(text));
                }
            }
        }

        #[test]
        fn texts_with_one_byte_changed_agree_with_serde_json(
            text in json(),
            place in any::<Index>(),
            byte in prop_oneof![any::<u8>(), prop::sample::select(b"[]{},:\"\\0-.eEu+ t\n".to_vec())],
        ) {
            let place = place.index(text.len());
            let (before, after) = text.as_bytes().split_at(place);
            compare(&[before, &[byte], &after[1..]].concat())?;
            compare(&[before, &[byte], after].concat())?;
            compare(&[before, &after[1..]].concat())?;
        }

        #[test]
        fn eight_bytes_at_a_time_are_skipped_as_one_at_a_time(
            run in "[0-9]{0,40}",
            other in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let bytes = [run.as_bytes(), &other].concat();
            prop_assert_eq!(skip_digits(&bytes), skip_while(&bytes, |byte| byte.is_ascii_digit()));
            let unescaped = |byte: u8| !matches!(byte, 0..0x20 | b'"' | b'\\');
            prop_assert_eq!(skip_unescaped(&bytes), skip_while(&bytes, unescaped));
        }
    }

    #[test]
    fn any_byte_after_any_other_ends_a_run_as_it_should() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let bytes = [b'0', first, second, b'"', first, second, 0, b'9', b'1'];
                let digits = |byte: u8| byte.is_ascii_digit();
                assert_eq!(skip_digits(&bytes), skip_while(&bytes, digits));
                let unescaped = |byte: u8| !matches!(byte, 0..0x20 | b'"' | b'\\');
                assert_eq!(skip_unescaped(&bytes), skip_while(&bytes, unescaped));
            }
        }
    }
}
