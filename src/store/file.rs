//! A token store in a file of its own, which all processes of one user share: replaced
//! by rename(2), or rewritten in place where it is a mount point.

mod disk;

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::{ffi::OsString, os::unix::fs::MetadataExt, path::PathBuf, time::Instant};

use super::TokenStore;
use crate::tokens::Tokens;
use disk::{LOCK_TIMEOUT, OpenFile};
use disk::{check_private, context, lock_file, open_regular, refused, user_id};

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
        let file = open_regular(&self.path, write).map_err(|error| match self.foreign_owner() {
            Some(owner) if error.kind() == ErrorKind::PermissionDenied => foreign(owner),
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

    /// Returns the id of the user that the file belongs to, if that is another.
    fn foreign_owner(&self) -> Option<u32> {
        let owner = fs::symlink_metadata(&self.path).ok()?.uid();
        (owner != user_id().ok()?).then_some(owner)
    }

    fn read(&self) -> io::Result<Option<Stored>> {
        match self.open(false) {
            Ok(file) => Stored::read(file).map(Some),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Err(_) if self.path.file_name().is_some() && self.directory().is_dir() => Ok(None),
            Err(_) => Err(refused("its directory doesn't exist")),
        }
    }

    /// Reads with the file itself locked, which is what rewriting it in place takes.
    fn read_locked(&self, write: bool, deadline: Instant) -> io::Result<Stored> {
        let try_lock = if write { File::try_lock } else { File::try_lock_shared };
        Stored::read(lock_file(&self.path, || self.open(write), try_lock, deadline)?)
    }

    /// Loads the tokens, and makes sure, as far as that is possible, that new ones can be
    /// stored: opens the file that they will be written to.
    fn prepare(&self, deadline: Instant) -> io::Result<(Option<Tokens>, OpenFile)> {
        let old = self.read()?;
        if self.is_mount_point(old.as_ref())? {
            let Stored { file, tokens, .. } = self.read_locked(true, deadline)?;
            return Ok((tokens, OpenFile { file, path: self.path.clone(), is_temporary: false }));
        }
        let room = self.temporary()?;
        // Reserves it. Flushed, since some file systems find only then that there is none.
        room.write(&vec![b' '; MAX_SIZE])?;
        Ok((old.and_then(|old| old.tokens), room))
    }

    /// Renames a copy over the file, which shows whether it can be replaced.
    fn is_mount_point(&self, old: Option<&Stored>) -> io::Result<bool> {
        let Some(old) = old else { return Ok(false) };
        let copy = self.temporary()?;
        let owner = old.file.metadata()?.uid();
        if copy.file.metadata()?.uid() != owner {
            drop(copy);
            // Renamed over it, a copy would be ours.
            return if self.is_on_other_mount()? { Ok(true) } else { Err(foreign(owner)) };
        }
        // Flushed, so that a crash can't leave an empty file. The directory needn't be:
        // both of its states have the same bytes.
        copy.write(&old.bytes)?;
        match copy.rename(&self.path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(true),
            renamed => renamed.map(|()| false),
        }
    }

    /// Whether the file is on another mount than its directory. A hard link, which changes
    /// nothing, can't leave its mount.
    fn is_on_other_mount(&self) -> io::Result<bool> {
        let link = self.beside(".", ".datalens-tmp");
        match fs::hard_link(&self.path, &link) {
            Ok(()) => fs::remove_file(&link).map(|()| false),
            Err(error) => Ok(error.kind() == ErrorKind::CrossesDevices),
        }
    }

    fn temporary(&self) -> io::Result<OpenFile> {
        OpenFile::create_temporary(self.beside(".", ".datalens-tmp"))
    }

    fn directory(&self) -> PathBuf {
        self.path.with_file_name(".")
    }

    /// The path of a file beside the store's.
    fn beside(&self, prefix: &str, suffix: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        self.path.with_file_name(OsString::from_iter([prefix.as_ref(), name, suffix.as_ref()]))
    }
}

impl TokenStore for FileStore {
    fn load(&self) -> io::Result<Option<Tokens>> {
        let mut stored = self.read()?;
        if stored.as_ref().is_some_and(|stored| stored.is_torn) {
            // Perhaps it is just being rewritten in place.
            stored = Some(self.read_locked(false, Instant::now() + LOCK_TIMEOUT)?);
        }
        Ok(stored.and_then(|stored| stored.tokens))
    }

    fn update(&self, renew: &mut dyn FnMut(Option<Tokens>) -> Option<Tokens>) -> io::Result<()> {
        // What is refused gets no lock beside it.
        self.read()?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        // Declared in this order: the temporary file has to go before the lock does.
        let (mut lock, tokens, target) = loop {
            let lock = OpenFile::lock(self.beside("", ".lock"), deadline)?;
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
        let lock = open_regular(&self.beside("", ".lock"), false);
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    fn name(&self) -> String {
        // `Debug` escapes control characters.
        format!("session {:?}", self.path)
    }
}

fn foreign(owner: u32) -> io::Error {
    refused(format!("it belongs to another user, whose id is {owner}"))
}

/// A file and what it holds.
struct Stored {
    file: File,
    bytes: Vec<u8>,
    tokens: Option<Tokens>,
    is_torn: bool,
}

impl Stored {
    fn read(file: File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let read = (&file).take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes);
        read.map_err(context("can't read it"))?;
        let whole = parse(&bytes);
        let is_torn = whole.is_none() && !bytes.is_empty();
        let tokens = whole.or_else(|| parse_torn(&bytes));
        if bytes.len() > MAX_SIZE || (is_torn && tokens.is_none()) {
            return Err(refused("what it holds isn't a session"));
        }
        Ok(Self { file, bytes, tokens, is_torn })
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
