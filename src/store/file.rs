//! A token store in a file of its own, which all processes of one user share: replaced
//! by rename(2), or rewritten in place where it is a mount point.

mod disk;

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::{os::unix::fs::MetadataExt, path::PathBuf, time::Instant};

use super::TokenStore;
use crate::tokens::Tokens;
use disk::{LOCK_TIMEOUT, OpenFile, open_regular, user_id};
use disk::{beside, check_private, context, refused};

/// More than any tokens: two of 8 KB, each byte of them escaped, and the account.
const MAX_SIZE: usize = 128 * 1024;

/// Keeps the tokens of one account in a file, as the JSON that [`Tokens`] describes.
///
/// The file is made when there are tokens to store, for its owner alone. One that isn't a
/// regular file, that others can read or write, or that holds something else is refused
/// with [`InvalidInput`](io::ErrorKind::InvalidInput) and left as it is. An empty file
/// holds no tokens.
///
/// # How the file is replaced
/// [`update`](TokenStore::update) holds a lock (flock(2)) on `FILE.lock`, which stays. If
/// another process holds it for a minute, it fails with
/// [`TimedOut`](io::ErrorKind::TimedOut). The new tokens are written to
/// `.FILE.datalens-tmp`, which is then renamed to the file, so that the file is whole at
/// any moment and [`load`](TokenStore::load) needs no lock. Before any tokens are spent, a
/// copy of the file is renamed over it, to see that this is possible, and room is reserved
/// for the new one. Another user's file is refused, since it would change hands.
///
/// A file that is a mount point, as in a container, can't be replaced. It is rewritten in
/// place, under a lock on the file itself as well, and keeps its owner. Room can't be
/// reserved there. A crash of the system may leave a torn file. This counts as expired
/// tokens of the account that it begins with, so that a sign-in replaces it. `load` locks
/// such a file and reads it again first, as it may be just being rewritten.
///
/// # What it can't do
/// - `FILE.lock` may be removed only while nothing uses the store. `update` notices it
///   until just before it spends tokens, but not later.
/// - On network file systems without flock(2), `update` fails.
/// - A process that renames over a file that is mounted elsewhere detaches it from there:
///   share a directory, not a file, between a host and its containers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// Makes a store of the file at this path; touches nothing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        // Without a slash at the end, with which some calls succeed and others don't.
        Self { path: path.into().components().collect() }
    }

    fn open(&self, write: bool) -> io::Result<File> {
        let opened = open_regular(&self.path, write);
        let file = opened.map_err(|error| match user_id().and_then(|user| self.foreign(user)) {
            Ok(Some(foreign)) if error.kind() == ErrorKind::PermissionDenied => foreign,
            // It is no regular file.
            _ if error.kind() == ErrorKind::Other => refused(format!("can't open it: {error}")),
            _ => context("can't open it")(error),
        })?;
        check_private(&file, || {
            let path = self.path.display().to_string().replace(char::is_control, "?");
            format!("others can read or write it: chmod 600 '{}'", path.replace('\'', r"'\''"))
        })?;
        Ok(file)
    }

    /// Returns the refusal of a file that belongs to another user than this one.
    fn foreign(&self, user: u32) -> io::Result<Option<io::Error>> {
        let owner = fs::symlink_metadata(&self.path)?.uid();
        let reason = format!("it belongs to another user, whose id is {owner}");
        Ok((owner != user).then(|| refused(reason)))
    }

    fn read(&self) -> io::Result<Option<Stored>> {
        match self.open(false) {
            Ok(file) => Stored::read(&file).map(Some),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Err(_) if self.path.file_name().is_some() && self.directory().is_dir() => Ok(None),
            Err(_) => Err(refused("its directory doesn't exist")),
        }
    }

    fn directory(&self) -> PathBuf {
        self.path.with_file_name(".")
    }

    /// Opens the file and locks it itself, which is what rewriting it in place takes.
    fn open_locked(&self, write: bool, deadline: Instant) -> io::Result<OpenFile> {
        let try_lock = if write { File::try_lock } else { File::try_lock_shared };
        OpenFile::open_locked(&self.path, || self.open(write), try_lock, deadline)
    }

    /// Loads the tokens, and makes sure, as far as that is possible, that new ones can be
    /// stored: opens the file that they will be written to.
    fn prepare(&self, deadline: Instant) -> io::Result<(Option<Tokens>, OpenFile)> {
        let old = self.read()?;
        if let Some(old) = &old
            && self.is_mount_point(&old.bytes)?
        {
            let target = self.open_locked(true, deadline)?;
            return Ok((Stored::read(&target.file)?.tokens, target));
        }
        let room = OpenFile::create_temporary(&self.path)?;
        // Reserves it. Flushed, since some file systems find only then that there is none.
        room.write(&vec![b' '; MAX_SIZE])?;
        Ok((old.and_then(|old| old.tokens), room))
    }

    /// Renames a copy over the file, which shows whether it can be replaced.
    fn is_mount_point(&self, bytes: &[u8]) -> io::Result<bool> {
        let copy = OpenFile::create_temporary(&self.path)?;
        if let Some(foreign) = self.foreign(copy.file.metadata()?.uid())? {
            // Renamed over it, a copy would be ours. A hard link changes nothing, and can't
            // leave its mount either.
            let link = copy.path.clone();
            drop(copy);
            return match fs::hard_link(&self.path, &link) {
                Ok(()) => fs::remove_file(&link).and(Err(foreign)),
                Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(true),
                Err(_) => Err(foreign),
            };
        }
        // Flushed, so that a crash can't leave an empty file. The directory needn't be:
        // both of its states have the same bytes.
        copy.write(bytes)?;
        match copy.rename(&self.path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(true),
            renamed => renamed.map(|()| false),
        }
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> io::Result<Option<Tokens>> {
        let mut stored = self.read()?;
        if stored.as_ref().is_some_and(|stored| stored.is_torn) {
            // Perhaps it is just being rewritten in place.
            let locked = self.open_locked(false, Instant::now() + LOCK_TIMEOUT)?;
            stored = Some(Stored::read(&locked.file)?);
        }
        Ok(stored.and_then(|stored| stored.tokens))
    }

    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
        // What is refused gets no lock beside it.
        self.read()?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        // Declared in this order: the temporary file has to go before the lock does.
        let (mut lock, tokens, target) = loop {
            let lock = OpenFile::lock(&beside(&self.path, "", ".lock"), deadline)?;
            let (tokens, target) = self.prepare(deadline)?;
            if lock.is_current() {
                break (lock, tokens, target);
            }
        };
        lock.is_temporary = false;
        let Some(tokens) = renew(tokens) else { return Ok(()) };
        let json = serde_json::to_string(&tokens)? + "\n";
        target.write(json.as_bytes())?;
        if target.is_temporary {
            target.rename(&self.path)?;
            // So that the rename outlasts a crash; not every file system can do it.
            let _ = File::open(self.directory()).and_then(|directory| directory.sync_all());
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        let lock = open_regular(&beside(&self.path, "", ".lock"), false);
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    fn name(&self) -> String {
        // `Debug` escapes control characters.
        format!("session {:?}", self.path)
    }
}

/// What a file holds.
struct Stored {
    bytes: Vec<u8>,
    tokens: Option<Tokens>,
    is_torn: bool,
}

impl Stored {
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let read = file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes);
        read.map_err(context("can't read it"))?;
        let whole = parse(&bytes);
        let is_torn = whole.is_none() && !bytes.is_empty();
        let tokens = whole.or_else(|| parse_torn(&bytes));
        if bytes.len() > MAX_SIZE || (is_torn && tokens.is_none()) {
            return Err(refused("what it holds isn't a session"));
        }
        Ok(Self { bytes, tokens, is_torn })
    }
}

fn parse(json: &[u8]) -> Option<Tokens> {
    // serde would take an array as well, and its error may quote the file.
    let is_object = json.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(json).ok().filter(|_| is_object)
}

/// Returns tokens that have expired, without a refresh token, of the account that the
/// file begins with in the form in which it is written. So the session, which knows its
/// own account, signs in over what is left of its own tokens, and refuses another's.
fn parse_torn(bytes: &[u8]) -> Option<Tokens> {
    const NEXT: &[u8] = br#","access_token":""#;
    // No string holds a quote that isn't escaped, so this is where the account ends.
    let account = bytes.windows(NEXT.len()).position(|window| window == NEXT)?;
    let mut json = bytes.get(..account)?.to_vec();
    json.extend_from_slice(br#","access_token":"torn","issued_at":0,"expires_at":0}"#);
    parse(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_is_not_brought_back_by_the_rehearsal() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path().join("session"));
        let error = store.is_mount_point(b"old").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_file_cannot_be_renamed_over_is_not_taken_for_a_mount_point() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path().join("directory"));
        fs::create_dir(&store.path).unwrap();
        let error = store.is_mount_point(b"old").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
    }
}
