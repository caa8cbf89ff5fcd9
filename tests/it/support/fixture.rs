//! A session's file, and runs of the command that use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::command::{DATALENS, datalens, run, set_application};
use super::fake_api::{EMAIL, FakeApi, PASSWORD};
use super::files::{mode, names};
use super::terminal::at_terminal;

/// A fake API, and a directory for the session's file.
pub struct Fixture {
    pub server: FakeApi,
    directory: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self { server: FakeApi::start(), directory: tempfile::tempdir().unwrap() }
    }

    /// One whose file holds a fresh session.
    pub fn signed_in() -> Self {
        let fixture = Self::new();
        run(&mut fixture.with_password()).assert_printed_datasets();
        fixture
    }

    /// One whose file holds a session that has expired, by time.
    pub fn with_expired_token() -> Self {
        let fixture = Self::signed_in();
        fixture.expire();
        fixture
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn file(&self) -> PathBuf {
        self.path("session.json")
    }

    /// The command with the option, without a password.
    pub fn datalens(&self) -> Command {
        let mut command = datalens();
        set_application(&mut command, &self.server.base_url());
        command.arg("--session").arg(self.file()).arg(EMAIL);
        command
    }

    pub fn with_password(&self) -> Command {
        let mut command = self.datalens();
        command.env("DATALENS_PASSWORD", PASSWORD);
        command
    }

    /// The command for a terminal, without a password.
    pub fn at_terminal(&self) -> pty_process::blocking::Command {
        let command = at_terminal(DATALENS, &self.server.base_url());
        command.arg("--session").arg(self.file()).arg(EMAIL)
    }

    pub fn content(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    pub fn stored(&self) -> Value {
        serde_json::from_slice(&self.content()).unwrap()
    }

    /// Changes a member of the stored session.
    pub fn change(&self, member: &str, value: impl Into<Value>) {
        let mut stored = self.stored();
        stored[member] = value.into();
        fs::write(self.file(), stored.to_string()).unwrap();
    }

    /// Lets the stored token expire, by time.
    pub fn expire(&self) {
        let issued_at = self.stored()["issued_at"].as_i64().unwrap();
        self.change("issued_at", issued_at - 3600);
        self.change("expires_at", issued_at - 1);
    }

    /// The names in the directory.
    pub fn names(&self) -> Vec<String> {
        names(self.directory.path())
    }

    /// Asserts that there is the file and its lock, and nothing else.
    #[track_caller]
    pub fn assert_tidy(&self) {
        assert_eq!(self.names(), ["session.json", "session.json.lock"]);
        assert_eq!(mode(&self.file()), 0o600);
    }
}
