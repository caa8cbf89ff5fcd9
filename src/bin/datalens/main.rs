//! `datalens`: signs in to HERE's Data Lens API and prints a resource.
//!
//! Arguments, prompt, output and exit statuses; all else is the library's.

mod args;
mod error;
mod output;
mod password;
mod settings;
#[allow(unsafe_code)] // libc's signals.
mod signals;
#[allow(unsafe_code)] // libc's terminals.
mod terminal;

use std::{env, ffi::OsString, process::ExitCode};

use here_datalens::{AccessToken, ClientBuilder, Error, FileStore, MemoryStore, TokenStore};

use crate::args::{Command, Options};
use crate::{error::CliError, output::Stdout};

fn main() -> ExitCode {
    let ended = run(env::args_os().skip(1).collect());
    end_call();
    let Err(CliError { exit_status, message }) = ended else { return ExitCode::SUCCESS };
    if exit_status != 0 {
        output::report(&message);
    }
    exit_status.into()
}

fn run(arguments: Vec<OsString>) -> Result<(), CliError> {
    let command = args::parse(arguments)?;
    let mut out = Stdout::open()?;
    let options = match command {
        Command::Print(text) => return Ok(out.print_text(text)?),
        Command::Run(options) => options,
    };
    let settings = settings::from_environment(&options)?;
    if let Some(prefix) = options.token_prefix
        && let Some(token) = stored_token(&options, &settings)
    {
        return Ok(out.print_token(prefix, &token)?);
    }
    let (is_stored, verbose) = (options.session.is_some(), options.verbose);
    let settings = settings.on_event(move |event| {
        signals::follow(event, is_stored);
        output::follow(event, verbose);
    });
    let client = settings::client(settings, &options)?;
    let session = match &options.session {
        Some(path) => client.session(&options.email, FileStore::new(path)),
        None => client.session(&options.email, MemoryStore::default()),
    };
    let mut print = || out.print(&session, &options);
    let mut result = print();
    if let Err(why @ Error::SignInRequired { .. }) = &result {
        end_call();
        let password = password::read_password(options.password_stdin, why)?;
        result = session.sign_in(&password).and_then(|()| print());
    }
    if let Err(Error::Store { renewed: true, .. }) = &result
        // The session holds the new tokens all the same.
        && let Err(error) = print().map_err(CliError::from)
        && error.exit_status != 0
    {
        output::report(&error.message);
    }
    Ok(result?)
}

/// Ends what belongs to a call: signals that are deferred, and what is said of waiting.
fn end_call() {
    signals::end_deferral();
    output::set_wait(None);
}

/// A stored token that is fresh: to print it takes no certificate and no network. Whatever
/// is wrong shows on the usual path.
fn stored_token(options: &Options, settings: &ClientBuilder) -> Option<AccessToken> {
    let tokens = FileStore::new(options.session.as_ref()?).load().ok()??;
    let client = settings.clone().build().ok()?;
    let is_usable = tokens.account() == client.account(&options.email) && tokens.is_fresh();
    is_usable.then(|| tokens.access_token().clone())
}
