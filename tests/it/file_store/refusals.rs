//! What the store refuses, and leaves as it is.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use here_datalens::{FileStore, TokenStore};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};

use super::{OTHER, as_other_user, count, refusal, renew, store_in, tokens};
use crate::support::files::{names, set_mode, write_private};
use crate::support::skip;

#[test]
fn what_does_not_hold_tokens_is_refused_and_left_alone() {
    let whole = serde_json::to_string(&tokens(1)).unwrap();
    let spaces = " ".repeat(200_000);
    for content in [
        "{}",
        "[]",
        "hello",
        "\0",
        "\n",
        "{\"access_token\":\"access-\"}",
        r#"{"base_url":"https://example.com","token":"access-"}"#,
        r#"{"base_url":"https://exam"#,
        r#"["https://example.com","app id","me@example.com","access-","r",1,2]"#,
        &format!("{whole}{spaces}"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = store_in(directory.path());
        let path = directory.path().join("s.json");
        write_private(&path, content);
        let inode = fs::metadata(&path).unwrap().ino();
        for error in [store.load().unwrap_err(), refusal(&store)] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{content:.100}");
            assert_eq!(error.to_string(), "what it holds isn't a session");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(names(directory.path()), ["s.json"]);
    }
}

#[test]
fn a_file_of_128_kilobytes_is_read_and_a_larger_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    let whole = serde_json::to_string(&tokens(1)).unwrap();
    for (size, is_read) in [(128 * 1024, true), (128 * 1024 + 1, false)] {
        let blanks = " ".repeat(size - whole.len());
        write_private(&directory.path().join("s.json"), format!("{whole}{blanks}"));
        assert_eq!(store.load().is_ok(), is_read);
    }
}

#[test]
fn a_file_that_others_can_read_or_write_is_refused_with_what_to_type() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it's\x1b.json");
    let store = FileStore::new(&path);
    renew(&store).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o610, 0o601] {
        set_mode(&path, mode);
        for error in [store.load().unwrap_err(), refusal(&store)] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let shown = directory.path().display();
            let command = format!(": chmod 600 '{shown}/it'\\''s?.json'");
            assert!(error.to_string().ends_with(&command), "{error}");
        }
    }
    assert!(store.name().ends_with(r#"/it's\u{1b}.json""#), "{}", store.name());
}

/// Makes, in turn, what isn't a regular file.
fn for_each_oddity(test: impl Fn(&Path, &dyn Fn(&Path))) {
    type Make = fn(&Path);
    let make: [Make; 5] = [
        |path| {
            write_private(&path.with_extension("target"), "untouched");
            symlink(path.with_extension("target"), path).unwrap();
        },
        |path| symlink("/nonexistent", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap(),
        |path| drop(UnixListener::bind(path).unwrap()),
    ];
    for make in make {
        let directory = tempfile::tempdir().unwrap();
        test(directory.path(), &make);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    for_each_oddity(|directory, make| {
        let path = directory.join("s.json");
        make(&path);
        let store = FileStore::new(&path);
        let before = names(directory);
        // Whose it is doesn't matter; only root can give it away.
        for owner in [None, Uid::effective().is_root().then_some(OTHER)] {
            lchown(&path, owner, None).unwrap();
            for error in [store.load().unwrap_err(), refusal(&store)] {
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                assert!(error.to_string().contains("not a regular file"), "{error}");
            }
        }
        assert_eq!(names(directory), before);
    });
}

#[test]
#[cfg(target_env = "gnu")]
fn a_link_that_takes_the_files_place_is_not_followed() {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    let directory = tempfile::tempdir().unwrap();
    let [path, link, target] = ["s.json", "link", "target"].map(|name| directory.path().join(name));
    for (path, count) in [(&path, 1), (&target, 2)] {
        write_private(path, serde_json::to_string(&tokens(count)).unwrap());
    }
    symlink(&target, &link).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let exchange = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, &path, AT_FDCWD, &link, exchange).unwrap();
            }
        });
        let store = FileStore::new(&path);
        let is_followed = |_: &u32| store.load().is_ok_and(|found| count(found.as_ref()) == 2);
        let followed = (0..20_000).find(is_followed);
        done.store(true, Ordering::Relaxed);
        assert_eq!(followed, None);
    });
}

#[test]
fn a_lock_that_is_no_regular_file_is_refused_without_waiting() {
    for_each_oddity(|directory, make| {
        let path = directory.join("s.json.lock");
        make(&path);
        let before = names(directory);
        let error = refusal(&FileStore::new(directory.join("s.json")));
        assert_eq!(error.kind(), ErrorKind::Other);
        assert!(error.to_string().starts_with(&format!("can't lock {path:?}: it is ")), "{error}");
        assert_eq!(names(directory), before);
    });
}

#[test]
fn something_else_with_the_temporary_files_name_is_refused_and_left_alone() {
    let refused = |directory: &Path| {
        let path = directory.join(".s.json.datalens-tmp");
        let before = fs::symlink_metadata(&path).unwrap();
        let error = refusal(&FileStore::new(directory.join("s.json")));
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
        assert!(!directory.join("s.json.lock").exists());
    };
    for_each_oddity(|directory, make| {
        make(&directory.join(".s.json.datalens-tmp"));
        refused(directory);
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".s.json.datalens-tmp");
    write_private(&path, "mine");
    for mode in [0o644, 0o400, 0o700] {
        set_mode(&path, mode);
        refused(directory.path());
    }
    if !Uid::effective().is_root() {
        return skip("only root can give a file away");
    }
    write_private(&path, "theirs");
    chown(&path, Some(OTHER), None).unwrap();
    refused(directory.path());
}

#[test]
fn a_directory_that_does_not_exist_is_told_as_that() {
    for path in ["/nonexistent/s.json", "/nonexistent/a/s.json", ""] {
        let store = FileStore::new(path);
        for error in [store.load().unwrap_err(), refusal(&store)] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), "its directory doesn't exist");
        }
    }
    for path in ["/", ".", "..", "/tmp/"] {
        let error = refusal(&FileStore::new(path));
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}: {error}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_told_before_anything_is_renewed() {
    // Not even root can make a file there.
    let error = refusal(&FileStore::new("/proc/s.json"));
    assert!(error.to_string().starts_with(r#"can't lock "/proc/s.json.lock": "#), "{error}");
    assert_ne!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_lock_that_cannot_be_opened_is_told_with_its_path() {
    if !Uid::effective().is_root() {
        return skip("only root can give a file away");
    }
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o777);
    let store = store_in(directory.path());
    renew(&store).unwrap();
    chown(directory.path().join("s.json"), Some(OTHER), Some(OTHER)).unwrap();
    as_other_user(|| {
        assert_eq!(count(store.load().unwrap().as_ref()), 1);
        let error = refusal(&store);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("/s.json.lock\": "), "{error}");
    });
}

#[test]
fn another_users_file_that_cannot_be_read_is_told_as_theirs() {
    if !Uid::effective().is_root() {
        return skip("only root can act for another user");
    }
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(directory.path());
    renew(&store).unwrap();
    set_mode(directory.path(), 0o777);
    as_other_user(|| {
        for error in [store.load().unwrap_err(), refusal(&store)] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), "it belongs to another user, whose id is 0");
        }
    });
}

#[test]
fn another_users_file_does_not_change_hands() {
    if !Uid::effective().is_root() {
        return skip("only root can give a file away");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.json");
    let store = FileStore::new(&path);
    renew(&store).unwrap();
    fs::remove_file(directory.path().join("s.json.lock")).unwrap();
    chown(directory.path(), Some(OTHER), Some(OTHER)).unwrap();
    chown(&path, Some(OTHER), Some(OTHER)).unwrap();
    let before = fs::metadata(&path).unwrap();

    assert_eq!(count(store.load().unwrap().as_ref()), 1);
    let error = refusal(&store);
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().ends_with("another user, whose id is 12345"), "{error}");
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.uid(), after.nlink()), (before.ino(), OTHER, 1));
    // A lock of root's would keep its owner out.
    assert_eq!(names(directory.path()), ["s.json"]);
    as_other_user(|| assert_eq!(renew(&store).unwrap(), 2));
    // One of its owner's stays.
    refusal(&store);
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
}

#[test]
fn a_file_that_cannot_be_replaced_is_told_before_anything_is_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.json");
    let store = FileStore::new(&path);
    renew(&store).unwrap();
    let chattr = |flag: &str| {
        let status = Command::new("chattr").arg(flag).arg(&path).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !chattr("+i") {
        return skip("no file can be made immutable");
    }
    let error = catch_unwind(AssertUnwindSafe(|| refusal(&store)));
    assert!(chattr("-i"));
    assert_eq!(error.unwrap().kind(), ErrorKind::PermissionDenied);
    assert_eq!(names(directory.path()), ["s.json", "s.json.lock"]);
    assert_eq!(renew(&store).unwrap(), 2);
}
