//! Stopping a server when it is asked to: by Ctrl-C, by SIGTERM, by `/quit`.
//!
//! Introduced by step 07.
//!
//! The standard library can't catch Ctrl-C, so this asks the system itself.
//! That is the only `unsafe` code of the project: three calls, each with its
//! reason and its man page.

use crate::line::{Found, read_line};
use std::io;
use std::thread;

/// What stops a server when it is typed.
const QUIT: &[u8] = b"/quit";

/// Waits to be asked to stop.
pub struct Stop(system::Waiter);

impl Stop {
    /// From here on, Ctrl-C and SIGTERM no longer end the program, and the
    /// line `/quit` on standard input has a meaning.
    ///
    /// Make one of these, before the server listens.
    ///
    /// # Errors
    ///
    /// Those of the system: no descriptor, no thread.
    pub fn prepare() -> io::Result<Stop> {
        let waiter = system::prepare()?;
        // Nobody joins it: it may wait for the keyboard until the end.
        thread::Builder::new().name("keyboard".into()).spawn(|| {
            let (mut typed, mut line) = (io::stdin().lock(), Vec::new());
            // The end of the input stops nothing: a server in the background
            // has none.
            while let Ok(Found::Line | Found::LongLine) =
                read_line(&mut typed, QUIT.len(), &mut line)
            {
                if line == QUIT {
                    return system::request();
                }
            }
        })?;
        Ok(Stop(waiter))
    }

    /// Sleeps until the server is asked to stop.
    pub fn wait(&mut self) {
        system::wait(&mut self.0);
    }
}

/// On Unix a signal interrupts a thread wherever it is, even inside an
/// allocation or a lock, and runs the handler there. So a handler may only use
/// calls that don't mind (`signal-safety(7)`). One of these is `write`: ours
/// writes a byte into a socket, at whose other end a thread waits to read.
#[cfg(unix)]
#[allow(unsafe_code)]
mod system {
    use std::ffi::{c_int, c_void};
    use std::io::{self, Read};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

    // The numbers of Linux, macOS and the BSDs: signal(7).
    const SIGINT: c_int = 2;
    const SIGTERM: c_int = 15;
    const SIGTTIN: c_int = 21;
    const SIG_IGN: usize = 1;

    unsafe extern "C" {
        /// Says what a signal does from now on: signal(2).
        fn signal(number: c_int, handler: usize) -> usize;
        /// Writes bytes to a descriptor: write(2).
        fn write(descriptor: c_int, bytes: *const c_void, count: usize) -> isize;
    }

    pub type Waiter = UnixStream;

    /// The end of the pair that a request is written to.
    static REQUESTS: AtomicI32 = AtomicI32::new(-1);

    pub fn prepare() -> io::Result<Waiter> {
        let (requests, waiter) = UnixStream::pair()?;
        REQUESTS.store(requests.into_raw_fd(), Ordering::Relaxed);
        let handler = on_signal as extern "C" fn(c_int);
        // SAFETY: the handler has the type that signal(2) asks for, lives as
        // long as the program, and does only what signal-safety(7) allows.
        unsafe {
            signal(SIGINT, handler as usize);
            signal(SIGTERM, handler as usize);
            // A server in a shell's background must not be stopped for
            // wanting to read the keyboard: the read fails instead.
            signal(SIGTTIN, SIG_IGN);
        }
        Ok(waiter)
    }

    extern "C" fn on_signal(_: c_int) {
        request();
    }

    /// Asks the server to stop. Only the first time counts.
    pub fn request() {
        static ASKED: AtomicBool = AtomicBool::new(false);
        if !ASKED.swap(true, Ordering::Relaxed) {
            let byte = 0_u8;
            // SAFETY: the pointer is good for the one byte that is written;
            // the descriptor is never closed. It can't fail or wait, since
            // this is the only byte ever.
            unsafe { write(REQUESTS.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
        }
    }

    pub fn wait(waiter: &mut Waiter) {
        // Fails only if somebody else closes our descriptors: then it is time.
        let _ = waiter.read_exact(&mut [0]);
    }
}

/// Windows has no signals. It starts a thread for the handler, which may do
/// what every thread may.
#[cfg(windows)]
#[allow(unsafe_code)]
mod system {
    use std::io;
    use std::sync::{Condvar, Mutex, PoisonError};
    use std::thread;

    /// Ctrl-C and Ctrl-Break; what comes behind them (the window is closed, the
    /// system shuts down) ends the program as soon as the handler returns.
    const CTRL_BREAK_EVENT: u32 = 1;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        /// Says who handles Ctrl-C and its like: `SetConsoleCtrlHandler` in
        /// Microsoft's console reference.
        fn SetConsoleCtrlHandler(handler: Option<extern "system" fn(u32) -> i32>, add: i32) -> i32;
    }

    pub struct Waiter;

    static ASKED: Mutex<bool> = Mutex::new(false);
    static CHANGED: Condvar = Condvar::new();

    pub fn prepare() -> io::Result<Waiter> {
        // SAFETY: the handler has the type asked for and lives as long as the
        // program.
        if unsafe { SetConsoleCtrlHandler(Some(on_event), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Waiter)
    }

    extern "system" fn on_event(event: u32) -> i32 {
        request();
        while event > CTRL_BREAK_EVENT {
            // The program ends while this sleeps.
            thread::park();
        }
        1
    }

    pub fn request() {
        *ASKED.lock().unwrap_or_else(PoisonError::into_inner) = true;
        CHANGED.notify_all();
    }

    pub fn wait(_: &mut Waiter) {
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        while !*asked {
            asked = CHANGED.wait(asked).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
