//! A fake of the API on a loopback port, in std alone: what the tests and the examples
//! sign in to. It responds as HERE's guide says that the service does, and records every
//! request.

pub mod http;
pub mod scripted_server;

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::http::{Request, json_response, read_request, response};
use self::scripted_server::ScriptedServer;

pub const EMAIL: &str = "me+demo@example.com";
pub const PASSWORD: &str = "demo \"pass\\wörd\" & 100%+1";
pub const APP_ID: &str = "demo-app-id";
pub const APP_CODE: &str = "demo app&code=50%+ü/?#";

/// The query that every request has to have, encoded by hand.
pub const QUERY: &str = "app_id=demo-app-id&app_code=demo%20app%26code%3D50%25%2B%C3%BC%2F%3F%23";

/// The response to a request for the data sets, with numbers and escapes that a careless
/// copy would change.
pub const DATASETS: &str = r#"{"kind":"datalens#datasets","datasets":[{"name":"Caf\u00e9","id":"0123456789abcdef0123456789abcdef","row_count":1.10},{"id":"fedcba9876543210fedcba9876543210","area":1E2}]}"#;

/// A connection to the fake API, once a test may have put TLS in between.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// The running server; it ends when this is dropped.
pub struct FakeApi {
    server: ScriptedServer,
    service: Arc<Mutex<Service>>,
}

/// What the service knows.
#[derive(Default)]
struct Service {
    requests: Vec<Request>,
    issued: usize,
    /// The valid access tokens, and the valid refresh token of each.
    pairs: HashMap<String, String>,
    expired: Vec<(String, String)>,
    sign_ins: usize,
    refreshes: usize,
    expires_in: Option<String>,
    overrides: Vec<Override>,
    hooks: Vec<(String, Arc<Hook>)>,
}

type Hook = dyn Fn() + Send + Sync;

/// A response that was set in place of the service's own.
struct Override {
    path: String,
    bytes: Arc<Vec<u8>>,
    is_once: bool,
}

impl FakeApi {
    /// Starts one on a free port, over plain http.
    pub fn start() -> Self {
        Self::start_with(|stream| Ok(Box::new(stream)))
    }

    /// Starts one whose connections are wrapped, in TLS for example.
    pub fn start_with(
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let service = Arc::new(Mutex::new(Service::default()));
        let shared = Arc::clone(&service);
        let server = ScriptedServer::start(move |number, stream| {
            // A connection that fails is the client's to notice.
            let _ = stream.set_nodelay(true);
            let _ = wrap(stream).and_then(|stream| serve(stream, &shared, number));
        });
        Self { server, service }
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The base URL to give to a client, over plain http.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// How many TCP connections were made.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Every request, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.service).requests.clone()
    }

    /// The paths of the requests after the first `skipped`.
    pub fn paths_after(&self, skipped: usize) -> Vec<String> {
        let requests = &lock(&self.service).requests;
        let paths = requests[skipped..].iter().map(Request::path);
        paths.map(str::to_owned).collect()
    }

    /// How many sign-ins succeeded.
    pub fn sign_ins(&self) -> usize {
        lock(&self.service).sign_ins
    }

    /// How many refreshes succeeded.
    pub fn refreshes(&self) -> usize {
        lock(&self.service).refreshes
    }

    /// Lets every access token expire that was issued so far.
    pub fn expire_tokens(&self) {
        let mut service = lock(&self.service);
        let expired: Vec<_> = service.pairs.drain().collect();
        service.expired.extend(expired);
    }

    /// Revokes every token that was issued so far, refresh tokens too.
    pub fn revoke_tokens(&self) {
        let mut service = lock(&self.service);
        service.pairs.clear();
        service.expired.clear();
    }

    /// Sets the JSON of the member `expires_in`, which isn't there by default.
    pub fn set_expires_in(&self, json: &str) {
        lock(&self.service).expires_in = Some(json.into());
    }

    /// Sets the bytes of the response to the next request whose path begins so.
    pub fn respond_once(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.set_override(path, bytes.into(), true);
    }

    /// Sets the bytes of the response to every request whose path begins so.
    pub fn respond_always(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.set_override(path, bytes.into(), false);
    }

    /// Calls this before each response to a request whose path begins so, when the
    /// service has done what it was asked for.
    pub fn before_response(&self, path: &str, hook: impl Fn() + Send + Sync + 'static) {
        lock(&self.service).hooks.push((path.into(), Arc::new(hook)));
    }

    /// Holds the responses to requests whose path begins so.
    pub fn hold(&self, path: &str) -> Held {
        let (arrived, arrivals) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        self.before_response(path, move || {
            let _ = arrived.send(());
            // An error, which says that nothing is held any more.
            let _ = released.lock().unwrap_or_else(PoisonError::into_inner).recv();
        });
        Held { arrivals, _release: release }
    }

    fn set_override(&self, path: &str, bytes: Vec<u8>, is_once: bool) {
        lock(&self.service).overrides.push(Override {
            path: path.into(),
            bytes: Arc::new(bytes),
            is_once,
        });
    }
}

/// Responses that are held until this is dropped.
pub struct Held {
    arrivals: Receiver<()>,
    _release: Sender<()>,
}

impl Held {
    /// Waits until there is another response to hold.
    pub fn wait(&self) {
        self.arrivals.recv_timeout(Duration::from_secs(60)).expect("a request");
    }
}

fn lock(service: &Mutex<Service>) -> MutexGuard<'_, Service> {
    service.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection until the client closes it, or a response says so.
fn serve(stream: Box<dyn Stream>, service: &Mutex<Service>, number: usize) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream)? {
        request.connection = number;
        let hooks = lock(service).hooks_of(&request);
        let response = lock(service).respond(request);
        hooks.iter().for_each(|hook| hook());
        stream.get_mut().write_all(&response)?;
        stream.get_mut().flush()?;
        if http::says_close(&response) {
            break;
        }
    }
    Ok(())
}

/// The path without the prefix below which a gateway may have put the API.
fn api_path(request: &Request) -> &str {
    let path = request.path();
    &path[path.find("/v1/").unwrap_or(0)..]
}

impl Service {
    fn hooks_of(&self, request: &Request) -> Vec<Arc<Hook>> {
        let hooks = self.hooks.iter();
        let hooks = hooks.filter(|(path, _)| api_path(request).starts_with(path));
        hooks.map(|(_, hook)| Arc::clone(hook)).collect()
    }

    fn respond(&mut self, request: Request) -> Arc<Vec<u8>> {
        let path = api_path(&request);
        let mut overrides = self.overrides.iter();
        let bytes = match overrides.position(|set| path.starts_with(&set.path)) {
            Some(at) if self.overrides[at].is_once => self.overrides.remove(at).bytes,
            Some(at) => Arc::clone(&self.overrides[at].bytes),
            None => Arc::new(self.own_response(&request, path.trim_end_matches('/'))),
        };
        self.requests.push(request);
        bytes
    }

    /// The response of the service itself.
    fn own_response(&mut self, request: &Request, path: &str) -> Vec<u8> {
        let query = [("app_id", APP_ID), ("app_code", APP_CODE)];
        let is_right = |(name, value)| request.query(name).as_deref() == Some(value);
        if !query.into_iter().all(is_right) {
            return unauthorized("unknown application");
        }
        match (request.method.as_str(), path) {
            ("POST", "/v1/sign_in") => self.sign_in(request),
            ("POST", "/v1/sign_in/refresh") => self.refresh(request),
            ("GET", path) if self.knows_token(request) => resource(path),
            ("GET", _) => unauthorized("token expired"),
            _ => not_found(),
        }
    }

    fn sign_in(&mut self, request: &Request) -> Vec<u8> {
        let email = request.json_member("email");
        let password = request.json_member("password");
        if email.as_deref() != Some(EMAIL) || password.as_deref() != Some(PASSWORD) {
            return unauthorized("wrong user or password");
        }
        self.sign_ins += 1;
        self.issue()
    }

    /// Exchanges a pair for a new one; each refresh token works once.
    fn refresh(&mut self, request: &Request) -> Vec<u8> {
        let (Some(access), Some(refresh)) =
            (request.json_member("access_token"), request.json_member("refresh_token"))
        else {
            return json_response("400 Bad Request", r#"{"message":"both tokens are needed"}"#);
        };
        let mut expired = self.expired.iter();
        if let Some(at) = expired.position(|(a, r)| *a == access && *r == refresh) {
            self.expired.swap_remove(at);
        } else if self.pairs.get(&access) == Some(&refresh) {
            self.pairs.remove(&access);
        } else {
            return unauthorized("unknown pair of tokens");
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
        json_response("200 OK", &body)
    }

    fn knows_token(&self, request: &Request) -> bool {
        let authorization = request.header("authorization").unwrap_or_default();
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        self.pairs.contains_key(token)
    }
}

fn resource(path: &str) -> Vec<u8> {
    let json = match path {
        "/v1/datasets" => DATASETS,
        "/v1/datasets/0123456789abcdef0123456789abcdef" => {
            "{\"kind\":\"datalens#dataset\",\"name\":\"Café\"}\n"
        }
        "/v1/queries/1/data" => r#"{"columns":["a","b"],"rows":[[1,2],[3,4]]}"#,
        "/v1/tiles/1" => {
            let tile: Vec<u8> = (0..=255).collect();
            return response("200 OK", &["Content-Type: application/octet-stream"], &tile);
        }
        _ => return not_found(),
    };
    json_response("200 OK", json)
}

fn unauthorized(message: &str) -> Vec<u8> {
    json_response("401 Unauthorized", &format!(r#"{{"message":"{message}"}}"#))
}

fn not_found() -> Vec<u8> {
    json_response("404 Not Found", r#"{"message":"no such resource"}"#)
}
