//! The library over the stand-in: what it sends, what it returns, what it refuses.

mod support;

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use here_datalens::{
    AccessToken, Check, Client, ClientBuilder, Credentials, Error, Password, RefreshToken, Request,
    Session, SignedIn,
};
use serde::Deserialize;
use support::logger;
use support::stand_in::{APP_CODE, APP_ID, DATASETS, PASSWORD, StandIn, USER_NAME, answer, json};

fn builder(server: &StandIn) -> ClientBuilder {
    Client::builder(Credentials::new(APP_ID, APP_CODE)).base_url(server.base_url())
}

fn signed_in() -> (StandIn, Client, Session) {
    let server = StandIn::start();
    let client = builder(&server).build().unwrap();
    let session = client.sign_in(USER_NAME, &Password::new(PASSWORD)).unwrap();
    (server, client, session)
}

#[test]
fn a_sign_in_sends_the_scripts_request() {
    let (server, _, _) = signed_in();
    let request = server.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.path()),
        ("POST", "/v1/sign_in/")
    );
    assert_eq!(request.query("app_id").as_deref(), Some(APP_ID));
    assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body = format!(
        r#"{{"email":"{USER_NAME}","password":{}}}"#,
        serde_json::to_string(PASSWORD).unwrap()
    );
    assert_eq!(String::from_utf8(request.body.clone()).unwrap(), body);
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        request.header("host"),
        Some(server.base_url().strip_prefix("http://").unwrap())
    );
    let agent = format!("here-datalens/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(request.header("user-agent"), Some(agent.as_str()));
    assert_eq!(request.headers.len(), 6, "{request:?}");
}

#[test]
fn a_read_sends_the_token_and_no_password() {
    let (server, client, session) = signed_in();
    let datasets = client.datasets(session.access_token()).unwrap();
    assert_eq!(
        datasets,
        serde_json::from_str::<serde_json::Value>(DATASETS).unwrap()
    );
    let request = server.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.path()),
        ("GET", "/v1/datasets/")
    );
    let bearer = format!("Bearer {}", session.access_token().as_str());
    assert_eq!(request.header("authorization"), Some(bearer.as_str()));
    assert_eq!(request.header("content-type"), Some("text/plain"));
    assert_eq!(request.query("app_code").as_deref(), Some(APP_CODE));
    assert!(request.body.is_empty());
    assert_eq!(request.headers.len(), 6, "{request:?}");
}

#[test]
fn all_calls_share_a_connection_refused_ones_too() {
    let (server, client, session) = signed_in();
    for _ in 0..3 {
        client.datasets(session.access_token()).unwrap();
        assert!(
            client
                .datasets(&AccessToken::new("wrong"))
                .unwrap_err()
                .is_refused()
        );
        assert!(client.get::<()>(session.access_token(), "nowhere").is_err());
        assert!(
            client
                .sign_in("nobody", &Password::new("x"))
                .unwrap_err()
                .is_refused()
        );
        assert!(
            client
                .get::<()>(session.access_token(), "datasets")
                .is_err()
        );
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_session_tells_whose_it_is_and_how_long_it_lasts() {
    for (expires_in, seconds) in [
        (None, 3600),
        (Some("120"), 120),
        (Some("0"), 3600),
        (Some("-1"), 3600),
        (Some("\"60\""), 3600),
        (Some("null"), 3600),
    ] {
        let server = StandIn::start();
        if let Some(json) = expires_in {
            server.set_expires_in(json);
        }
        let client = builder(&server).build().unwrap();
        let session = client.sign_in(USER_NAME, &Password::new(PASSWORD)).unwrap();
        let life = session
            .expires_at()
            .duration_since(session.issued_at())
            .unwrap();
        assert_eq!(life, Duration::from_secs(seconds), "{expires_in:?}");
        assert_eq!(session.base_url(), server.base_url());
        assert_eq!((session.app_id(), session.user_name()), (APP_ID, USER_NAME));
        assert!(session.refresh_token().is_some());
    }
}

#[test]
fn a_refresh_token_may_be_missing() {
    for member in [
        "",
        r#","refresh_token":null"#,
        r#","refresh_token":1"#,
        r#","refresh_token":"""#,
    ] {
        let server = StandIn::start();
        let body = format!(r#"{{"access_token":"t"{member}}}"#);
        server.answer_next("/v1/sign_in", json("200 OK", &body));
        let client = builder(&server).build().unwrap();
        let session = client.sign_in(USER_NAME, &Password::new(PASSWORD)).unwrap();
        assert_eq!(session.refresh_token(), None, "{member}");
        assert!(matches!(
            client.refresh(&session),
            Err(Error::SignInAgain { status: None, .. })
        ));
    }
}

#[derive(Debug, Deserialize, PartialEq)]
struct Data {
    columns: Vec<String>,
    rows: Vec<Vec<u8>>,
}

#[test]
fn a_resource_is_read_into_a_type() {
    let (server, client, session) = signed_in();
    let data: Data = client
        .get(session.access_token(), "queries/1/data?x=%20y")
        .unwrap();
    let columns = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        data,
        Data {
            columns,
            rows: vec![vec![1, 2], vec![3, 4]]
        }
    );
    assert_eq!(
        server.requests().pop().unwrap().query("x").as_deref(),
        Some(" y")
    );

    let error = client
        .get::<Data>(session.access_token(), "datasets/")
        .unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    assert!(!error.to_string().contains("columns"), "{error}");
}

#[test]
fn what_is_read_into_memory_is_limited() {
    let (server, _, session) = signed_in();
    let read = |limit| {
        let client = builder(&server).max_body_size(limit).build().unwrap();
        client.datasets(session.access_token())
    };
    assert!(read(DATASETS.len() as u64).is_ok());
    let error = read(DATASETS.len() as u64 - 1).unwrap_err();
    assert!(
        error.to_string().contains("larger than the limit"),
        "{error}"
    );
}

#[test]
fn a_copy_is_byte_for_byte_and_says_what_it_was() {
    let (server, client, session) = signed_in();
    let copy = |resource: &str, check| {
        let mut out = Vec::new();
        let copied = client.copy(session.access_token(), resource, check, &mut out);
        (copied, out)
    };
    let (copied, out) = copy("datasets/", Check::ContentType);
    assert_eq!(out, DATASETS.as_bytes());
    let copied = copied.unwrap();
    assert_eq!((copied.bytes, copied.json), (out.len() as u64, true));
    assert!(!copied.ends_in_line_feed);

    let (copied, out) = copy("tiles/1", Check::ContentType);
    assert_eq!(out, (0..=255).collect::<Vec<u8>>());
    assert!(!copied.unwrap().json);
    let (copied, out) = copy("tiles/1", Check::Json);
    assert!(matches!(copied, Err(Error::Answer { .. })) && out.is_empty());

    server.answer_next("/v1/x", json("200 OK", "{}\n"));
    assert!(copy("x", Check::Json).0.unwrap().ends_in_line_feed);
    // An odd number, so that the last piece isn't a whole one.
    let long = format!("[{}\"é\"]", "\"é\",".repeat(100_001));
    server.answer_next("/v1/x", json("200 OK", &long));
    assert_eq!(copy("x", Check::Json).1, long.as_bytes());
}

#[test]
fn nothing_is_written_of_a_body_that_is_bad_within_its_first_64_kb() {
    let (server, client, session) = signed_in();
    for (good, written) in [(10, false), (65_000, false), (200_000, true)] {
        let body = format!("[{}x]", " ".repeat(good));
        server.answer_next("/v1/x", json("200 OK", &body));
        let mut out = Vec::new();
        let copied = client.copy(session.access_token(), "x", Check::Json, &mut out);
        assert!(matches!(copied, Err(Error::Answer { .. })), "{good}");
        assert_eq!(!out.is_empty(), written, "{good}");
        assert!(!out.contains(&b'x'), "{good}");
    }
}

#[test]
fn a_writer_that_fails_is_told_apart() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_server, client, session) = signed_in();
    match client.copy(
        session.access_token(),
        "datasets/",
        Check::Json,
        &mut Broken,
    ) {
        Err(Error::Output(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compressed_answer_is_decoded() {
    let (server, client, session) = signed_in();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(b"[1]").unwrap();
    let body = encoder.finish().unwrap();
    server.answer_next(
        "/v1/x",
        answer("200 OK", &["Content-Encoding: gzip"], &body),
    );
    assert_eq!(
        client.get::<Vec<u8>>(session.access_token(), "x").unwrap(),
        [1]
    );
    assert_eq!(
        server.requests().pop().unwrap().header("accept-encoding"),
        Some("gzip")
    );
}

#[test]
fn redirects_are_followed_within_the_origin_with_the_token() {
    let (server, client, session) = signed_in();
    for (number, status) in ["301 a", "302 a", "303 a", "307 a", "308 a"]
        .into_iter()
        .enumerate()
    {
        let location = format!("Location: /v1/step{}?x=y", number + 1);
        server.answer_next(
            &format!("/v1/step{number}"),
            answer(status, &[&location], b"gone"),
        );
    }
    server.answer_next("/v1/step5", json("200 OK", "[1]"));
    assert_eq!(
        client
            .get::<Vec<u8>>(session.access_token(), "step0")
            .unwrap(),
        [1]
    );
    let requests = server.requests();
    for request in &requests[1..] {
        assert_eq!(request.method, "GET");
        assert!(
            request
                .header("authorization")
                .unwrap()
                .starts_with("Bearer ")
        );
    }
    assert_eq!(requests.last().unwrap().target, "/v1/step5?x=y");
    assert_eq!(server.connections(), 1);
}

#[test]
fn redirects_to_another_origin_are_refused_and_it_hears_nothing() {
    let (server, client, session) = signed_in();
    let elsewhere = StandIn::start();
    for target in [
        elsewhere.base_url(),
        format!("//127.0.0.1:{}/", elsewhere.port()),
        format!("http://localhost:{}/", server.port()),
        format!("https://127.0.0.1:{}/", server.port()),
        format!("http://tOk3n@127.0.0.1:{}/", server.port()),
    ] {
        let location = format!("Location: {target}?q=tOk3n");
        server.answer_next("/v1/datasets", answer("302 Found", &[&location], b""));
        let before = server.requests().len();
        let error = client.datasets(session.access_token()).unwrap_err();
        assert!(
            matches!(error, Error::Redirect { status: 302, .. }),
            "{target}: {error}"
        );
        assert!(!format!("{error} {error:?}").contains("tOk3n"), "{error}");
        assert_eq!(server.requests().len() - before, 1);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn each_status_has_its_variant_and_its_advice() {
    for (status, refused, temporary) in [
        ("201 Created", false, false),
        ("400 Bad Request", false, false),
        ("401 Unauthorized", true, false),
        ("403 Forbidden", true, false),
        ("404 Not Found", false, false),
        ("408 Request Timeout", false, true),
        ("418 I'm a teapot", false, false),
        ("429 Too Many Requests", false, true),
        ("500 Internal Server Error", false, true),
        ("503 Service Unavailable", false, true),
    ] {
        let (server, client, session) = signed_in();
        server.answer_always("/v1/", answer(status, &[], b"its own text"));
        let read = client.datasets(session.access_token()).unwrap_err();
        let sign_in = client
            .sign_in(USER_NAME, &Password::new(PASSWORD))
            .unwrap_err();
        for (error, kind) in [(read, Request::Resource), (sign_in, Request::SignIn)] {
            assert_eq!(
                (error.is_refused(), error.is_temporary()),
                (refused, temporary),
                "{error}"
            );
            assert!(error.to_string().contains(&status[..3]), "{error}");
            let own = error.to_string().ends_with("the server says: its own text");
            assert_eq!(own, !status.starts_with('2'), "{error}");
            if let Error::Refused { request, .. } = error {
                assert_eq!(request, kind);
            }
        }
    }
}

#[test]
fn arguments_that_cannot_be_sent_are_refused_before_anything_is() {
    let server = StandIn::start();
    let client = builder(&server).build().unwrap();
    let token = AccessToken::new("t");
    let long = "x".repeat(10_000);
    let results = [
        client.sign_in("", &Password::new("x")).map(drop),
        client.sign_in("x", &Password::new("")).map(drop),
        client.sign_in(&long, &Password::new("x")).map(drop),
        client.sign_in("x", &Password::new(long.as_str())).map(drop),
        client.datasets(&AccessToken::new("")).map(drop),
        client.datasets(&AccessToken::new("a b")).map(drop),
        client.datasets(&AccessToken::new("a\r\nX: y")).map(drop),
        client.datasets(&AccessToken::new("ä")).map(drop),
        client.datasets(&AccessToken::new(long.as_str())).map(drop),
        client.get::<()>(&token, "../x"),
        client.get::<()>(&token, &long),
        Client::check_resource("//x"),
    ];
    for (number, result) in results.into_iter().enumerate() {
        assert!(
            matches!(result, Err(Error::Setting { .. })),
            "{number}: {result:?}"
        );
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_longest_request_that_is_accepted_is_sent() {
    let server = StandIn::start();
    // Each `{` takes three bytes on the wire, and so does each byte of the pair.
    let [prefix, resource] = [4096 - 1, 4096].map(|most| "{".repeat(most / 3));
    let longest = |more: &str| {
        let pair = Credentials::new("/".repeat(1024), "/".repeat(1024));
        Client::builder(pair)
            .base_url(format!("{}/{prefix}{more}", server.base_url()))
            .user_agent("x".repeat(1024))
            .build()
    };
    let client = longest("").unwrap();
    let token = AccessToken::new("x".repeat(8 * 1024));
    let password = Password::new("x".repeat(8 * 1024));
    let error = client.get::<()>(&token, &resource).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let error = client.sign_in(USER_NAME, &password).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    let [read, _] = &server.requests()[..] else {
        panic!("{:?}", server.requests());
    };
    assert!(read.target.len() > 14_000, "{}", read.target.len());
    let bearer = read.header("authorization").unwrap();
    assert_eq!(bearer.strip_prefix("Bearer "), Some(token.as_str()));

    assert!(longest("{").is_err());
    assert!(Client::check_resource(&resource).is_ok());
    assert!(Client::check_resource(&(resource + "{")).is_err());
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_build() {
    let good = || Client::builder(Credentials::new("id", "code"));
    let zero = Duration::ZERO;
    for (name, builder) in [
        ("app id", Client::builder(Credentials::new("", "code"))),
        ("app code", Client::builder(Credentials::new("id", ""))),
        (
            "app code",
            Client::builder(Credentials::new("id", "x".repeat(2000))),
        ),
        ("base URL", good().base_url("http://example.com")),
        ("base URL", good().base_url("x".repeat(10_000_000))),
        ("root certificates", good().root_certificates("")),
        (
            "root certificates",
            good().root_certificates(vec![0; 1_000_000]),
        ),
        (
            "root certificates",
            good().root_certificates("-----BEGIN CERTIFICATE-----\n!\n"),
        ),
        ("user agent", good().user_agent("")),
        ("user agent", good().user_agent("a\nb")),
        ("user agent", good().user_agent("ä")),
        ("proxy", good().proxy("socks5://x")),
        ("proxy", good().proxy("")),
        ("timeout", good().timeout(zero)),
        ("lookup timeout", good().lookup_timeout(zero)),
        ("connect timeout", good().connect_timeout(zero)),
        ("response timeout", good().response_timeout(zero)),
        ("stall timeout", good().stall_timeout(zero)),
        ("sign-in timeout", good().sign_in_timeout(zero)),
    ] {
        match builder.build() {
            Err(Error::Setting { name: refused, .. }) => assert_eq!(refused, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let forever = good()
        .timeout(Duration::MAX)
        .lookup_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .response_timeout(Duration::MAX)
        .stall_timeout(Duration::MAX)
        .sign_in_timeout(Duration::MAX);
    assert!(forever.build().is_ok());
}

#[test]
fn limits_of_any_length_are_kept_without_a_panic() {
    let server = StandIn::start();
    for limit in [Duration::from_nanos(1), Duration::MAX] {
        let client = builder(&server)
            .timeout(limit)
            .connect_timeout(limit)
            .stall_timeout(limit)
            .build()
            .unwrap();
        match client.sign_in(USER_NAME, &Password::new(PASSWORD)) {
            Ok(session) => assert!(client.datasets(session.access_token()).is_ok()),
            Err(error) => assert!(matches!(
                error,
                Error::Unreachable {
                    timed_out: true,
                    ..
                }
            )),
        }
    }
}

#[test]
fn threads_share_a_client() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    fn sendable<T: Send + Sync>() {}
    sendable::<(Session, SignedIn, Error, ClientBuilder)>();
    let (server, client, session) = signed_in();
    shared(&client);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    client.datasets(session.access_token()).unwrap();
                }
            });
        }
    });
    assert!(server.connections() <= 8, "{}", server.connections());
}

#[test]
fn nothing_shows_a_secret() {
    let (_server, client, session) = signed_in();
    let shown = format!(
        "{client:?} {session:?} {:?} {:?} {:?} {:?} {:?}",
        Credentials::new(APP_ID, APP_CODE),
        Client::builder(Credentials::new(APP_ID, APP_CODE)).proxy("http://u:proxy-secret@h"),
        Password::new(PASSWORD),
        AccessToken::new("tOk3n"),
        RefreshToken::new("tOk3n"),
    );
    for secret in [PASSWORD, APP_CODE, "tOk3n", "proxy-secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(
        shown.contains(APP_ID) && shown.contains(USER_NAME),
        "{shown}"
    );
}

#[test]
fn a_logger_at_the_debug_level_records_no_secret() {
    logger::start();
    let (server, client, session) = signed_in();
    client.datasets(session.access_token()).unwrap();
    client.refresh(&session).unwrap();
    let location = answer("302 Found", &["Location: /v1/x?tOk3n"], b"");
    server.answer_next("/v1/datasets", location);
    assert!(client.datasets(session.access_token()).is_err());
    let log = logger::recorded();
    assert!(log.contains("POST") && log.contains("GET"), "{log}");
    let password = serde_json::to_string(PASSWORD).unwrap();
    for secret in [PASSWORD, &password, APP_CODE, "app%26code", "tOk3n"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
