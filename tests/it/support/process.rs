//! Other processes: signals to them, and what proc(5) says of them.

use std::fs;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::wait_until;

pub fn kill(process: u32, signal: Signal) {
    signal::kill(Pid::from_raw(process as i32), signal).expect("the process lives");
}

/// The child of a process that has one.
pub fn child_of(process: u32) -> u32 {
    let names = fs::read_dir("/proc").expect("proc(5)").flatten().map(|entry| entry.file_name());
    let mut processes = names.filter_map(|name| name.to_str()?.parse().ok());
    let parent = Some(process.to_string());
    processes.find(|process| stat(*process, 1) == parent).expect("a child")
}

pub fn wait_until_stopped(process: u32) {
    wait_until("a stopped process", || stat(process, 0).as_deref() == Some("T"));
}

/// Waits for the end of a process's last thread: before that, its parent doesn't see it.
pub fn wait_until_ended(process: u32) {
    wait_until("the end of a process", || {
        let is_alone = || stat(process, 17).is_none_or(|threads| threads == "1");
        stat(process, 0).is_none_or(|state| state == "Z" && is_alone())
    });
}

/// Waits until no signal is pending and no handler, which blocks signals, runs.
pub fn wait_until_signals_are_handled(process: u32) {
    wait_until("handled signals", || {
        let sets = ["SigPnd", "ShdPnd", "SigBlk"];
        sets.iter().all(|set| signal_set(process, set) == 0)
    });
}

/// Whether a process has a handler for a signal.
pub fn catches(process: u32, signal: Signal) -> bool {
    signal_set(process, "SigCgt") & (1 << (signal as u32 - 1)) != 0
}

/// A set of signals of `/proc/PID/status`, signal 1 in the lowest bit: proc(5).
fn signal_set(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let mut fields = status.lines().filter_map(|line| line.split_once(":\t"));
    let (_, set) = fields.find(|(field, _)| *field == name).expect("a field");
    u64::from_str_radix(set, 16).expect("hexadecimal digits")
}

/// A field of `/proc/PID/stat` from the state on, which is the third of all: proc(5).
pub fn stat(process: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(field).map(str::to_owned)
}
