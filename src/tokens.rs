//! The tokens of one sign-in, as data: whose they are and how long they last.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::secret::{AccessToken, RefreshToken};

/// The lifetime of an access token in seconds, where the response doesn't give one
/// (HERE's guide: "valid for 60 minutes").
pub(crate) const DEFAULT_LIFETIME: u64 = 60 * 60;

/// The end of the year 9999: later than any time that means something, and early
/// enough for every platform's `SystemTime`.
const MAX_TIMESTAMP: u64 = 253_402_300_799;

/// The most that a fresh access token has to have left.
const MAX_MARGIN: Duration = Duration::from_secs(60);

/// The tokens of one sign-in, the account that they belong to, and their times.
///
/// This is what a [`TokenStore`](crate::TokenStore) keeps, and what
/// [`Client::resume`](crate::Client::resume) makes a session of. With serde it is the
/// JSON object of the command's `--session` file:
///
/// | member | value |
/// | --- | --- |
/// | `base_url` | the base URL that the tokens were issued at, in its normal form |
/// | `app_id` | the app id of the application |
/// | `user_name` | the user name, an e-mail address, of the account |
/// | `access_token` | the access token |
/// | `refresh_token` | the refresh token; missing if the server gave none |
/// | `issued_at`, `expires_at` | times of the access token, in seconds since the Unix epoch |
///
/// Unknown members are ignored. **What is serialised holds the tokens in the clear**:
/// keep it where nobody else can read it. `Debug` shows no token.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use here_datalens::{AccessToken, Account, RefreshToken, Tokens};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let account = Account {
///     base_url: "https://datalens.api.here.com",
///     app_id: "app id",
///     email: "me@example.com",
/// };
/// let now = SystemTime::now();
/// let tokens = Tokens::new(account, AccessToken::new("a")?, Some(RefreshToken::new("r")?))
///     .with_times(now, now + Duration::from_secs(120));
/// assert_eq!(tokens.account(), account);
/// assert!(tokens.is_fresh());
///
/// let json = serde_json::to_string(&tokens)?;
/// assert_eq!(serde_json::from_str::<Tokens>(&json)?, tokens);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "the tokens of a sign-in or a refresh are lost with it"]
pub struct Tokens {
    base_url: String,
    app_id: String,
    #[serde(rename = "user_name")]
    email: String,
    access_token: AccessToken,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<RefreshToken>,
    issued_at: u64,
    expires_at: u64,
}

/// The account that tokens belong to, and the application that it was signed in with.
///
/// [`Client::account`](crate::Client::account) makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Account<'a> {
    /// The base URL in its normal form, as [`Client::base_url`](crate::Client::base_url)
    /// returns it.
    pub base_url: &'a str,
    /// The app id of the application.
    pub app_id: &'a str,
    /// The e-mail address that the account is signed in with.
    pub email: &'a str,
}

impl Tokens {
    /// Makes them of their parts: issued now and, unless
    /// [`with_times`](Self::with_times) says otherwise, good for an hour.
    pub fn new(
        account: Account<'_>,
        access_token: AccessToken,
        refresh_token: Option<RefreshToken>,
    ) -> Self {
        let issued_at = since_epoch(SystemTime::now());
        Self {
            base_url: account.base_url.to_owned(),
            app_id: account.app_id.to_owned(),
            email: account.email.to_owned(),
            access_token,
            refresh_token,
            issued_at,
            expires_at: issued_at + DEFAULT_LIFETIME,
        }
    }

    /// Sets the times of the access token, which are kept to the second, from 1970 to
    /// the year 9999.
    pub fn with_times(self, issued_at: SystemTime, expires_at: SystemTime) -> Self {
        Self { issued_at: since_epoch(issued_at), expires_at: since_epoch(expires_at), ..self }
    }

    /// Sets the lifetime of the access token in seconds (RFC 6749, section 5.1).
    pub(crate) fn with_lifetime(self, seconds: u64) -> Self {
        Self { expires_at: self.issued_at.saturating_add(seconds), ..self }
    }

    /// Returns the account that they belong to.
    pub fn account(&self) -> Account<'_> {
        Account { base_url: &self.base_url, app_id: &self.app_id, email: &self.email }
    }

    /// Refuses tokens of another account than this one.
    pub(crate) fn check_account(&self, ours: Account<'_>) -> io::Result<()> {
        let parts = [
            ("base URL", self.base_url == ours.base_url),
            ("app id", self.app_id == ours.app_id),
            ("user name", self.email == ours.email),
        ];
        let Some((what, _)) = parts.iter().find(|(_, is_same)| !is_same) else { return Ok(()) };
        let reason = format!("it belongs to another account: its {what} differs");
        Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
    }

    /// Returns the token that reading takes.
    pub fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    /// Returns the token that refreshing takes, if the server gave one.
    pub fn refresh_token(&self) -> Option<&RefreshToken> {
        self.refresh_token.as_ref()
    }

    /// Returns what nobody else may see: the access token, and the refresh token or nothing.
    pub(crate) fn secrets(&self) -> [&str; 2] {
        let refresh_token = self.refresh_token().map_or("", RefreshToken::secret);
        [self.access_token.secret(), refresh_token]
    }

    /// Returns when the access token was issued.
    pub fn issued_at(&self) -> SystemTime {
        after_epoch(self.issued_at)
    }

    /// Returns when the access token expires.
    pub fn expires_at(&self) -> SystemTime {
        after_epoch(self.expires_at)
    }

    /// Whether the access token has a minute to live, or half of its lifetime if that is
    /// shorter. One that was issued in the future isn't fresh: the clock was set back.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_at(SystemTime::now())
    }

    pub(crate) fn is_fresh_at(&self, now: SystemTime) -> bool {
        let lifetime = self.expires_at().duration_since(self.issued_at()).unwrap_or_default();
        let left = self.time_left(now);
        left.is_some_and(|left| left >= MAX_MARGIN.min(lifetime / 2))
    }

    /// How long the access token lives from `now` on; `None` once it has expired.
    pub(crate) fn time_left(&self, now: SystemTime) -> Option<Duration> {
        let left = self.expires_at().duration_since(now).ok()?;
        (self.issued_at() <= now && !left.is_zero()).then_some(left)
    }
}

fn since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Later times are taken for the last one: those of a file may be any number.
fn after_epoch(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(MAX_TIMESTAMP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let account =
            Account { base_url: "https://example.com", app_id: "id", email: "me@example.com" };
        Tokens::new(account, AccessToken::new("t").unwrap(), None)
    }

    /// Tokens that were issued so many seconds ago, to live so long in all.
    fn aged(age: i64, lifetime: i64) -> Tokens {
        let mut tokens = tokens();
        tokens.issued_at = tokens.issued_at.checked_add_signed(-age).unwrap();
        tokens.expires_at = tokens.issued_at.checked_add_signed(lifetime).unwrap();
        tokens
    }

    #[test]
    fn a_token_is_fresh_with_a_minute_left_or_half_of_its_life() {
        for (age, lifetime, fresh) in [
            (0, 3600, true),
            (3530, 3600, true),
            (3550, 3600, false),
            (3600, 3600, false),
            (0, 30, true),
            (10, 30, true),
            (20, 30, false),
            (54, 110, true),
            (65, 110, false),
            (0, 0, false),
            (0, -5, false),
            (-50, 3600, false),
        ] {
            assert_eq!(aged(age, lifetime).is_fresh(), fresh, "{age} {lifetime}");
        }
    }

    #[test]
    fn a_token_lives_until_it_expires() {
        let now = SystemTime::now();
        assert!(aged(3590, 3600).time_left(now).is_some());
        assert_eq!(aged(3600, 3600).time_left(now), None);
        assert_eq!(aged(-50, 3600).time_left(now), None);
    }

    #[test]
    fn times_stay_in_their_range() {
        let far = UNIX_EPOCH + Duration::from_secs(MAX_TIMESTAMP + 1);
        let before = UNIX_EPOCH - Duration::from_secs(1);
        let last = UNIX_EPOCH + Duration::from_secs(MAX_TIMESTAMP);
        let tokens = tokens().with_times(before, far);
        assert_eq!((tokens.issued_at(), tokens.expires_at()), (UNIX_EPOCH, last));
        assert!(tokens.is_fresh());
        assert_eq!(tokens.with_lifetime(u64::MAX).expires_at(), last);
    }

    #[test]
    fn stored_tokens_are_loaded_or_refused() {
        let tokens = tokens();
        let stored = serde_json::to_value(&tokens).unwrap();
        let with = |member: &str, value: serde_json::Value| {
            let mut changed = stored.clone();
            changed[member] = value;
            serde_json::from_value::<Tokens>(changed)
        };
        assert_eq!(with("unknown", 1.into()).unwrap(), tokens);
        assert!(!with("issued_at", u64::MAX.into()).unwrap().is_fresh());
        assert!(with("expires_at", u64::MAX.into()).unwrap().expires_at() > SystemTime::now());
        for (member, value) in [
            ("access_token", "".into()),
            ("access_token", "a\nb".into()),
            ("refresh_token", "".into()),
            ("expires_at", (-1).into()),
            ("issued_at", serde_json::Value::Null),
        ] {
            let error = with(member, value).unwrap_err().to_string();
            assert!(!error.contains("a\nb"), "{error}");
        }
    }
}
