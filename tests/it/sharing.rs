//! One session in one file, shared by programs of the library and runs of the command,
//! with many threads each, over several lives of a token.

use std::collections::BTreeSet;
use std::env;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use here_datalens::FileStore;

use crate::support::client::client;
use crate::support::command::run;
use crate::support::fake_api::EMAIL;
use crate::support::fixture::Fixture;

/// Tokens live for six seconds, and are refreshed after three: four times in all.
const DURATION: Duration = Duration::from_secs(13);

/// What tells a process that it is to be a program that shares the session.
const ROLE: &str = "HERE_DATALENS_TEST_SHARING";

/// Calls `call` again and again in eight threads, and returns how often.
fn in_eight_threads(call: impl Fn() + Sync) -> usize {
    let end = Instant::now() + DURATION;
    let calls = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < end {
                    call();
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    calls.into_inner()
}

/// No test by itself: the program that the other one starts.
#[test]
fn program() {
    let Ok(role) = env::var(ROLE) else { return };
    let (base_url, file) = role.split_once(' ').unwrap();
    let session = client(base_url).session(EMAIL, FileStore::new(file));
    let calls = in_eight_threads(|| drop(session.datasets().unwrap()));
    assert!(calls > 100, "{calls}");
}

#[test]
fn programs_and_commands_share_a_file_and_no_call_fails() {
    let fixture = Fixture::new();
    fixture.server.set_expires_in("6");
    run(&mut fixture.with_password()).assert_printed_datasets();
    let role = format!("{} {}", fixture.server.base_url(), fixture.file().display());
    let programs: Vec<_> = (0..2)
        .map(|_| {
            Command::new(env::current_exe().unwrap())
                .args(["sharing::program", "--exact"])
                .env(ROLE, &role)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let runs = in_eight_threads(|| run(&mut fixture.datalens()).assert_printed_datasets());
    for program in programs {
        let output = program.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert!(runs > 20, "{runs}");

    let requests = fixture.server.requests();
    let refreshes = requests.iter().filter(|request| request.path().ends_with("/refresh"));
    let sent: Vec<_> = refreshes.map(|request| request.json_member("refresh_token")).collect();
    assert_eq!(BTreeSet::from_iter(&sent).len(), sent.len(), "no pair is sent twice");
    assert_eq!(fixture.server.refreshes(), sent.len(), "none is lost");
    assert!((3..=6).contains(&sent.len()), "{}", sent.len());
    assert_eq!(fixture.server.sign_ins(), 1);
    fixture.assert_tidy();
}
