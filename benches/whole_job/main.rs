//! `cargo bench`: what the whole job takes, as a process and as a call, against a
//! fake API over TLS on this machine, and beside others that do it. Nothing is
//! asserted: read the ratios.

#![allow(unsafe_code)] // What a child process does before it runs the command.

mod floor;
mod harness;
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::{calls, first_byte, process, table};
use support::client::{builder, sign_in};
use support::fake_api::http::json_response;
use support::fake_api::{EMAIL, PASSWORD, QUERY};
use support::tls::{Ca, Certificate, fake_api};
use ureq::tls::{Certificate as Root, RootCerts, TlsConfig};

/// What this program is to be instead, for the comparison of processes.
const ROLE: &str = "DATALENS_BENCH_ROLE";

/// Data sets, about 1 MB of them as JSON.
fn megabyte() -> String {
    let data_set = |n: u32| {
        format!(
            r#"{{"id":"{n:032x}","name":"Data set number {n}","row_count":{n},"area":{}.25,"tags":["a","b",null,true]}},"#,
            n * 7
        )
    };
    (1_000_000..1_007_000).map(data_set).collect()
}

fn main() {
    match env::var(ROLE).as_deref() {
        Ok("floor") => return floor::run(),
        Ok(_) => return println!("one line"),
        Err(_) => {}
    }
    let ca = Ca::new();
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("ca.pem"), ca.pem()).expect("a file");
    let (server, _) = fake_api(ca.server(Certificate::Good));
    let megabyte = megabyte();
    for megabytes in [5, 64] {
        let body = format!("[{}0]", megabyte.repeat(megabytes));
        server.respond_always(&format!("/v1/{megabytes}"), json_response("200 OK", &body));
    }
    let base_url = format!("https://localhost:{}", server.port());
    let commands = Commands::new(directory.path(), &base_url);
    whole_job(&commands);
    nothing_to_ask(&commands);
    long_responses(&commands);
    kept_alive(&ca, &base_url);
}

/// The commands, each with the same environment.
struct Commands<'a> {
    directory: &'a Path,
    base_url: &'a str,
}

impl<'a> Commands<'a> {
    /// Copies both programs, so that they lie on the disk alike: it shows in the times.
    fn new(directory: &'a Path, base_url: &'a str) -> Self {
        let this = env::current_exe().expect("a path");
        for (program, name) in
            [(Path::new(env!("CARGO_BIN_EXE_datalens")), "datalens"), (&this, "bench")]
        {
            fs::copy(program, directory.join(name)).expect("a copy");
        }
        Self { directory, base_url }
    }

    fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("DATALENS_PASSWORD", PASSWORD)
            .env("SSL_CERT_FILE", self.directory.join("ca.pem"));
        support::command::set_application(&mut command, self.base_url);
        command
    }

    fn datalens(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&self.directory.join("datalens"));
        command.args(arguments);
        command
    }

    /// With a session that its first use makes.
    fn with_session(&self, arguments: &[&str]) -> Command {
        let mut command = self.datalens(arguments);
        command.arg("--session").arg(self.directory.join("session.json"));
        command
    }

    fn this(&self, role: &str) -> Command {
        let mut command = self.program(&self.directory.join("bench"));
        command.env(ROLE, role);
        command
    }

    /// A script in which `curl PATH` asks for a path below /v1/.
    fn script(&self, script: &str) -> Command {
        let mut command = self.program(Path::new("sh"));
        let curl = r#"curl() {
            path=$1; shift
            command curl -sS --fail --cacert "$SSL_CERT_FILE" "$@" "$DATALENS_BASE_URL/v1/$path"
        }
        "#;
        command.arg("-c").arg(curl.to_owned() + script);
        command
    }
}

fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    let asked = command.arg("--version").stdout(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn whole_job(commands: &Commands) {
    let body = serde_json::json!({"email": EMAIL, "password": PASSWORD}).to_string();
    let sign_in = format!("curl 'sign_in/?{QUERY}' -d '{body}'");
    let both = format!(
        "token=$({sign_in} | jq -r .access_token)\n\
         curl 'datasets/?{QUERY}' -H \"Authorization: Bearer $token\""
    );
    let long = commands.datalens(&[EMAIL, "64"]);
    let mut contenders = vec![
        ("floor", process(commands.this("floor"))),
        ("datalens", process(commands.datalens(&[EMAIL]))),
        ("datalens, the first byte of 64 MB", first_byte(long)),
    ];
    if is_installed("curl") {
        contenders.push(("curl, the sign-in alone", process(commands.script(&sign_in))));
    }
    if is_installed("curl") && is_installed("jq") {
        contenders.push(("curl | jq, then curl", process(commands.script(&both))));
    }
    table("the whole job", 51, contenders);
}

fn nothing_to_ask(commands: &Commands) {
    let token = commands.with_session(&["-t", EMAIL]);
    let contenders = vec![
        ("a program that prints a line", process(commands.this("line"))),
        ("datalens --help", process(commands.datalens(&["--help"]))),
        ("datalens --token, a good session", process(token)),
    ];
    table("nothing to ask", 51, contenders);
}

fn long_responses(commands: &Commands) {
    if is_installed("curl") {
        let datalens = commands.with_session(&[EMAIL, "64"]);
        let contenders = vec![
            ("curl, unchecked", process(commands.script("curl 64"))),
            ("datalens, checked as JSON", process(datalens)),
        ];
        table("a response of 64 MB", 9, contenders);
    }
    if is_installed("curl") && is_installed("jq") {
        let datalens = commands.with_session(&[EMAIL, "5"]);
        let jq = commands.script("curl 5 | jq -c .");
        let contenders =
            vec![("datalens, checked as JSON", process(datalens)), ("curl | jq -c .", process(jq))];
        table("a response of 5 MB", 5, contenders);
    }
}

/// Calls of one session, beside those of an agent of ureq with its default settings.
fn kept_alive(ca: &Ca, base_url: &str) {
    let client = builder(base_url).root_certificates(ca.pem()).build();
    let session = sign_in(&client.expect("a client"));
    let roots = RootCerts::new_with_certs(&[Root::from_pem(ca.pem().as_bytes()).expect("PEM")]);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .proxy(None)
        .build()
        .into();
    let url = format!("{base_url}/v1/datasets/?{QUERY}");
    let token = session.access_token().expect("a token");
    let bearer = format!("Bearer {}", token.secret());
    let ours = || drop(session.datasets().expect("data sets"));
    let bare = || {
        let request = agent.get(&url).header("Authorization", &bearer);
        let mut response = request.call().expect("a response");
        let body = response.body_mut().read_to_vec().expect("a body");
        drop(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON"));
    };
    for threads in [1, 8] {
        let title = format!("one of 400 calls over kept connections, {threads} at a time");
        let contenders = vec![
            ("a bare ureq agent", calls(threads, 400, &bare)),
            ("this library", calls(threads, 400, &ours)),
        ];
        table(&title, 11, contenders);
    }
}
