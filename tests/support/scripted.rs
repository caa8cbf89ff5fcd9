//! A server for faults, scripted byte by byte.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::stand_in::{Request, read_request};

/// A server scripted byte by byte: each connection is handed, with its number, to a
/// closure of its own thread.
pub struct Scripted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Scripted {
    pub fn start(script: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("the listener's address");
        let connections = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (count, end, script) = (
            Arc::clone(&connections),
            Arc::clone(&ended),
            Arc::new(script),
        );
        let listening = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (number, script) = (count.fetch_add(1, Ordering::SeqCst), Arc::clone(&script));
                thread::spawn(move || script(number, stream));
            }
        });
        Self {
            address,
            connections,
            ended,
            listening: Some(listening),
        }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, and waits for it: then the port is surely closed.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.listening.take().map(JoinHandle::join);
        }
    }
}

/// Keeps a connection open and silent until the client closes its side.
pub fn hold(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
}

/// Reads a request and answers with these bytes.
pub fn reply(stream: &TcpStream, bytes: &[u8]) -> Option<Request> {
    let request = read_request(&mut BufReader::new(stream)).ok().flatten();
    let mut stream = stream;
    let _ = stream.write_all(bytes);
    request
}
