//! What may be shown of a server's own text.

use crate::address::decode;

/// How much of an answer is read for its text: room for what is shown and, after
/// it, for the longest secret with every byte of it escaped (`\u00XX`).
pub(crate) const READ: usize = 64 * 1024;

/// How much of what was read may be shown, so that a secret which reaches beyond it
/// is found whole.
const LOOKED_AT: usize = 4 * 1024;

/// How many characters are shown.
const SHOWN: usize = 200;

/// Returns a short piece of a server's text with nothing in it that could act on a
/// terminal; `None` if there is nothing to show, or if one of `secrets` occurs in it.
pub(crate) fn clean(body: &[u8], secrets: &[&str]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let whole = collapse(&text);
    if holds(&text, secrets) || holds(&whole, secrets) {
        return None;
    }
    let head = String::from_utf8_lossy(&body[..body.len().min(LOOKED_AT)]);
    let shown = collapse(&head);
    let mut characters = shown.chars();
    let mut piece: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() {
        piece.push('…');
    }
    (!piece.is_empty()).then_some(piece)
}

/// Replaces each run of blanks, control characters, and characters that can't be
/// seen or reorder their neighbours, by one blank.
fn collapse(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    let words = text.split(hidden).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a secret occurs in the text: as it is, percent-encoded, JSON-escaped, or
/// one within the other.
pub(crate) fn holds(text: &str, secrets: &[&str]) -> bool {
    let percent = String::from_utf8_lossy(&decode(text)).into_owned();
    let json = unescape(text);
    let both = [
        unescape(&percent),
        String::from_utf8_lossy(&decode(&json)).into_owned(),
    ];
    let plus = percent.replace('+', " ");
    let readings = [text, &percent, &json, &both[0], &both[1], &plus];
    secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .any(|secret| readings.iter().any(|reading| reading.contains(secret)))
}

/// Undoes the escapes of a JSON string wherever they stand.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut characters = after.chars();
        let escape = characters.next();
        rest = characters.as_str();
        match escape {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('r') => plain.push('\r'),
            Some('b') => plain.push('\u{8}'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let (character, length) = code_unit(rest);
                plain.push(character);
                rest = &rest[length..];
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain + rest
}

/// The character behind `\u`, and the length of what stands for it: four digits, or
/// a surrogate pair.
fn code_unit(rest: &str) -> (char, usize) {
    let unit = |at: usize| {
        let digits = rest.get(at..at + 4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(0) else {
        return (char::REPLACEMENT_CHARACTER, 0);
    };
    let second = (rest.get(4..6) == Some("\\u")).then(|| unit(6)).flatten();
    let units = [first, second.unwrap_or_default()];
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => (
            character,
            4 * character.len_utf16() + 2 * (character.len_utf16() - 1),
        ),
        _ => (char::REPLACEMENT_CHARACTER, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{encode, is_unreserved};
    use proptest::prelude::*;

    #[test]
    fn shows_one_short_line() {
        assert_eq!(
            clean(b"\x1b[31m bad\r\n\tkey \x00\x7f", &[]).as_deref(),
            Some("[31m bad key")
        );
        assert_eq!(clean("a\u{202e}b".as_bytes(), &[]).as_deref(), Some("a b"));
        assert_eq!(clean(b" \n ", &[]), None);
        let long = clean("é".repeat(3_000).as_bytes(), &[]).unwrap();
        assert_eq!(long.chars().count(), SHOWN + 1);
    }

    proptest! {
        #[test]
        fn no_secret_survives(
            secret in "[ -~äß😀]{1,20}", before in "[a-z \n\\\\%]{0,300}", after in ".{0,20}", form in 0..4
        ) {
            let json = serde_json::to_string(&secret).unwrap();
            let units: String = secret.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
            let echoed = match form {
                0 => secret.clone(),
                1 => encode(&secret, is_unreserved),
                2 => json[1..json.len() - 1].to_owned(),
                _ => units,
            };
            // An escape that the text before it swallows is another text.
            let before = before.trim_end_matches(['\\', '%']);
            let shown = clean(format!("{before} {echoed} {after}").as_bytes(), &[&secret]);
            prop_assert_eq!(shown, None);
        }
    }
}
