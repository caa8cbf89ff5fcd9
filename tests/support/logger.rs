//! A logger at the debug level that keeps what it is told.

use std::sync::{Mutex, PoisonError};

static RECORDED: Mutex<String> = Mutex::new(String::new());

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let line = format!("{} {}\n", record.target(), record.args());
        RECORDED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(&line);
    }

    fn flush(&self) {}
}

/// Begins to record, for all threads of the test binary.
pub fn start() {
    // Another test may have begun already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Debug);
}

/// Everything recorded so far.
pub fn recorded() -> String {
    RECORDED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}
