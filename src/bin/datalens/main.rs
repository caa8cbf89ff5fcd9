//! `datalens`: signs in to HERE's Data Lens API and prints a resource.
//!
//! Arguments, prompt, output and exit statuses; all else is the library's.

mod args;
mod environment;
mod failure;
#[cfg(unix)]
mod keeper;
mod output;
mod password;
#[cfg(unix)]
mod session_file;
mod terminal;

use std::cell::OnceCell;
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[cfg(unix)]
use here_datalens::Error;
use here_datalens::{Client, ClientBuilder, Credentials, Password, Session};

use crate::args::{Command, Options, Print};
use crate::failure::Failure;
#[cfg(unix)]
use crate::keeper::Keeper;
#[cfg(unix)]
use crate::session_file::SessionFile;

/// More than any bundle of certificates, and little enough to read at once.
const MAX_CACERT: u64 = 8 * 1024 * 1024;

fn main() -> ExitCode {
    let ended = match args::parse(env::args_os().skip(1)) {
        Ok(Command::Help) => output::text(args::HELP),
        Ok(Command::Version) => output::text(concat!("datalens ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Run(options)) => run(&options),
        Err(reason) => Err(Failure::Setting(format!(
            "{reason}\nTry 'datalens --help' for more."
        ))),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                say(&failure.to_string());
            }
            ExitCode::from(failure.status())
        }
    }
}

/// Says something on standard error; what can't be said has nowhere else to go.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "datalens: {message}");
}

fn run(options: &Options) -> Result<(), Failure> {
    let settings = settings(options)?;
    if let Print::Resource(resource) = &options.print {
        Client::check_resource(resource)?;
    }
    let kept = OnceCell::new();
    // The certificates are read and TLS set up once, and only if they are needed.
    let client = || -> Result<Client, Failure> {
        if let Some(client) = kept.get() {
            return Ok(Client::clone(client));
        }
        let client = with_certificates(settings.clone(), options)?.build()?;
        Ok(kept.get_or_init(|| client).clone())
    };
    let password = || password::obtain(options.password_stdin);
    if let Some(file) = &options.session {
        return run_with_session(options, file, &settings, &client, &password);
    }
    let client = client()?;
    let session = client.sign_in(&options.user_name, &password()?)?;
    print(&options.print, &session, &|| Ok(client.clone()))
}

#[cfg(unix)]
fn run_with_session(
    options: &Options,
    file: &Path,
    settings: &ClientBuilder,
    client: &dyn Fn() -> Result<Client, Failure>,
    password: &dyn Fn() -> Result<Password, Failure>,
) -> Result<(), Failure> {
    let account = settings.clone().build()?;
    let file = SessionFile::new(file, &account, &options.user_name);
    let mut keeper = Keeper::new(file, &options.user_name, client, password);
    let session = keeper.session()?;
    match print(&options.print, &session, client) {
        // Nothing has been printed yet.
        Err(Failure::Client(refusal @ Error::Refused { status: 401, .. })) => {
            let session = keeper.after(session.access_token(), refusal)?;
            print(&options.print, &session, client)
        }
        other => other,
    }
}

#[cfg(not(unix))]
fn run_with_session(
    _: &Options,
    _: &Path,
    _: &ClientBuilder,
    _: &dyn Fn() -> Result<Client, Failure>,
    _: &dyn Fn() -> Result<Password, Failure>,
) -> Result<(), Failure> {
    Err(Failure::Setting("--session is for Unix alone".into()))
}

fn print(
    what: &Print,
    session: &Session,
    client: &dyn Fn() -> Result<Client, Failure>,
) -> Result<(), Failure> {
    let token = session.access_token().as_str();
    match what {
        Print::Token => output::text(&format!("{token}\n")),
        Print::Header => output::text(&format!("Authorization: Bearer {token}\n")),
        Print::Resource(resource) => output::resource(&client()?, session, resource),
    }
}

/// The settings that need no file.
fn settings(options: &Options) -> Result<ClientBuilder, Failure> {
    let credentials = Credentials::new(
        environment::required("HERE_APP_ID")?,
        environment::required("HERE_APP_CODE")?,
    );
    let mut builder = Client::builder(credentials)
        .proxy_from_environment()
        .retries(options.retries)
        .on_retry(|error, wait| {
            let seconds = wait.as_secs_f64();
            say(&format!("{error}; trying again in {seconds:.1} s"));
        });
    let variable = environment::setting("DATALENS_BASE_URL");
    if let Some(url) = &options.base_url {
        builder = builder.base_url(url);
    } else if let Some(url) = variable {
        let not_utf8 = |_| Failure::Setting("DATALENS_BASE_URL isn't UTF-8".into());
        builder = builder.base_url(url.into_string().map_err(not_utf8)?);
    }
    if let Some(limit) = options.timeout {
        builder = builder.timeout(limit);
    }
    Ok(builder)
}

fn with_certificates(builder: ClientBuilder, options: &Options) -> Result<ClientBuilder, Failure> {
    let variable = || environment::setting("SSL_CERT_FILE").map(PathBuf::from);
    let Some(path) = options.cacert.clone().or_else(variable) else {
        return Ok(builder);
    };
    let pem = read(&path).map_err(|error| {
        Failure::Setting(format!("can't read certificates from {path:?}: {error}"))
    })?;
    Ok(builder.root_certificates(pem))
}

/// Reads a file that may be a pipe, or endless.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // An empty one is grown in small steps, a read each.
    let mut bytes = Vec::with_capacity(16 * 1024);
    File::open(path)?
        .take(MAX_CACERT + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_CACERT {
        true => Err(io::Error::other("it is too large")),
        false => Ok(bytes),
    }
}
