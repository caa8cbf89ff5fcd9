//! Settings and arguments: what is refused before anything is sent.

use std::time::Duration;

use here_datalens::{AccessToken, Client, Credentials, Error, RefreshToken, Tokens};

use crate::support::client::{
    builder, client, expired, password, session_with_token, sign_in, signed_in, tokens,
};
use crate::support::fake_api::{APP_ID, EMAIL, FakeApi};

#[test]
fn settings_that_cannot_be_used_are_refused_by_build() {
    let good = || Client::builder(Credentials::new("id", "code"));
    let with = |id: &str, code: &str| Client::builder(Credentials::new(id, code));
    let zero = Duration::ZERO;
    for (name, builder) in [
        ("app id", with("", "code")),
        ("app id", with(&"x".repeat(2000), "code")),
        ("app code", with("id", "")),
        ("app code", with("id", &"x".repeat(2000))),
        ("base URL", good().base_url("http://example.com")),
        ("base URL", good().base_url("https://example.com//")),
        ("base URL", good().base_url("https://0x7f000001")),
        ("base URL", good().base_url("https://a:b@example.com")),
        ("base URL", good().base_url("x".repeat(10_000_000))),
        ("root certificates", good().root_certificates("")),
        ("root certificates", good().root_certificates(vec![0; 1_000_000])),
        ("root certificates", good().root_certificates("-----BEGIN CERTIFICATE-----\n!\n")),
        ("user agent", good().user_agent("")),
        ("user agent", good().user_agent("  ")),
        ("user agent", good().user_agent("a\nb")),
        ("user agent", good().user_agent("ä")),
        ("proxy", good().proxy("socks5://x")),
        ("proxy", good().proxy("")),
        ("timeout", good().timeout(zero)),
        ("connect timeout", good().connect_timeout(zero)),
        ("read timeout", good().read_timeout(zero)),
    ] {
        match builder.build() {
            Err(Error::InvalidInput { name: refused, .. }) => assert_eq!(refused, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn the_first_setting_that_cannot_be_used_is_named_however_they_were_set() {
    let client = |app_code| Client::builder(Credentials::new("id", app_code));
    let bad = |app_code| {
        let builder = client(app_code).root_certificates("").proxy("").user_agent("");
        builder.read_timeout(Duration::ZERO).timeout(Duration::ZERO).base_url("x")
    };
    let url = "https://example.com";
    let time = Duration::from_secs(1);
    for (name, builder) in [
        ("app code", bad("")),
        ("base URL", bad("code")),
        ("timeout", bad("code").base_url(url)),
        ("read timeout", bad("code").base_url(url).timeout(time)),
        ("user agent", bad("code").base_url(url).timeout(time).read_timeout(time)),
        ("proxy", client("code").root_certificates("").proxy("")),
        ("root certificates", client("code").root_certificates("").proxy("http://x")),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::InvalidInput { name: got, .. } if got == name), "{error:?}");
    }
}

#[test]
fn of_a_setting_that_is_given_twice_the_last_one_counts() {
    let good = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
    let builder = || Client::builder(Credentials::new("id", "code"));
    assert!(builder().root_certificates("").root_certificates(good.as_str()).build().is_ok());
    assert!(builder().root_certificates(good).root_certificates("").build().is_err());
    assert!(builder().user_agent("").proxy("").user_agent("a").proxy("http://x").build().is_ok());
    #[cfg(feature = "platform-verifier")]
    assert!(builder().root_certificates("").platform_certificates().build().is_ok());
}

#[test]
fn limits_of_any_length_are_accepted_without_a_panic() {
    let server = FakeApi::start();
    for limit in [Duration::from_nanos(1), Duration::MAX] {
        let builder = builder(&server.base_url());
        let builder = builder.timeout(limit).connect_timeout(limit);
        let client = builder.read_timeout(limit).build().unwrap();
        match client.sign_in(EMAIL, &password()) {
            Ok(session) => assert!(session.datasets().is_ok()),
            Err(error) => assert!(error.is_timeout(), "{error:?}"),
        }
    }
}

#[test]
fn a_client_has_its_base_url_in_the_normal_form() {
    let builder = Client::builder(Credentials::new("id", "code"));
    let client = builder.base_url("HTTPS://Gateway.Example:443/here/").build().unwrap();
    assert_eq!(client.base_url(), "https://gateway.example/here");
}

#[test]
fn a_client_made_from_another_has_its_settings_and_connections_of_its_own() {
    let server = FakeApi::start();
    let first = builder(&server.base_url()).user_agent("mine").build().unwrap();
    let _first = sign_in(&first);
    let second = first.to_builder().max_body_size(10).build().unwrap();
    let session = sign_in(&second);
    assert!(session.datasets().is_err());
    assert_eq!(second.base_url(), first.base_url());
    assert_eq!(second.app_id(), APP_ID);
    let requests = server.requests();
    let agents = requests.iter().map(|request| request.header("user-agent"));
    assert!(agents.into_iter().all(|agent| agent == Some("mine")));
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_clone_of_a_client_shares_its_connections() {
    let server = FakeApi::start();
    let client = client(&server.base_url());
    let _first = sign_in(&client);
    let _second = sign_in(&client.clone());
    assert_eq!(server.connections(), 1);
}

#[test]
fn arguments_that_cannot_be_sent_are_refused_before_anything_is() {
    let server = FakeApi::start();
    let client = client(&server.base_url());
    let long = "x".repeat(10_000);
    let session = session_with_token(&client, "t");
    for (number, result) in [
        client.sign_in("", &"x".into()).map(drop),
        client.sign_in("x", &"".into()).map(drop),
        client.sign_in(&long, &"x".into()).map(drop),
        client.sign_in("x", &long.as_str().into()).map(drop),
        session.sign_in(&"".into()),
        session.get::<()>(""),
        session.get::<()>("../x"),
        session.get::<()>("//x"),
        session.get::<()>("v1/datasets"),
        session.get::<()>("x?app_id=y"),
        session.get::<()>("https://example.com/"),
        session.get::<()>("a b"),
        session.get::<()>(&long),
    ]
    .into_iter()
    .enumerate()
    {
        let is_refused = matches!(result, Err(Error::InvalidInput { .. }));
        assert!(is_refused, "{number}: {result:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_resource_is_refused_before_a_refresh_is_spent() {
    let (server, session) = signed_in();
    let tokens = tokens(&session);
    let expired = expired(&tokens);
    let session = session.client().resume(expired).unwrap();
    let error = session.get::<()>("../x").unwrap_err();
    assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
    assert_eq!(server.refreshes(), 0);
}

#[test]
fn tokens_check_themselves_when_they_are_made() {
    let long = "x".repeat(10_000);
    for text in ["", "a b", "a\r\nX: y", "ä", "a\u{0}", long.as_str()] {
        let error = AccessToken::new(text).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error}");
        assert!(AccessToken::try_from(text.to_owned()).is_err(), "{text}");
        let json = serde_json::Value::from(text);
        assert!(serde_json::from_value::<AccessToken>(json).is_err(), "{text}");
    }
    assert!(AccessToken::new("x".repeat(8 * 1024)).is_ok());
    assert!(RefreshToken::new("").is_err() && RefreshToken::new(long).is_err());
    assert!(RefreshToken::new("a b\nä").is_ok());
}

#[test]
fn tokens_of_another_account_are_refused_before_they_are_sent() {
    let (server, session) = signed_in();
    let tokens = tokens(&session);
    let other = FakeApi::start();
    for (what, client) in [
        ("base URL", client(&other.base_url())),
        (
            "app id",
            Client::builder(Credentials::new("other", "code"))
                .base_url(server.base_url())
                .build()
                .unwrap(),
        ),
    ] {
        match client.resume(tokens.clone()) {
            Err(Error::InvalidInput { name: "tokens", reason, .. }) => {
                assert!(reason.contains(what), "{reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!((other.connections(), server.requests().len()), (0, 1));
}

#[test]
fn tokens_made_from_their_parts_are_as_good_as_those_of_a_sign_in() {
    let (server, session) = signed_in();
    let theirs = tokens(&session);
    let access_token = AccessToken::new(theirs.access_token().secret()).unwrap();
    let refresh_token = theirs.refresh_token().map(|token| token.secret());
    let refresh_token = refresh_token.map(|text| RefreshToken::new(text).unwrap());
    let account = session.client().account(EMAIL);
    let ours = Tokens::new(account, access_token, refresh_token)
        .with_times(theirs.issued_at(), theirs.expires_at());
    assert_eq!(ours, theirs);
    session.client().resume(ours).unwrap().datasets().unwrap();
    assert_eq!(server.sign_ins(), 1);
}
