//! What is said in signing in and refreshing: requests, their answer, a refusal.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer;
use crate::error::Error;
use crate::failure::Failure;
use crate::secret::{AccessToken, MAX_SECRET, RefreshToken};
use crate::session::{Session, check_access_token};

/// The body of a request to `sign_in`. Without `Debug`: it holds a password.
#[derive(Serialize)]
pub(crate) struct SignInRequest<'a> {
    pub(crate) email: &'a str,
    pub(crate) password: &'a str,
}

/// The body of a request to `sign_in/refresh`. Without `Debug`: it holds tokens.
#[derive(Serialize)]
pub(crate) struct RefreshRequest<'a> {
    pub(crate) access_token: &'a AccessToken,
    pub(crate) refresh_token: &'a RefreshToken,
}

/// The answer to either, in so far as it is known. Without `Debug`: it holds tokens.
#[derive(Deserialize)]
pub(crate) struct SignInAnswer {
    access_token: String,
    refresh_token: Option<Value>,
    expires_in: Option<Value>,
}

impl SignInAnswer {
    /// Takes the tokens from the body of an answer.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Failure> {
        // serde would take an array's elements for the members, too.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(answer::parse::<Value>(body)
                .err()
                .unwrap_or_else(|| Error::answer("its JSON is no object").into()));
        }
        let tokens: Self = answer::parse(body)?;
        let access_token = AccessToken::new(tokens.access_token.as_str());
        check_access_token(&access_token).map_err(Error::answer)?;
        Ok(tokens)
    }

    /// Makes the session of them, for the account of a base URL, an app id and a user name.
    pub(crate) fn into_session(self, account: [&str; 3]) -> Session {
        let refresh_token = match self.refresh_token {
            Some(Value::String(text)) if (1..=MAX_SECRET).contains(&text.len()) => {
                Some(RefreshToken::new(text))
            }
            _ => None,
        };
        Session::issued_now(
            account,
            AccessToken::new(self.access_token),
            refresh_token,
            self.expires_in.and_then(|seconds| seconds.as_f64()),
        )
    }
}

/// The error of a refresh: one that is refused can only be mended by signing in.
pub(crate) fn refused_refresh(error: Error) -> Error {
    match error {
        Error::Status {
            status: 408 | 429, ..
        } => error,
        Error::Status {
            status: status @ 400..=499,
            text,
        }
        | Error::Refused { status, text, .. } => Error::SignInAgain {
            status: Some(status),
            text,
        },
        other => other,
    }
}
