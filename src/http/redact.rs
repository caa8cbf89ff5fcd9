//! Redaction of text from others: which part of an error response, of a proxy's reason
//! or of a certificate may stand in an error, an event or a log line.
//!
//! Two lines of defence, each of which works without the other. What looks like a
//! secret is replaced by `…`, whoever it belongs to. And a text that holds a secret of
//! the call, in any encoding that servers write, isn't shown at all.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::url::{Escape, decode, hex, unescape};

/// How many bytes of a text are searched; of a longer one nothing is shown.
pub(crate) const SCAN_LIMIT: usize = 64 * 1024;

/// How many characters are shown.
const SHOWN_LIMIT: usize = 200;

/// The longest secret, in characters, that counts as found only if it is there whole.
const WHOLE_LIMIT: usize = 16;

/// How many characters in a row of a longer secret give it away.
const FRAGMENT: usize = 12;

/// The shortest run of token characters that is taken for a secret.
const MIN_RUN: usize = 20;

/// The shortest value that is hidden because of its name.
const MIN_NAMED_VALUE: usize = 8;

/// A name that holds one of these words names a secret.
const SECRET_NAMES: [&str; 8] =
    ["token", "pass", "pwd", "secret", "code", "key", "authorization", "cookie"];

/// The texts of a JSON error that may be shown, in order of preference: the usual ones,
/// and those of RFC 6749 (section 5.2) and RFC 9457. As JSON pointers (RFC 6901).
const MESSAGES: [&str; 6] =
    ["/message", "/error_description", "/error", "/error/message", "/title", "/detail"];

/// What a call has to hide from its errors, and what it asked for.
#[derive(Default)]
pub(crate) struct Redactor<'a> {
    /// Empty ones are ignored. Short ones aren't, though nearly every text holds them:
    /// of a call with a password of one letter little is shown.
    pub(crate) secrets: Vec<&'a str>,
    /// The body of the request: its base64 is a secret, too.
    pub(crate) sent_body: &'a [u8],
    /// The path of the resource, whose segments stay readable.
    pub(crate) resource: &'a str,
}

impl Redactor<'_> {
    /// Returns what may be shown of the whole body of an error response: of JSON its
    /// message, of HTML its title, of other text the beginning.
    pub(crate) fn error_excerpt(&self, body: &[u8], content_type: Option<&str>) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        let excerpt = excerpt(&text, content_type)?;
        self.show(self.hide(&excerpt), &excerpt, &text)
    }

    /// Returns what may be shown of a short text that comes from elsewhere.
    pub(crate) fn line(&self, text: &str) -> Option<String> {
        self.show(self.hide(text), text, text)
    }

    /// Returns what may be shown of a URL's path, or of an origin, from elsewhere: segment by
    /// segment, as a run of token characters may hold slashes.
    pub(crate) fn path(&self, path: &str) -> Option<String> {
        let segments = path.split('/').map(|segment| self.hide(segment));
        self.show(segments.collect::<Vec<_>>().join("/"), path, path)
    }

    /// The first line of defence.
    fn hide(&self, text: &str) -> String {
        self.hide_runs(&hide_named_values(&sanitize(text)))
    }

    /// The second line of defence, for a line out of an excerpt of the source.
    fn show(&self, mut line: String, excerpt: &str, source: &str) -> Option<String> {
        if source.len() > SCAN_LIMIT || self.contains_secret([excerpt, source]) {
            return None;
        }
        if let Some((end, _)) = line.char_indices().nth(SHOWN_LIMIT) {
            line.replace_range(end.., "…");
        }
        (!line.is_empty()).then_some(line)
    }

    /// Replaces what looks like a token or an id, unless it is a path of the resource.
    fn hide_runs(&self, line: &str) -> String {
        let segments: HashSet<&str> = self.resource.split('/').filter(|s| !s.is_empty()).collect();
        let is_secret = |run: &str| {
            let unknown = run.split(['/', '=']).filter(|part| !segments.contains(part));
            let unknown = unknown.collect::<Vec<_>>().join("/");
            unknown.len() >= MIN_RUN && unknown.contains(|c: char| c.is_ascii_digit())
        };
        let is_token = |c: &char| c.is_ascii_alphanumeric() || "_+/=-".contains(*c);
        let characters: Vec<char> = line.chars().collect();
        let runs = characters.chunk_by(|a, b| is_token(a) == is_token(b)).map(String::from_iter);
        runs.map(|run| if is_secret(&run) { "…".to_owned() } else { run }).collect()
    }

    /// Searches texts for the secrets, without regard to case, to whitespace and to
    /// characters that can't be seen.
    fn contains_secret(&self, texts: [&str; 2]) -> bool {
        let base64 = base64(self.sent_body);
        let base64_url = base64.replace('+', "-").replace('/', "_");
        let secrets = self.secrets.iter().copied().chain([&*base64, &base64_url]);
        let fragments: HashSet<Vec<u8>> = secrets.flat_map(fragments).collect();
        let lengths: BTreeSet<usize> = fragments.iter().map(Vec::len).collect();
        readings(texts).iter().any(|reading| {
            let mut windows = lengths.iter().flat_map(|l| reading.as_bytes().windows(*l));
            windows.any(|window| fragments.contains(window))
        })
    }
}

/// Returns what gives a secret away, folded: a short one as a whole.
fn fragments(secret: &str) -> Vec<Vec<u8>> {
    // A run of whitespace counts as one character, as it would be shown.
    let characters: Vec<char> = sanitize(secret).chars().collect();
    let is_long = characters.len() > WHOLE_LIMIT;
    let length = if is_long { FRAGMENT } else { characters.len().max(1) };
    characters.windows(length).map(|w| fold(w.iter().copied()).into_bytes()).collect()
}

/// Replaces each run of blanks, control characters, and characters that can't be seen
/// or reorder their neighbours by one blank, so that nothing acts on a terminal.
pub(crate) fn sanitize(text: &str) -> String {
    let words = text.split(is_invisible).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a character is a blank, a control character, or one of Unicode's controls of
/// formatting: bidirectional, of no width, variation selectors, annotations, tags.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Chooses the part of a body that is meant for people. The content type is a hint:
/// gateways answer for an API under any type.
fn excerpt(body: &str, content_type: Option<&str>) -> Option<String> {
    let body = body.trim_matches(is_invisible);
    if let Ok(json) = serde_json::from_str::<Value>(body) {
        let mut texts = MESSAGES.iter().filter_map(|pointer| json.pointer(pointer)?.as_str());
        return texts.find(|text| !text.trim().is_empty()).map(str::to_owned);
    }
    // What was meant as an object or an array. A log line may begin with a bracket as well.
    let inner = body.trim_start_matches(|c: char| c == '[' || c.is_whitespace());
    if body.starts_with(['{', '[']) && inner.starts_with(['{', '"']) {
        return None;
    }
    let lower = body.to_ascii_lowercase();
    let declares_html = content_type.is_some_and(|t| t.to_ascii_lowercase().contains("html"));
    let tags = ["<!doctype html", "<html", "<head", "<title", "<body"];
    if declares_html || tags.iter().any(|tag| lower.contains(tag)) {
        let tag = lower.find("<title")?;
        let start = tag + lower[tag..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        return Some(lossy(unescape(&body[start..end], '&', character_reference)));
    }
    Some(body.to_owned())
}

/// Replaces values that the text itself names as secret: `name=value`, `name: value`.
fn hide_named_values(line: &str) -> String {
    let mut hidden = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['=', ':']) {
        let name = rest[..at].trim_end_matches([' ', '"', '\'', '\\']);
        let name = name.rsplit(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).next();
        let name = name.unwrap_or_default().to_lowercase();
        let value = rest[at..].trim_start_matches(['=', ':', '>', ' ', '\\', '"', '\'']);
        hidden += &rest[..rest.len() - value.len()];
        rest = value;
        let is_secret = SECRET_NAMES.iter().any(|word| name.contains(word));
        if is_secret && let Some(end) = value_end(value, hidden.chars().next_back(), &name) {
            hidden.push('…');
            rest = &value[end..];
        }
    }
    hidden + rest
}

/// Returns where the value at the beginning of a text ends, unless it is too short to be
/// hidden: at the quote that it began with, at a blank or a quote, or with the text.
fn value_end(text: &str, before: Option<char>, name: &str) -> Option<usize> {
    let end = match before {
        Some(quote @ ('"' | '\'')) => {
            text.match_indices(quote).map(|(at, _)| at).find(|at| !text[..*at].ends_with('\\'))
        }
        // A scheme and its credentials (RFC 9110, section 11.4), or several cookies.
        _ if name.contains("authorization") || name.contains("cookie") => None,
        _ => text.find([' ', '"']),
    };
    let end = end.unwrap_or(text.len());
    (text[..end].chars().count() >= MIN_NAMED_VALUE).then_some(end)
}

/// Maps characters that differ in case alone to the same ones, invisible ones to none.
fn fold(characters: impl IntoIterator<Item = char>) -> String {
    let visible = characters.into_iter().filter(|c| !is_invisible(*c));
    visible.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Returns the texts as they are, and all that they can be decoded to in two steps,
/// folded.
fn readings(texts: [&str; 2]) -> HashSet<String> {
    let mut readings = HashSet::from(texts.map(str::to_owned));
    // A line may have been broken within an escape.
    readings.extend(texts.map(|text| text.replace(is_invisible, "")));
    for _ in 0..2 {
        let decoded: Vec<_> = readings.iter().flat_map(|text| decode_all(text)).collect();
        readings.extend(decoded);
    }
    readings.iter().map(|text| fold(text.chars())).collect()
}

/// Decodes a text as a URL, a form, a string of a program, and HTML.
fn decode_all(text: &str) -> [String; 4] {
    let (url, form) = (decode(text), decode(&text.replace('+', " ")));
    let string = unescape(text, '\\', backslash_escape);
    [url, form, string, unescape(text, '&', character_reference)].map(lossy)
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Decodes an escape of JSON, JavaScript and Python strings.
fn backslash_escape(text: &str) -> Option<Escape> {
    match text.chars().next()? {
        'b' | 'f' | 'n' | 'r' | 't' => Some((b" ".into(), 1)),
        'x' => Some((vec![hex(text, 1..3)? as u8], 3)),
        'u' => {
            // Of a surrogate pair the second half follows, after a `\u` of its own.
            let units = [hex(text, 1..5)?, hex(text, 7..11).unwrap_or(0)];
            let character = char::decode_utf16(units).next()?.ok()?;
            Some((character.to_string().into(), 6 * character.len_utf16() - 1))
        }
        other => Some((other.to_string().into(), other.len_utf8())),
    }
}

/// Decodes one of HTML's numeric and named character references.
fn character_reference(text: &str) -> Option<Escape> {
    let end = text.bytes().take(12).position(|b| b == b';')?;
    let name = &text[..end];
    let character = if let Some(number) = name.strip_prefix('#') {
        let hex = number.strip_prefix(['x', 'X']);
        let (digits, radix) = hex.map_or((number, 10), |digits| (digits, 16));
        char::from_u32(u32::from_str_radix(digits, radix).ok()?)?.to_string()
    } else {
        let mut entities = ENTITIES.split(' ').filter_map(|entity| entity.split_once('='));
        entities.find(|(entity, _)| *entity == name)?.1.to_owned()
    };
    Some((character.into(), end + 1))
}

/// HTML's names for the punctuation of ASCII, and a few more that are common in Europe.
const ENTITIES: &str = "quot=\" amp=& apos=' lt=< gt=> excl=! num=# dollar=$ percnt=% lpar=( \
    rpar=) ast=* plus=+ comma=, period=. sol=/ colon=: semi=; equals== quest=? commat=@ lsqb=[ \
    lbrack=[ bsol=\\ rsqb=] rbrack=] Hat=^ lowbar=_ grave=` lcub={ lbrace={ vert=| verbar=| \
    rcub=} rbrace=} nbsp=\u{a0} ndash=– mdash=— auml=ä ouml=ö uuml=ü Auml=Ä Ouml=Ö Uuml=Ü szlig=ß";

/// RFC 4648, section 4, without padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encode_group = |chunk: &[u8]| {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        (0..=chunk.len()).map(move |n| char::from(ALPHABET[(bits >> (18 - 6 * n)) as usize & 63]))
    };
    bytes.chunks(3).flat_map(encode_group).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::iter;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::http::url::{UNRESERVED, encode};

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const OTHER_ID: &str = "fedcba9876543210fedcba9876543210";

    fn show(body: &str, content_type: Option<&str>) -> Option<String> {
        Redactor::default().error_excerpt(body.as_bytes(), content_type)
    }

    fn line(text: &str) -> String {
        Redactor::default().line(text).unwrap_or_default()
    }

    /// A redactor of one secret.
    fn hiding(secret: &str) -> Redactor<'_> {
        Redactor { secrets: vec![secret], ..Redactor::default() }
    }

    #[test]
    fn of_json_only_the_message_is_shown() {
        for (body, shown) in [
            (r#"{"message":"a","error":"b","x":"y"}"#, Some("a")),
            (r#"{"error":"b","error_description":"c"}"#, Some("c")),
            (r#"{"title":"t","error":{"message":"m","x":"y"}}"#, Some("m")),
            (r#"{"error":{"code":7},"title":"t","detail":"d"}"#, Some("t")),
            (r#"{"message":null,"error":17,"detail":"d"}"#, Some("d")),
            (r#"{"message":" ","detail":"d"}"#, Some("d")),
            ("\u{feff} {\"message\":\"a\\u0007\\nb\"}\n", Some("a b")),
            (r#"{"x":"y"}"#, None),
            (r#"{"error":{"error":"x"}}"#, None),
            (r#"["x"]"#, None),
            (r#""x""#, None),
            ("{}", None),
            ("17", None),
            // What can't be parsed has no message either.
            (r#"{"x":"y","message":"a""#, None),
            (r#"{"x":"y"} {"message":"a"}"#, None),
            (r#"[{"x":"y"}"#, None),
            (r#"[ "x", "y""#, None),
            (r#"{"x":"<title>y</title>""#, None),
        ] {
            for content_type in [None, Some("application/json"), Some("text/html")] {
                assert_eq!(show(body, content_type).as_deref(), shown, "{body}");
            }
        }
    }

    #[test]
    fn of_html_only_the_title_is_shown() {
        for (body, shown) in [
            (
                "<!DOCTYPE html><html><head><TITLE a=b>\n502 Bad &amp; &#x42;&#97;d &mdash; \
                 gr&uuml;n</Title></head><body>x</body></html>",
                Some("502 Bad & Bad — grün"),
            ),
            ("<title>a</title><title>b</title>", Some("a")),
            ("error: <html>x", None),
            ("<BODY>x</BODY>", None),
            ("<html><title>x", None),
            ("<html><title></title>x", None),
        ] {
            for content_type in [None, Some("application/json"), Some("Text/HTML; charset=x")] {
                assert_eq!(show(body, content_type).as_deref(), shown, "{body}");
            }
        }
        assert_eq!(show("<p>x</p>", Some("text/html")), None);
    }

    #[test]
    fn of_other_text_one_short_line_is_shown() {
        for (text, shown) in [
            ("\x1b[31m bad\r\n\tkey \x00\x7f", "[31m bad key"),
            ("[error] no space left", "[error] no space left"),
            ("a\u{202e}b\u{2028}c\u{200b}d\u{e0041}e\u{fe0f}f\u{85}g", "a b c d e f g"),
            ("zwölf 分 😀", "zwölf 分 😀"),
            ("<error>x</error>", "<error>x</error>"),
        ] {
            assert_eq!(show(text, Some("application/json")).as_deref(), Some(shown));
            assert_eq!(line(text), shown);
        }
        assert_eq!(show(" \n\u{200b} ", None), None);
        assert_eq!(line(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(line(&"é".repeat(201)), "é".repeat(200) + "…");
    }

    #[test]
    fn of_a_long_text_nothing_is_shown() {
        let redactor = Redactor::default();
        let long = "a ".repeat(SCAN_LIMIT / 2);
        assert!(show(&long, None).is_some() && redactor.line(&long).is_some());
        let longer = long + "a";
        assert!(show(&longer, None).is_none() && redactor.line(&longer).is_none());
    }

    #[test]
    fn what_looks_like_a_token_is_hidden() {
        let redactor = Redactor {
            resource: "queries/0123456789abcdef0123456789abcdef/data/",
            ..Redactor::default()
        };
        for (text, shown) in [
            ("bad abcdefghij1234567890.", "bad …."),
            ("bad abcdefghij123456789", "bad abcdefghij123456789"),
            ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
            ("(AbCdEfGh+/_-1234567==)", "(…)"),
            ("x=fedcba9876543210fedcba", "…"),
            ("abcdefghij12345678==", "…"),
            (&format!("no {OTHER_ID}!"), "no …!"),
            (&format!("no {ID}!"), &format!("no {ID}!")),
            (&format!("/v1/queries/{ID}/data"), &format!("/v1/queries/{ID}/data")),
            (&format!("id={ID}"), &format!("id={ID}")),
            (&format!("{ID}0"), "…"),
            (&format!("{ID}/{OTHER_ID}"), "…"),
            ("2026-11-25T10:00:00Z", "2026-11-25T10:00:00Z"),
            ("https://datalens.api.here.com/v1/x", "https://datalens.api.here.com/v1/x"),
        ] {
            assert_eq!(redactor.line(text).as_deref(), Some(shown));
        }
    }

    #[test]
    fn values_that_are_named_as_secret_are_hidden() {
        for (text, shown) in [
            ("access_token=abcdefgh", "access_token=…"),
            ("no: Token : abcdefgh is old", "no: Token : … is old"),
            ("app code:abcdefgh", "app code:…"),
            ("key_id=abcdefgh", "key_id=…"),
            ("/x?app_id=abcdefghi&app_code=ab.cd,ef&x=y", "/x?app_id=abcdefghi&app_code=…"),
            (r#"got "password":"a b c d e", "x":"y z""#, r#"got "password":"…", "x":"y z""#),
            (r#"{'secret': 'ab"cd ef\'gh'}"#, "{'secret': '…'}"),
            (r#"{\"secret\":\"ab\\\"cd ef\",\"x\""#, r#"{\"secret\":\"…"#),
            (r#"secret="abcdefgh ijk"#, r#"secret="…"#),
            ("apiKey => 'abcdefgh'", "apiKey => '…'"),
            ("Authorization: Bearer xyz", "Authorization: …"),
            ("X-AUTHORIZATION: basic xyzxyz failed", "X-AUTHORIZATION: …"),
            ("Authorization: Digest username=\"me\", response=\"ab.cd\"", "Authorization: …"),
            ("Cookie: a=b; c=d, e=f g", "Cookie: …"),
            ("my pwd=abcdefgh, passwd: abcdefgh", "my pwd=… passwd: …"),
            ("secret: key: abcdefgh", "secret: key: …"),
            ("password=a&key=abcdefgh", "password=…"),
            ("error_code: NO_SUCH_THING", "error_code: …"),
            // Short, or harmless.
            ("token: abcdefg", "token: abcdefg"),
            ("error code 404", "error code 404"),
            ("code: 404, reason: something", "code: 404, reason: something"),
            ("the token abcdefgh expired", "the token abcdefgh expired"),
            ("reason: abcdefgh", "reason: abcdefgh"),
            ("no code, reason: abcdefgh", "no code, reason: abcdefgh"),
            ("password:", "password:"),
            ("token=\"", "token=\""),
        ] {
            assert_eq!(line(text), shown);
        }
    }

    #[test]
    fn of_a_path_only_what_looks_like_a_token_is_hidden() {
        for (path, shown) in [
            ("/v2/datalens/sign_in/", "/v2/datalens/sign_in/"),
            ("/auth/realms/datalens-v1/login", "/auth/realms/datalens-v1/login"),
            ("https://login-1.example.com:8443", "https://login-1.example.com:8443"),
            ("/reset/abcdefghij1234567890/x", "/reset/…/x"),
            ("/x/token=abcdefgh/y", "/x/token=…/y"),
        ] {
            assert_eq!(Redactor::default().path(path).as_deref(), Some(shown));
        }
        assert_eq!(hiding("hunter/22").path("/x/hunter%2f22"), None);
    }

    #[test]
    fn a_secret_in_the_rest_of_a_body_hides_the_message() {
        let redactor = hiding("hunter22");
        for (body, shown) in [
            (r#"{"message":"a","x":"Hunter\u0032\u0032"}"#, None),
            ("<title>a</title>hunt\ner22", None),
            (&format!("a{}hunter22", " a".repeat(3000)), None),
            (r#"{"message":"a","x":"hunter2"}"#, Some("a")),
        ] {
            let excerpt = redactor.error_excerpt(body.as_bytes(), None);
            assert_eq!(excerpt.as_deref(), shown, "{body}");
        }
    }

    #[test]
    fn secrets_are_searched_whole_or_in_fragments() {
        for (secret, text, is_shown) in [
            ("abcdefghijklmnop", "abcdefghijklmno", true),
            ("abcdefghijklmnop", "ABCDEFGH IJKL MNOP", false),
            ("abcdefghijklmnopq", "x fghijklmnop x", true),
            ("abcdefghijklmnopq", "x fghijklmnopq x", false),
            ("correct horse battery", "orrect horse", false),
            ("correct horse battery", "orrecthorse", false),
            ("correct horse battery", "orrect hors", true),
            ("Stra\u{df}e", "STRASSE", false),
            ("a", "banana", false),
            ("a", "once", true),
            ("", "once", true),
            (" \u{200b} ", "once or twice", true),
            ("abcdef            ghijkl", "of course", true),
            ("hunter22", "hunt\u{200b}er\u{202e}2\n2", false),
        ] {
            assert_eq!(hiding(secret).line(text).is_some(), is_shown, "{secret}: {text}");
        }
    }

    #[test]
    fn base64_of_the_sent_body_is_a_secret() {
        let redactor = Redactor {
            sent_body: b"{\"a\":\"???>>>~~~\"}", // eyJhIjoiPz8/Pj4+fn5+In0
            ..Redactor::default()
        };
        for (text, is_shown) in [
            ("eyJhIjoiPz8", true),
            ("eyJhIjoiPz8/Pj4+fn5+In0=", false),
            ("x Pz8/Pj4+fn5+ x", false),
            ("x Pz8_Pj4-fn5- x", false),
            ("Pz8%2FPj4%2bfn5%2B", false),
            ("Pz8\\/Pj4&#43;fn5&plus;", false),
        ] {
            assert_eq!(redactor.line(text).is_some(), is_shown, "{text}");
        }
    }

    #[test]
    fn every_form_is_decoded() {
        for (encoded, secret) in [
            ("p%c3%A4ss%20w", "päss w"),
            ("p%C3%A4ss+w", "päss w"),
            ("p%\n41\r\nss", "pAss"),
            ("100% ab%2526cd", "ab&cd"),
            (r"p\u00e4ss\ud83d\ude00\/\\\x21\xc3\xa4", "päss😀/\\!ä"),
            ("&quot;&amp;&apos;&lt;&gt;&excl;&equals;&rcub;&nbsp;&szlig;", "\"&'<>!=}ß"),
            ("&#228;&#xE4;&#0000033;&#X21;", "ää!!"),
            ("x&amp;auml;", "xä"),
            ("x%26%2333%3B", "x!"),
            ("x&#92;u0041", "xA"),
            ("x%255Cu0041", "x\\u0041"),
        ] {
            assert_eq!(hiding(secret).line(encoded), None, "{encoded}");
        }
        // What is no escape stands for itself.
        for text in ["100% &x; &#x110000; &; \\u12 \\xü %ü &", "\\", "&#", "%", "\\ud800x"] {
            assert_eq!(line(text), text);
        }
    }

    #[test]
    fn all_punctuation_of_ascii_that_has_a_name_in_html_is_known_by_it() {
        // The hyphen and the tilde have none.
        for c in ('!'..='~').filter(|c| c.is_ascii_punctuation() && !"-~".contains(*c)) {
            assert!(ENTITIES.split(' ').any(|entity| entity.ends_with(&format!("={c}"))), "{c}");
        }
        for entity in ENTITIES.split(' ') {
            let (name, character) = entity.split_once('=').unwrap();
            let decoded = unescape(&format!("&{name};"), '&', character_reference);
            assert_eq!(lossy(decoded), character);
        }
    }

    #[test]
    fn a_long_search_takes_little_time() {
        let token = |seed: u64| -> String {
            let numbers = iter::successors(Some(seed), |n| {
                Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
            });
            let characters = numbers.map(|n| char::from(b"abcdefghijklmnop"[(n >> 60) as usize]));
            characters.take(8 * 1024).collect()
        };
        let (access_token, refresh_token) = (token(1), token(2));
        let sent_body = access_token.clone() + &refresh_token;
        let redactor = Redactor {
            secrets: vec!["password", "app code", "proxy", &access_token, &refresh_token],
            sent_body: sent_body.as_bytes(),
            resource: &"a/1/".repeat(1024),
        };
        for unit in [
            "token:\"a",
            "code=a ",
            "\\\"",
            "\\",
            "&amp;",
            "&#37;41 ",
            "%2525+",
            "/1",
            "{\"a\":",
            "Key:'\\",
            "cookie:a; ",
            "a; ",
            "<title",
            "abcdefgh",
            "%41&lt;\\u0041+ ",
            "\u{200b}",
        ] {
            let text = format!("cookie:{}", unit.repeat((SCAN_LIMIT - 7) / unit.len()));
            let start = Instant::now();
            redactor.error_excerpt(text.as_bytes(), None);
            // Tens of milliseconds when optimised; minutes if it were quadratic.
            assert!(start.elapsed() < Duration::from_secs(10), "{unit}");
        }
    }

    /// Writes a text as servers do.
    fn write(text: &str, form: usize) -> String {
        let json = || {
            let json = serde_json::to_string(text).unwrap();
            json[1..json.len() - 1].to_owned()
        };
        match form {
            0 => text.to_owned(),
            1 => encode(text, UNRESERVED),
            2 => encode(text, UNRESERVED).to_lowercase(),
            3 => encode(text, b"-._~ ").replace(' ', "+"),
            4 => json(),
            5 => json().replace('/', "\\/"),
            6 => text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect(),
            7 => text.bytes().map(|b| format!("\\x{b:02x}")).collect(),
            8 => text.chars().map(|c| format!("&#{};", u32::from(c))).collect(),
            9 => text.chars().map(|c| format!("&#x{:X};", u32::from(c))).collect(),
            10 => {
                let escaped = text.replace('&', "&amp;").replace('"', "&quot;");
                escaped.replace('<', "&lt;").replace('>', "&gt;").replace('ä', "&auml;")
            }
            _ => text
                .chars()
                .flat_map(|c| c.is_ascii_punctuation().then_some('\\').into_iter().chain([c]))
                .collect(),
        }
    }
    const FORMS: usize = 12;

    /// Puts a text where a body may hold it; all of it would be shown.
    fn place(text: &str, place: usize) -> String {
        match place {
            0 => text.to_owned(),
            1 => serde_json::json!({ "message": text }).to_string(),
            2 => serde_json::json!({ "error": { "message": text }, "x": 1 }).to_string(),
            _ => format!("<html><title>{}</title></html>", write(text, 10)),
        }
    }

    /// Letters that no token has to hold a digit for: the first line hides none of it.
    fn secret() -> impl Strategy<Value = String> {
        prop_oneof![
            "[!-~]{4,16}",
            "[ -~äß😀]{4,40}",
            "[A-Za-z_+/-]{17,60}",
            "[A-Za-z]{17,60}[=]{0,2}"
        ]
    }

    /// All that gives a secret away in what is shown.
    fn gives_away(shown: &str, secret: &str) -> bool {
        let characters: Vec<char> = sanitize(secret).to_lowercase().chars().collect();
        let length = characters.len().min(if characters.len() > WHOLE_LIMIT {
            FRAGMENT
        } else {
            WHOLE_LIMIT
        });
        let shown = shown.to_lowercase();
        let mut fragments = characters.windows(length.max(1));
        fragments.any(|f| shown.contains(&f.iter().collect::<String>()))
    }

    #[test]
    fn no_secret_is_shown_in_any_form() {
        let (shown_without, all) = (Cell::new(0), Cell::new(0));
        let strategy = (
            secret(),
            "[a-z \n.]{0,60}",
            "[a-z .,]{0,20}",
            0..FORMS,
            0..FORMS,
            0..4usize,
            any::<u64>(),
        );
        let config =
            ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let result = runner.run(&strategy, |(secret, before, after, inner, outer, at, cut)| {
            prop_assume!(sanitize(&secret).chars().count() > 3);
            let redactor = hiding(&secret);
            // A fragment, if it is long.
            let characters: Vec<char> = secret.chars().collect();
            let start = cut as usize % (characters.len().saturating_sub(24).max(1));
            let fragment: String = match characters.len() {
                ..=40 => secret.clone(),
                _ => characters[start..start + 24].iter().collect(),
            };
            let text = |secret: &str| {
                place(&format!("{before} {} {after}.", write(&write(secret, inner), outer)), at)
            };
            let shown = |body: String| redactor.error_excerpt(body.as_bytes(), None);
            prop_assert_eq!(shown(text(&fragment)), None, "{}", text(&fragment));
            // Another text of its kind isn't left out for nothing.
            all.set(all.get() + 1);
            let other = shown(text("ok"));
            prop_assert!(other.as_ref().is_none_or(|other| !gives_away(other, &secret)));
            shown_without.set(shown_without.get() + usize::from(other.is_some()));
            Ok(())
        });
        result.unwrap();
        assert!(shown_without.get() * 10 > all.get() * 9, "{shown_without:?} of {all:?}");
    }

    proptest! {
        #[test]
        fn a_secret_that_nobody_knows_is_hidden_and_the_asked_id_is_not(
            token in "[A-Za-z0-9_+/=-]{10,40}[0-9][A-Za-z0-9_+/=-]{10,40}",
            named in "[A-Za-z!#$%&()*+./?@^_~]{8,30}",
            name in "(access_|app |X-)?(token|PassWord|secret|code|Key|pwd)( ?[=:] ?)",
            before in "[a-z ]{0,20}", id in "[0-9a-f]{32}", other in "[0-9][0-9a-f]{31}", at in 0..4usize,
        ) {
            let resource = format!("queries/{id}/data");
            let redactor = Redactor { resource: &resource, ..Redactor::default() };
            let show = |text: &str| redactor.error_excerpt(place(text, at).as_bytes(), None).unwrap();
            let shown = show(&format!("{before} '{token}' {other} {id} {name}{named} end"));
            prop_assert!(!shown.contains(&token) && !shown.contains(&other) && !shown.contains(&named), "{}", shown);
            prop_assert!(shown.contains(&id) && shown.ends_with(" end"), "{}", shown);
            prop_assert!(!gives_away(&shown, &token), "{}", shown);
        }

        #[test]
        fn no_bytes_panic_and_nothing_acts_on_a_terminal(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                "(token|:|=|\"|'|\\\\|&#?x?|;|%|u[0-9a-f]{4}|ä|😀|…|<title|>|</title|\\{|\\[|.){0,60}".prop_map(String::into_bytes),
            ],
            secret in ".{0,20}", resource in ".{0,20}",
        ) {
            let redactor = Redactor { secrets: vec![&secret], sent_body: &bytes, resource: &resource };
            for excerpt in [redactor.error_excerpt(&bytes, None), redactor.line(&String::from_utf8_lossy(&bytes))] {
                let excerpt = excerpt.unwrap_or_default();
                prop_assert!(excerpt.chars().count() <= SHOWN_LIMIT + 1);
                prop_assert!(!excerpt.contains(|c| c != ' ' && is_invisible(c)));
            }
        }
    }
}
