//! Why the command ends without success: a message and an exit status.

use std::error::Error as _;
use std::io::ErrorKind;

use here_datalens::{Error, Stage};

pub(crate) struct CliError {
    pub(crate) exit_status: u8,
    pub(crate) message: String,
}

/// Names what a check refuses.
pub(crate) fn named<T>(name: &str, checked: Result<T, &str>) -> Result<T, String> {
    checked.map_err(|reason| format!("{name} {reason}"))
}

/// Usage, a setting, no password.
impl From<String> for CliError {
    fn from(message: String) -> Self {
        Self { exit_status: 2, message }
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let mut message = error.to_string();
        if let Error::Transport { stage, .. } = error {
            message += hint(stage, &message);
        }
        message += &error.source().map_or(String::new(), |source| format!(": {source}"));
        // Says whether it will help to try again.
        let exit_status = match &error {
            _ if error.is_temporary() => 4,
            // The reader has had enough: a success, for a filter.
            Error::Output(source) if source.kind() == ErrorKind::BrokenPipe => 0,
            Error::Store { source, .. } if source.kind() == ErrorKind::InvalidInput => 2,
            Error::Output(_) | Error::Store { .. } => 1,
            Error::InvalidInput { .. } => 2,
            Error::Unauthorized { .. } | Error::SignInRequired { .. } => 3,
            _ => 5,
        };
        Self { exit_status, message }
    }
}

/// What an option can do about a failure of the connection.
fn hint(stage: Stage, message: &str) -> &'static str {
    let says = |words| message.contains(words);
    match stage {
        Stage::Certificate if says("not trusted by Mozilla") => " (--cacert FILE names others)",
        // A name server that can't be asked says nothing of the service.
        Stage::Resolve if says("Temporary failure") => "",
        Stage::Resolve if says("look up datalens.api.here.com: ") => {
            "; HERE's service may be gone (--base-url URL names another)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_where_an_option_can_help() {
        for (stage, message, option) in [
            (Stage::Certificate, "not trusted by Mozilla's root certificates", "--cacert"),
            (Stage::Certificate, "expired on 2002-01-01", ""),
            (Stage::Resolve, "can't look up datalens.api.here.com: no", "--base-url"),
            (Stage::Resolve, "can't look up datalens.api.here.com within 10 s", ""),
            (Stage::Resolve, "can't look up datalens.api.here.com: Temporary failure in x", ""),
            (Stage::Resolve, "can't look up datalens.api.here.com.example: no", ""),
            (Stage::Resolve, "can't look up api.example: no", ""),
            (Stage::Resolve, "at datalens.api.here.com: can't look up the proxy p.example: no", ""),
            (Stage::Connect, "can't connect to datalens.api.here.com: no", ""),
        ] {
            let hint = hint(stage, message);
            assert!(hint.contains(option) && hint.is_empty() == option.is_empty(), "{message}");
        }
    }
}
