//! A logger at the debug level that keeps all records.

use std::sync::{Mutex, PoisonError};

static RECORDED: Mutex<String> = Mutex::new(String::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let line = format!("{} {}\n", record.target(), record.args());
        RECORDED.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
    }

    fn flush(&self) {}
}

/// Begins to record, for all tests of the crate.
pub fn start() {
    // Another test may have begun already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Debug);
}

/// All that was recorded so far.
pub fn recorded() -> String {
    RECORDED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
