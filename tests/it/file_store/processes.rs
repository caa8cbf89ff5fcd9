//! Several processes at one store, some of which are killed.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use here_datalens::{FileStore, TokenStore};

use super::{count, mounted, renew, tokens};
use crate::support::files::names;
use crate::support::mounts::with_mounts;

/// Runs a role of [`child`] in a process of its own.
fn spawn(role: &str, path: &Path) -> Child {
    // The name of the crate isn't part of a test's.
    let (_, module) = module_path!().split_once("::").unwrap();
    Command::new(env::current_exe().unwrap())
        .args([&format!("{module}::child"), "--exact", "--ignored", "--nocapture"])
        .env("STORE_ROLE", role)
        .env("STORE_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What the processes do that the tests start.
#[test]
#[ignore = "no test, but the process of other tests"]
fn child() {
    let Ok(role) = env::var("STORE_ROLE") else {
        return;
    };
    let store = FileStore::new(env::var_os("STORE_PATH").unwrap());
    match role.as_str() {
        "renew 20 times" => thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..10).for_each(|_| assert_ne!(renew(&store).unwrap(), 0)));
            }
        }),
        "renew until killed" => loop {
            let count = renew(&store).unwrap();
            // Its own write(2), as a line.
            io::stdout().write_all(format!("\nrenewed {count}\n").as_bytes()).unwrap();
        },
        "hold the lock" => store
            .update(&mut |_| {
                println!("\nheld");
                let _ = io::stdin().read_line(&mut String::new());
                None
            })
            .unwrap(),
        other => panic!("no such role: {other}"),
    }
}

fn wait_for_line(reader: &mut impl BufRead, prefix: &str) -> String {
    let mut line = String::new();
    while !line.starts_with(prefix) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "ended early");
    }
    line
}

#[test]
fn one_process_waits_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.json");
    let mut holder = spawn("hold the lock", &path);
    wait_for_line(&mut BufReader::new(holder.stdout.take().unwrap()), "held");
    let (sender, renewed) = mpsc::channel();
    thread::scope(|scope| {
        let store = FileStore::new(&path);
        scope.spawn(move || sender.send(renew(&store).unwrap()).unwrap());
        assert!(renewed.recv_timeout(Duration::from_millis(100)).is_err());
        holder.kill().unwrap();
        assert_eq!(renewed.recv().unwrap(), 1);
    });
    holder.wait().unwrap();
}

/// Eight threads in four processes: each update sees the one before it.
fn no_renewal_is_lost(path: &Path) {
    let store = FileStore::new(path);
    let before = count(store.load().unwrap().as_ref());
    let mut children: Vec<_> = (0..4).map(|_| spawn("renew 20 times", path)).collect();
    let mut last = before;
    while last < before + 80 && children.iter_mut().any(|c| c.try_wait().unwrap().is_none()) {
        // What is loaded meanwhile is always whole, and never older than before.
        let loaded = count(store.load().unwrap().as_ref());
        assert!(loaded >= last, "{loaded} after {last}");
        last = loaded;
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(count(store.load().unwrap().as_ref()), before + 80);
}

#[test]
fn no_renewal_of_many_threads_and_processes_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    no_renewal_is_lost(&directory.path().join("s.json"));
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
}

#[test]
fn no_renewal_of_many_threads_and_processes_is_lost_in_place() {
    with_mounts(|directory| {
        let (path, _) = mounted(directory);
        no_renewal_is_lost(&path);
    });
}

/// Kills a process that renews without end, at many moments.
fn a_kill_costs_nothing(path: &Path, rounds: u32) {
    let store = FileStore::new(path);
    for round in 0..rounds {
        let mut child = spawn("renew until killed", path);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let told = wait_for_line(&mut lines, "renewed ");
        let told: usize = told["renewed ".len()..].trim().parse().unwrap();
        let moment = Instant::now() + Duration::from_micros(u64::from(round * 7919 % 9973));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let loaded = store.load().unwrap().unwrap();
        let found = count(Some(&loaded));
        assert!(found >= told, "{found} after {told}");
        assert_eq!(loaded, tokens(found));
        assert_eq!(renew(&store).unwrap(), found + 1);
        assert_eq!(names(path.parent().unwrap()), ["s.json", "s.json.lock"]);
    }
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_tokens_or_the_new() {
    let directory = tempfile::tempdir().unwrap();
    a_kill_costs_nothing(&directory.path().join("s.json"), 60);
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_tokens_or_the_new_in_place() {
    with_mounts(|directory| {
        let (path, _) = mounted(directory);
        a_kill_costs_nothing(&path, 60);
    });
}
