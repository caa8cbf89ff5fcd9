//! Tests of the library and of the command over real sockets, TLS and pseudo-terminals.
//! `support` has what they share: a fake API, scripted servers, processes.
//!
//! Without a cryptography of its own no client can be built here.
#![cfg(all(unix, feature = "ring"))]

mod support;

mod errors;
mod fake_api_check;
mod faults;
#[cfg(feature = "cli")]
mod messages;
mod policy;
mod proxy;
mod redirects;
mod resources;
mod retries;
mod secrets;
mod session;
mod settings;
#[cfg(feature = "cli")]
mod sharing;
mod sign_in;
mod store;
mod time_limits;
mod tls;

#[cfg(target_os = "linux")]
mod file_store;
#[cfg(target_os = "linux")]
mod hosts_file;

#[cfg(feature = "cli")]
mod budget;
#[cfg(feature = "cli")]
mod command;
#[cfg(feature = "cli")]
mod command_line;
#[cfg(feature = "cli")]
mod command_session;
#[cfg(feature = "cli")]
mod job_control;
#[cfg(feature = "cli")]
mod prompt;
#[cfg(feature = "cli")]
mod readme;
#[cfg(feature = "cli")]
mod session_file;
#[cfg(feature = "cli")]
mod signals;
#[cfg(feature = "cli")]
mod status_line;
