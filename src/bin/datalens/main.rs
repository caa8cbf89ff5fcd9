//! `datalens`: signs in to HERE's Data Lens API and prints a resource.
//!
//! Arguments, prompt, output and exit statuses; all else is the library's.

mod args;
mod environment;
mod failure;
mod output;
mod password;
mod terminal;

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use here_datalens::{Client, ClientBuilder, Credentials};

use crate::args::{Command, Options, Print};
use crate::failure::Failure;

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
                // A message that can't be written has nowhere else to go.
                let _ = writeln!(io::stderr(), "datalens: {failure}");
            }
            ExitCode::from(failure.status())
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let client = with_certificates(settings(options)?, options)?.build()?;
    if let Print::Resource(resource) = &options.print {
        Client::check_resource(resource)?;
    }
    let password = password::obtain(options.password_stdin)?;
    let session = client.sign_in(&options.user_name, &password)?;
    let token = session.access_token().as_str();
    match &options.print {
        Print::Token => output::text(&format!("{token}\n")),
        Print::Header => output::text(&format!("Authorization: Bearer {token}\n")),
        Print::Resource(resource) => output::resource(&client, &session, resource),
    }
}

/// The settings that need no file.
fn settings(options: &Options) -> Result<ClientBuilder, Failure> {
    let credentials = Credentials::new(
        environment::required("HERE_APP_ID")?,
        environment::required("HERE_APP_CODE")?,
    );
    let mut builder = Client::builder(credentials).proxy_from_environment();
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
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_CACERT + 1)
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_CACERT {
        true => Err(io::Error::other("it is too large")),
        false => Ok(bytes),
    }
}
