//! Stored tokens of any bytes are loaded or refused, and what is loaded can be used.
#![no_main]

use here_datalens::Tokens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokens) = serde_json::from_slice::<Tokens>(bytes) else {
        return;
    };
    let _ = (tokens.issued_at(), tokens.expires_at(), tokens.is_fresh());
    assert!(!format!("{tokens:?}").is_empty());
    let stored = serde_json::to_vec(&tokens).unwrap();
    assert_eq!(serde_json::from_slice::<Tokens>(&stored).unwrap(), tokens);
});
