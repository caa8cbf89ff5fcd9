//! A stored session of any bytes is loaded or refused, and what is loaded can be used.
#![no_main]

use std::time::Duration;

use here_datalens::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(session) = serde_json::from_slice::<Session>(bytes) else {
        return;
    };
    let _ = (session.issued_at(), session.expires_at());
    let _ = session.is_fresh(Duration::MAX);
    assert!(!format!("{session:?}").is_empty());
    let stored = serde_json::to_vec(&session).unwrap();
    assert_eq!(serde_json::from_slice::<Session>(&stored).unwrap(), session);
});
