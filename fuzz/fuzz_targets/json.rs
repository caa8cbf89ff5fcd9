//! The JSON checker agrees with serde_json on text, however it is cut into chunks, and
//! refuses all that isn't text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

#[allow(dead_code)] // The library uses the rest of it.
#[path = "../../src/http/json.rs"]
mod json;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let mut checker = json::Checker::new();
    let mut chunks = bytes.chunks(usize::from(size) + 1);
    let fed = chunks.try_for_each(|chunk| checker.feed(chunk));
    let is_valid = fed.and_then(|()| checker.finish()).is_ok();
    let Ok(text) = std::str::from_utf8(bytes) else {
        return assert!(!is_valid);
    };
    // What serde_json makes a value of is valid. `RawValue` has no limit of depth, but
    // takes, as the checker does, numbers of any range and lone surrogates.
    if serde_json::from_str::<Value>(text).is_ok() {
        assert!(is_valid);
    }
    if is_valid {
        assert!(serde_json::from_str::<&RawValue>(text).is_ok());
    }
});
