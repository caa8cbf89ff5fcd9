//! A server that is scripted byte by byte.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::http::{Request, read_request};

/// A server on a loopback port that hands each connection, with its number from 0, to a
/// closure in a thread of its own. It ends when this is dropped.
pub struct ScriptedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    has_ended: AtomicBool,
}

impl ScriptedServer {
    pub fn start(script: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("the listener's address");
        let shared = Arc::new(Shared::default());
        let (theirs, script) = (Arc::clone(&shared), Arc::new(script));
        let listening = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if theirs.has_ended.load(Ordering::SeqCst) {
                    return;
                }
                let number = theirs.connections.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                thread::spawn(move || script(number, stream));
            }
        });
        Self { address, shared, listening: Some(listening) }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        // Wakes the listener, and waits for it: then the port is surely closed.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.listening.take().map(JoinHandle::join);
        }
    }
}

/// Keeps a connection open and silent until the client closes its side.
pub fn hold(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Reads a request and responds with these bytes.
pub fn respond(stream: &TcpStream, bytes: &[u8]) -> Option<Request> {
    let request = read_request(&mut BufReader::new(stream)).ok().flatten();
    let mut stream = stream;
    let _ = stream.write_all(bytes);
    request
}

/// Writes the same bytes again and again until the client has had enough.
pub fn write_forever(mut stream: &TcpStream, bytes: &[u8]) {
    while stream.write_all(bytes).is_ok() {}
}

/// The same, but slowly.
pub fn drip(mut stream: &TcpStream, bytes: &[u8]) {
    while stream.write_all(bytes).is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
}
