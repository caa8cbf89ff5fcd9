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

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::{env, io};
use std::{ffi::OsString, process::ExitCode};

use here_datalens::{AccessToken, ClientBuilder, Error, Event, FileStore};
use here_datalens::{MemoryStore, TokenStore, Tokens};

use crate::args::{Command, Options, Output};
use crate::{error::CliError, output::Stdout};

fn main() -> ExitCode {
    let ended = run(env::args_os().skip(1).collect());
    progress::set_wait(None);
    let Err(CliError { exit_status, message }) = ended else { return ExitCode::SUCCESS };
    if exit_status != 0 {
        progress::report(&message);
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
    if let Some(token) = stored_token(&options, &settings) {
        return Ok(out.print_token(&token, &options.output)?);
    }
    let follow = progress::start(options.verbose);
    let settings = settings.on_event(move |event| {
        follow(event);
        defer_signals(event);
    });
    let client = settings::client(settings, &options)?;
    let session = match &options.session {
        Some(path) => client.session(&options.email, DeferringStore(FileStore::new(path))),
        None => client.session(&options.email, MemoryStore::default()),
    };
    let mut print = || out.print(&session, &options.output);
    let mut result = print();
    if let Err(why @ Error::SignInRequired { .. }) = &result {
        progress::set_wait(None);
        let password = password::read_password(options.password_stdin, why)?;
        result = session.sign_in(&password).and_then(|()| print());
    }
    if let Err(Error::Store { renewed: true, .. }) = &result
        // The session holds the new tokens all the same.
        && let Err(error) = print().map_err(CliError::from)
        && error.exit_status != 0
    {
        progress::report(&error.message);
    }
    Ok(result?)
}

/// Whether tokens in a store are being replaced.
static IS_UPDATING: AtomicBool = AtomicBool::new(false);

/// Defers signals while what a request brings has to be stored: from the request on, but for
/// the time in which a name is looked up and connected to, or a request waits to be repeated.
fn defer_signals(event: &Event<'_>) {
    match event {
        _ if !IS_UPDATING.load(SeqCst) => {}
        Event::Request { .. } | Event::Connected { .. } => signals::defer(),
        Event::Resolving { .. } | Event::Retry { .. } => signals::end_deferral(),
        _ => {}
    }
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
            IS_UPDATING.store(true, SeqCst);
            renew(stored)
        });
        IS_UPDATING.store(false, SeqCst);
        signals::end_deferral();
        updated
    }

    fn is_busy(&self) -> bool {
        self.0.is_busy()
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

/// A stored token that is fresh, if that is all that is asked for: it takes no certificate
/// and no network. Whatever is wrong shows on the usual path.
fn stored_token(options: &Options, settings: &ClientBuilder) -> Option<AccessToken> {
    let (Output::Token | Output::Header) = options.output else { return None };
    let tokens = FileStore::new(options.session.as_ref()?).load().ok()??;
    let client = settings.clone().build().ok()?;
    let is_usable = tokens.account() == client.account(&options.email) && tokens.is_fresh();
    is_usable.then(|| tokens.access_token().clone())
}
