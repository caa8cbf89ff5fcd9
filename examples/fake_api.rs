//! Leaves a fake API running and prints what to paste into another shell
//! to try `datalens` against it.
//!
//! `cargo run --example fake_api`

#[allow(dead_code)] // The tests use the rest of it.
#[path = "../tests/it/support/fake_api/mod.rs"]
mod fake_api;

use std::thread;

fn main() {
    let server = fake_api::FakeApi::start();
    println!("# Paste this into another shell; Ctrl-C ends the fake API.");
    println!("export HERE_APP_ID={}", quote(fake_api::APP_ID));
    println!("export HERE_APP_CODE={}", quote(fake_api::APP_CODE));
    println!("export DATALENS_BASE_URL={}", quote(&server.base_url()));
    println!("# Without this line the password is asked for:");
    println!("export DATALENS_PASSWORD={}", quote(fake_api::PASSWORD));
    println!("cargo run -- {}", quote(fake_api::EMAIL));
    loop {
        thread::park();
    }
}

/// Quotes for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
