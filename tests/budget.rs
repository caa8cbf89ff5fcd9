//! What a job may cost, in counts that don't depend on the machine: connections,
//! handshakes, round trips, memory.
#![cfg(target_os = "linux")]

mod support;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use here_datalens::{AccessToken, Client, Credentials};
use support::command::{account, datalens, run};
use support::scripted::{Scripted, reply};
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME, answer, json};
use support::tls::{Ca, Certificate, accept, stand_in};

/// Runs the whole job against a server at this port.
fn run_at(port: u16, ca: &Ca) {
    let mut pem = tempfile::NamedTempFile::new().unwrap();
    pem.write_all(ca.pem().as_bytes()).unwrap();
    let mut command = datalens();
    account(&mut command, &format!("https://localhost:{port}"));
    let ran = run(command
        .env("DATALENS_PASSWORD", PASSWORD)
        .env("SSL_CERT_FILE", pem.path())
        .arg(USER_NAME));
    let expected = format!("{DATASETS}\n");
    assert_eq!((ran.status, ran.out()), (Some(0), &expected[..]), "{ran:?}");
}

#[test]
fn a_run_makes_one_connection_and_one_handshake() {
    let ca = Ca::new();
    let (server, handshakes) = stand_in(ca.server(Certificate::Good));
    run_at(server.port(), &ca);
    assert_eq!(server.connections(), 1);
    assert_eq!(handshakes.load(Ordering::SeqCst), 1);
}

/// The server's side of a connection; counts how often it answers what it has read.
struct Turns {
    stream: TcpStream,
    count: Arc<AtomicUsize>,
    answering: bool,
}

impl Read for Turns {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.answering = false;
        self.stream.read(buffer)
    }
}

impl Write for Turns {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.answering {
            self.answering = true;
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn a_run_takes_four_round_trips() {
    let ca = Ca::new();
    let mut config = rustls::ServerConfig::clone(&ca.server(Certificate::Good));
    // The client doesn't wait for tickets, so they would be no round trip.
    config.send_tls13_tickets = 0;
    let config = Arc::new(config);
    let turns = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&turns);
    let server = StandIn::start_with(move |stream| {
        let count = Arc::clone(&count);
        let answering = false;
        let turns = Turns {
            stream,
            count,
            answering,
        };
        Ok(Box::new(accept(&config, turns)?))
    });
    run_at(server.port(), &ca);
    // One for TCP comes before them: TLS, the sign-in, the data sets.
    assert_eq!(turns.load(Ordering::SeqCst), 3);
}

#[test]
fn eight_threads_keep_eight_connections_from_burst_to_burst() {
    let all = Barrier::new(8);
    let server = Scripted::start(move |_, stream| {
        // Answers once eight ask at the same time.
        while reply(&stream, b"").is_some() {
            all.wait();
            if (&stream).write_all(&json("200 OK", "{}")).is_err() {
                return;
            }
        }
    });
    let client = Client::builder(Credentials::new(APP_ID, APP_CODE))
        .base_url(server.base_url())
        .build()
        .unwrap();
    for _ in 0..3 {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| client.datasets(&AccessToken::new("t")).unwrap());
            }
        });
        assert_eq!(server.connections(), 8);
    }
}

/// The most memory, in KB, that a run has held when this much of its output has been
/// read: at least 2 MB less than all of it, more than a pipe holds.
fn peak(answer: Vec<u8>, read: u64) -> u64 {
    let server = StandIn::start();
    server.answer_always("/v1/datasets", answer);
    let mut command = Command::new(env!("CARGO_BIN_EXE_datalens"));
    command.env_clear().env("DATALENS_PASSWORD", PASSWORD);
    account(&mut command, &server.base_url());
    let mut child = command
        .arg(USER_NAME)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let came = io::copy(&mut (&mut out).take(read), &mut io::sink());
    assert_eq!(came.unwrap(), read);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    io::copy(&mut out, &mut io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.expect("it still runs");
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_long_answer_takes_at_most_half_a_megabyte_more_than_a_short_one() {
    let text = |repeated| format!("[{}0]", "\"some text\",".repeat(repeated));
    let short = peak(json("200 OK", &text(200_000)), 1);

    let long = text(4_000_000);
    let plain = peak(json("200 OK", &long), 40_000_000);
    assert!(plain <= short + 512, "{short} KB, then {plain} KB");

    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(long.as_bytes()).unwrap();
    let headers = ["Content-Type: application/json", "Content-Encoding: gzip"];
    let answer = answer("200 OK", &headers, &encoder.finish().unwrap());
    let compressed = peak(answer, 40_000_000);
    assert!(
        compressed <= short + 512,
        "{short} KB, then {compressed} KB"
    );
}
