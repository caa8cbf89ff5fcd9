//! A small blocking client of HERE's Geovisualization ("Data Lens") API: signs in to an
//! account and reads what it has there, its data sets, queries and tiles.
//!
//! ```no_run
//! use here_datalens::{Client, Credentials, Password};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::new(Credentials::new("app id", "app code"))?;
//!     let session = client.sign_in("me@example.com", &Password::new("password"))?;
//!     println!("{}", session.datasets()?);
//!     Ok(())
//! }
//! ```
//!
//! [`Session::get`] reads any resource into a type of yours, and [`Session::copy`] copies
//! one, however long, to a writer. An access token lives for about an hour; the session
//! refreshes it by itself.
//!
//! The API is a legacy one: HERE issues no new app codes, and the service may be gone.
//! This client follows the documented protocol.
//!
//! # A session in a file
//!
//! Sign in once, and let every later run, thread and process go on from there. On Unix,
//! [`FileStore`] keeps the tokens in a file that only its owner can read:
//!
//! ```no_run
//! # #[cfg(unix)]
//! # mod unix {
//! use here_datalens::{Client, Error, FileStore, Password};
//!
//! # fn ask_for_password() -> Password { Password::new("") }
//! fn datasets(client: &Client) -> Result<serde_json::Value, Error> {
//!     let session = client.session("me@example.com", FileStore::new("session.json"));
//!     match session.datasets() {
//!         Err(error) if error.needs_sign_in() => {
//!             session.sign_in(&ask_for_password())?;
//!             session.datasets()
//!         }
//!         other => other,
//!     }
//! }
//! # }
//! ```
//!
//! # A store of one's own
//!
//! A keyring or a database is two functions: see [`TokenStore`]. A program that keeps the
//! tokens itself gets them from [`Session::tokens`], with serde, and goes on with
//! [`Client::resume`].
//!
//! # Testing
//!
//! [`base_url`](ClientBuilder::base_url) takes plain http for this machine, so that a
//! server of a few lines will do, and [`Tokens`] are made of their parts:
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::TcpListener;
//! use here_datalens::{AccessToken, Client, Credentials, Tokens};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if cfg!(not(feature = "ring")) { return Ok(()) }
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let base_url = format!("http://{}", listener.local_addr()?);
//! let server = std::thread::spawn(move || {
//!     let (mut stream, _) = listener.accept().unwrap();
//!     let head = BufReader::new(&stream).lines().map_while(Result::ok);
//!     let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
//!     let response = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"datasets\":[]}";
//!     stream.write_all(response.as_bytes()).unwrap();
//!     head
//! });
//!
//! let credentials = Credentials::new("app id", "app code");
//! let client = Client::builder(credentials).base_url(base_url).build()?;
//! let account = client.account("me@example.com");
//! let tokens = Tokens::new(account, AccessToken::new("token")?, None);
//! let session = client.resume(tokens)?;
//! assert_eq!(session.datasets()?["datasets"], serde_json::json!([]));
//! assert!(server.join().unwrap().iter().any(|line| line.ends_with("Bearer token")));
//! # Ok(())
//! # }
//! ```
//!
//! # Errors
//!
//! Every call fails with an [`Error`], whose variants are what a caller would branch on.
//! [`needs_sign_in`](Error::needs_sign_in) means: ask for the password;
//! [`is_temporary`](Error::is_temporary): try later; otherwise somebody has to look.
//!
//! # Secrets
//!
//! [`Password`], [`AccessToken`], [`RefreshToken`] and [`Credentials`] show nothing in
//! `Debug`, nor does anything that holds one; no error and no [`Event`] holds one in its
//! text or its fields, nor anything in a server's text that looks like one. They go on
//! the wire to the base URL's origin (scheme, host and port) and nowhere else: a sign-in
//! follows no redirect, and a read none to another origin. Memory isn't wiped. Beware of
//! a logger at the *trace* level: ureq then logs all that is sent and received. At the
//! debug level nothing secret is logged.
//!
//! # Numbers
//!
//! [`Session::datasets`] returns a [`serde_json::Value`], which holds a number as `i64`,
//! `u64` or `f64`: `1.10` becomes `1.1`, and digits beyond an `f64`'s are lost. To keep a
//! response as the server wrote it, copy it, or read it as a `Box<RawValue>` (serde_json's
//! feature `raw_value`): `session.get::<Box<serde_json::value::RawValue>>("datasets/")`.
//! JSON nested deeper than serde_json's limit of 128 is refused, but for a `RawValue`.
//!
//! # Memory and cancelling
//!
//! A connection has buffers of 80 KB, and `copy` takes 64 KB more, however long the body
//! is; `get` holds the body, up to [`max_body_size`](ClientBuilder::max_body_size), and
//! what it is parsed into. A copy is cancelled by its writer, by any error but
//! `Interrupted`. Any other call ends by itself within its time limits.
//!
//! # Threads, processes, async programs
//!
//! [`Client`] and [`Session`] are `Send + Sync` and cheap to clone. Threads that share a
//! session share one refresh; sessions that share a file do so between processes. In an
//! async program, make the calls where blocking is allowed:
//!
//! ```text
//! let datasets = tokio::task::spawn_blocking(move || session.datasets()).await??;
//! ```
//!
//! # Features
//!
//! | feature | default | what for |
//! | --- | --- | --- |
//! | `cli` | yes | the command `datalens`; an embedder leaves it out |
//! | `gzip` | yes | lets the server compress its responses |
//! | `ring` | yes | TLS with ring's cryptography, unless the process has installed another provider |
//! | `process-provider` | no | TLS with the [`CryptoProvider`] that the process installs: for a program whose rustls has another than ring |
//! | `platform-verifier` | no | `ClientBuilder::platform_certificates`: the system's trust store |
//!
//! Without `ring`, and without an installed provider, [`build`](ClientBuilder::build)
//! refuses. The crates in the tree are licensed as MIT, Apache-2.0, ISC, BSD-3-Clause, Zlib,
//! CDLA-Permissive-2.0 (Mozilla's root certificates) or Unicode-3.0 (while building).
//!
//! [`CryptoProvider`]: https://docs.rs/rustls/latest/rustls/crypto/struct.CryptoProvider.html

// Where things are, each in the file of its name:
//
// client           the client of one application: its requests
// client/token_endpoint … those that bring tokens: signing in and refreshing
// builder          a client's settings, and their check
// session          a user's session: its calls, repeated after a 401
// session/state    … the policy, without waiting or sending: which tokens a call may use, who
//                  renews them and when, and when again after a failure
// session/renewal  … carries it out: waits for the turn, locks the store, refreshes
// tokens           the tokens of one sign-in, as data: whose, and how long they are fresh
// store            where tokens live: the trait, and memory
// store/file       … a file, and what is refused of one
// store/file/disk  … how it is opened, locked (and how long that may take) and replaced
// secret           passwords, tokens and credentials that `{:?}` doesn't show
// error            failures: which pass, which need a sign-in, and their words
// event            what is told on the way
// http             one call over HTTP: requests, status, redirects
// http/attempt     … ureq's errors to ours, and whether a request may be sent again
// http/retry       … sends it again: how often, after which wait
// http/date        … `Retry-After`, and dates
// http/body        … bodies: into memory, into a type, into a writer
// http/json        … the check that a body is JSON
// http/redact      … what is shown of a server's text: which member, without secrets
// http/url         … base URL, resources, redirects' targets, percent-encoding
// http/certificates … PEM files, and what is wrong with a certificate
// http/proxy       … which proxy: its URL, `no_proxy`
// http/transport   … connections, put together for ureq of what follows:
// http/resolver    … a name's addresses, and how long they are kept
// http/connect     … several addresses, tried in rounds
// http/tunnel      … the CONNECT request to a proxy, and its response
//
// bin/datalens     the command: args (options, help), settings (variables, files), password,
//                  terminal (the prompt), output (also what is being waited for), error (exit
//                  statuses), signals (which wait until new tokens are stored)

#![forbid(unsafe_code)]

mod builder;
mod client;
mod error;
mod event;
mod http;
mod secret;
mod session;
mod store;
mod tokens;

pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, Operation, Stage};
pub use event::Event;
pub use http::body::{CopySummary, JsonCheck};
pub use http::url::encode_segment;
pub use secret::{AccessToken, Credentials, Password, RefreshToken};
pub use session::Session;
#[cfg(unix)]
pub use store::file::FileStore;
pub use store::{MemoryStore, TokenStore};
pub use tokens::{Account, Tokens};

/// The example in the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
