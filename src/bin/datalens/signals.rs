//! POSIX signals: handlers, default actions, and how to put off the program's end.
//!
//! What handlers call here is on POSIX's list of async-signal-safe functions.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::{mem::MaybeUninit, ptr};

use here_datalens::Event;
use libc::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGTSTP, c_int, sigaction, sighandler_t};

/// Installs a handler, during which all signals are blocked, and after which interrupted
/// system calls are restarted. A signal that is ignored, as SIGHUP is under `nohup`, stays so.
///
/// It stays installed: each handler does what the default action does once its time is
/// over.
pub(crate) fn install(handler: extern "C" fn(c_int), signals: &[c_int]) {
    for signal in signals {
        // SAFETY: zeros are a valid `sigaction`, which the first call overwrites. The handler
        // may run at any time from here on.
        unsafe {
            let mut action: sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(*signal, ptr::null(), &mut action);
            if action.sa_sigaction != libc::SIG_IGN {
                action.sa_sigaction = handler as sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigfillset(&mut action.sa_mask);
                libc::sigaction(*signal, &action, ptr::null_mut());
            }
        }
    }
}

/// Takes the default action of a signal at once, in a handler as well, where it is blocked.
/// SIGTSTP stops the program until it is continued, if anybody could do that, and has no
/// handler then; any other ends the program, so that its parent sees which one it was.
pub(crate) fn act_by_default(signal: c_int) {
    let mut signals = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set that the others use.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), signal);
        libc::raise(signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, signals.as_ptr(), ptr::null_mut());
        // The first process of a container gets here: the kernel spares it.
        if signal != SIGTSTP {
            libc::_exit(128 + signal);
        }
    }
}

/// Calls `act` with all signals blocked. No handler runs meanwhile, and a thread that is
/// started inherits it: signals are left to this one. (A thread that blocked them by itself
/// would be too late.)
pub(crate) fn with_all_blocked(act: impl FnOnce()) {
    let [mut all, mut before] = [const { MaybeUninit::uninit() }; 2];
    // SAFETY: `sigfillset` initialises the one set, `pthread_sigmask` the other.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        act();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
}

/// How long the end may be put off once a signal has arrived.
const GRACE_SECONDS: u32 = 5;

/// `NOT_DEFERRING`, `NO_SIGNAL` while signals are deferred, or the first of them.
static DEFERRED: AtomicI32 = AtomicI32::new(NOT_DEFERRING);
const NOT_DEFERRING: c_int = -1;
const NO_SIGNAL: c_int = 0;

/// Defers signals while what a request brings has to be stored: from the request on, but for
/// the time in which a name is looked up and connected to, or a request waits to be repeated.
/// What follows the storing ends that: the next lock or request, or whoever made the call.
pub(crate) fn follow(event: &Event<'_>, is_stored: bool) {
    /// Whether the latest request is one for tokens, a sign-in or a refresh, and they are
    /// stored.
    static RENEWS: AtomicBool = AtomicBool::new(false);
    match event {
        Event::Request { method, .. } => RENEWS.store(is_stored && *method == "POST", SeqCst),
        Event::Connected { .. } => {}
        Event::Resolving { .. } | Event::Retry { .. } | Event::Locking { .. } => {
            return end_deferral();
        }
        _ => return,
    }
    if RENEWS.load(SeqCst) { defer() } else { end_deferral() }
}

/// Defers SIGINT, SIGTERM and SIGHUP: the first one ends the program at `end_deferral`, or
/// after `GRACE_SECONDS`; a second one ends it at once.
fn defer() {
    // A signal that was deferred already stays so.
    let _ = DEFERRED.compare_exchange(NOT_DEFERRING, NO_SIGNAL, SeqCst, SeqCst);
    install(handle_deferred, &[SIGINT, SIGTERM, SIGHUP]);
}

/// Ends the program if a signal was deferred. From here on, one ends it at once.
pub(crate) fn end_deferral() {
    if let Err(signal @ 1..) = DEFERRED.compare_exchange(NO_SIGNAL, NOT_DEFERRING, SeqCst, SeqCst) {
        act_by_default(signal);
    }
}

extern "C" fn handle_deferred(signal: c_int) {
    match DEFERRED.compare_exchange(NO_SIGNAL, signal, SeqCst, SeqCst) {
        // Only now, since a parent may have set an alarm for this program, or have it ignored.
        // SAFETY: these take numbers.
        Ok(_) => unsafe {
            libc::signal(SIGALRM, libc::SIG_DFL);
            install(handle_deferred, &[SIGALRM]);
            libc::alarm(GRACE_SECONDS);
        },
        Err(first) if signal == SIGALRM => act_by_default(first),
        // A second signal, or one outside of a deferral.
        Err(_) => act_by_default(signal),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// The other tests run this in a process of its own: a critical section that lasts
    /// as long as standard input, and until a signal has been handled if that says so.
    #[test]
    #[ignore = "no test, but the process of other tests"]
    fn process() {
        // Whoever runs the tests may ignore some, as a shell does for what it runs in the
        // background.
        if std::env::var_os("KEEP_IGNORED").is_none() {
            for signal in [SIGINT, SIGTERM, SIGHUP] {
                // SAFETY: no handler is installed.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
        }
        defer();
        writeln!(io::stdout(), "\nbegun").unwrap();
        let input = io::read_to_string(io::stdin()).unwrap();
        while input == "signal" && DEFERRED.load(SeqCst) == NO_SIGNAL {
            std::thread::yield_now();
        }
        writeln!(io::stdout(), "\nend of the section").unwrap();
        end_deferral();
        writeln!(io::stdout(), "\nafter the section").unwrap();
        if input == "another section" {
            defer();
            end_deferral();
            // SAFETY: `raise` takes a number.
            unsafe { libc::raise(SIGTERM) };
            writeln!(io::stdout(), "\nstill there").unwrap();
        }
    }

    struct Process {
        child: Child,
        output: BufReader<ChildStdout>,
    }

    impl Process {
        /// Starts `process`, under a shell's command, and waits for its section.
        fn start(command: &str) -> Self {
            let mut child = Command::new("sh")
                .args(["-c", &format!("{command}; exec \"$@\""), "sh"])
                .arg(std::env::current_exe().unwrap())
                .args(["signals::tests::process", "--exact", "--ignored"])
                .arg("--nocapture")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while line != "begun\n" {
                line.clear();
                assert_ne!(output.read_line(&mut line).unwrap(), 0, "it begins");
            }
            Self { child, output }
        }

        fn kill(&self, signal: &str) {
            let id = self.child.id().to_string();
            let status = Command::new("kill").args(["-s", signal, &id]).status();
            assert!(status.unwrap().success());
        }

        /// Lets the section end.
        fn end_section(&mut self, after: &str) {
            let mut stdin = self.child.stdin.take().unwrap();
            stdin.write_all(after.as_bytes()).unwrap();
        }

        fn end(mut self) -> (ExitStatus, String) {
            let stdin = self.child.stdin.take();
            let mut output = String::new();
            self.output.read_to_string(&mut output).unwrap();
            let status = self.child.wait().unwrap();
            drop(stdin);
            (status, output)
        }
    }

    #[test]
    fn a_signal_ends_the_program_after_the_critical_section() {
        for (name, number) in [("INT", SIGINT), ("TERM", SIGTERM), ("HUP", SIGHUP)] {
            let mut process = Process::start(":");
            process.kill(name);
            process.end_section("signal");
            let (status, output) = process.end();
            assert_eq!(status.signal(), Some(number));
            assert!(output.contains("end of the section"), "{output}");
            assert!(!output.contains("after the section"), "{output}");
        }
    }

    #[test]
    fn a_second_signal_ends_the_program_at_once() {
        let process = Process::start(":");
        let start = Instant::now();
        process.kill("TERM");
        process.kill("INT");
        let (status, output) = process.end();
        assert!(matches!(status.signal(), Some(SIGTERM | SIGINT)));
        assert!(!output.contains("end of the section"), "{output}");
        assert!(start.elapsed() < Duration::from_secs(GRACE_SECONDS.into()));
    }

    #[test]
    fn a_signal_ends_the_program_after_five_seconds_at_most() {
        let start = Instant::now();
        let processes = [":", "trap '' ALRM"].map(Process::start);
        for process in &processes {
            process.kill("TERM");
        }
        for process in processes {
            let (status, output) = process.end();
            assert_eq!(status.signal(), Some(SIGTERM));
            assert!(!output.contains("end of the section"), "{output}");
            assert!(start.elapsed() >= Duration::from_secs(4));
        }
    }

    #[test]
    fn an_ignored_signal_stays_ignored() {
        let mut process = Process::start("trap '' INT TERM HUP; export KEEP_IGNORED=yes");
        for signal in ["INT", "TERM", "HUP"] {
            process.kill(signal);
            process.kill(signal);
        }
        process.end_section("");
        let (status, output) = process.end();
        assert!(status.success());
        assert!(output.contains("after the section"), "{output}");
    }

    #[test]
    fn after_the_critical_section_a_signal_ends_the_program_at_once() {
        let mut process = Process::start(":");
        process.end_section("another section");
        let (status, output) = process.end();
        assert_eq!(status.signal(), Some(SIGTERM));
        assert!(output.contains("after the section"), "{output}");
        assert!(!output.contains("still there"), "{output}");
    }

    #[test]
    fn signals_are_deferred_from_a_request_for_tokens_to_what_follows_their_storing() {
        let request = |method| Event::Request { method, host: "", path: "" };
        let (resolving, locking) = (Event::Resolving { host: "" }, Event::Locking { store: "" });
        let address = ([127, 0, 0, 1], 443).into();
        let connected = Event::Connected { host: "", address };
        for (event, is_stored, deferred) in [
            (&locking, true, NOT_DEFERRING),
            (&request("POST"), false, NOT_DEFERRING),
            (&connected, false, NOT_DEFERRING),
            (&request("POST"), true, NO_SIGNAL),
            (&resolving, true, NOT_DEFERRING),
            (&connected, true, NO_SIGNAL),
            (&Event::Refreshed, true, NO_SIGNAL),
            // Waiting for whoever refreshes next.
            (&locking, true, NOT_DEFERRING),
            (&request("POST"), true, NO_SIGNAL),
            (&request("GET"), true, NOT_DEFERRING),
            (&connected, true, NOT_DEFERRING),
        ] {
            follow(event, is_stored);
            assert_eq!(DEFERRED.load(SeqCst), deferred, "{event:?}");
        }
    }

    /// Without it, a signal would cut off what the section reads.
    #[test]
    fn handlers_restart_system_calls_and_block_signals() {
        extern "C" fn handler(_: c_int) {}
        install(handler, &[libc::SIGUSR1]);
        // SAFETY: zeros are a valid `sigaction`, and `sigismember` reads its mask.
        let (action, is_blocked) = unsafe {
            let mut action: sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(libc::SIGUSR1, ptr::null(), &mut action);
            (action, libc::sigismember(&action.sa_mask, SIGTERM))
        };
        assert_eq!(action.sa_sigaction, handler as extern "C" fn(c_int) as sighandler_t);
        assert_ne!(action.sa_flags & libc::SA_RESTART, 0);
        assert_eq!(is_blocked, 1);
    }
}
