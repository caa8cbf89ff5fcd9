//! Regular files as the store needs them, with what std has: opened without following a
//! link, locked with a time limit, replaced so that a crash leaves the old or the new.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{ffi::OsString, fmt::Display, os::fd::OwnedFd, thread};

/// How long a lock may be held elsewhere: longer than a refresh takes.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a lock is tried: std has none with a time limit.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A file, and the path at which it was opened.
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Whether it is removed when it is dropped.
    pub(super) is_temporary: bool,
}

impl OpenFile {
    /// Locks a file (flock(2)), until it is dropped or the process ends. One that is new
    /// is temporary at first: an update that is refused leaves nothing, as root's lock
    /// would shut out the user whose directory it is in.
    pub(super) fn lock(path: &Path, deadline: Instant) -> io::Result<Self> {
        let is_new = !path.exists();
        let open = || match open_regular(path, true) {
            Err(error) if error.kind() == ErrorKind::NotFound => create_new(path),
            opened => opened,
        };
        let mut lock = Self::open_locked(path, open, File::try_lock, deadline)?;
        lock.is_temporary = is_new;
        Ok(lock)
    }

    /// Opens a file and locks it. It is opened anew for each attempt: who waits for one that
    /// was removed or replaced gets the one in its place, and who would make one gets what
    /// somebody else has just made.
    pub(super) fn open_locked(
        path: &Path,
        open: impl Fn() -> io::Result<File>,
        try_lock: fn(&File) -> Result<(), TryLockError>,
        deadline: Instant,
    ) -> io::Result<Self> {
        let attempt = || -> io::Result<Self> {
            let file = open()?;
            try_lock(&file)?;
            Ok(Self { file, path: path.to_owned(), is_temporary: false })
        };
        let may_pass = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::AlreadyExists);
        let failure = loop {
            match attempt() {
                Ok(locked) if locked.is_current() => return Ok(locked),
                Err(error) if !may_pass(error.kind()) => break error,
                _ if Instant::now() >= deadline => {
                    let reason = "another process has held the lock for too long";
                    break io::Error::new(ErrorKind::TimedOut, reason);
                }
                _ => thread::sleep(LOCK_POLL_INTERVAL),
            }
        };
        Err(context(format_args!("can't lock {path:?}"))(failure))
    }

    /// Makes an empty file that is to replace another, beside it.
    pub(super) fn create_temporary(target: &Path) -> io::Result<Self> {
        let path = beside(target, ".", ".datalens-tmp");
        let created = remove_leftover(&path).and_then(|()| create_new(&path));
        let file = created.map_err(context(format_args!("can't create {path:?}")))?;
        Self { file, path, is_temporary: true }.checked()
    }

    /// Some file systems take no notice of the mode.
    fn checked(self) -> io::Result<Self> {
        check_private(&self.file, || "its file system can't keep it from other users".into())?;
        Ok(self)
    }

    /// Whether it is still the file at its path, which others would open.
    pub(super) fn is_current(&self) -> bool {
        let there = fs::symlink_metadata(&self.path);
        there.is_ok_and(|there| self.file.metadata().is_ok_and(|ours| is_same(&there, &ours)))
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        rewrite(&self.file, bytes).map_err(context(format_args!("can't write {:?}", self.path)))
    }

    /// Renames it over another, unless who removed the lock has put a file in its place.
    pub(super) fn rename(self, target: &Path) -> io::Result<()> {
        let gone = || Err(io::Error::other("it was removed or replaced"));
        let renamed = if self.is_current() { fs::rename(&self.path, target) } else { gone() };
        renamed.map_err(context(format_args!("can't rename {:?} over it", self.path)))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // Not once it was renamed, nor what somebody else put there. Who waits for a lock
        // notices that its file was removed.
        if self.is_temporary && self.is_current() {
            let _ = fs::remove_file(&self.path);
        }
        // A process that another thread has just forked has a copy, and with it the lock.
        let _ = self.file.unlock();
    }
}

/// Opens a regular file; anything else is an error of the kind `Other`, since opening a
/// pipe may block. Looks before and after, as std doesn't know the flags O_NOFOLLOW and
/// O_NONBLOCK.
pub(super) fn open_regular(path: &Path, write: bool) -> io::Result<File> {
    loop {
        let seen = fs::symlink_metadata(path)?;
        if !seen.is_file() {
            let what = if seen.is_symlink() { "a symbolic link, " } else { "" };
            return Err(io::Error::other(format!("it is {what}not a regular file")));
        }
        let file = File::options().read(true).write(write).open(path)?;
        if is_same(&seen, &file.metadata()?) {
            return Ok(file);
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// The path of a file beside another.
pub(super) fn beside(path: &Path, prefix: &str, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    path.with_file_name(OsString::from_iter([prefix.as_ref(), name, suffix.as_ref()]))
}

/// Removes the temporary file of an update that was killed, and nothing else.
fn remove_leftover(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if found.is_file() && found.mode() & 0o7777 == 0o600 && found.uid() == user_id()? {
        return fs::remove_file(path);
    }
    Err(refused("something else has this name"))
}

/// Returns the effective user id: that of a pipe just made, as std has no geteuid(2).
pub(super) fn user_id() -> io::Result<u32> {
    let (reader, _writer) = io::pipe()?;
    Ok(File::from(OwnedFd::from(reader)).metadata()?.uid())
}

/// Makes these bytes the contents of a file, on disk. Of JSON, it writes at once what is
/// JSON with or without the blanks at its end, so that a process that is killed in between
/// leaves the old or the new.
fn rewrite(file: &File, bytes: &[u8]) -> io::Result<()> {
    let mut old = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut old, 0)?;
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().max(old.len()), b' ');
    file.write_all_at(&padded, 0).inspect_err(|_| {
        // Such as a full disk: rather tokens that were spent than a file that is torn.
        let _ = file.write_all_at(&old, 0).and_then(|()| file.set_len(old.len() as u64));
    })?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

pub(super) fn check_private(file: &File, reason: impl FnOnce() -> String) -> io::Result<()> {
    if file.metadata()?.mode() & 0o077 == 0 { Ok(()) } else { Err(refused(reason())) }
}

pub(super) fn refused(reason: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason.into())
}

/// Puts what failed before an error: `map_err(context("can't …"))`.
pub(super) fn context(what: impl Display) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let acquire = |time| OpenFile::lock(&path, Instant::now() + time);
        let holder = acquire(LOCK_TIMEOUT).unwrap();
        let error = acquire(Duration::from_millis(50)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let reason = "another process has held the lock for too long";
        assert_eq!(error.to_string(), format!("can't lock {path:?}: {reason}"));
        drop(holder);
        assert!(acquire(LOCK_TIMEOUT).is_ok());
    }

    #[test]
    fn a_lock_ends_with_its_holder_though_a_process_just_forked_has_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        fs::write(&path, "").unwrap();
        let acquire = || OpenFile::lock(&path, Instant::now());
        let holder = acquire().unwrap();
        let _copy = holder.file.try_clone().unwrap();
        assert!(acquire().is_err());
        drop(holder);
        assert!(acquire().is_ok());
    }

    #[test]
    fn a_file_that_was_replaced_before_it_was_locked_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["lock", "other"].map(|name| directory.path().join(name));
        fs::write(&path, "").unwrap();
        fs::write(&other, "").unwrap();
        let open = || {
            let file = File::open(&path);
            let _ = fs::rename(&other, &path);
            file
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let locked = OpenFile::open_locked(&path, open, File::try_lock, deadline);
        assert!(locked.unwrap().is_current());
        assert!(!other.exists());
    }

    #[test]
    fn who_comes_second_in_making_a_lock_takes_the_one_that_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let open = || match open_regular(&path, true) {
            Err(_) => File::create_new(&path).and_then(|_| create_new(&path)),
            opened => opened,
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let locked = OpenFile::open_locked(&path, open, File::try_lock, deadline);
        assert!(locked.unwrap().is_current());
    }

    #[test]
    fn a_new_lock_file_is_removed_unless_it_is_kept_or_was_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let acquire = || OpenFile::lock(&path, Instant::now()).unwrap();
        drop(acquire());
        assert!(!path.exists());
        let replaced = acquire();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(!replaced.is_current());
        drop(replaced);
        assert!(path.exists());
        drop(acquire());
        assert!(path.exists(), "it isn't new");
        fs::remove_file(&path).unwrap();
        acquire().is_temporary = false;
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_its_file_system_opens_to_others_is_refused_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, is_private) in [(0o600, true), (0o777, false), (0o640, false), (0o604, false)] {
            let path = directory.path().join("file");
            let file = create_new(&path).unwrap();
            // As one that takes no notice of the mode does when a file is made.
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            let temporary = OpenFile { file, path: path.clone(), is_temporary: true };
            let error = temporary.checked().err();
            assert_eq!(error.is_none(), is_private, "{mode:o}");
            if let Some(error) = error {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                assert!(error.to_string().contains("file system"), "{error}");
            }
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_took_the_place_of_a_temporary_file_is_neither_renamed_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::write(&target, "old").unwrap();
        let temporary = OpenFile::create_temporary(&target).unwrap();
        let path = temporary.path.clone();
        fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        fs::write(&path, "theirs").unwrap();
        assert!(temporary.rename(&target).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn what_is_rewritten_in_place_is_cut_to_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (old, new) in [("{}", "[1,2,3]"), ("[1,2,3]", "{}"), ("", "{}")] {
            fs::write(&path, old).unwrap();
            let file = open_regular(&path, true).unwrap();
            rewrite(&file, new.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), new);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_rewritten_in_place_is_json_before_it_is_cut() {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        use nix::sys::memfd::{MFdFlags, memfd_create};

        let file = memfd_create("file", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let file = File::from(file);
        let old = br#"{"longer":true}"#;
        file.write_all_at(old, 0).unwrap();
        // Stops it where a kill might.
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        rewrite(&file, b"{}\n").unwrap_err();
        let mut left = vec![0; old.len()];
        file.read_exact_at(&mut left, 0).unwrap();
        assert_eq!(left, b"{}\n            ");
    }

    #[test]
    fn nothing_that_exists_is_opened_as_a_new_file() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["file", "link"].map(|name| directory.path().join(name));
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        for path in [path, link] {
            let error = create_new(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn the_user_is_the_one_that_files_are_made_by() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(user_id().unwrap(), file.metadata().unwrap().uid());
    }
}
