//! The check of an answer agrees with serde_json on text, however it is cut into
//! pieces, and refuses all that is no text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

#[path = "../../src/json.rs"]
mod json;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let mut checker = json::Checker::new();
    let pieces = bytes.chunks(usize::from(size) + 1);
    let fed = pieces.into_iter().try_for_each(|piece| checker.feed(piece));
    let good = fed.and_then(|()| checker.finish()).is_ok();
    let expected = match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str::<IgnoredAny>(text).is_ok(),
        Err(_) => false,
    };
    assert_eq!(good, expected);
});
