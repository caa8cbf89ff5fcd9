//! The shell recipes of the README, taken out of it and run as they stand, in dash and in
//! bash, against the fake API with its odd app code.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::command::{DATALENS, RunOutput, run, set_application};
use crate::support::fake_api::http::{json_response, response};
use crate::support::fake_api::{APP_CODE, APP_ID, DATASETS, EMAIL, FakeApi, PASSWORD};
use crate::support::files::mode;
use crate::support::require;

const README: &str = include_str!("../../README.md");

/// Both of the data sets that the fake API has.
const IDS: &str = "0123456789abcdef0123456789abcdef\nfedcba9876543210fedcba9876543210\n";

const ROWS: &str = "{\"columns\":[\"a\",\"b\"],\"rows\":[[1,2],[3,4]]}\n";

/// What a shell is to read, in the order of the README.
struct Recipes {
    fake_api: &'static str,
    first_steps: &'static str,
    session: &'static str,
    stop_at_failure: &'static str,
    csv: &'static str,
    try_again: &'static str,
    curl: &'static str,
    env_file: &'static str,
    sign_in_once: &'static str,
    cron: &'static str,
    expiry: &'static str,
}

/// All of them: a recipe that is added to the README needs a test here.
fn recipes() -> Recipes {
    let blocks: Vec<_> = code_blocks().collect();
    let [
        ("console", fake_api),
        ("sh", first_steps),
        ("sh", session),
        ("bash", stop_at_failure),
        ("sh", csv),
        ("sh", try_again),
        ("sh", curl),
        ("sh", env_file),
        ("sh", sign_in_once),
        ("crontab", cron),
        ("sh", expiry),
    ] = blocks[..]
    else {
        panic!("other recipes than those that have a test: {blocks:#?}");
    };
    Recipes {
        fake_api,
        first_steps,
        session,
        stop_at_failure,
        csv,
        try_again,
        curl,
        env_file,
        sign_in_once,
        cron,
        expiry,
    }
}

/// The language and the text of each block that isn't Rust's or Cargo's.
fn code_blocks() -> impl Iterator<Item = (&'static str, &'static str)> {
    let fenced = README.split("```").skip(1).step_by(2);
    let blocks = fenced.map(|block| block.split_once('\n').expect("a language, and a text"));
    blocks.filter(|(language, _)| !language.starts_with("rust") && *language != "toml")
}

/// A home directory with the command in `.cargo/bin`, and a fake API.
struct Home {
    server: FakeApi,
    directory: TempDir,
}

impl Home {
    fn new() -> Self {
        Self::with(FakeApi::start(), tempfile::tempdir().unwrap())
    }

    fn with(server: FakeApi, directory: TempDir) -> Self {
        let bin = directory.path().join(".cargo/bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(DATALENS, bin.join("datalens")).unwrap();
        Self { server, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The recipe with the fake API's account, application and URL.
    fn fill_in(&self, recipe: &str) -> String {
        recipe
            .replace("me@example.com", EMAIL)
            .replace("https://datalens.api.here.com", &self.server.base_url())
            .replace("HERE_APP_ID='…'", &format!("HERE_APP_ID='{APP_ID}'"))
            .replace("HERE_APP_CODE='…'", &format!("HERE_APP_CODE='{APP_CODE}'"))
    }

    /// A shell in the home directory, whose environment has nothing but what finds the
    /// home, the programs and the fake API.
    fn bare_shell(&self, shell: &str, script: &str) -> Command {
        let mut command = Command::new(shell);
        let path = std::env::var("PATH").unwrap();
        command
            .env_clear()
            .env("HOME", self.directory.path())
            .env("PATH", format!("{}:{path}", self.path(".cargo/bin").display()))
            .env("DATALENS_BASE_URL", self.server.base_url())
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .args(["-c", &self.fill_in(script)]);
        command
    }

    /// The same, once the credentials are exported and a password, too.
    fn shell(&self, shell: &str, script: &str) -> Command {
        let mut command = self.bare_shell(shell, script);
        set_application(&mut command, &self.server.base_url());
        command.env("DATALENS_PASSWORD", PASSWORD);
        command
    }

    fn run(&self, shell: &str, script: &str) -> RunOutput {
        run(&mut self.shell(shell, script))
    }

    fn stored(&self) -> Value {
        serde_json::from_str(&self.read(".datalens.json")).unwrap()
    }

    /// Lets the stored token expire, by time.
    fn expire(&self, expires_at: u64) {
        let mut stored = self.stored();
        stored["issued_at"] = (expires_at - 3600).into();
        stored["expires_at"] = expires_at.into();
        fs::write(self.path(".datalens.json"), stored.to_string()).unwrap();
    }
}

/// Does this in each shell that is installed, with a home of its own.
fn in_each_shell(test: impl Fn(&str, Home)) {
    for shell in ["dash", "bash"] {
        if require(shell) {
            test(shell, Home::new());
        }
    }
}

#[track_caller]
fn assert_failed(output: &RunOutput, status: i32, words: &str) {
    assert_eq!((output.status, output.text()), (Some(status), ""), "{output:?}");
    assert!(output.stderr.contains(words), "{output:?}");
}

fn server_error() -> Vec<u8> {
    json_response("503 Service Unavailable", "{}")
}

/// A response of which so much has been printed before its end is missed.
fn truncated_after_100_kb() -> Vec<u8> {
    let headers = ["Content-Type: application/json", "Connection: close"];
    let long = format!("[{}0]", "0,".repeat(100_000));
    let mut bytes = response("200 OK", &headers, long.as_bytes());
    bytes.truncate(100_000);
    bytes
}

#[test]
fn the_sample_is_what_the_quickstart_prints() {
    // As `examples/quickstart.rs` does.
    let datasets: Value = serde_json::from_str(DATASETS).unwrap();
    let printed = format!("{datasets:#}");
    let lines: Vec<&str> = recipes().fake_api.lines().collect();
    let [first, sample @ .., "…", last] = &lines[..] else {
        panic!("{lines:#?}");
    };
    assert!(first.starts_with("$ cargo run --example quickstart "), "{first}");
    assert!(last.starts_with("$ cargo run --example fake_api "), "{last}");
    assert!(printed.starts_with(&sample.join("\n")), "{printed}");
}

#[test]
fn the_first_steps_print_the_data_sets_and_a_resource() {
    let recipe = recipes().first_steps;
    // It is installed already.
    let recipe = format!("cargo() {{ [ \"$*\" = 'install --path .' ]; }}\nset -e\n{recipe}");
    in_each_shell(|shell, home| {
        let mut command = home.bare_shell(shell, &recipe);
        let output = run(command.env("DATALENS_PASSWORD", PASSWORD));
        output.assert_printed(&format!("{DATASETS}\n{ROWS}"));
        let target = home.server.requests().pop().unwrap().target;
        assert!(target.starts_with("/v1/queries/1/data?name=value&"), "{target}");
    });
}

#[test]
fn a_session_needs_one_sign_in() {
    if !require("jq") {
        return;
    }
    in_each_shell(|shell, home| {
        for _ in 0..2 {
            home.run(shell, recipes().session).assert_printed(IDS);
        }
        assert_eq!(home.server.sign_ins(), 1);
        assert_eq!(mode(&home.path(".datalens.json")), 0o600);
    });
}

#[test]
fn a_script_stops_at_a_failure() {
    if !require("jq") || !require("bash") {
        return;
    }
    let script = format!("{}echo reached", recipes().stop_at_failure);
    let home = Home::new();
    home.run("bash", &script).assert_printed(&format!("{IDS}reached\n"));
    let output = run(home.shell("bash", &script).env("DATALENS_PASSWORD", "wrong"));
    assert_failed(&output, 3, "refused: check");
}

#[test]
fn the_rows_of_a_query_become_csv_with_its_columns_as_the_head() {
    if !require("jq") {
        return;
    }
    in_each_shell(|shell, home| {
        home.run(shell, recipes().csv).assert_printed("\"a\",\"b\"\n1,2\n3,4\n");
    });
}

#[test]
fn the_loop_tries_again_while_that_may_help() {
    let script = format!("sleep() {{ echo \"slept $1\"; }}\n{}cat new", recipes().try_again);
    in_each_shell(|shell, home| {
        for _ in 0..2 {
            home.server.respond_once("/v1/sign_in", server_error());
        }
        let output = home.run(shell, &script);
        assert_eq!(output.status, Some(0), "{output:?}");
        assert_eq!(output.text(), format!("slept 60\nslept 60\n{DATASETS}\n"));
        assert_eq!(output.stderr.matches("status 503").count(), 2, "{output:?}");
        // Another failure than a temporary one ends the script.
        let output = run(home.shell(shell, &script).env("DATALENS_PASSWORD", "wrong"));
        assert_failed(&output, 1, "refused: check");
    });
}

#[test]
fn curl_sends_the_token_and_fails_where_the_server_refuses_it() {
    if !require("curl") {
        return;
    }
    in_each_shell(|shell, home| {
        let output = home.run(shell, recipes().curl);
        assert_eq!((output.status, output.text()), (Some(0), DATASETS), "{output:?}");
        let request = home.server.requests().pop().unwrap();
        assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
        let output = run(home.shell(shell, recipes().curl).env("DATALENS_PASSWORD", "wrong"));
        assert_failed(&output, 22, "401");
    });
}

#[test]
fn cron_replaces_the_file_of_yesterday_by_a_whole_one_alone() {
    let recipes = recipes();
    let job = recipes.cron.strip_prefix("0 * * * * ").expect("each hour").trim_end();
    // For cron it would be a line break.
    assert!(!job.contains('%') && !job.contains('\n'), "{job}");
    in_each_shell(|shell, home| {
        fs::write(home.path(".datalens.env"), home.fill_in(recipes.env_file)).unwrap();
        let mut by_hand = home.bare_shell(shell, recipes.sign_in_once);
        run(by_hand.env("DATALENS_PASSWORD", PASSWORD)).assert_printed_datasets();
        assert_eq!(mode(&home.path(".datalens.env")), 0o600);

        let cron = || run(home.bare_shell(shell, job).env("PATH", "/usr/bin:/bin"));
        cron().assert_printed("");
        let yesterday = home.read("datasets.json");
        assert_eq!(yesterday, format!("{DATASETS}\n"));

        home.expire(1_700_000_000);
        let changed = json_response("200 OK", "[1]");
        home.server.respond_once("/v1/datasets", changed);
        cron().assert_printed("");
        assert_eq!(home.read("datasets.json"), "[1]\n");
        assert_eq!((home.server.sign_ins(), home.server.refreshes()), (1, 1));

        for bytes in [server_error(), truncated_after_100_kb()] {
            home.server.respond_once("/v1/datasets", bytes);
            assert_failed(&cron(), 4, "datalens: datasets/: ");
            assert_eq!(home.read("datasets.json"), "[1]\n");
        }
        assert!(home.read("datasets.new").len() > 1000);
        home.expire(1_700_000_000);
        home.server.revoke_tokens();
        assert_failed(&cron(), 3, "sign in again");
        assert_eq!(home.read("datasets.json"), "[1]\n");
    });
}

#[test]
fn jq_tells_when_a_token_expires() {
    if !require("jq") {
        return;
    }
    in_each_shell(|shell, home| {
        home.run(shell, "datalens -t -s ~/.datalens.json me@example.com");
        home.expire(1_700_000_000);
        home.run(shell, recipes().expiry).assert_printed("2023-11-14T22:13:20Z\n");
    });
}

#[test]
fn a_token_that_could_not_be_stored_is_printed_all_the_same() {
    let (_, rest) = README.split_once("`T=$(").expect("the assignment");
    let (inner, _) = rest.split_once(")`").expect("its end");
    let inner = inner.replace("FILE", "~/.datalens.json");
    let script = format!("T=$({inner}); echo $? \"$T\"");
    for shell in ["dash", "bash"] {
        if require(shell) {
            let (home, is_armed) = with_a_file_that_is_lost();
            home.run(shell, "datalens -t -s ~/.datalens.json me@example.com");
            home.expire(1_700_000_000);
            is_armed.store(true, Ordering::SeqCst);
            let output = home.run(shell, &script);
            assert!(output.text().starts_with("1 2-access-"), "{output:?}");
            assert!(output.stderr.contains(".datalens.json"), "{output:?}");
        }
    }
}

/// A home whose session's file is replaced by a directory when a connection is made, once
/// that is armed: then the tokens that it held have been looked at, and the room for new
/// ones too.
fn with_a_file_that_is_lost() -> (Home, Arc<AtomicBool>) {
    let is_armed = Arc::new(AtomicBool::new(false));
    let directory = tempfile::tempdir().unwrap();
    let (armed, file) = (Arc::clone(&is_armed), directory.path().join(".datalens.json"));
    let server = FakeApi::start_with(move |stream| {
        if armed.load(Ordering::SeqCst) {
            lose(&file)?;
        }
        Ok(Box::new(stream))
    });
    (Home::with(server, directory), is_armed)
}

fn lose(file: &Path) -> io::Result<()> {
    fs::remove_file(file)?;
    fs::create_dir(file)
}
