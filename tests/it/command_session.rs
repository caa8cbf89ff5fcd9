//! `datalens --session FILE`: when the stored tokens are used, refreshed, or replaced by a
//! sign-in.

use std::fs;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::CLOSED_PORT;
use crate::support::client::{client, session_with_token};
use crate::support::command::{run, start, wait};
use crate::support::fake_api::http::json_response;
use crate::support::fake_api::{DATASETS, EMAIL};
use crate::support::fixture::Fixture;
use crate::support::terminal::Terminal;

const REFRESH: &str = "/v1/sign_in/refresh";

#[test]
fn a_sign_in_is_stored_and_the_next_run_needs_no_password() {
    let fixture = Fixture::signed_in();
    fixture.assert_tidy();
    let stored = fixture.stored();
    assert_eq!(stored["user_name"], EMAIL);
    assert_eq!(stored["base_url"], fixture.server.base_url());
    run(&mut fixture.datalens()).assert_printed_datasets();
    let server = &fixture.server;
    assert_eq!((server.sign_ins(), server.refreshes()), (1, 0));
}

#[test]
fn a_fresh_token_is_printed_and_neither_server_nor_lock_nor_certificates_are_touched() {
    let fixture = Fixture::signed_in();
    let before = fixture.server.requests().len();
    let token = fixture.stored()["access_token"].as_str().unwrap().to_owned();
    fs::remove_file(fixture.path("session.json.lock")).unwrap();
    let output = run(fixture.datalens().args(["--token", "--cacert", "/nonexistent"]));
    output.assert_printed(&format!("{token}\n"));
    let output = run(fixture.datalens().arg("--header"));
    output.assert_printed(&format!("Authorization: Bearer {token}\n"));
    assert_eq!(fixture.server.requests().len(), before);
    assert_eq!(fixture.names(), ["session.json"]);
}

#[test]
fn an_expired_token_is_refreshed_once_and_no_password_asked_for() {
    let fixture = Fixture::with_expired_token();
    let old = fixture.stored();
    let before = fixture.server.requests().len();
    run(&mut fixture.datalens()).assert_printed_datasets();
    assert_eq!(fixture.server.paths_after(before), [REFRESH, "/v1/datasets/"]);
    let new = fixture.stored();
    assert_ne!(new["access_token"], old["access_token"]);
    assert_ne!(new["refresh_token"], old["refresh_token"]);
    fixture.assert_tidy();
    let requests = fixture.server.requests();
    let [.., refresh, read] = &requests[..] else {
        panic!("{requests:?}");
    };
    assert_eq!(refresh.connection, read.connection);
}

#[test]
fn a_token_that_is_printed_has_at_least_a_minute_to_live() {
    for (left, refreshes) in [(70, 0), (50, 1)] {
        let fixture = Fixture::signed_in();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        fixture.change("issued_at", now.as_secs() - 3000);
        fixture.change("expires_at", now.as_secs() + left);
        assert_eq!(run(fixture.datalens().arg("--token")).status, Some(0));
        assert_eq!(fixture.server.refreshes(), refreshes, "{left} s left");
    }
}

#[test]
fn a_token_that_is_alive_is_printed_though_its_refresh_fails() {
    for status in ["503 Service Unavailable", "400 Bad Request"] {
        let fixture = Fixture::signed_in();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        fixture.change("issued_at", now.as_secs() - 3000);
        fixture.change("expires_at", now.as_secs() + 30);
        fixture.server.respond_always(REFRESH, json_response(status, "{}"));
        let before = fixture.content();
        assert_eq!(run(fixture.datalens().arg("--token")).status, Some(0), "{status}");
        run(&mut fixture.datalens()).assert_printed_datasets();
        assert_eq!(fixture.content(), before);
    }
}

#[test]
fn a_time_of_issue_in_the_future_counts_as_expired() {
    let fixture = Fixture::signed_in();
    let future = fixture.stored()["issued_at"].as_u64().unwrap() + 1000;
    fixture.change("issued_at", future);
    run(&mut fixture.datalens()).assert_printed_datasets();
    assert_eq!(fixture.server.refreshes(), 1);
}

#[test]
fn a_refused_refresh_leads_to_the_password() {
    let fixture = Fixture::with_expired_token();
    fixture.server.revoke_tokens();
    run(&mut fixture.with_password()).assert_printed_datasets();
    let server = &fixture.server;
    assert_eq!((server.sign_ins(), server.refreshes()), (2, 0));
}

#[test]
fn a_refused_refresh_is_said_before_the_prompt_and_whoever_is_asked_holds_no_lock() {
    let fixture = Fixture::with_expired_token();
    fixture.server.revoke_tokens();
    let mut terminal = Terminal::start(fixture.at_terminal());
    terminal.expect_prompt();
    let lock = fs::File::open(fixture.path("session.json.lock")).unwrap();
    lock.try_lock().unwrap();
    drop(lock);
    terminal.give_password();
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    let port = fixture.server.port();
    let why = format!(
        "datalens: refresh at 127.0.0.1:{port}: refused: sign in again (status 401); the server \
         says: unknown pair of tokens\r\n"
    );
    assert_eq!(shown, format!("{why}Password: \r\n{DATASETS}\r\n"));
    assert_eq!(fixture.server.sign_ins(), 2);
}

#[test]
fn a_live_token_is_used_though_its_store_cannot_be_and_verbose_says_so() {
    let fixture = Fixture::signed_in();
    let expires_at = fixture.stored()["issued_at"].as_i64().unwrap() + 50;
    fixture.change("expires_at", expires_at);
    fixture.change("issued_at", expires_at - 3600);
    fs::remove_file(fixture.path("session.json.lock")).unwrap();
    fs::create_dir(fixture.path("session.json.lock")).unwrap();
    let output = run(fixture.datalens().arg("-v"));
    assert_eq!((output.status, output.text()), (Some(0), &*format!("{DATASETS}\n")), "{output:?}");
    let failed = format!("datalens: session {:?}: can't be used\n", fixture.file());
    assert!(output.stderr.contains(&failed), "{output:?}");
    assert_eq!(fixture.server.refreshes(), 0);
}

#[test]
fn a_session_that_cannot_be_refreshed_is_said_before_the_prompt() {
    let fixture = Fixture::with_expired_token();
    let mut stored = fixture.stored();
    stored.as_object_mut().unwrap().remove("refresh_token");
    fs::write(fixture.file(), stored.to_string()).unwrap();
    let mut terminal = Terminal::start(fixture.at_terminal());
    terminal.expect_prompt();
    terminal.give_password();
    let (status, shown) = terminal.end();
    assert!(status.success(), "{shown}");
    let why = format!("refresh at 127.0.0.1:{}: no refresh token", fixture.server.port());
    let why = format!("datalens: {why}: sign in again\r\n");
    assert_eq!(shown, format!("{why}Password: \r\n{DATASETS}\r\n"));
}

#[test]
fn a_refused_refresh_is_said_once_though_no_password_follows() {
    let fixture = Fixture::with_expired_token();
    fixture.server.revoke_tokens();
    let mut terminal = Terminal::start(fixture.at_terminal());
    terminal.expect_prompt();
    terminal.type_in("\x04");
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(3), "{shown}");
    assert_eq!(shown.matches("refused").count(), 1, "{shown}");
    assert!(shown.ends_with("Password: \r\ndatalens: no password was typed\r\n"), "{shown}");
}

#[test]
fn tokens_that_cannot_be_stored_are_told_whatever_else_fails() {
    let fixture = Fixture::with_expired_token();
    let directory = fixture.directory().to_owned();
    fixture.server.before_response(REFRESH, move || fs::remove_dir_all(&directory).unwrap());
    fixture.server.respond_always("/v1/datasets", json_response("404 Not Found", "{}"));
    let output = run(&mut fixture.datalens());
    assert_eq!(output.status, Some(1), "{output:?}");
    let (first, second) = output.stderr.split_once('\n').unwrap();
    assert!(first.starts_with("datalens: datasets/: not found"), "{output:?}");
    assert!(second.contains("the new tokens can't be stored: "), "{output:?}");
}

#[test]
fn new_tokens_that_cannot_be_stored_are_used_all_the_same_and_exit_with_1() {
    for arguments in [&[][..], &["--token"]] {
        let fixture = Fixture::with_expired_token();
        let directory = fixture.directory().to_owned();
        // After the room for them was reserved there. Not even root can store them then.
        let remove = move || fs::remove_dir_all(&directory).unwrap();
        fixture.server.before_response(REFRESH, remove);
        let output = run(fixture.datalens().args(arguments));
        assert_eq!(output.status, Some(1), "{output:?}");
        let message =
            format!("datalens: session {:?}: the new tokens can't be stored: ", fixture.file());
        assert!(output.stderr.starts_with(&message), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert_eq!(fixture.server.refreshes(), 1);
        if arguments.is_empty() {
            assert_eq!(output.text(), format!("{DATASETS}\n"));
        } else {
            let client = client(&fixture.server.base_url());
            let session = session_with_token(&client, output.text().trim_end());
            session.datasets().unwrap();
        }
    }
}

#[test]
fn without_a_password_the_exit_status_says_whether_a_refresh_was_refused() {
    let fixture = Fixture::new();
    run(&mut fixture.datalens()).assert_failed(2, "--password-stdin");

    let fixture = Fixture::with_expired_token();
    fixture.server.revoke_tokens();
    let before = fixture.content();
    let output = run(&mut fixture.datalens());
    output.assert_failed(3, "sign in again");
    output.assert_failed(3, "--password-stdin");
    assert_eq!(fixture.content(), before);
}

#[test]
fn a_refresh_that_fails_otherwise_leaves_the_file_as_it_was() {
    let fixture = Fixture::with_expired_token();
    let before = fixture.content();
    let busy = json_response("503 Service Unavailable", "{}");
    fixture.server.respond_once(REFRESH, busy);
    run(&mut fixture.with_password()).assert_failed(4, "status 503");
    assert_eq!(fixture.content(), before);
    fixture.assert_tidy();
    assert_eq!(fixture.server.sign_ins(), 1);

    fixture.change("base_url", CLOSED_PORT);
    let before = fixture.content();
    let output = run(fixture.with_password().env("DATALENS_BASE_URL", CLOSED_PORT));
    output.assert_failed(4, "127.0.0.1:1");
    assert_eq!(fixture.content(), before);
}

#[test]
fn a_401_on_a_fresh_token_leads_to_one_refresh_and_one_repeat() {
    let fixture = Fixture::signed_in();
    let server = &fixture.server;
    server.expire_tokens();
    run(&mut fixture.datalens()).assert_printed_datasets();
    assert_eq!(server.refreshes(), 1);

    server.respond_always("/v1/datasets", json_response("401 Unauthorized", "{}"));
    let before = server.requests().len();
    run(&mut fixture.with_password()).assert_failed(3, "status 401");
    let paths = server.paths_after(before);
    assert_eq!(paths, ["/v1/datasets/", REFRESH, "/v1/datasets/"]);
}

#[test]
fn a_token_that_was_just_refreshed_is_not_refreshed_again() {
    let fixture = Fixture::with_expired_token();
    let server = &fixture.server;
    server.respond_always("/v1/datasets", json_response("401 Unauthorized", "{}"));
    let before = server.requests().len();
    run(&mut fixture.with_password()).assert_failed(3, "status 401");
    assert_eq!(server.paths_after(before), [REFRESH, "/v1/datasets/"]);
}

#[test]
fn a_refresh_that_is_refused_after_a_401_leads_to_the_password_once() {
    let fixture = Fixture::signed_in();
    let server = &fixture.server;
    server.revoke_tokens();
    server.respond_always("/v1/datasets", json_response("401 Unauthorized", "{}"));
    let before = server.requests().len();
    run(&mut fixture.with_password()).assert_failed(3, "status 401");
    let paths = server.paths_after(before);
    let expected = ["/v1/datasets/", REFRESH, "/v1/sign_in/", "/v1/datasets/"];
    assert_eq!(paths[..4], expected);
    assert_eq!(server.sign_ins(), 2);
}

#[test]
fn with_a_fresh_session_the_password_is_not_read() {
    let fixture = Fixture::signed_in();
    let mut command = fixture.datalens();
    command.arg("--password-stdin").stdin(Stdio::piped());
    let mut child = start(&mut command);
    // Held open: a run that reads it would wait.
    let stdin = child.stdin.take();
    wait(child).assert_printed_datasets();
    drop(stdin);
}
