//! The file of a session: one account's, whole at any moment, nobody else's to read.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use here_datalens::{Client, Session};

use crate::failure::Failure;

/// How long another process may hold the lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the lock is tried: std knows no lock with a time limit.
const PAUSE: Duration = Duration::from_millis(20);

/// More than any session: two tokens of 8 KB, each byte of them escaped.
const MAX_SIZE: u64 = 128 * 1024;

/// The file and the account that it is to belong to.
pub(crate) struct SessionFile {
    path: PathBuf,
    base_url: String,
    app_id: String,
    user_name: String,
}

impl SessionFile {
    pub(crate) fn new(path: &Path, account: &Client, user_name: &str) -> Self {
        Self {
            path: path.to_owned(),
            base_url: account.base_url().to_owned(),
            app_id: account.app_id().to_owned(),
            user_name: user_name.to_owned(),
        }
    }

    /// Reads the session, if there is a file. A rename puts a new one in its place, so
    /// that this needs no lock.
    pub(crate) fn load(&self) -> Result<Option<Session>, Failure> {
        match self.read() {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.parse(&bytes?).map(Some),
            Err(error) => Err(self.failed("can't read", &error)),
        }
    }

    /// The bytes of the file; or why it isn't one to be read.
    fn read(&self) -> io::Result<Option<Result<Vec<u8>, Failure>>> {
        let metadata = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        // By its type before it is opened: opening a pipe or a device may do something.
        if let Err(failure) = self.check(&metadata) {
            return Ok(Some(Err(failure)));
        }
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path)?;
        // Again, as it may have been replaced meanwhile.
        if let Err(failure) = self.check(&file.metadata()?) {
            return Ok(Some(Err(failure)));
        }
        let mut bytes = Vec::new();
        file.take(MAX_SIZE).read_to_end(&mut bytes)?;
        Ok(Some(Ok(bytes)))
    }

    fn check(&self, metadata: &Metadata) -> Result<(), Failure> {
        let kind = metadata.file_type();
        if !kind.is_file() {
            let what = match () {
                () if kind.is_symlink() => "a symbolic link",
                () if kind.is_dir() => "a directory",
                () if kind.is_fifo() => "a pipe",
                () => "no regular file",
            };
            return Err(self.refused(&format!("is {what}")));
        }
        if metadata.mode() & 0o077 != 0 {
            let path = shell_quoted(&self.path);
            return Err(self.refused(&format!(
                "can be read or written by others: chmod 600 {path}"
            )));
        }
        Ok(())
    }

    fn parse(&self, bytes: &[u8]) -> Result<Session, Failure> {
        // serde's own error may quote the file; and it would take an array, too.
        let object = bytes.trim_ascii_start().starts_with(b"{");
        let parsed = serde_json::from_slice::<Session>(bytes);
        let (true, Ok(session)) = (object, parsed) else {
            return Err(self.refused("isn't a session"));
        };
        for (what, theirs, ours) in [
            ("address", session.base_url(), &self.base_url),
            ("app id", session.app_id(), &self.app_id),
            ("user name", session.user_name(), &self.user_name),
        ] {
            if theirs != ours {
                return Err(
                    self.refused(&format!("belongs to another account: its {what} differs"))
                );
            }
        }
        Ok(session)
    }

    /// Waits for the lock, which is held until the value is dropped or the process ends.
    pub(crate) fn lock(&self) -> Result<Locked<'_>, Failure> {
        let path = self.neighbour(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|error| self.failed("can't lock", &error))?;
        wait_for(&lock, PATIENCE).map_err(|error| match error {
            Some(error) => self.failed("can't lock", &error),
            None => Failure::Busy(format!(
                "session {:?}: another process has held its lock for too long",
                self.path
            )),
        })?;
        Ok(Locked {
            file: self,
            _lock: lock,
        })
    }

    fn neighbour(&self, ending: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(ending);
        name.into()
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::Local(format!("{what} the session {:?}: {error}", self.path))
    }

    fn refused(&self, reason: &str) -> Failure {
        Failure::Setting(format!("session {:?} {reason}", self.path))
    }
}

/// `None` if time ran out.
fn wait_for(lock: &File, patience: Duration) -> Result<(), Option<io::Error>> {
    let start = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(Some(error)),
            Err(TryLockError::WouldBlock) if start.elapsed() >= patience => return Err(None),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
        }
    }
}

/// The right to replace the session.
pub(crate) struct Locked<'a> {
    file: &'a SessionFile,
    _lock: File,
}

impl<'a> Locked<'a> {
    /// Makes the neighbour that will take the file's place, with the room for any
    /// session: what can't be stored is found before tokens are spent for it.
    pub(crate) fn prepare(&self) -> Result<Neighbour<'a>, Failure> {
        let path = self.file.neighbour(".new");
        let make = || {
            // One that a killed process left; the lock says that nobody uses it.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
        };
        let new = make().map_err(|error| self.file.failed("can't store", &error))?;
        let mut neighbour = Neighbour {
            session: self.file,
            path,
            new,
            stored: false,
        };
        neighbour
            .write(&vec![b' '; MAX_SIZE as usize])
            .map_err(|error| self.file.failed("can't store", &error))?;
        Ok(neighbour)
    }
}

/// The file that is to be renamed to the session's; gone if it isn't.
pub(crate) struct Neighbour<'a> {
    session: &'a SessionFile,
    path: PathBuf,
    new: File,
    stored: bool,
}

impl Neighbour<'_> {
    /// Puts the session in its place.
    pub(crate) fn store(mut self, session: &Session) -> Result<(), Failure> {
        let store = |this: &mut Self| {
            let mut json = serde_json::to_vec(session)?;
            json.push(b'\n');
            this.write(&json)?;
            fs::rename(&this.path, &this.session.path)?;
            this.stored = true;
            let directory = match this.session.path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            // So that the rename outlasts a crash; not every file system can do it.
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
            Ok(())
        };
        store(&mut self)
            .map_err(|error: io::Error| self.session.failed("signed in, but can't store", &error))
    }

    /// Makes this the whole of the file, on disk.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.new.rewind()?;
        self.new.write_all(bytes)?;
        self.new.set_len(bytes.len() as u64)?;
        self.new.sync_all()
    }
}

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        if !self.stored {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn shell_quoted(path: &Path) -> String {
    format!(
        "'{}'",
        path.display()
            .to_string()
            .replace('\'', r"'\''")
            .replace(char::is_control, "?")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_not_waited_for_forever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let [holder, waiter] = [(); 2].map(|()| File::create(&path).unwrap());
        holder.lock().unwrap();
        assert!(matches!(
            wait_for(&waiter, Duration::from_millis(50)),
            Err(None)
        ));
        drop(holder);
        assert!(wait_for(&waiter, PATIENCE).is_ok());
    }
}
