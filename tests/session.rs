//! `datalens --session FILE`.
#![cfg(unix)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::command::{Ran, account, datalens, run};
use support::stand_in::{DATASETS, PASSWORD, StandIn, USER_NAME, json};
use support::terminal::Terminal;
use tempfile::TempDir;

/// A stand-in, and a directory for the session's file.
struct Desk {
    server: StandIn,
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self {
            server: StandIn::start(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// One whose file holds a good session.
    fn signed_in() -> Self {
        let desk = Self::new();
        let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
        assert_eq!(ran.status, Some(0), "{ran:?}");
        desk
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("session.json")
    }

    /// The command with the option, without a password.
    fn datalens(&self) -> Command {
        let mut command = datalens();
        account(&mut command, &self.server.base_url());
        command.arg("--session").arg(self.file()).arg(USER_NAME);
        command
    }

    fn stored(&self) -> Value {
        serde_json::from_slice(&fs::read(self.file()).unwrap()).unwrap()
    }

    /// Changes a member of the stored session.
    fn spoil(&self, member: &str, value: impl Into<Value>) {
        let mut stored = self.stored();
        stored[member] = value.into();
        fs::write(self.file(), stored.to_string()).unwrap();
    }

    /// Lets the stored token expire, by time.
    fn expire(&self) {
        let expired = self.stored()["issued_at"].as_i64().unwrap() - 1;
        self.spoil("expires_at", expired);
    }

    /// The names in the directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The paths asked for since there were `before` requests.
    fn paths(&self, before: usize) -> Vec<String> {
        self.server.requests()[before..]
            .iter()
            .map(|r| r.path().to_owned())
            .collect()
    }
}

fn is_datasets(ran: &Ran) {
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(ran.out(), format!("{DATASETS}\n"));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_sign_in_is_stored_and_the_next_run_needs_no_password() {
    let desk = Desk::signed_in();
    assert_eq!(mode(&desk.file()), 0o600);
    assert_eq!(desk.names(), ["session.json", "session.json.lock"]);
    let stored = desk.stored();
    assert_eq!(stored["user_name"], USER_NAME);
    assert_eq!(stored["base_url"], desk.server.base_url());
    is_datasets(&run(&mut desk.datalens()));
    assert_eq!(desk.server.sign_ins(), 1);
    assert_eq!(desk.server.refreshes(), 0);
}

#[test]
fn a_good_token_is_printed_and_the_server_is_asked_nothing() {
    let desk = Desk::signed_in();
    let before = desk.server.requests().len();
    let token = desk.stored()["access_token"].as_str().unwrap().to_owned();
    // Neither the lock nor the certificates are touched.
    fs::remove_file(desk.directory.path().join("session.json.lock")).unwrap();
    let ran = run(desk
        .datalens()
        .args(["--token", "--cacert", "/nonexistent"]));
    assert_eq!(
        (ran.status, ran.out()),
        (Some(0), format!("{token}\n").as_str())
    );
    let ran = run(desk.datalens().arg("--header"));
    assert_eq!(ran.out(), format!("Authorization: Bearer {token}\n"));
    assert_eq!(desk.server.requests().len(), before);
    assert_eq!(desk.names(), ["session.json"]);
}

#[test]
fn an_expired_token_is_refreshed_once_and_no_password_asked_for() {
    let desk = Desk::signed_in();
    let old = desk.stored();
    desk.expire();
    let before = desk.server.requests().len();
    is_datasets(&run(&mut desk.datalens()));
    assert_eq!(desk.paths(before), ["/v1/sign_in/refresh", "/v1/datasets/"]);
    assert_ne!(desk.stored()["access_token"], old["access_token"]);
    assert_ne!(desk.stored()["refresh_token"], old["refresh_token"]);
    assert_eq!(mode(&desk.file()), 0o600);
    assert_eq!(desk.names(), ["session.json", "session.json.lock"]);
    assert_eq!(
        desk.server.requests().last().unwrap().connection,
        desk.server.connections() - 1
    );
}

#[test]
fn what_is_printed_has_at_least_a_minute_to_live() {
    for (left, refreshes) in [(70, 0), (50, 1)] {
        let desk = Desk::signed_in();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        desk.spoil("expires_at", now.as_secs() + left);
        assert_eq!(run(desk.datalens().arg("--token")).status, Some(0));
        assert_eq!(desk.server.refreshes(), refreshes, "{left} s left");
    }
}

#[test]
fn a_time_of_issue_in_the_future_counts_as_expired() {
    let desk = Desk::signed_in();
    let future = desk.stored()["issued_at"].as_u64().unwrap() + 1000;
    desk.spoil("issued_at", future);
    is_datasets(&run(&mut desk.datalens()));
    assert_eq!(desk.server.refreshes(), 1);
}

#[test]
fn a_refused_refresh_leads_to_the_password() {
    let desk = Desk::signed_in();
    desk.expire();
    desk.server.forget_tokens();
    is_datasets(&run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD)));
    assert_eq!((desk.server.sign_ins(), desk.server.refreshes()), (2, 0));
}

#[test]
fn a_refused_refresh_leads_to_the_prompt_where_there_is_one() {
    let desk = Desk::signed_in();
    desk.expire();
    desk.server.forget_tokens();
    let command = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_datalens"))
        .env_clear()
        .env("HERE_APP_ID", support::stand_in::APP_ID)
        .env("HERE_APP_CODE", support::stand_in::APP_CODE)
        .env("DATALENS_BASE_URL", desk.server.base_url())
        .args(["-s".as_ref(), desk.file().as_os_str(), USER_NAME.as_ref()]);
    let mut terminal = Terminal::start(command);
    terminal.expect("Password: ");
    // A person at the prompt blocks nobody.
    let lock = fs::File::open(desk.directory.path().join("session.json.lock")).unwrap();
    lock.try_lock().unwrap();
    drop(lock);
    terminal.type_in(&format!("{PASSWORD}\n"));
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    assert_eq!(desk.server.sign_ins(), 2);
}

#[test]
fn without_a_password_the_status_tells_whether_a_refresh_was_refused() {
    let desk = Desk::new();
    let ran = run(&mut desk.datalens());
    assert_eq!(ran.status, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--password-stdin"), "{ran:?}");

    let desk = Desk::signed_in();
    desk.expire();
    desk.server.forget_tokens();
    let before = fs::read(desk.file()).unwrap();
    let ran = run(&mut desk.datalens());
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("sign in again"), "{ran:?}");
    assert!(ran.stderr.contains("--password-stdin"), "{ran:?}");
    assert_eq!(fs::read(desk.file()).unwrap(), before);
}

#[test]
fn a_refresh_that_fails_otherwise_leaves_the_file_as_it_was() {
    let desk = Desk::signed_in();
    desk.expire();
    let before = fs::read(desk.file()).unwrap();
    desk.server
        .answer_next("/v1/sign_in/refresh", json("503 Service Unavailable", "{}"));
    let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
    assert_eq!(ran.status, Some(5), "{ran:?}");
    assert_eq!(fs::read(desk.file()).unwrap(), before);
    assert_eq!(desk.names(), ["session.json", "session.json.lock"]);
    assert_eq!(desk.server.sign_ins(), 1);

    let mut command = desk.datalens();
    desk.spoil("base_url", "http://127.0.0.1:1");
    let before = fs::read(desk.file()).unwrap();
    let ran = run(command.env("DATALENS_BASE_URL", "http://127.0.0.1:1"));
    assert_eq!(ran.status, Some(4), "{ran:?}");
    assert_eq!(fs::read(desk.file()).unwrap(), before);
}

#[test]
fn a_401_on_a_good_token_leads_to_one_refresh_and_one_repeat() {
    let desk = Desk::signed_in();
    desk.server.expire_tokens();
    is_datasets(&run(&mut desk.datalens()));
    assert_eq!(desk.server.refreshes(), 1);

    desk.server
        .answer_always("/v1/datasets", json("401 Unauthorized", "{}"));
    let before = desk.server.requests().len();
    let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
    assert_eq!((ran.status, ran.out()), (Some(3), ""), "{ran:?}");
    assert_eq!(
        desk.paths(before),
        ["/v1/datasets/", "/v1/sign_in/refresh", "/v1/datasets/"]
    );
}

#[test]
fn a_token_that_was_just_refreshed_is_not_refreshed_again() {
    let desk = Desk::signed_in();
    desk.expire();
    desk.server
        .answer_always("/v1/datasets", json("401 Unauthorized", "{}"));
    let before = desk.server.requests().len();
    let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert_eq!(desk.paths(before), ["/v1/sign_in/refresh", "/v1/datasets/"]);
}

#[test]
fn a_refresh_that_is_refused_after_a_401_leads_to_the_password_once() {
    let desk = Desk::signed_in();
    desk.server.forget_tokens();
    desk.server
        .answer_always("/v1/datasets", json("401 Unauthorized", "{}"));
    let before = desk.server.requests().len();
    let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
    assert_eq!(ran.status, Some(3), "{ran:?}");
    assert_eq!(
        desk.paths(before),
        [
            "/v1/datasets/",
            "/v1/sign_in/refresh",
            "/v1/sign_in/",
            "/v1/datasets/"
        ]
    );
}

#[test]
fn a_session_of_another_account_is_refused_and_not_overwritten() {
    let desk = Desk::signed_in();
    for (member, value) in [
        ("base_url", "https://other.example"),
        ("app_id", "other"),
        ("user_name", "other"),
    ] {
        let whole = fs::read(desk.file()).unwrap();
        desk.spoil(member, value);
        let before = fs::read(desk.file()).unwrap();
        let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
        assert_eq!(ran.status, Some(2), "{member}: {ran:?}");
        assert!(ran.stderr.contains("another account"), "{ran:?}");
        assert_eq!(fs::read(desk.file()).unwrap(), before);
        fs::write(desk.file(), whole).unwrap();
    }
}

#[test]
fn a_file_that_is_no_session_is_refused_and_not_overwritten() {
    for content in [
        "",
        "{}",
        "[]",
        "hello",
        "{\"access_token\":\"tOk3n\"}",
        "\0",
    ] {
        let desk = Desk::new();
        fs::write(desk.file(), content).unwrap();
        fs::set_permissions(desk.file(), Permissions::from_mode(0o600)).unwrap();
        let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
        assert_eq!(ran.status, Some(2), "{content:?}: {ran:?}");
        assert!(ran.stderr.contains("isn't a session"), "{ran:?}");
        assert!(!ran.stderr.contains("tOk3n"), "{ran:?}");
        assert_eq!(fs::read_to_string(desk.file()).unwrap(), content);
        assert!(desk.server.requests().is_empty());
    }
}

#[test]
fn a_file_that_others_can_read_is_refused_with_what_to_type() {
    let desk = Desk::signed_in();
    for mode in [0o640, 0o604, 0o620, 0o610] {
        fs::set_permissions(desk.file(), Permissions::from_mode(mode)).unwrap();
        let ran = run(desk.datalens().arg("--token"));
        assert_eq!((ran.status, ran.out()), (Some(2), ""), "{mode:o}");
        let command = format!("chmod 600 '{}'", desk.file().display());
        assert!(ran.stderr.contains(&command), "{ran:?}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused() {
    type Make = fn(&Path);
    let make: [(&str, Make); 4] = [
        ("a symbolic link", |path| {
            fs::write(path.with_extension("target"), "untouched").unwrap();
            symlink(path.with_extension("target"), path).unwrap();
        }),
        ("a symbolic link", |path| {
            symlink("/nonexistent", path).unwrap()
        }),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a pipe", |path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
    ];
    for (what, make) in make {
        let desk = Desk::new();
        make(&desk.file());
        let before = desk.names();
        let ran = run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD));
        assert_eq!(ran.status, Some(2), "{what}: {ran:?}");
        assert!(ran.stderr.contains(what), "{ran:?}");
        assert_eq!(desk.names(), before);
        assert!(desk.server.requests().is_empty());
    }
}

#[test]
fn a_directory_that_is_missing_or_read_only_is_an_error_before_anything_is_asked() {
    let desk = Desk::new();
    // Not even root can make a file in /proc.
    for file in ["/nonexistent/session.json", "/proc/session.json"] {
        let mut command = datalens();
        account(&mut command, &desk.server.base_url());
        command.args(["-s", file, USER_NAME]);
        let ran = run(command.env("DATALENS_PASSWORD", PASSWORD));
        assert_eq!(ran.status, Some(1), "{file}: {ran:?}");
        assert!(ran.stderr.contains(file), "{ran:?}");
    }
    assert!(desk.server.requests().is_empty());
}

#[test]
fn a_neighbour_that_a_killed_run_left_is_cleared_away() {
    let desk = Desk::signed_in();
    desk.expire();
    fs::write(desk.directory.path().join("session.json.new"), "half").unwrap();
    is_datasets(&run(&mut desk.datalens()));
    assert_eq!(desk.names(), ["session.json", "session.json.lock"]);
}

#[test]
fn a_full_disk_is_found_before_the_old_tokens_are_spent() {
    let desk = Desk::signed_in();
    desk.expire();
    let before = fs::read(desk.file()).unwrap();
    let requests = desk.server.requests().len();
    // No file may grow beyond 4 KB; the signal that would end the process is ignored.
    let mut command = Command::new("bash");
    command.env_clear().stdin(Stdio::null());
    account(&mut command, &desk.server.base_url());
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_datalens"))
        .args(["-s".as_ref(), desk.file().as_os_str(), USER_NAME.as_ref()]);
    let ran = run(&mut command);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert_eq!(fs::read(desk.file()).unwrap(), before);
    assert_eq!(desk.names(), ["session.json", "session.json.lock"]);
    assert_eq!(desk.server.requests().len(), requests);
}

#[test]
fn thirty_processes_with_an_expired_token_make_one_refresh() {
    let desk = Desk::signed_in();
    desk.expire();
    let children: Vec<_> = (0..30)
        .map(|_| {
            let mut command = desk.datalens();
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, format!("{DATASETS}\n").as_bytes());
    }
    assert_eq!(desk.server.refreshes(), 1);
}

#[test]
fn a_run_that_is_killed_leaves_a_whole_session_and_blocks_nobody() {
    let desk = Desk::signed_in();
    for round in 0..40_u64 {
        desk.expire();
        let mut child = Command::new(env!("CARGO_BIN_EXE_datalens"));
        child.env_clear();
        account(&mut child, &desk.server.base_url());
        let mut child = child
            .args(["-s".as_ref(), desk.file().as_os_str(), USER_NAME.as_ref()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Anywhere in a run, which takes some milliseconds.
        std::thread::sleep(std::time::Duration::from_micros(round * 250));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(desk.stored()["access_token"].is_string(), "round {round}");
        assert_eq!(mode(&desk.file()), 0o600);
        // The password is for the rounds in which the pair was spent and not stored.
        is_datasets(&run(desk.datalens().env("DATALENS_PASSWORD", PASSWORD)));
    }
    assert_eq!(desk.names(), ["session.json", "session.json.lock"]);
}

#[test]
fn with_a_good_session_the_password_is_not_read() {
    let desk = Desk::signed_in();
    let mut command = desk.datalens();
    command.arg("--password-stdin").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // Held open: a run that reads it would wait.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert!(output.status.success());
}
