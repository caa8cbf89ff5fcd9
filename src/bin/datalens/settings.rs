//! The settings of the client: options, else environment variables, else files.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use here_datalens::{Client, ClientBuilder, Credentials, Error};

use crate::args::Options;
use crate::error::CliError;

/// More than any bundle of certificates, and little enough to read at once.
const MAX_CACERT: u64 = 8 * 1024 * 1024;

/// The settings that need no file.
pub(crate) fn from_environment(options: &Options) -> Result<ClientBuilder, String> {
    let credentials = Credentials::new(credential("HERE_APP_ID")?, credential("HERE_APP_CODE")?);
    let mut builder =
        Client::builder(credentials).proxy_from_env().max_retries(options.max_retries);
    let (name, url) = match &options.base_url {
        Some(url) => ("--base-url", Some(url.clone())),
        None => ("DATALENS_BASE_URL", variable("DATALENS_BASE_URL")?.filter(|url| !url.is_empty())),
    };
    if let Some(url) = url {
        check_visible(name, &url)?;
        builder = builder.base_url(url);
    }
    if let Some(limit) = options.timeout {
        builder = builder.timeout(limit);
    }
    Ok(builder)
}

/// Makes the client, with the certificates of the file that is to be used instead of the
/// built-in ones.
pub(crate) fn client(builder: ClientBuilder, options: &Options) -> Result<Client, CliError> {
    let variable = || env::var_os("SSL_CERT_FILE").filter(|value| !value.is_empty());
    let (path, name) = match (&options.cacert, variable()) {
        (Some(path), _) => (path.clone(), "--cacert"),
        (None, Some(path)) => (PathBuf::from(path), "SSL_CERT_FILE"),
        (None, None) => return builder.build().map_err(|error| named(error, options)),
    };
    let refuse = |reason: &dyn fmt::Display| CliError::from(format!("{name} {path:?}: {reason}"));
    let pem = read(&path).map_err(|error| refuse(&format_args!("can't be read: {error}")))?;
    let built = builder.root_certificates(pem).build();
    built.map_err(|error| match error {
        Error::InvalidInput { name: "root certificates", reason, .. } => refuse(&reason),
        error => named(error, options),
    })
}

/// Names the variable or the option that a setting was taken from.
fn named(error: Error, options: &Options) -> CliError {
    let Error::InvalidInput { name, reason, .. } = &error else { return error.into() };
    let name = match *name {
        "app id" => "HERE_APP_ID",
        "app code" => "HERE_APP_CODE",
        "base URL" if options.base_url.is_some() => "--base-url",
        "base URL" => "DATALENS_BASE_URL",
        name => name,
    };
    format!("{name}: {reason}").into()
}

/// Reads a file that may be a pipe, or endless.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // An empty one is grown in small steps, a read each.
    let mut bytes = Vec::with_capacity(16 * 1024);
    File::open(path)?.take(MAX_CACERT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CACERT {
        return Err(io::Error::other("it is too large"));
    }
    Ok(bytes)
}

/// The value of a variable that must be set. An empty one tells of a script that lost it.
fn credential(name: &str) -> Result<String, String> {
    let refuse = |reason| Err(format!("{name} {reason}"));
    let value = variable(name)?.ok_or_else(|| format!("{name} isn't set"))?;
    if value.is_empty() {
        return refuse("is empty");
    }
    check_visible(name, &value)?;
    let is_quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') {
        return refuse("is in quotes: leave them out (docker's --env-file keeps them)");
    }
    Ok(value)
}

fn variable(name: &str) -> Result<Option<String>, String> {
    let value = env::var_os(name).map(OsString::into_string).transpose();
    value.map_err(|_| format!("{name} isn't UTF-8"))
}

/// Refuses what can't be seen, and so was hardly meant.
fn check_visible(name: &str, value: &str) -> Result<(), String> {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if value.contains(is_hidden) {
        return Err(format!("{name} holds a character that can't be seen"));
    }
    if value.trim() != value {
        return Err(format!("{name} begins or ends with a blank"));
    }
    Ok(())
}
