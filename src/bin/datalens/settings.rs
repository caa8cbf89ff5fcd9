//! The settings of the client: options, else environment variables, else files.

use std::io::{self, Read};
use std::{env, fs::File, path::Path};

use here_datalens::{Client, ClientBuilder, Credentials, Error};

use crate::{args::Options, error::CliError};

/// More than any bundle of certificates, and little enough to read at once.
const MAX_CACERT: u64 = 8 * 1024 * 1024;

/// The settings that need no file.
pub(crate) fn from_environment(options: &Options) -> Result<ClientBuilder, String> {
    let credentials = Credentials::new(credential("HERE_APP_ID")?, credential("HERE_APP_CODE")?);
    let mut builder = Client::builder(credentials).proxy_from_env();
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
    Ok(builder.max_retries(options.max_retries))
}

/// Makes the client, with the certificates of the file that is to be used instead of the
/// built-in ones. A message names the variable or the option that a setting was taken from.
pub(crate) fn client(mut builder: ClientBuilder, options: &Options) -> Result<Client, CliError> {
    let (from, path) = match &options.cacert {
        Some(path) => ("--cacert", path.clone()),
        None => ("SSL_CERT_FILE", env::var_os("SSL_CERT_FILE").unwrap_or_default().into()),
    };
    if !path.as_os_str().is_empty() {
        let fail = |error| format!("{from} {path:?}: can't be read: {error}");
        builder = builder.root_certificates(read(&path).map_err(fail)?);
    }
    builder.build().map_err(|error| {
        let Error::InvalidInput { name, reason, .. } = error else { return error.into() };
        let name = match name {
            "app id" => "HERE_APP_ID",
            "app code" => "HERE_APP_CODE",
            "base URL" if options.base_url.is_some() => "--base-url",
            "base URL" => "DATALENS_BASE_URL",
            "root certificates" => &format!("{from} {path:?}"),
            name => name,
        };
        format!("{name}: {reason}").into()
    })
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
    let value = variable(name)?.ok_or_else(|| format!("{name} isn't set"))?;
    check_visible(name, &value)?;
    match value.as_bytes() {
        [] => Err(format!("{name} is empty")),
        [b'"', .., b'"'] | [b'\'', .., b'\''] => {
            Err(format!("{name} is in quotes: leave them out (docker's --env-file keeps them)"))
        }
        _ => Ok(value),
    }
}

fn variable(name: &str) -> Result<Option<String>, String> {
    let value = env::var_os(name).map(|value| value.into_string()).transpose();
    value.map_err(|_| format!("{name} isn't UTF-8"))
}

/// Refuses what can't be seen, and so was hardly meant.
fn check_visible(name: &str, value: &str) -> Result<(), String> {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}')
    };
    let reason = match value.trim() {
        _ if value.contains(is_hidden) => "holds a character that can't be seen",
        trimmed if trimmed != value => "begins or ends with a blank",
        _ => return Ok(()),
    };
    Err(format!("{name} {reason}"))
}
