//! A session: the tokens of one sign-in, whose they are, and how long they last.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::secret::{AccessToken, MAX_SECRET, RefreshToken};

/// How long an access token is good for where the answer doesn't say (HERE's guide:
/// "valid for 60 minutes").
const LIFETIME: u64 = 60 * 60;

/// The end of the year 9999: later than any time that means something, and early
/// enough for every platform's `SystemTime`.
const LAST_SECOND: u64 = 253_402_300_799;

/// The tokens that a sign-in gave, the account that they belong to, and their times.
///
/// It can be stored and loaded with serde; as JSON its members are `base_url`,
/// `app_id`, `user_name`, `access_token`, `refresh_token` (may be missing),
/// `issued_at` and `expires_at` (Unix seconds); unknown ones are ignored. **What is
/// stored holds the tokens in the clear**: keep it where nobody else can read it.
/// Its `Debug` shows no token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Session {
    pub(crate) base_url: String,
    pub(crate) app_id: String,
    pub(crate) user_name: String,
    pub(crate) access_token: AccessToken,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<RefreshToken>,
    pub(crate) issued_at: u64,
    pub(crate) expires_at: u64,
}

/// A session as it was stored, by whomever.
#[derive(Deserialize)]
struct Stored {
    base_url: String,
    app_id: String,
    user_name: String,
    access_token: AccessToken,
    refresh_token: Option<RefreshToken>,
    issued_at: u64,
    expires_at: u64,
}

impl TryFrom<Stored> for Session {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        check_access_token(&stored.access_token)?;
        if stored.issued_at.max(stored.expires_at) > LAST_SECOND {
            return Err("a time of the session is out of range");
        }
        Ok(Self {
            base_url: stored.base_url,
            app_id: stored.app_id,
            user_name: stored.user_name,
            access_token: stored.access_token,
            refresh_token: stored.refresh_token,
            issued_at: stored.issued_at,
            expires_at: stored.expires_at,
        })
    }
}

impl Session {
    /// Makes the session of tokens that were issued now; `expires_in` is in seconds.
    pub(crate) fn issued_now(
        account: [&str; 3],
        access_token: AccessToken,
        refresh_token: Option<RefreshToken>,
        expires_in: Option<f64>,
    ) -> Self {
        let [base_url, app_id, user_name] = account.map(str::to_owned);
        // The conversion saturates, and a number that isn't above zero is ignored.
        let lifetime = match expires_in {
            Some(seconds) if seconds > 0.0 => seconds as u64,
            _ => LIFETIME,
        };
        let issued_at = since_epoch(SystemTime::now()).as_secs().min(LAST_SECOND);
        Self {
            base_url,
            app_id,
            user_name,
            access_token,
            refresh_token,
            issued_at,
            expires_at: issued_at.saturating_add(lifetime).min(LAST_SECOND),
        }
    }

    /// The address that the session was made at, in its normal form.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The app id that the session was made with.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// The user name, an e-mail address, of the account.
    pub fn user_name(&self) -> &str {
        &self.user_name
    }

    /// The token that reading takes.
    pub fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    /// The token that refreshing takes, if the server gave one.
    pub fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    /// When the access token was issued.
    pub fn issued_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.issued_at)
    }

    /// When the access token expires: after the answer's `expires_in`, or an hour.
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires_at)
    }

    /// Whether the access token has at least `margin` to live, by the wall clock. One
    /// that was issued in the future counts as expired: the clock was set back.
    pub fn is_fresh(&self, margin: Duration) -> bool {
        let now = since_epoch(SystemTime::now());
        let left = Duration::from_secs(self.expires_at).checked_sub(now);
        Duration::from_secs(self.issued_at) <= now && left.is_some_and(|left| left >= margin)
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Checks that a token can stand in a header: a bearer token is visible ASCII
/// (RFC 6750, section 2.1, is stricter still).
pub(crate) fn check_access_token(token: &AccessToken) -> Result<(), &'static str> {
    let token = token.as_str();
    if token.is_empty() {
        return Err("the access token is empty");
    }
    if token.len() > MAX_SECRET {
        return Err("the access token is too long");
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the access token isn't visible ASCII");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(expires_in: Option<f64>) -> Session {
        let account = ["https://example.com", "id", "me"];
        Session::issued_now(account, AccessToken::new("t"), None, expires_in)
    }

    fn lifetime(expires_in: Option<f64>) -> u64 {
        let session = session(expires_in);
        session.expires_at - session.issued_at
    }

    #[test]
    fn a_token_lives_for_an_hour_unless_the_answer_says_otherwise() {
        assert_eq!(lifetime(None), 3600);
        assert_eq!(lifetime(Some(120.9)), 120);
        assert_eq!(lifetime(Some(0.0)), 3600);
        assert_eq!(lifetime(Some(-5.0)), 3600);
        assert_eq!(lifetime(Some(f64::NAN)), 3600);
        assert_eq!(session(Some(1e300)).expires_at, LAST_SECOND);
    }

    #[test]
    fn a_session_is_fresh_while_the_margin_is_left() {
        let mut session = session(Some(100.0));
        assert!(session.is_fresh(Duration::from_secs(60)));
        assert!(!session.is_fresh(Duration::from_secs(101)));
        assert!(!session.is_fresh(Duration::MAX));
        session.issued_at += 50;
        assert!(!session.is_fresh(Duration::ZERO), "issued in the future");
    }

    #[test]
    fn a_stored_session_is_loaded_or_refused() {
        let session = session(None);
        let stored = serde_json::to_value(&session).unwrap();
        assert_eq!(
            serde_json::from_value::<Session>(stored.clone()).unwrap(),
            session
        );
        for (member, value) in [
            ("access_token", "".into()),
            ("access_token", "a\nb".into()),
            ("expires_at", u64::MAX.into()),
            ("issued_at", serde_json::Value::Null),
        ] {
            let mut spoilt = stored.clone();
            spoilt[member] = value;
            assert!(
                serde_json::from_value::<Session>(spoilt).is_err(),
                "{member}"
            );
        }
    }
}
