//! Leaves a stand-in of the API running and prints what to paste into another shell
//! to try `datalens` against it.
//!
//! `cargo run --example stand_in`

#[allow(dead_code)] // The tests use the rest of it.
#[path = "../tests/support/stand_in.rs"]
mod stand_in;

use std::thread;

fn main() {
    let server = stand_in::StandIn::start();
    println!("# Paste this into another shell; Ctrl-C ends the stand-in.");
    println!("export HERE_APP_ID={}", quote(stand_in::APP_ID));
    println!("export HERE_APP_CODE={}", quote(stand_in::APP_CODE));
    println!("export DATALENS_BASE_URL={}", quote(&server.base_url()));
    println!("# Without this line the password is asked for:");
    println!("export DATALENS_PASSWORD={}", quote(stand_in::PASSWORD));
    println!("cargo run -- {}", quote(stand_in::USER_NAME));
    loop {
        thread::park();
    }
}

/// Quotes for a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
