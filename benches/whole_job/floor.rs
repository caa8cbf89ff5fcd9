//! The least that does the same two requests: rustls on a blocking socket, with no
//! limit, no check and no care for any other server than the fake API.

use std::env;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::Deserialize;

use crate::support::fake_api::{EMAIL, QUERY};

type Stream = StreamOwned<ClientConnection, TcpStream>;

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
}

pub fn run() {
    let variable = |name| env::var(name).expect(name);
    let base_url = variable("DATALENS_BASE_URL");
    let host = base_url.strip_prefix("https://").expect("https");
    let mut stream = connect(host, &variable("SSL_CERT_FILE"));
    let password = variable("DATALENS_PASSWORD");
    let body = serde_json::json!({"email": EMAIL, "password": password}).to_string();
    let length = body.len();
    let response = exchange(
        &mut stream,
        &format!(
            "POST /v1/sign_in/?{QUERY} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    );
    let TokenResponse { access_token } = serde_json::from_slice(&response).expect("a token");
    let response = exchange(
        &mut stream,
        &format!(
            "GET /v1/datasets/?{QUERY} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: text/plain\r\nAuthorization: Bearer {access_token}\r\n\r\n"
        ),
    );
    serde_json::from_slice::<serde_json::Value>(&response).expect("JSON");
    io::stdout().write_all(&response).expect("an output");
    println!();
}

fn connect(host: &str, pem: &str) -> Stream {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(pem).expect("a file") {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(host).expect("a connection");
    tcp.set_nodelay(true).expect("a socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = ClientConnection::new(Arc::new(config), name).expect("TLS");
    StreamOwned::new(tls, tcp)
}

/// Sends a request and returns the body of the response.
fn exchange(stream: &mut Stream, request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).expect("a server");
    let mut bytes = vec![0; 16 * 1024];
    let mut read = 0;
    loop {
        read += stream.read(&mut bytes[read..]).expect("a response");
        let head = bytes[..read].windows(4).position(|w| w == b"\r\n\r\n");
        let Some(end) = head else { continue };
        let head = std::str::from_utf8(&bytes[..end]).expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut lines = head.split("\r\n");
        let length = lines.find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).expect("a length");
        if read >= end + 4 + length {
            return bytes[end + 4..read].to_vec();
        }
    }
}
