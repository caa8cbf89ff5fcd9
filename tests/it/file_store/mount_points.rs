//! Files that are mount points, which are rewritten in place, and other file systems.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::thread;
use std::time::Duration;

use here_datalens::{AccessToken, FileStore, RefreshToken, TokenStore, Tokens};
use nix::mount::{MsFlags, mount};

use super::{
    ACCOUNT, OTHER, count, make_read_only, mounted, refusal, renew, store_in, tokens, update_in,
    wait_until_locked,
};
use crate::support::files::{names, write_private};
use crate::support::mounts::{bind, with_mounts};

#[test]
fn another_users_file_that_is_a_mount_point_keeps_its_owner() {
    with_mounts(|directory| {
        let (path, store) = mounted(directory);
        chown(&path, Some(OTHER), Some(OTHER)).unwrap();
        assert_eq!(renew(&store).unwrap(), 2);
        assert_eq!(count(store.load().unwrap().as_ref()), 2);
        assert_eq!(fs::metadata(&path).unwrap().uid(), OTHER);
        assert_eq!(names(directory), ["s.json", "s.json.lock"]);
    });
}

#[test]
fn a_mount_point_is_rewritten_in_place() {
    with_mounts(|directory| {
        let (path, store) = mounted(directory);
        let inode = fs::metadata(&path).unwrap().ino();
        // Longer and shorter ones.
        for expected in 2..200 {
            assert_eq!(renew(&store).unwrap(), expected);
            assert_eq!(store.load().unwrap(), Some(tokens(expected)));
            let json = fs::read_to_string(&path).unwrap();
            assert_eq!(json, serde_json::to_string(&tokens(expected)).unwrap() + "\n");
        }
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(names(directory), ["s.json", "s.json.lock"]);

        fs::write(&path, "").unwrap();
        assert_eq!(renew(&store).unwrap(), 1);
    });
}

#[test]
fn a_mount_point_is_locked_itself() {
    with_mounts(|directory| {
        let (path, store) = mounted(directory);
        // As a process does that shares the file, but not the lock beside it.
        let theirs = File::open(&path).unwrap();
        theirs.lock().unwrap();
        let is_locked = || assert!(File::open(&path).unwrap().try_lock().is_err());
        thread::scope(|scope| {
            let renewed = update_in(scope, &store, is_locked);
            wait_until_locked(&path.with_extension("json.lock"));
            assert!(renewed.recv_timeout(Duration::from_millis(100)).is_err());
            assert_eq!(count(store.load().unwrap().as_ref()), 1);
            fs::write(&path, serde_json::to_string(&tokens(5)).unwrap()).unwrap();
            drop(theirs);
            assert_eq!(renewed.recv().unwrap(), 5, "looks again");
        });
    });
}

#[test]
fn a_read_only_mount_point_is_told_before_anything_is_renewed() {
    with_mounts(|directory| {
        let (path, store) = mounted(directory);
        make_read_only(&path);
        assert_eq!(count(store.load().unwrap().as_ref()), 1);
        assert_eq!(refusal(&store).kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(names(directory), ["s.json", "s.json.lock"]);
    });
}

#[test]
fn a_read_only_directory_is_told_before_anything_is_renewed_and_loads() {
    with_mounts(|directory| {
        let store = store_in(directory);
        renew(&store).unwrap();
        bind(directory);
        make_read_only(directory);
        assert_eq!(count(store.load().unwrap().as_ref()), 1);
        assert_eq!(refusal(&store).kind(), ErrorKind::ReadOnlyFilesystem);
    });
}

/// Mounts a file system that has no more room than this.
fn mount_disk(directory: &Path, size: &str) {
    let size = format!("size={size}");
    mount(Some("none"), directory, Some("tmpfs"), MsFlags::empty(), Some(&*size)).unwrap();
}

#[test]
fn a_full_disk_is_found_before_anything_is_renewed() {
    with_mounts(|directory| {
        mount_disk(directory, "96k");
        let store = store_in(directory);
        write_private(&directory.join("s.json"), serde_json::to_string(&tokens(1)).unwrap());
        assert_eq!(refusal(&store).kind(), ErrorKind::StorageFull);
        assert_eq!(names(directory), ["s.json"]);
        assert_eq!(store.load().unwrap(), Some(tokens(1)));
    });
}

#[test]
fn a_disk_that_is_full_when_a_mount_point_is_rewritten_tears_nothing() {
    with_mounts(|directory| {
        mount_disk(directory, "64k");
        let path = directory.join("s.json");
        let store = FileStore::new(&path);
        let refresh = RefreshToken::new("\u{1}".repeat(8000)).unwrap();
        let long = Tokens::new(ACCOUNT, AccessToken::new("a").unwrap(), Some(refresh));
        write_private(&path, serde_json::to_string(&tokens(1)).unwrap());
        bind(&path);
        let update = store.update(&mut |_| {
            let fill = File::create(directory.join("fill"));
            let _ = fill.unwrap().write_all(&vec![0; 48 * 1024]);
            Some(long.clone())
        });
        assert_eq!(update.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(store.load().unwrap(), Some(tokens(1)));
    });
}

#[test]
fn a_lock_that_was_replaced_while_it_was_held_is_noticed_before_anything_is_renewed() {
    with_mounts(|directory| {
        let (path, store) = mounted(directory);
        let lock_path = path.with_extension("json.lock");
        let theirs = File::open(&path).unwrap();
        theirs.lock().unwrap();
        thread::scope(|scope| {
            let renewed = update_in(scope, &store, || ());
            wait_until_locked(&lock_path);
            fs::remove_file(&lock_path).unwrap();
            let second = File::create(&lock_path).unwrap();
            second.lock().unwrap();
            drop(theirs);
            assert!(renewed.recv_timeout(Duration::from_millis(200)).is_err());
            drop(second);
            renewed.recv().unwrap();
        });
    });
}
