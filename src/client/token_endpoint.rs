//! The API's two ways to tokens, `sign_in` and `sign_in/refresh`: their requests, their
//! response, which is much like RFC 6749's (section 5.1), and the error of a refresh.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{json, value::RawValue};

use super::Client;
use crate::error::{Error, Stage};
use crate::http::{Call, Response};
use crate::secret::{AccessToken, Password, RefreshToken};
use crate::tokens::{Account, DEFAULT_LIFETIME, Tokens};

const UNUSABLE: &str = "the access token in the response isn't visible ASCII of at most 8192 bytes";

/// The members of a response, of which only three are known: the last counts of one that
/// is given twice, and no value is looked at that isn't asked for.
type Members<'a> = BTreeMap<String, &'a RawValue>;

impl Client {
    /// Signs in with an e-mail address and a password.
    pub(crate) fn send_sign_in(&self, email: &str, password: &Password) -> Result<Tokens, Error> {
        let call = self.call(self.sign_in_operation(email), "sign_in/", &[password.secret()]);
        let call = call.with_body(&json!({ "email": email, "password": password.secret() }));
        request_tokens(&call, self.account(email), None)
    }

    /// Exchanges tokens, one of which is a refresh token, for new ones. The old ones may be
    /// of no more use then.
    pub(crate) fn send_refresh(&self, tokens: &Tokens, is_early: bool) -> Result<Tokens, Error> {
        let secrets = tokens.secrets();
        let body = json!({ "access_token": secrets[0], "refresh_token": secrets[1] });
        let operation = self.refresh_operation();
        let mut call = self.call(operation, "sign_in/refresh", &secrets).with_body(&body);
        // A call that could go on with the token is held up by one request, not by retries.
        call.limits.retries = if is_early { 0 } else { call.limits.retries };
        request_tokens(&call, tokens.account(), tokens.refresh_token()).map_err(refresh_error)
    }
}

/// Sends a request for tokens, and makes them of the response. The old refresh token is
/// kept if there is no new one (RFC 6749, section 6).
fn request_tokens(
    call: &Call<'_>,
    account: Account<'_>,
    old: Option<&RefreshToken>,
) -> Result<Tokens, Error> {
    let response = call.send(Response::read)?;
    let members: Members<'_> = response.parse().map_err(|failure| failure.error)?;
    let Some(access_token) = member::<String>(&members, "access_token") else {
        let words = call.redactor().error_excerpt(&response.bytes, None);
        let words = words.map_or_else(String::new, |words| format!("; the server says: {words}"));
        return Err(call.invalid_response(format!("no access token in the response{words}")));
    };
    let access_token =
        AccessToken::new(access_token).map_err(|_| call.invalid_response(UNUSABLE))?;
    let refresh_token = member(&members, "refresh_token").or_else(|| old.cloned());
    let lifetime = members.get("expires_in").and_then(|value| lifetime(value.get()));
    Ok(Tokens::new(account, access_token, refresh_token)
        .with_lifetime(lifetime.unwrap_or(DEFAULT_LIFETIME)))
}

/// A member, if its value is of this type.
fn member<T: DeserializeOwned>(members: &Members<'_>, name: &str) -> Option<T> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// The seconds of `expires_in`: a positive number, or one in a string. The conversion
/// rounds down, and saturates; but what no f64 holds is ignored like anything else.
fn lifetime(json: &str) -> Option<u64> {
    let seconds: f64 = json.trim_matches('"').parse().ok()?;
    (seconds > 0.0 && seconds.is_finite()).then_some((seconds as u64).max(1))
}

/// The error of a refresh: one that is refused for good can only be mended by signing in,
/// and one whose response was lost may have spent the tokens.
fn refresh_error(mut error: Error) -> Error {
    if let Error::Transport { stage: Stage::Exchange, reason, .. }
    | Error::InvalidResponse { reason, .. } = &mut error
    {
        reason.push_str("; the session may have ended, which the next call finds out");
    }
    let is_refusal = matches!(error.status(), Some(400..=499)) && !error.is_temporary();
    if is_refusal { error.into_sign_in_required() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Operation;

    fn operation() -> Operation {
        Operation::Refresh { host: "example.com".into() }
    }

    #[test]
    fn a_lost_response_is_told_as_what_it_may_mean() {
        let transport = |stage| {
            let reason = "the connection was reset".into();
            let (is_timeout, is_temporary) = (false, true);
            Error::Transport { operation: operation(), stage, is_timeout, is_temporary, reason }
        };
        let reason = "no access token in the response".into();
        let invalid =
            Error::InvalidResponse { operation: operation(), reason, is_truncated: false };
        for (error, may_have_ended) in [
            (transport(Stage::Exchange), true),
            (invalid, true),
            // Nothing was sent.
            (transport(Stage::Connect), false),
        ] {
            let expected = error.to_string();
            let text = refresh_error(error).to_string();
            let lost = "; the session may have ended, which the next call finds out";
            assert_eq!(text, expected + if may_have_ended { lost } else { "" });
        }
    }

    #[test]
    fn only_a_final_refusal_needs_a_sign_in() {
        for (status, is_final) in
            [(400, true), (404, true), (408, false), (429, false), (500, false)]
        {
            let error = Error::Status { operation: operation(), status, text: None };
            assert_eq!(refresh_error(error).needs_sign_in(), is_final, "{status}");
        }
        let error = Error::Unauthorized { operation: operation(), status: 403, text: None };
        assert!(refresh_error(error).needs_sign_in());
    }
}
