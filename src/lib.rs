//! Signs in to HERE's Geovisualization ("Data Lens") API and reads what an account
//! has there: its data sets, queries and tiles. Blocking, with a small tree of
//! dependencies.
//!
//! ```no_run
//! use here_datalens::{Client, Credentials, Password};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let credentials = Credentials::new("app id", "app code");
//!     let client = Client::new(credentials)?;
//!     let session = client.sign_in("me@example.com", &Password::new("password"))?;
//!     let datasets = client.datasets(session.access_token())?;
//!     println!("{datasets}");
//!     Ok(())
//! }
//! ```
//!
//! [`Client::get`] reads any other resource into a type of yours, and
//! [`Client::copy`] copies one, however long, to a writer.
//!
//! A token lives for about an hour. [`Client::signed_in`] makes a handle whose calls
//! refresh it in time; a [`Session`] can be stored and loaded with serde.
//!
//! The API is a legacy one: HERE issues no new app codes. This client follows its
//! documented protocol.
//!
//! # Errors
//!
//! Every call fails with an [`Error`], whose variants are what a caller would branch
//! on. [`is_refused`](Error::is_refused) means: ask for the password again;
//! [`is_temporary`](Error::is_temporary): try later; otherwise give up.
//!
//! # Secrets
//!
//! [`Password`], [`AccessToken`] and [`RefreshToken`] show nothing in `Debug`, nor
//! does anything that holds one; no error holds one in its text or its fields. They
//! go on the wire to the base URL's origin (scheme, host and port) and nowhere else:
//! a sign-in follows no redirect, and a read none to another origin. Memory isn't
//! wiped. Beware of a logger at the *trace* level: ureq then logs all that is sent
//! and received. At the debug level nothing secret is logged.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod address;
mod answer;
mod builder;
mod client;
mod connection;
mod echo;
mod error;
mod failure;
mod json;
mod proxy;
mod retry;
mod secret;
mod session;
mod sign_in;
mod signed_in;

pub use answer::{Check, Copied};
pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, Request, Stage};
pub use secret::{AccessToken, Credentials, Password, RefreshToken};
pub use session::Session;
pub use signed_in::SignedIn;

/// The example in the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
