//! Standard output, without the line buffering of std's, which looks for the last
//! line feed of every piece.

use std::io::{self, Write};

use here_datalens::{Check, Client, Session};

use crate::args::DEFAULT_RESOURCE;
use crate::failure::Failure;

/// Prints a resource, and a line feed after JSON that lacks one.
pub(crate) fn resource(client: &Client, session: &Session, resource: &str) -> Result<(), Failure> {
    let check = match resource.strip_prefix('/').unwrap_or(resource) {
        DEFAULT_RESOURCE => Check::Json,
        _ => Check::ContentType,
    };
    let mut out = stdout().map_err(|error| Failure::output(&error))?;
    let copied = client.copy(session.access_token(), resource, check, &mut out)?;
    match copied.json && !copied.ends_in_line_feed {
        true => out
            .write_all(b"\n")
            .map_err(|error| Failure::output(&error)),
        false => Ok(()),
    }
}

/// Prints a text as a whole.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let write = || stdout()?.write_all(text.as_bytes());
    write().map_err(|error| Failure::output(&error))
}

#[cfg(unix)]
fn stdout() -> io::Result<impl Write> {
    use std::os::fd::AsFd;
    let owned = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(std::fs::File::from(owned))
}

#[cfg(not(unix))]
fn stdout() -> io::Result<impl Write> {
    Ok(io::stdout().lock())
}
