//! The secrets: strings that `{:?}` doesn't show.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest secret that is accepted, in bytes. The tokens seen in public
/// are a little over 1,000 characters long.
pub(crate) const MAX_SECRET: usize = 8 * 1024;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident $(, $derive:ident)*) => {
        $(#[$doc])*
        ///
        /// `Debug` shows the name of the type and nothing of the value, so whatever
        /// holds one may derive it. There is no `Display`: see [`as_str`](Self::as_str).
        #[derive(Clone, PartialEq, Eq $(, $derive)*)]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Wraps the text of a ", stringify!($name), ".")]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// Returns the secret itself, for a place where it belongs.
            pub fn as_str(&self) -> &str {
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

secret!(
    /// The password of a HERE account.
    Password
);
secret!(
    /// An access token (RFC 6749, section 1.4), sent as a bearer token (RFC 6750).
    ///
    /// It is good for about an hour after it was issued.
    AccessToken, Serialize, Deserialize
);
secret!(
    /// A refresh token (RFC 6749, section 1.5): it buys a new pair of tokens, once.
    RefreshToken, Serialize, Deserialize
);

/// The credentials of an application, as HERE issued them: an app id, and an app
/// code, which is a secret.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) app_id: String,
    pub(crate) app_code: String,
}

impl Credentials {
    /// Takes the pair as it is; [`ClientBuilder::build`](crate::ClientBuilder::build)
    /// checks it.
    pub fn new(app_id: impl Into<String>, app_code: impl Into<String>) -> Self {
        Self {
            app_id: app_id.into(),
            app_code: app_code.into(),
        }
    }
}

// Written by hand: the app code is a secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}
