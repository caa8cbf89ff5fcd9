//! Clients and sessions of the fake API, by the library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use here_datalens::{AccessToken, Client, ClientBuilder, Credentials, Password, Session, Tokens};

use super::fake_api::{APP_CODE, APP_ID, EMAIL, FakeApi, PASSWORD};

pub fn builder(base_url: &str) -> ClientBuilder {
    Client::builder(Credentials::new(APP_ID, APP_CODE)).base_url(base_url)
}

pub fn client(base_url: &str) -> Client {
    builder(base_url).build().expect("a client")
}

pub fn password() -> Password {
    Password::new(PASSWORD)
}

/// A fake API, and a session that is signed in to it.
pub fn signed_in() -> (FakeApi, Session) {
    let server = FakeApi::start();
    let session = sign_in(&client(&server.base_url()));
    (server, session)
}

pub fn sign_in(client: &Client) -> Session {
    client.sign_in(EMAIL, &password()).expect("a session")
}

/// A session that is signed in anew for every call, so to speak: with a fresh token that
/// can't be refreshed.
pub fn session_with_token(client: &Client, token: &str) -> Session {
    let token = AccessToken::new(token).expect("a token");
    let tokens = Tokens::new(client.account(EMAIL), token, None);
    client.resume(tokens).expect("a session")
}

/// A session that signs in to nothing, for a server that looks at no token.
pub fn session_at(base_url: &str) -> Session {
    session_with_token(&client(base_url), "t")
}

/// The tokens that a session holds.
pub fn tokens(session: &Session) -> Tokens {
    session.tokens().expect("tokens")
}

/// The same tokens, as they are when so many seconds of a lifetime have gone.
pub fn aged(tokens: &Tokens, age: u64, lifetime: u64) -> Tokens {
    // Whole seconds are kept.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = Duration::from_secs(now.expect("a clock").as_secs());
    let issued_at = UNIX_EPOCH + now - Duration::from_secs(age);
    let expires_at = issued_at + Duration::from_secs(lifetime);
    tokens.clone().with_times(issued_at, expires_at)
}

/// The same tokens, expired.
pub fn expired(tokens: &Tokens) -> Tokens {
    aged(tokens, 3601, 3600)
}
