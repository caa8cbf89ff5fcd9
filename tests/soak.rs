//! Long runs against a server that fails at random: `cargo test --test soak -- --ignored`.
#![cfg(target_os = "linux")]

#[allow(dead_code)] // The other tests use the rest of it.
#[path = "it/support/fake_api/mod.rs"]
mod fake_api;

use std::fs;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fake_api::http::{json_response, read_request, response};
use fake_api::scripted_server::ScriptedServer;
use here_datalens::{AccessToken, Client, Credentials, Error, Session, Tokens};

/// Numbers that look random and are the same in each run (Knuth's MMIX generator).
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let step = |n: u64| n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| Some(step(n)));
        (last.unwrap_or_else(|n| n) >> 33) % sides
    }
}

static DICE: Dice = Dice(AtomicU64::new(2026));

/// Responds well most of the time.
fn serve(stream: &TcpStream) {
    let mut requests = BufReader::new(stream);
    while let Ok(Some(_)) = read_request(&mut requests) {
        let good = json_response("200 OK", r#"{"datasets":[1,2,3]}"#);
        let (bytes, keep) = match DICE.roll(20) {
            0 => (json_response("503 Service Unavailable", "{}"), true),
            1 => (json_response("401 Unauthorized", "{}"), true),
            2 => (response("200 OK", &["Content-Encoding: gzip"], b"x"), true),
            3 => (good[..good.len() - 3].to_vec(), false),
            4 => (b"SSH-2.0\r\n\r\n".to_vec(), false),
            5 => (Vec::new(), false),
            6 => (good.clone(), false),
            7 => (json_response("200 OK", "nonsense"), true),
            8 => (response("302 Found", &["Location: https://elsewhere.example/"], b""), true),
            _ => (good, true),
        };
        let mut stream = stream;
        if stream.write_all(&bytes).is_err() || !keep {
            return;
        }
    }
}

/// Threads, open files, and memory in KB, of this process.
fn held() -> [usize; 3] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let count = |path| fs::read_dir(path).unwrap().count();
    [
        count("/proc/self/task"),
        count("/proc/self/fd"),
        memory.split_whitespace().next().unwrap().parse().unwrap(),
    ]
}

/// A session without a refresh token: its 401s go to the caller.
fn session(base_url: &str) -> Session {
    let client = Client::builder(Credentials::new("id", "code"))
        .base_url(base_url)
        .read_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let token = AccessToken::new("t").unwrap();
    let tokens = Tokens::new(client.account("me@example.com"), token, None);
    client.resume(tokens).unwrap()
}

fn call(session: &Session) {
    match session.datasets() {
        Ok(value) => assert_eq!(value["datasets"][2], 3),
        Err(
            Error::SignInRequired { .. }
            | Error::Status { .. }
            | Error::Redirect { .. }
            | Error::Transport { .. }
            | Error::InvalidResponse { .. },
        ) => {}
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
#[ignore = "takes more than a minute"]
fn nothing_leaks_in_ten_thousand_calls_and_a_minute_of_64_threads() {
    let server = ScriptedServer::start(|_, stream| serve(&stream));
    let session = session(&server.base_url());
    (0..1_000).for_each(|_| call(&session));
    let before = held();
    (0..10_000).for_each(|_| call(&session));
    let end = Instant::now() + Duration::from_secs(60);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                while Instant::now() < end {
                    call(&session);
                }
            });
        }
    });
    drop(session);
    // The server's side of the connections ends when it notices.
    let deadline = Instant::now() + Duration::from_secs(10);
    while held()[0] > before[0] && Instant::now() < deadline {
        thread::yield_now();
    }
    let after = held();
    println!("threads, files, KB: {before:?}, then {after:?}");
    assert!(after[0] <= before[0] && after[1] <= before[1], "{before:?} {after:?}");
    // The allocator keeps what 64 threads took at once.
    assert!(after[2] < before[2] + 64 * 1024, "{before:?} {after:?}");
}
