//! Environment variables.

use std::env;
use std::ffi::OsString;

use crate::failure::Failure;

/// The value of a variable, of which an empty one is none.
pub(crate) fn setting(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The value of a variable that holds a credential: an empty one is refused, as it
/// tells of a script that lost it.
pub(crate) fn secret(name: &str) -> Result<Option<String>, Failure> {
    match env::var_os(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) if value.is_empty() => Err(Failure::Setting(format!("{name} is empty"))),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => Err(Failure::Setting(format!("{name} isn't UTF-8"))),
    }
}

/// The same for one that there must be.
pub(crate) fn required(name: &str) -> Result<String, Failure> {
    secret(name)?.ok_or_else(|| Failure::Setting(format!("{name} isn't set")))
}
