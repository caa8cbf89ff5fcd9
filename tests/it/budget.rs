//! What a job may cost, in counts that don't depend on the machine: connections,
//! handshakes, round trips, memory.
#![cfg(target_os = "linux")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::support::client::session_at;
use crate::support::command::{datalens_at, run, start, wait};
use crate::support::fake_api::http::json_response;
use crate::support::fake_api::scripted_server::{ScriptedServer, respond};
use crate::support::fake_api::{EMAIL, FakeApi};
use crate::support::temporary_file;
use crate::support::tls::{Ca, Certificate, accept, fake_api};

/// Runs the whole job against a server at this port.
fn run_at(port: u16, ca: &Ca) {
    let pem = temporary_file(ca.pem());
    let mut command = datalens_at(&format!("https://localhost:{port}"));
    command.env("SSL_CERT_FILE", pem.path()).arg(EMAIL);
    run(&mut command).assert_printed_datasets();
}

#[test]
fn a_run_makes_one_connection_and_one_handshake() {
    let ca = Ca::new();
    let (server, handshakes) = fake_api(ca.server(Certificate::Good));
    run_at(server.port(), &ca);
    assert_eq!(server.connections(), 1);
    assert_eq!(handshakes.load(Ordering::SeqCst), 1);
}

/// The server's side of a connection; counts how often it responds to what it has read.
struct CountingStream {
    stream: TcpStream,
    count: Arc<AtomicUsize>,
    is_responding: bool,
}

impl Read for CountingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_responding = false;
        self.stream.read(buffer)
    }
}

impl Write for CountingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_responding {
            self.is_responding = true;
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
    let round_trips = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&round_trips);
    let server = FakeApi::start_with(move |stream| {
        let stream = CountingStream { stream, count: Arc::clone(&count), is_responding: false };
        Ok(Box::new(accept(&config, stream)?))
    });
    run_at(server.port(), &ca);
    // One for TCP comes before them: TLS, the sign-in, the data sets.
    assert_eq!(round_trips.load(Ordering::SeqCst), 3);
}

#[test]
fn eight_threads_keep_eight_connections_from_burst_to_burst() {
    let all = Barrier::new(8);
    let server = ScriptedServer::start(move |_, stream| {
        // Responds once eight requests have come.
        while respond(&stream, b"").is_some() {
            all.wait();
            let bytes = json_response("200 OK", "{}");
            if (&stream).write_all(&bytes).is_err() {
                return;
            }
        }
    });
    let session = session_at(&server.base_url());
    for _ in 0..3 {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| session.datasets().unwrap());
            }
        });
        assert_eq!(server.connections(), 8);
    }
}

/// The most memory, in KB, that a run has held when this much of its output has been
/// read: at least 2 MB less than all of it, more than a pipe holds.
fn peak(response: Vec<u8>, read: u64) -> u64 {
    let server = FakeApi::start();
    server.respond_always("/v1/datasets", response);
    let mut child = start(datalens_at(&server.base_url()).arg(EMAIL));
    let mut out = child.stdout.take().unwrap();
    let copied = io::copy(&mut (&mut out).take(read), &mut io::sink());
    assert_eq!(copied.unwrap(), read);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    io::copy(&mut out, &mut io::sink()).unwrap();
    assert_eq!(wait(child).status, Some(0));
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.expect("it still runs");
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_long_response_takes_at_most_half_a_megabyte_more_than_a_short_one() {
    let text = |repeated| format!("[{}0]", "\"some text\",".repeat(repeated));
    let short = peak(json_response("200 OK", &text(200_000)), 1);
    let long = text(4_000_000);
    let plain = peak(json_response("200 OK", &long), 40_000_000);
    assert!(plain <= short + 512, "{short} KB, then {plain} KB");
    #[cfg(feature = "gzip")]
    {
        use crate::support::fake_api::http::response;
        let headers = ["Content-Type: application/json", "Content-Encoding: gzip"];
        let body = crate::support::gzip(long.as_bytes());
        let compressed = peak(response("200 OK", &headers, &body), 40_000_000);
        let both = format!("{short} KB, then {compressed} KB");
        assert!(compressed <= short + 512, "{both}");
    }
}
