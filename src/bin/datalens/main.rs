//! `datalens`: signs in to HERE's Data Lens API and prints a resource.
//!
//! Arguments, prompt, output and exit statuses; all else is the library's.

mod args;
mod error;
mod output;
mod password;
mod progress;
mod settings;
#[allow(unsafe_code)] // libc's signals.
mod signals;
#[allow(unsafe_code)] // libc's terminals.
mod terminal;

use std::env;
use std::io;
use std::process::ExitCode;

use here_datalens::{
    AccessToken, ClientBuilder, Error, FileStore, MemoryStore, TokenStore, Tokens,
};

use crate::args::{Command, Options, Output};
use crate::error::CliError;

fn main() -> ExitCode {
    let ended = match args::parse(env::args_os().skip(1).collect()) {
        Ok(Command::Print(text)) => output::print_text(text).map_err(CliError::from),
        Ok(Command::Run(options)) => run(&options),
        Err(reason) => Err(reason.into()),
    };
    progress::end_wait();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.exit_status != 0 {
                progress::report(&error.message);
            }
            error.exit_status.into()
        }
    }
}

fn run(options: &Options) -> Result<(), CliError> {
    let settings = settings::from_environment(options)?;
    if let Some(token) = stored_token(options, &settings) {
        return Ok(output::print_token(&token, &options.output)?);
    }
    let verbose = options.verbose;
    let settings = settings.on_event(move |event| progress::follow(event, verbose));
    let client = settings::client(settings, options)?;
    progress::start();
    let session = match &options.session {
        Some(path) => client.session(&options.email, DeferringStore(FileStore::new(path))),
        None => client.session(&options.email, MemoryStore::default()),
    };
    let mut result = output::print(&session, &options.output);
    if let Err(required) = &result
        && required.needs_sign_in()
    {
        progress::end_wait();
        let password = password::read_password(options.password_stdin, required)?;
        result = session.sign_in(&password).and_then(|()| output::print(&session, &options.output));
    }
    if let Err(Error::Store { renewed: true, .. }) = &result {
        // The session holds the new tokens all the same.
        output::print(&session, &options.output)?;
    }
    Ok(result?)
}

/// A store during whose updates signals are deferred: tokens that were spent have to be
/// replaced in it.
struct DeferringStore(FileStore);

impl TokenStore for DeferringStore {
    fn load(&self) -> io::Result<Option<Tokens>> {
        self.0.load()
    }

    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
        let updated = self.0.update(&mut |stored| {
            signals::defer();
            renew(stored)
        });
        signals::end_deferral();
        updated
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// A stored token that is fresh, if that is all that is asked for: it takes no certificate
/// and no network. Whatever is wrong shows on the usual path.
fn stored_token(options: &Options, settings: &ClientBuilder) -> Option<AccessToken> {
    let path = options.session.as_ref()?;
    if let Output::Resource(_) = options.output {
        return None;
    }
    let tokens = FileStore::new(path).load().ok()??;
    let client = settings.clone().build().ok()?;
    let is_usable = tokens.account() == client.account(&options.email) && tokens.is_fresh();
    is_usable.then(|| tokens.access_token().clone())
}
