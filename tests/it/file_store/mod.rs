//! `FileStore`, on real files: mount points, other users, processes that are killed.
// Mounts and the rights of a thread are Linux's own.

mod mount_points;
mod processes;
mod refusals;

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, Scope};
use std::time::{Duration, UNIX_EPOCH};

use here_datalens::{AccessToken, Account, FileStore, RefreshToken, TokenStore, Tokens};
use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::support::files::{mode, names, write_private};
use crate::support::mounts::{bind, with_mounts};
use crate::support::wait_until;

const ACCOUNT: Account<'_> =
    Account { base_url: "https://example.com", app_id: "app id", email: "me@example.com" };

/// Somebody else's user id.
const OTHER: u32 = 12345;

fn store_in(directory: &Path) -> FileStore {
    FileStore::new(directory.join("s.json"))
}

/// The tokens after so many renewals.
fn tokens(count: usize) -> Tokens {
    let access = format!("access-{}", "a".repeat(count * 37 % 3000));
    let refresh = RefreshToken::new(count.to_string()).unwrap();
    let issued_at = UNIX_EPOCH + Duration::from_secs(4_000_000_000 + count as u64);
    Tokens::new(ACCOUNT, AccessToken::new(access).unwrap(), Some(refresh))
        .with_times(issued_at, issued_at + Duration::from_secs(3600))
}

fn count(tokens: Option<&Tokens>) -> usize {
    let refresh = tokens.and_then(Tokens::refresh_token);
    refresh.map_or(0, |refresh| refresh.secret().parse().unwrap())
}

/// Renews once, as a session would, and returns the count.
fn renew(store: &FileStore) -> io::Result<usize> {
    let mut new = 0;
    store.update(&mut |old| {
        new = count(old.as_ref()) + 1;
        Some(tokens(new))
    })?;
    Ok(new)
}

/// Updates the tokens in a thread, without new ones. What is sent is the number of the old
/// ones, once it is time to renew them and `meanwhile` has been called.
fn update_in<'scope>(
    scope: &'scope Scope<'scope, '_>,
    store: &'scope FileStore,
    meanwhile: impl Fn() + Send + 'scope,
) -> Receiver<usize> {
    let (sender, renewed) = mpsc::channel();
    scope.spawn(move || {
        store
            .update(&mut |old| {
                meanwhile();
                sender.send(count(old.as_ref())).unwrap();
                None
            })
            .unwrap();
    });
    renewed
}

/// Expects that nothing is renewed.
fn refusal(store: &FileStore) -> io::Error {
    let error = store.update(&mut |_| panic!("renewed")).unwrap_err();
    assert!(!format!("{error:?}").contains("access-"), "{error:?}");
    error
}

fn make_read_only(path: &Path) {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

/// A store whose file is a mount point, and holds the tokens of one renewal.
fn mounted(directory: &Path) -> (PathBuf, FileStore) {
    let path = directory.join("s.json");
    let store = FileStore::new(&path);
    renew(&store).unwrap();
    bind(&path);
    (path, store)
}

/// Runs with another user's rights to files, which Linux keeps for each thread.
fn as_other_user(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let run = || {
            setfsgid(Gid::from_raw(OTHER));
            setfsuid(Uid::from_raw(OTHER));
            test();
        };
        scope.spawn(run).join().unwrap();
    });
}

fn wait_until_locked(path: &Path) {
    wait_until("a lock", || File::open(path).is_ok_and(|lock| lock.try_lock().is_err()));
}

#[test]
fn what_is_stored_is_loaded_by_anybody() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    assert_eq!(names(directory.path()), [""; 0]);
    assert_eq!(store.load().unwrap(), None);
    assert_eq!(names(directory.path()), [""; 0]);

    store
        .update(&mut |old| {
            assert_eq!(old, None);
            Some(tokens(7))
        })
        .unwrap();
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
    for name in names(directory.path()) {
        assert_eq!(mode(&directory.path().join(name)), 0o600);
    }
    let json = fs::read_to_string(directory.path().join("s.json")).unwrap();
    assert!(
        json.starts_with(r#"{"base_url":"https://example.com","app_id":"#) && json.ends_with("}\n")
    );
    assert_eq!(store_in(directory.path()).load().unwrap(), Some(tokens(7)));
    assert_eq!(renew(&store.clone()).unwrap(), 8);
}

#[test]
fn the_longest_tokens_are_stored_and_loaded_with_every_byte_escaped() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    let (visible, odd) = ("\"".repeat(8 * 1024), "\u{1}".repeat(8 * 1024));
    let app_id = "\u{1}".repeat(1024);
    let account = Account { email: &odd, app_id: &app_id, ..ACCOUNT };
    let (access, refresh) = (AccessToken::new(visible), RefreshToken::new(&*odd));
    let longest = Tokens::new(account, access.unwrap(), Some(refresh.unwrap()));
    store.update(&mut |_| Some(longest.clone())).unwrap();
    assert_eq!(store.load().unwrap(), Some(longest));
}

#[test]
fn a_renewal_that_comes_to_nothing_leaves_all_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    store.update(&mut |_| None).unwrap();
    assert_eq!(names(directory.path()), ["s.json.lock"]);
    renew(&store).unwrap();
    let before = fs::read(directory.path().join("s.json")).unwrap();
    store.update(&mut |_| None).unwrap();
    assert_eq!(fs::read(directory.path().join("s.json")).unwrap(), before);
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
}

#[test]
fn unknown_members_and_other_forms_of_the_json_are_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    let mut json = serde_json::to_value(tokens(3)).unwrap();
    json["unknown"] = 1.into();
    write_private(&directory.path().join("s.json"), format!("  {json:#}  \n\n"));
    assert_eq!(store.load().unwrap(), Some(tokens(3)));
    assert_eq!(renew(&store).unwrap(), 4);
}

#[test]
fn an_empty_file_holds_no_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    write_private(&directory.path().join("s.json"), "");
    assert_eq!(store.load().unwrap(), None);
    assert_eq!(renew(&store).unwrap(), 1);
}

#[test]
fn what_a_killed_update_left_is_cleared_away_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    let others = ["s.json.new", "s.json~", "s.json.tmp", ".s.json", ".t.json.datalens-tmp"];
    for name in others {
        write_private(&directory.path().join(name), "mine");
    }
    write_private(&directory.path().join(".s.json.datalens-tmp"), "half");
    renew(&store).unwrap();
    renew(&store).unwrap();
    let mut expected: Vec<_> = [&others[..], &["s.json", "s.json.lock"]].concat();
    expected.sort_unstable();
    assert_eq!(names(directory.path()), expected);
    for name in others {
        assert_eq!(fs::read_to_string(directory.path().join(name)).unwrap(), "mine");
    }
}

#[test]
fn a_slash_at_the_end_of_the_path_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::new(format!("{}/s.json/", directory.path().display()));
    assert_eq!(renew(&store).unwrap(), 1);
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
}

#[test]
fn a_torn_file_is_looked_at_again_before_it_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.json");
    let whole = serde_json::to_string(&tokens(9)).unwrap();
    write_private(&path, &whole[..whole.len() / 2]);
    let store = FileStore::new(&path);
    // The process that is just writing it.
    let writer = File::options().write(true).open(&path).unwrap();
    writer.lock().unwrap();
    let (sender, loaded) = mpsc::channel();
    thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || sender.send(store.load().unwrap()).unwrap());
        assert!(loaded.recv_timeout(Duration::from_millis(100)).is_err());
        fs::write(&path, &whole).unwrap();
        drop(writer);
        assert_eq!(loaded.recv().unwrap(), Some(tokens(9)));
    });
}

#[test]
fn a_file_that_stays_torn_counts_as_expired_tokens_of_its_account() {
    let torn = |content: &str| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.json");
        write_private(&path, content);
        let store = FileStore::new(&path);
        let loaded = store.load().unwrap().unwrap();
        assert_eq!(loaded.account(), ACCOUNT);
        assert!(!loaded.is_fresh() && loaded.refresh_token().is_none());
        store
            .update(&mut |old| {
                assert_eq!(old.as_ref(), Some(&loaded));
                Some(tokens(1))
            })
            .unwrap();
        assert_eq!(store.load().unwrap(), Some(tokens(1)));
    };
    let new = serde_json::to_string(&tokens(60)).unwrap();
    torn(&new[..new.len() - 2]);
    torn(&new.replace("issued_at", "x"));
    torn(&new[..500]);
    torn(&format!("{}{}", &new[..500], "\0".repeat(700)));
}

#[test]
fn no_mixture_of_old_and_new_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.json");
    let store = FileStore::new(&path);
    for (old, new) in [(3, 5), (5, 3), (4, 4)] {
        let [old, new] = [old, new].map(|n| serde_json::to_string(&tokens(n)).unwrap() + "\n");
        let new = format!("{new:old$}", old = old.len());
        for cut in 0..=new.len() {
            let rest = old.get(cut..).unwrap_or("");
            write_private(&path, format!("{}{rest}", &new[..cut]));
            if cut == 0 {
                continue;
            }
            let loaded = store.load().unwrap().unwrap();
            assert_eq!(loaded.account(), ACCOUNT, "{cut}");
        }
    }
}

#[test]
fn a_panic_leaves_no_lock_and_no_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    renew(&store).unwrap();
    let update = || {
        store.update(&mut |_| {
            assert!(names(directory.path()).contains(&".s.json.datalens-tmp".into()));
            panic!("in renew")
        })
    };
    assert!(catch_unwind(AssertUnwindSafe(update)).is_err());
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
    assert_eq!(renew(&store).unwrap(), 2);
}

#[test]
fn a_store_is_busy_while_it_is_updated() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    assert!(!store.is_busy());
    store
        .update(&mut |_| {
            assert!(store.is_busy());
            None
        })
        .unwrap();
    renew(&store).unwrap();
    assert!(!store.is_busy());
}

#[test]
fn loading_waits_for_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    renew(&store).unwrap();
    store
        .update(&mut |old| {
            assert_eq!(store.load().unwrap(), old);
            None
        })
        .unwrap();
    with_mounts(|directory| {
        let (_, store) = mounted(directory);
        let load = &mut |old| {
            assert_eq!(store.load().unwrap(), old);
            None
        };
        store.update(load).unwrap();
    });
}

#[test]
fn who_waits_on_a_lock_that_was_removed_goes_on_with_its_successor() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    let lock_path = directory.path().join("s.json.lock");
    let first = File::create(&lock_path).unwrap();
    first.lock().unwrap();
    thread::scope(|scope| {
        let renewed = update_in(scope, &store, || ());
        // It waits, whether it has opened the first by now or opens the second.
        let made = lock_path.with_extension("made");
        let second = File::create(&made).unwrap();
        second.lock().unwrap();
        fs::rename(&made, &lock_path).unwrap();
        drop(first);
        assert!(renewed.recv_timeout(Duration::from_millis(200)).is_err());
        drop(second);
        renewed.recv().unwrap();
    });
}
