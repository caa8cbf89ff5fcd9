//! Secrets: strings that `{:?}` doesn't show. Tokens check themselves when they are made.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The longest secret that is accepted, in bytes. The tokens seen in public
/// are a little over 1,000 characters long.
pub(crate) const MAX_SECRET: usize = 8 * 1024;

/// Refuses what is empty, or has more bytes than this.
pub(crate) fn check_length(name: &'static str, text: &str, max: usize) -> Result<(), Error> {
    match text.len() {
        0 => Err(Error::invalid_input(name, "is empty")),
        length if length > max => Err(Error::invalid_input(name, "is too long")),
        _ => Ok(()),
    }
}

/// The password of a HERE account. `Debug` doesn't show it.
///
/// ```
/// # use here_datalens::Password;
/// let password = Password::new("correct horse");
/// assert_eq!(format!("{password:?}"), "Password(…)");
/// assert_eq!(password.secret(), "correct horse");
/// ```
// Without PartialEq: comparing passwords is the server's work.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes the text of a password as it is; a sign-in refuses one that is empty or
    /// longer than 8 KB.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl<T: Into<String>> From<T> for Password {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

macro_rules! secret {
    ($name:ident) => {
        impl $name {
            /// Returns the secret itself, for a place where it belongs. There is no
            /// `Display`, so that each such place is found by this name.
            pub fn secret(&self) -> &str {
                &self.0
            }
        }

        // Written by hand: a derived one would print the secret.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret!(Password);

/// Makes the type of a token, which checks itself when it is made: what messages call it,
/// its rule in words, and which bytes it may hold.
macro_rules! token {
    ($(#[$attribute:meta])* $name:ident, $subject:literal, $rule:literal, $is_allowed:expr) => {
        $(#[$attribute])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Takes the text of the token, which ", $rule, ".")]
            ///
            /// # Errors
            /// [`Error::InvalidInput`] for any other text.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                if (1..=MAX_SECRET).contains(&text.len()) && text.bytes().all($is_allowed) {
                    return Ok(Self(text));
                }
                Err(Error::invalid_input($subject, $rule))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        secret!($name);
    };
}

token! {
    /// An access token (RFC 6749, section 1.4), sent as a bearer token (RFC 6750). It is
    /// good for about an hour after it was issued. `Debug` doesn't show it.
    ///
    /// ```
    /// # use here_datalens::AccessToken;
    /// assert!(AccessToken::new("kWSsvDkK3n-4_A").is_ok());
    /// assert!(AccessToken::new("line\nbreak").is_err());
    /// ```
    AccessToken, "access token", "must be 1 to 8192 characters of visible ASCII",
    // So that it can stand in a header. RFC 6750, section 2.1, is stricter still.
    |b| b.is_ascii_graphic()
}

token! {
    /// A refresh token (RFC 6749, section 1.5), which is exchanged for a new pair of
    /// tokens, once. `Debug` doesn't show it.
    RefreshToken, "refresh token", "must be 1 to 8192 bytes long", |_| true
}

/// The credentials of an application, as HERE issued them: an app id, and an app
/// code, which is a secret. With serde they can be read from a configuration file.
///
/// ```
/// # use here_datalens::Credentials;
/// let file = r#"{ "app_id": "app id", "app_code": "app code" }"#;
/// let credentials: Credentials = serde_json::from_str(file)?;
/// assert_eq!(format!("{credentials:?}"), r#"Credentials { app_id: "app id", .. }"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Deserialize)]
pub struct Credentials {
    pub(crate) app_id: String,
    pub(crate) app_code: String,
}

impl Credentials {
    /// Takes the pair as it is; [`ClientBuilder::build`](crate::ClientBuilder::build)
    /// checks it.
    pub fn new(app_id: impl Into<String>, app_code: impl Into<String>) -> Self {
        Self { app_id: app_id.into(), app_code: app_code.into() }
    }
}

// Written by hand: the app code is a secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}
