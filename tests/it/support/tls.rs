//! TLS for the fake API, by a certificate authority made on the spot.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::fake_api::scripted_server::{ScriptedServer, hold};
use super::fake_api::{FakeApi, Stream};

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Certificate {
    Good,
    OfAnotherHost,
    Expired,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
        let names = &mut params.distinguished_name;
        names.push(DnType::CommonName, "here-datalens test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The settings of a server at 127.0.0.1 and localhost.
    pub fn server(&self, certificate: Certificate) -> Arc<ServerConfig> {
        let names: &[&str] = if certificate == Certificate::OfAnotherHost {
            &["elsewhere.example"]
        } else {
            &["localhost", "127.0.0.1"]
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if certificate == Certificate::Expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.0).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }
}

/// A fake API behind TLS, and its count of handshakes.
pub fn fake_api(config: Arc<ServerConfig>) -> (FakeApi, Arc<AtomicUsize>) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handshakes);
    let server = FakeApi::start_with(move |stream| {
        let stream = accept(&config, stream)?;
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(stream) as Box<dyn Stream>)
    });
    (server, handshakes)
}

/// Makes the handshake.
pub fn accept<S: Read + Write>(
    config: &Arc<ServerConfig>,
    mut stream: S,
) -> io::Result<StreamOwned<ServerConnection, S>> {
    let mut tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(tls, stream))
}

/// Responds to whatever comes in plain http.
pub fn without_tls() -> ScriptedServer {
    ScriptedServer::start(|_, mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        hold(stream);
    })
}
