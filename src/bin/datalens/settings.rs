//! The settings of the client: options, else environment variables, else files.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::{env, fs::File, time::Duration};

use here_datalens::{Client, ClientBuilder, Credentials, Error};

use crate::args::{self, Options};
use crate::error::{CliError, named};

/// More than any bundle of certificates, and little enough to read at once.
const MAX_CACERT: u64 = 8 * 1024 * 1024;

/// The settings that need no file.
pub(crate) fn from_environment(options: &Options) -> Result<ClientBuilder, String> {
    let credentials = Credentials::new(credential("HERE_APP_ID")?, credential("HERE_APP_CODE")?);
    let builder = Client::builder(credentials)
        .proxy_from_env()
        .timeout(options.timeout.unwrap_or(Duration::MAX))
        .max_retries(options.max_retries);
    let name = if options.base_url.is_some() { "--base-url" } else { "DATALENS_BASE_URL" };
    let Some(url) = setting(&options.base_url, "DATALENS_BASE_URL") else { return Ok(builder) };
    Ok(builder.base_url(named(name, visible(url))?))
}

/// Makes the client, with the certificates of the file that is to be used instead of the
/// built-in ones. A message names the variable or the option that a setting was taken from.
pub(crate) fn client(mut builder: ClientBuilder, options: &Options) -> Result<Client, CliError> {
    let from = if options.cacert.is_some() { "--cacert" } else { "SSL_CERT_FILE" };
    let path = setting(&options.cacert, "SSL_CERT_FILE").unwrap_or_default();
    if !path.is_empty() {
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
fn read(path: &OsStr) -> io::Result<Vec<u8>> {
    // An empty one is grown in small steps, a read each.
    let mut bytes = Vec::with_capacity(16 * 1024);
    File::open(path)?.take(MAX_CACERT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CACERT {
        return Err(io::Error::other("it is too large"));
    }
    Ok(bytes)
}

/// What an option sets, else a variable that isn't empty.
fn setting(option: &Option<impl AsRef<OsStr>>, variable: &str) -> Option<OsString> {
    let value = option.as_ref().map(|value| value.as_ref().to_owned());
    value.or_else(|| env::var_os(variable).filter(|value| !value.is_empty()))
}

/// The value of a variable that must be set. An empty one tells of a script that lost it.
fn credential(name: &str) -> Result<String, String> {
    let value = env::var_os(name).ok_or("isn't set").and_then(visible);
    let value = value.and_then(|value| match value.as_bytes() {
        [] => Err("is empty"),
        [b'"', .., b'"'] | [b'\'', .., b'\''] => {
            Err("is in quotes: leave them out (docker's --env-file keeps them)")
        }
        _ => Ok(value),
    });
    named(name, value)
}

/// Refuses what can't be seen, and so was hardly meant.
fn visible(value: OsString) -> Result<String, &'static str> {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}')
    };
    match args::utf8(value)? {
        value if value.contains(is_hidden) => Err("holds a character that can't be seen"),
        value if value.trim() != value => Err("begins or ends with a blank"),
        value => Ok(value),
    }
}
