//! What the tests share.

// Every test binary uses another part of it.
#![allow(dead_code)]

pub mod command;
pub mod logger;
pub mod scripted;
pub mod stand_in;
#[cfg(unix)]
pub mod terminal;
pub mod tls;
