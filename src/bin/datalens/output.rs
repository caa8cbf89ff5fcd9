//! What is printed, on standard output without the line buffering of std's, which looks
//! for the last line feed of every chunk.

use std::io::{self, Write};
use std::{fs::File, os::fd::AsFd, sync::Arc};

use here_datalens::{AccessToken, Error, JsonCheck, Session};

use crate::args::{DEFAULT_RESOURCE, Options};
use crate::{progress, signals};

/// Standard output, which remembers the last byte.
pub(crate) struct Stdout {
    file: File,
    last: Option<u8>,
}

impl Stdout {
    pub(crate) fn open() -> Result<Self, Error> {
        let file = io::stdout().as_fd().try_clone_to_owned().map_err(output_error)?;
        Ok(Self { file: file.into(), last: None })
    }

    /// Prints what was asked for, and a line feed after JSON that lacks one.
    pub(crate) fn print(&mut self, session: &Session, options: &Options) -> Result<(), Error> {
        if let Some(prefix) = options.token_prefix {
            return self.print_token(prefix, &session.access_token()?);
        }
        let resource = options.resource.as_str();
        let is_default = resource.strip_prefix('/').unwrap_or(resource) == DEFAULT_RESOURCE;
        let check = if is_default { JsonCheck::Always } else { JsonCheck::IfDeclared };
        let copied = session.copy(resource, check, &mut *self)?;
        let is_json = is_default || copied.is_json();
        if is_json && self.last != Some(b'\n') { self.print_text("\n") } else { Ok(()) }
    }

    /// Prints an access token, alone or in the header that this begins.
    pub(crate) fn print_token(&mut self, prefix: &str, token: &AccessToken) -> Result<(), Error> {
        // What a refresh has brought is stored by now.
        signals::end_deferral();
        self.print_text(&format!("{prefix}{}\n", token.secret()))
    }

    /// Prints a text as a whole.
    pub(crate) fn print_text(&mut self, text: &str) -> Result<(), Error> {
        self.write_all(text.as_bytes()).map_err(output_error)
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::end_wait_at(&self.file);
        let written = self.file.write(bytes)?;
        self.last = bytes[..written].last().copied().or(self.last);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn output_error(error: io::Error) -> Error {
    Error::Output(Arc::new(error))
}
