//! Names as the system's hosts file has them: hosts(5).

use std::path::Path;

use here_datalens::{Error, Stage};

use crate::support::client::{builder, password};
use crate::support::fake_api::EMAIL;
use crate::support::files::write_private;
use crate::support::mounts::{bind_at, with_mounts};

/// Runs a test on a thread that sees these lines in the hosts file.
fn with_hosts(lines: &str, test: impl FnOnce() + Send) {
    with_mounts(|directory| {
        let hosts = directory.join("hosts");
        write_private(&hosts, lines);
        bind_at(&hosts, Path::new("/etc/hosts"));
        test();
    });
}

#[test]
fn localhost_that_is_elsewhere_gets_no_password_in_plain_http() {
    with_hosts("192.0.2.1 localhost\n", || {
        let error = builder("http://localhost:1").build().unwrap().sign_in(EMAIL, &password());
        let error = error.unwrap_err();
        assert!(!error.is_temporary() && !error.is_timeout(), "{error:?}");
        let is_transport = matches!(error, Error::Transport { .. });
        assert!(is_transport && error.to_string().contains("this machine"), "{error:?}");
    });
}

#[test]
fn of_several_dead_addresses_each_reason_is_named_once() {
    with_hosts("127.0.0.2 localhost\n127.0.0.3 localhost\n", || {
        let client = builder("http://localhost:1").build().unwrap();
        let error = client.sign_in(EMAIL, &password()).unwrap_err();
        let is_connect = matches!(error, Error::Transport { stage: Stage::Connect, .. });
        assert!(is_connect && error.is_temporary(), "{error:?}");
        let text = error.to_string();
        assert_eq!(text.matches("refused").count(), 1, "{text}");
    });
}
