//! The prompt for the password, and the terminal as it was before it.
//!
//! rpassword turns echo, line editing and signals off while it reads. Left by a
//! signal, it leaves the terminal so; and it writes the prompt first, so that what is
//! typed at once can be seen or lost. Here the terminal is as rpassword wants it before
//! the prompt, and whatever ends the program at the prompt restores it first.

/// Asks on the terminal, whatever standard input and output are.
#[cfg(not(unix))]
pub(crate) fn prompt_password(prompt: &str) -> std::io::Result<String> {
    rpassword::prompt_password(prompt)
}

#[cfg(unix)]
pub(crate) use unix::prompt_password;

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::{IntoRawFd, RawFd};
    use std::ptr;
    use std::sync::OnceLock;

    use libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, c_int, sigaction, termios};

    /// What the signal handler restores: the terminal, and its modes before the prompt.
    static BEFORE: OnceLock<(RawFd, termios)> = OnceLock::new();

    const SIGNALS: [c_int; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

    /// Asks on the terminal, whatever standard input and output are.
    ///
    /// # Errors
    /// `Interrupted` for Ctrl-C where that signal is ignored, `UnexpectedEof` for
    /// Ctrl-D on an empty line, and others where there is no terminal.
    pub(crate) fn prompt_password(prompt: &str) -> io::Result<String> {
        // Never closed: the handler may need it until the program ends.
        let terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")?
            .into_raw_fd();
        let before = modes(terminal)?;
        let _ = BEFORE.set((terminal, before));
        let handlers = Handlers::install();
        let mut silent = before;
        silent.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG);
        silent.c_cc[libc::VMIN] = 1;
        silent.c_cc[libc::VTIME] = 0;
        set_modes(terminal, &silent);
        let password = rpassword::prompt_password(prompt);
        set_modes(terminal, &before);
        drop(handlers);
        password
    }

    fn modes(terminal: RawFd) -> io::Result<termios> {
        let mut modes = MaybeUninit::uninit();
        // SAFETY: tcgetattr fills the structure that it is given, and says whether it did.
        match unsafe { libc::tcgetattr(terminal, modes.as_mut_ptr()) } {
            // SAFETY: it did.
            0 => Ok(unsafe { modes.assume_init() }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set_modes(terminal: RawFd, modes: &termios) {
        // SAFETY: `modes` is whole; a failure means that the terminal has gone.
        unsafe { libc::tcsetattr(terminal, libc::TCSANOW, modes) };
    }

    /// Restores the terminal and ends the program; makes only calls that POSIX lists
    /// as async-signal-safe.
    extern "C" fn restore_and_end(signal: c_int) {
        if let Some((terminal, modes)) = BEFORE.get() {
            set_modes(*terminal, modes);
        }
        // SAFETY: both calls are async-signal-safe and take no pointers.
        unsafe {
            match signal {
                SIGINT => libc::_exit(130),
                _ => {
                    // The caller sees which signal it was that ended the program.
                    libc::signal(signal, libc::SIG_DFL);
                    libc::raise(signal);
                }
            }
        }
    }

    /// The handlers of before, which are back when this is dropped.
    struct Handlers(Vec<(c_int, sigaction)>);

    impl Handlers {
        fn install() -> Self {
            let install = |signal| {
                let mut previous = MaybeUninit::<sigaction>::zeroed();
                // SAFETY: an all-zero sigaction is a valid one: no flags, an empty mask.
                let mut action = unsafe { MaybeUninit::<sigaction>::zeroed().assume_init() };
                action.sa_sigaction = restore_and_end as *const () as usize;
                // SAFETY: both structures live through the call; the handler is safe to run
                // at any time.
                let installed = unsafe { libc::sigaction(signal, &action, previous.as_mut_ptr()) };
                // SAFETY: zeroed, then filled.
                (installed == 0).then(|| (signal, unsafe { previous.assume_init() }))
            };
            Self(SIGNALS.into_iter().filter_map(install).collect())
        }
    }

    impl Drop for Handlers {
        fn drop(&mut self) {
            for (signal, previous) in &self.0 {
                // SAFETY: `previous` is what the system gave.
                unsafe { libc::sigaction(*signal, previous, ptr::null_mut()) };
            }
        }
    }
}
