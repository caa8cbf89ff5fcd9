//! A stand-in of the API on a loopback port, in std alone: what the tests and the
//! examples sign in to. It answers as HERE's guide says that the service does, and
//! remembers every request.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

pub const USER_NAME: &str = "me+demo@example.com";
pub const PASSWORD: &str = "demo \"pass\\wörd\" & 100%+1";
pub const APP_ID: &str = "demo-app-id";
pub const APP_CODE: &str = "demo app&code=50%+ü/?#";

/// The answer to a request for the data sets, with numbers and escapes that a
/// careless copy would change.
pub const DATASETS: &str = r#"{"kind":"datalens#datasets","datasets":[{"name":"Caf\u00e9","id":"0123456789abcdef0123456789abcdef","row_count":1.10},{"id":"fedcba9876543210fedcba9876543210","area":1E2}]}"#;

/// What a connection is to the stand-in, once a test may have put TLS in between.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

type Wrap = dyn Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync;

/// The running server; it ends when this is dropped.
pub struct StandIn {
    address: SocketAddr,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    ended: AtomicBool,
    connections: AtomicUsize,
    service: Mutex<Service>,
}

impl State {
    fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service knows.
#[derive(Default)]
struct Service {
    requests: Vec<Request>,
    issued: usize,
    /// The good access tokens, and the good refresh token of each.
    pairs: HashMap<String, String>,
    expired: Vec<(String, String)>,
    sign_ins: usize,
    refreshes: usize,
    expires_in: Option<String>,
    /// Answers that were set in place of the service's own: path, bytes, once.
    set: Vec<(String, Arc<Vec<u8>>, bool)>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query as on the wire.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The number of the connection that it came over, from 0.
    pub connection: usize,
}

impl StandIn {
    /// Starts one on a free port, over plain http.
    pub fn start() -> Self {
        Self::start_with(|stream| Ok(Box::new(stream)))
    }

    /// Starts one whose connections are wrapped, in TLS for example.
    pub fn start_with(
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("the listener's address");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let listening = thread::spawn(move || accept(&listener, &shared, &Arc::new(wrap)));
        Self {
            address,
            state,
            listening: Some(listening),
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address to give to a client, over plain http.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that arrived, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.state.service().requests.clone()
    }

    /// How many TCP connections were made.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many sign-ins succeeded.
    pub fn sign_ins(&self) -> usize {
        self.state.service().sign_ins
    }

    /// How many refreshes succeeded.
    pub fn refreshes(&self) -> usize {
        self.state.service().refreshes
    }

    /// Lets every access token expire that was issued so far.
    pub fn expire_tokens(&self) {
        let mut service = self.state.service();
        let expired: Vec<_> = service.pairs.drain().collect();
        service.expired.extend(expired);
    }

    /// Makes every token useless that was issued so far, refresh tokens too.
    pub fn forget_tokens(&self) {
        let mut service = self.state.service();
        service.pairs.clear();
        service.expired.clear();
    }

    /// Sets the JSON of the member `expires_in`, which isn't there by default.
    pub fn set_expires_in(&self, json: &str) {
        self.state.service().expires_in = Some(json.into());
    }

    /// Sets the bytes that answer the next request whose path begins so.
    pub fn answer_next(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let answer = (path.into(), Arc::new(bytes.into()), true);
        self.state.service().set.push(answer);
    }

    /// Sets the bytes that answer every request whose path begins so.
    pub fn answer_always(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        let answer = (path.into(), Arc::new(bytes.into()), false);
        self.state.service().set.push(answer);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, and waits for it: then the port is surely closed.
        if TcpStream::connect(self.address).is_ok() {
            let _ = self.listening.take().map(JoinHandle::join);
        }
    }
}

fn accept(
    listener: &TcpListener,
    state: &Arc<State>,
    wrap: &Arc<impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static>,
) {
    for stream in listener.incoming() {
        if state.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        let (state, wrap) = (Arc::clone(state), Arc::clone(wrap));
        thread::spawn(move || {
            let _ = stream.set_nodelay(true);
            let _ = serve(stream, &*wrap, &state, number);
        });
    }
}

/// Serves one connection until the client closes it, or an answer says so.
fn serve(stream: TcpStream, wrap: &Wrap, state: &State, number: usize) -> io::Result<()> {
    let mut stream = BufReader::new(wrap(stream)?);
    while let Some(mut request) = read_request(&mut stream)? {
        request.connection = number;
        let answer = {
            let mut service = state.service();
            service.requests.push(request.clone());
            service.answer(&request)
        };
        stream.get_mut().write_all(&answer)?;
        stream.get_mut().flush()?;
        let head = answer
            .split(|b| *b == b'\n')
            .take_while(|line| line.len() > 1);
        if head
            .into_iter()
            .any(|line| line.eq_ignore_ascii_case(b"connection: close\r"))
        {
            break;
        }
    }
    Ok(())
}

/// Reads one request; `None` at the end of the connection.
pub fn read_request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines
        .first()
        .map(String::as_str)
        .unwrap_or_default()
        .split(' ');
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        headers: lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
        connection: 0,
    };
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok());
    request.body.resize(length.unwrap_or(0), 0);
    stream.read_exact(&mut request.body)?;
    Ok(Some(request))
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, percent-decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(n, _)| *n == name)
            .map(|(_, value)| percent_decode(value))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A string member of the body, which is a flat JSON object.
    pub fn json_member(&self, name: &str) -> Option<String> {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let (_, after) = body.split_once(&format!("\"{name}\":\""))?;
        let mut value = String::new();
        let mut characters = after.chars();
        loop {
            match characters.next()? {
                '"' => return Some(value),
                '\\' => match characters.next()? {
                    'n' => value.push('\n'),
                    'r' => value.push('\r'),
                    't' => value.push('\t'),
                    'b' => value.push('\u{8}'),
                    'f' => value.push('\u{c}'),
                    'u' => {
                        let digits: String = characters.by_ref().take(4).collect();
                        let code = u32::from_str_radix(&digits, 16).ok()?;
                        value.push(char::from_u32(code)?);
                    }
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || {
            rest.next()
                .and_then(|b| char::from(b).to_digit(16))
                .unwrap_or(0)
        };
        bytes.push(match byte {
            b'%' => (digit() * 16 + digit()) as u8,
            // As in a form: a plus sign that was left as it is arrives as a blank.
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Puts an answer with a body of JSON together.
pub fn json(status: &str, body: &str) -> Vec<u8> {
    answer(status, &["Content-Type: application/json"], body.as_bytes())
}

/// Puts an answer together: its head with the length of its body, and that.
pub fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

impl Service {
    fn answer(&mut self, request: &Request) -> Arc<Vec<u8>> {
        let path = request.path();
        // A gateway may put the API below a prefix.
        let path = path
            .find("/v1/")
            .map_or(path, |start| &path[start..])
            .to_owned();
        if let Some(at) = self
            .set
            .iter()
            .position(|(prefix, ..)| path.starts_with(prefix))
        {
            let (_, bytes, once) = self.set[at].clone();
            if once {
                self.set.remove(at);
            }
            return bytes;
        }
        Arc::new(self.own_answer(request, path.trim_end_matches('/')))
    }

    /// The answer of the service itself.
    fn own_answer(&mut self, request: &Request, path: &str) -> Vec<u8> {
        let ours = [("app_id", APP_ID), ("app_code", APP_CODE)];
        if ours
            .iter()
            .any(|(name, value)| request.query(name).as_deref() != Some(value))
        {
            return refused("unknown application");
        }
        match (request.method.as_str(), path) {
            ("POST", "/v1/sign_in") => self.sign_in(request),
            ("POST", "/v1/sign_in/refresh") => self.refresh(request),
            ("GET", path) => match self.knows(request) {
                true => resource(path),
                false => refused("token expired"),
            },
            _ => not_found(),
        }
    }

    fn sign_in(&mut self, request: &Request) -> Vec<u8> {
        let user_name = request.json_member("email");
        let password = request.json_member("password");
        if user_name.as_deref() != Some(USER_NAME) || password.as_deref() != Some(PASSWORD) {
            return refused("wrong user or password");
        }
        self.sign_ins += 1;
        self.issue()
    }

    /// Changes a pair for a new one; each refresh token works once.
    fn refresh(&mut self, request: &Request) -> Vec<u8> {
        let (Some(access), Some(refresh)) = (
            request.json_member("access_token"),
            request.json_member("refresh_token"),
        ) else {
            return json("400 Bad Request", r#"{"message":"both tokens are needed"}"#);
        };
        let expired = self
            .expired
            .iter()
            .position(|(a, r)| *a == access && *r == refresh);
        if let Some(at) = expired {
            self.expired.swap_remove(at);
        } else if self.pairs.get(&access) == Some(&refresh) {
            self.pairs.remove(&access);
        } else {
            return refused("unknown pair of tokens");
        }
        self.refreshes += 1;
        self.issue()
    }

    fn issue(&mut self) -> Vec<u8> {
        self.issued += 1;
        // As long as those seen in public, and different from the first character on.
        let [access, refresh] = ["access", "refresh"]
            .map(|kind| format!("{}-{kind}-{}", self.issued, "tOk3n_-".repeat(155)));
        let expires_in = match &self.expires_in {
            Some(json) => format!(r#","expires_in":{json}"#),
            None => String::new(),
        };
        let body = format!(
            r#"{{"kind":"datalens#sign_in","user":{{"id":1e400}},"access_token":"{access}","refresh_token":"{refresh}"{expires_in}}}"#
        );
        self.pairs.insert(access, refresh);
        json("200 OK", &body)
    }

    fn knows(&self, request: &Request) -> bool {
        let authorization = request.header("authorization").unwrap_or_default();
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        self.pairs.contains_key(token)
    }
}

fn resource(path: &str) -> Vec<u8> {
    match path {
        "/v1/datasets" => json("200 OK", DATASETS),
        "/v1/datasets/0123456789abcdef0123456789abcdef" => json(
            "200 OK",
            "{\"kind\":\"datalens#dataset\",\"name\":\"Café\"}\n",
        ),
        "/v1/queries/1/data" => json("200 OK", r#"{"columns":["a","b"],"rows":[[1,2],[3,4]]}"#),
        "/v1/tiles/1" => {
            let tile: Vec<u8> = (0..=255).collect();
            answer("200 OK", &["Content-Type: application/octet-stream"], &tile)
        }
        _ => not_found(),
    }
}

fn refused(message: &str) -> Vec<u8> {
    json("401 Unauthorized", &format!(r#"{{"message":"{message}"}}"#))
}

fn not_found() -> Vec<u8> {
    json("404 Not Found", r#"{"message":"no such resource"}"#)
}
