//! What the tests share; the benchmark uses some of it as well.

// Not everything is used without the command, or by the benchmark.
#![allow(dead_code)]

pub mod client;
#[cfg(feature = "cli")]
pub mod command;
pub mod fake_api;
pub mod files;
#[cfg(feature = "cli")]
pub mod fixture;
pub mod logger;
pub mod mounts;
pub mod process;
#[cfg(feature = "cli")]
pub mod terminal;
pub mod tls;

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// No program serves the port tcpmux.
pub const CLOSED_PORT: &str = "http://127.0.0.1:1";

/// Makes a temporary file with this content.
pub fn temporary_file(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(content.as_ref()).expect("it can be written");
    file
}

/// Compresses with gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Whether a program is installed. If it isn't, a message says that a test is skipped.
pub fn require(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", program]);
    let found = command.stdout(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    skip(&format!("{program} isn't installed"));
    false
}

/// Says that a test is skipped, so that nobody takes it for passed.
pub fn skip(reason: &str) {
    let name = thread::current();
    let name = name.name().unwrap_or_default();
    // Not by a macro, whose output a test that passes doesn't show.
    let _ = writeln!(io::stderr(), "{name}: skipped: {reason}");
}

/// Longer than anything takes that is waited for: reached only by a test that fails.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Waits until a condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        // Between two looks, not in place of one.
        thread::sleep(Duration::from_millis(1));
    }
}
