//! `cargo bench`: how long the whole job takes, as a process and as a call, against a
//! stand-in over TLS on this machine, and beside others that do it.
//!
//! The contenders run in turn, so that a change of the machine's speed meets all of
//! them. Nothing is asserted: read the ratios.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use here_datalens::{Client, Credentials, Password};
use support::stand_in::{APP_CODE, APP_ID, PASSWORD, USER_NAME, json};
use support::tls::{Ca, Certificate, stand_in};
use ureq::tls::{Certificate as Root, RootCerts, TlsConfig};

const ROUNDS: usize = 31;
const CALLS: u32 = 500;

/// The longest answer, in bytes.
const LONG: usize = 64_000_000;

type Contender<'a> = (&'a str, Box<dyn FnMut() -> Duration + 'a>);

fn main() {
    let ca = Ca::new();
    let directory = tempfile::tempdir().expect("a directory");
    let pem = directory.path().join("ca.pem");
    std::fs::File::create(&pem)
        .and_then(|mut file| file.write_all(ca.pem().as_bytes()))
        .unwrap();
    let (server, _) = stand_in(ca.server(Certificate::Good));
    let base_url = format!("https://localhost:{}", server.port());
    let long = format!("[{}0]", "\"some text\",12.5,".repeat(LONG / 17));
    server.answer_always("/v1/long", json("200 OK", &long));

    let datalens = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datalens"));
        command
            .env_clear()
            .env("DATALENS_PASSWORD", PASSWORD)
            .env("SSL_CERT_FILE", &pem);
        support::command::account(&mut command, &base_url);
        command.args(arguments);
        command
    };
    let session = directory.path().join("session.json");
    let session = session.to_str().expect("a path in UTF-8");
    time(&mut datalens(&["--session", session, "-t", USER_NAME]));

    let curl = |path: &str| {
        let mut command = Command::new("curl");
        command
            .arg("-sS")
            .arg("--cacert")
            .arg(&pem)
            .arg(format!("{base_url}{path}"));
        command
    };
    let credentials = "app_id=demo-app-id&app_code=demo%20app%26code%3D50%25%2B%C3%BC%2F%3F%23";
    let body = serde_json::json!({"email": USER_NAME, "password": PASSWORD}).to_string();
    let sign_in = format!("/v1/sign_in/?{credentials}");
    let has_curl = Command::new("curl")
        .arg("-V")
        .stdout(Stdio::null())
        .status()
        .is_ok();

    let mut processes: Vec<Contender> = vec![
        (
            "datalens, the whole job",
            Box::new(|| time(&mut datalens(&[USER_NAME]))),
        ),
        (
            "true, a process that does nothing",
            Box::new(|| time(&mut Command::new("true"))),
        ),
        (
            "datalens --help",
            Box::new(|| time(&mut datalens(&["--help"]))),
        ),
        (
            "datalens --token with a good session",
            Box::new(|| time(&mut datalens(&["--session", session, "-t", USER_NAME]))),
        ),
    ];
    if has_curl {
        processes.push((
            "curl, the sign-in alone",
            Box::new(|| time(curl(&sign_in).args(["-d", &body]))),
        ));
    }
    table("processes", ROUNDS, processes);

    let mut streams: Vec<Contender> = vec![(
        "datalens, 64 MB checked as JSON",
        Box::new(|| time(&mut datalens(&[USER_NAME, "long"]))),
    )];
    if has_curl {
        streams.push((
            "curl, 64 MB unchecked",
            Box::new(|| time(&mut curl("/v1/long"))),
        ));
    }
    table("a long answer", 5, streams);

    let client = Client::builder(Credentials::new(APP_ID, APP_CODE))
        .base_url(&base_url)
        .root_certificates(ca.pem())
        .build()
        .expect("a client");
    let token = client
        .sign_in(USER_NAME, &Password::new(PASSWORD))
        .expect("a session");
    let token = token.access_token().clone();
    let roots = RootCerts::new_with_certs(&[Root::from_pem(ca.pem().as_bytes()).expect("PEM")]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .build()
        .into();
    let url = format!("{base_url}/v1/datasets/?{credentials}");
    let bearer = format!("Bearer {}", token.as_str());
    let ours = || drop(client.datasets(&token).expect("data sets"));
    let bare = || {
        let mut answer = agent
            .get(&url)
            .header("Authorization", &bearer)
            .call()
            .expect("an answer");
        let body = answer.body_mut().read_to_vec().expect("a body");
        drop(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON"));
    };
    table(
        "500 kept-alive calls",
        11,
        vec![
            ("this library, 1 thread", Box::new(|| calls(1, &ours))),
            ("a bare ureq agent, 1 thread", Box::new(|| calls(1, &bare))),
            ("this library, 8 threads", Box::new(|| calls(8, &ours))),
            ("a bare ureq agent, 8 threads", Box::new(|| calls(8, &bare))),
        ],
    );
}

/// Runs a process to its end.
fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("it starts");
    assert!(status.success(), "{command:?}");
    start.elapsed()
}

fn calls(threads: u32, call: &(impl Fn() + Sync)) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| (0..CALLS / threads).for_each(|_| call()));
        }
    });
    start.elapsed()
}

/// Runs the contenders in turn and prints their medians, and the ratios to the first.
fn table(title: &str, rounds: usize, mut contenders: Vec<Contender>) {
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..=rounds {
        for ((_, run), times) in contenders.iter_mut().zip(&mut times) {
            times.push(run());
        }
    }
    println!("\n{title}: medians of {rounds}");
    let medians: Vec<Duration> = times
        .into_iter()
        .map(|mut times| {
            // The first warms up.
            times.remove(0);
            times.sort();
            times[times.len() / 2]
        })
        .collect();
    for ((name, _), median) in contenders.iter().zip(&medians) {
        let milliseconds = median.as_secs_f64() * 1000.0;
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("  {name:<40} {milliseconds:>9.2} ms  {ratio:>6.2}");
    }
}
