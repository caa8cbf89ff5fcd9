//! What is printed, on standard output without the line buffering of std's, which looks
//! for the last line feed of every chunk.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use here_datalens::{AccessToken, Error, JsonCheck, Session};

use crate::args::{DEFAULT_RESOURCE, Output};
use crate::progress;

/// Prints what was asked for.
pub(crate) fn print(session: &Session, output: &Output) -> Result<(), Error> {
    match output {
        Output::Resource(resource) => print_resource(session, resource),
        _ => print_token(&session.access_token()?, output),
    }
}

/// Prints an access token alone, or as the header that it stands in.
pub(crate) fn print_token(token: &AccessToken, output: &Output) -> Result<(), Error> {
    let name = if *output == Output::Header { "Authorization: Bearer " } else { "" };
    print_text(&format!("{name}{}\n", token.secret()))
}

/// Prints a resource, and a line feed after JSON that lacks one.
fn print_resource(session: &Session, resource: &str) -> Result<(), Error> {
    let is_default = resource.strip_prefix('/').unwrap_or(resource) == DEFAULT_RESOURCE;
    let check = if is_default { JsonCheck::Always } else { JsonCheck::IfDeclared };
    let mut out = Stdout::new()?;
    let copied = session.copy(resource, check, &mut out)?;
    if (is_default || copied.is_json()) && out.last != Some(b'\n') {
        out.write_all(b"\n").map_err(output_error)?;
    }
    Ok(())
}

/// Prints a text as a whole.
pub(crate) fn print_text(text: &str) -> Result<(), Error> {
    Stdout::new()?.write_all(text.as_bytes()).map_err(output_error)
}

fn output_error(error: io::Error) -> Error {
    Error::Output(Arc::new(error))
}

/// Standard output, which remembers the last byte.
struct Stdout {
    file: File,
    last: Option<u8>,
}

impl Stdout {
    fn new() -> Result<Self, Error> {
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(output_error)?;
        Ok(Self { file: file.into(), last: None })
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_terminal() {
            progress::end_wait();
        }
        let written = self.file.write(bytes)?;
        self.last = bytes[..written].last().copied().or(self.last);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
