//! Every fault that a response to a read can have, in one table, by which the library and
//! the command are judged: what they make of it, whether it is retried, and that no secret
//! shows.

mod table;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use here_datalens::{Error, JsonCheck};

use self::table::{DONE, FINAL, Fault, TEMPORARY, faults};
use crate::secrets::assert_no_secret;
use crate::support::client::{builder, sign_in};
use crate::support::fake_api::FakeApi;
use crate::support::logger;

/// Judges all faults, some at a time, since a retry waits for half a second.
fn for_each_fault(judge: impl Fn(&Fault) + Sync) {
    let faults = faults();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                    judge(fault);
                }
            });
        }
    });
}

/// A fake API whose data sets have the fault.
fn server(fault: &Fault) -> FakeApi {
    let server = FakeApi::start();
    server.respond_always("/v1/datasets", fault.bytes.clone());
    server
}

#[test]
fn the_library_says_of_each_fault_what_it_is_and_retries_what_may_pass() {
    logger::start();
    for_each_fault(|fault| {
        let name = fault.name;
        let server = server(fault);
        let client = builder(&server.base_url()).max_retries(1).build().unwrap();
        let session = sign_in(&client);
        let result = session.copy("datasets/", JsonCheck::Always, &mut Vec::new());
        let requests = server.requests().len() - 1;
        let Err(error) = result else {
            return assert_eq!((fault.exit_status, requests), (DONE, 1), "{name}");
        };
        let is_temporary = fault.exit_status == TEMPORARY;
        assert_ne!(fault.exit_status, DONE, "{name}: {error}");
        assert_eq!(error.is_temporary(), is_temporary, "{name}: {error:?}");
        assert!(!error.needs_sign_in() && !error.is_timeout(), "{name}: {error:?}");
        let is_circle = error.to_string().contains("more than 5 times");
        if !is_circle {
            assert_eq!(requests, 1 + usize::from(is_temporary), "{name}: {error}");
        }
        let text = error.to_string();
        assert!(text.starts_with("datasets/: "), "{name}: {text}");
        assert!(text.contains(fault.words), "{name}: {text}");
        assert_no_secret(name, &format!("{text} {error:?}"));
    });
    let log = logger::recorded();
    assert!(log.contains("GET"), "{log}");
    assert_no_secret("the log", &log);
}

#[test]
fn a_value_has_the_same_faults_as_a_copy() {
    for_each_fault(|fault| {
        let server = server(fault);
        let session = sign_in(&builder(&server.base_url()).build().unwrap());
        let result = session.datasets();
        let advice = |error: &Error| {
            if error.is_temporary() { TEMPORARY } else { FINAL }
        };
        let exit_status = result.as_ref().err().map_or(DONE, advice);
        assert_eq!(exit_status, fault.exit_status, "{}: {result:?}", fault.name);
        if let Err(error) = result {
            let text = error.to_string();
            assert!(text.contains(fault.words), "{}: {text}", fault.name);
            assert_no_secret(fault.name, &format!("{text} {error:?}"));
        }
    });
}

#[cfg(feature = "cli")]
mod of_the_command {
    use std::process::Stdio;

    use nix::sys::resource::{Resource, setrlimit};

    use super::table::encoded;
    use super::*;
    use crate::support::command::{before_exec, datalens_at, run};
    use crate::support::fake_api::EMAIL;
    #[cfg(feature = "gzip")]
    use crate::support::gzip;

    #[test]
    fn the_command_says_each_fault_in_one_line_and_by_its_exit_status() {
        for_each_fault(|fault| {
            let name = fault.name;
            let server = server(fault);
            let output = run(datalens_at(&server.base_url()).arg(EMAIL));
            assert_eq!(output.status, Some(fault.exit_status), "{name}: {output:?}");
            assert!(output.stderr.contains(fault.words), "{name}: {output:?}");
            let lines: Vec<&str> = output.stderr.lines().collect();
            let expected = usize::from(fault.exit_status != DONE);
            assert_eq!(lines.len(), expected, "{name}: {output:?}");
            let is_ours = |line: &&str| line.starts_with("datalens: ");
            assert!(lines.iter().all(is_ours), "{name}: {output:?}");
            if fault.exit_status != DONE {
                assert!(output.stdout.is_empty(), "{name}");
            }
            assert_no_secret(name, &output.stderr);
            assert_no_secret(name, &String::from_utf8_lossy(&output.stdout));
        });
    }

    #[test]
    fn verbose_runs_show_no_secret() {
        for_each_fault(|fault| {
            let server = server(fault);
            let output = run(datalens_at(&server.base_url()).args(["-v", EMAIL]));
            assert_eq!(output.status, Some(fault.exit_status), "{output:?}");
            assert!(output.stderr.contains("POST /v1/sign_in/"), "{output:?}");
            assert_no_secret(fault.name, &output.stderr);
        });
    }

    #[cfg(feature = "gzip")]
    #[test]
    fn a_compressed_bomb_takes_no_memory() {
        let mut bomb = vec![b'a'; 200_000_000];
        (bomb[0], bomb[199_999_999]) = (b'"', b'"');
        let server = FakeApi::start();
        server.respond_always("/v1/datasets", encoded("gzip", &gzip(&bomb)));
        drop(bomb);
        let mut command = datalens_at(&server.base_url());
        // Of the address space, of which an idle thread of glibc's takes 64 MB.
        before_exec(&mut command, || setrlimit(Resource::RLIMIT_AS, 180_000_000, 180_000_000));
        let command = command.arg(EMAIL).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}
