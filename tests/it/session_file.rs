//! The file of `--session`, as the command uses it: what it says of one that is refused, and
//! what a crash, a full disk or many processes leave of it. `file_store` tests the rest.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

use crate::support::command::{before_exec, datalens_at, ignore, run, start, wait};
use crate::support::fake_api::EMAIL;
use crate::support::files::{mode, set_mode, write_private};
use crate::support::fixture::Fixture;

#[test]
fn a_session_of_another_account_is_refused_and_not_overwritten() {
    let fixture = Fixture::signed_in();
    let whole = fixture.content();
    for (member, value) in
        [("base_url", "https://other.example"), ("app_id", "other"), ("user_name", "other")]
    {
        fixture.change(member, value);
        let before = fixture.content();
        for option in ["--verbose", "--token"] {
            let output = run(fixture.with_password().arg(option));
            assert_eq!((output.status, output.text()), (Some(2), ""), "{output:?}");
            assert!(output.stderr.contains("another account"), "{output:?}");
        }
        assert_eq!(fixture.content(), before);
        fs::write(fixture.file(), &whole).unwrap();
    }
}

#[test]
fn a_file_that_is_no_session_is_refused_and_not_overwritten() {
    for content in ["{}", "[]", "hello", "{\"access_token\":\"tOk3n\"}", "\0"] {
        let fixture = Fixture::new();
        write_private(&fixture.file(), content);
        let output = run(&mut fixture.with_password());
        output.assert_failed(2, "isn't a session");
        assert!(!output.stderr.contains("tOk3n"), "{output:?}");
        assert_eq!(fixture.content(), content.as_bytes());
        assert!(fixture.server.requests().is_empty());
    }
}

#[test]
fn a_file_that_others_can_read_is_refused_with_what_to_type() {
    let fixture = Fixture::signed_in();
    for mode in [0o640, 0o604, 0o620, 0o610] {
        set_mode(&fixture.file(), mode);
        let output = run(fixture.datalens().arg("--token"));
        let command = format!("chmod 600 '{}'", fixture.file().display());
        output.assert_failed(2, &command);
    }
}

#[test]
fn a_place_where_no_file_can_be_made_is_told_before_anything_is_sent() {
    let fixture = Fixture::new();
    // Not even root can make a file in /proc.
    for (file, exit_status) in [
        ("/nonexistent/session.json", 2),
        #[cfg(target_os = "linux")]
        ("/proc/session.json", 1),
    ] {
        let mut command = datalens_at(&fixture.server.base_url());
        run(command.args(["-s", file, EMAIL])).assert_failed(exit_status, file);
    }
    assert!(fixture.server.requests().is_empty());
}

#[test]
fn a_full_disk_is_found_before_the_old_tokens_are_spent() {
    let fixture = Fixture::with_expired_token();
    let before = fixture.content();
    let requests = fixture.server.requests().len();
    let mut command = fixture.datalens();
    // No file may grow beyond 1 KB, less than a session has; the signal that would end
    // the process is ignored.
    ignore(&mut command, &[Signal::SIGXFSZ]);
    before_exec(&mut command, || setrlimit(Resource::RLIMIT_FSIZE, 1024, 1024));
    run(&mut command).assert_failed(1, "session.json");
    assert_eq!(fixture.content(), before);
    fixture.assert_tidy();
    assert_eq!(fixture.server.requests().len(), requests);
}

#[test]
fn thirty_processes_with_an_expired_token_make_one_refresh() {
    let fixture = Fixture::with_expired_token();
    let children: Vec<_> = (0..30).map(|_| start(&mut fixture.datalens())).collect();
    for child in children {
        wait(child).assert_printed_datasets();
    }
    assert_eq!(fixture.server.refreshes(), 1);
}

#[test]
fn a_run_that_is_killed_leaves_a_whole_session_and_blocks_nobody() {
    let fixture = Fixture::signed_in();
    for round in 0..40_u64 {
        fixture.expire();
        let mut child = start(&mut fixture.datalens());
        // Anywhere in a run, which takes some milliseconds.
        std::thread::sleep(Duration::from_micros(round * 250));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(fixture.stored()["access_token"].is_string(), "round {round}");
        assert_eq!(mode(&fixture.file()), 0o600);
        // The password is for the rounds in which the pair was spent and not stored.
        run(&mut fixture.with_password()).assert_printed_datasets();
    }
    fixture.assert_tidy();
}
