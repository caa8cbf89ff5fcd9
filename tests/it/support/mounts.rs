//! Mount points, in a namespace of their own.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use super::skip;

/// Runs a test on a thread that has a mount namespace of its own, in a directory that
/// is removed when the namespace has gone, and its mounts with it.
pub fn with_mounts(test: impl FnOnce(&Path) + Send) {
    if !Uid::effective().is_root() {
        return skip("only root can mount");
    }
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let directory = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let run = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
                return skip(&format!("no mount namespace: {error}"));
            }
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            test(directory.path());
        };
        let thread = thread::Builder::new().name(name).spawn_scoped(scope, run);
        if let Err(panic) = thread.unwrap().join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Makes a file or a directory a mount point.
pub fn bind(path: &Path) {
    bind_at(path, path);
}

/// Puts a file or a directory in the place of another.
pub fn bind_at(source: &Path, target: &Path) {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}
