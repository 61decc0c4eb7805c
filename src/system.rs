//! What the standard library can't do: catch Ctrl-C, and send without waiting.
//!
//! This is the only file with `unsafe` code: four calls to the system, each
//! with its reason and its man page. Introduced by step 05 ([`send_now`]) and
//! step 07 (the stop signals).
//!
//! Lessons: [05_threaded_server](../../../../lessons/05_threaded_server.md),
//! [07_disconnects](../../../../lessons/07_disconnects.md).

use std::io;
use std::net::TcpStream;

/// Sends as many of `bytes` as fit into the system's send buffer, at once, and
/// returns their number: 0 if the buffer is full.
///
/// The standard library can make a socket non-blocking only in both directions
/// (`TcpStream::set_nonblocking`), and the thread that reads from this socket
/// has to wait. The flag `MSG_DONTWAIT` of send(2) is for this one call.
///
/// On systems that are not Unix it sends nothing: there, all bytes go through
/// the thread that waits (see [`SendQueue`](crate::net::send_queue::SendQueue)).
///
/// # Errors
///
/// The connection is gone, or the system has another reason not to send
/// (send(2)). A full buffer is not an error.
pub fn send_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match os::send_now(stream, bytes) {
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(0)
        }
        sent => sent,
    }
}

/// Waits for Ctrl-C, SIGTERM, or a call of [`request_stop`].
pub struct StopSignal(os::Receiver);

impl StopSignal {
    /// From here on, Ctrl-C and SIGTERM no longer end the program: they wake
    /// [`wait`](StopSignal::wait). Call this once.
    ///
    /// # Errors
    ///
    /// The system has no descriptor left, or does not allow it.
    pub fn catch() -> io::Result<StopSignal> {
        Ok(StopSignal(os::catch()?))
    }

    /// Sleeps until the program is asked to stop.
    pub fn wait(&mut self) {
        os::wait(&mut self.0);
    }
}

/// Asks the program to stop, as Ctrl-C does.
pub fn request_stop() {
    os::request_stop();
}

/// On Unix a signal interrupts a thread wherever it is, even inside an
/// allocation or a lock, and runs the handler there. So a handler may only make
/// calls that are safe at such a moment (`signal-safety(7)`). One of them is
/// `write`: our handler writes a byte into a socket, and a thread waits at its
/// other end (this is known as the self-pipe trick).
#[cfg(unix)]
#[allow(unsafe_code)]
mod os {
    use std::ffi::{c_int, c_void};
    use std::io::{self, Read};
    use std::net::TcpStream;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

    // The numbers of Linux, macOS and the BSDs: signal(7), send(2).
    const SIGINT: c_int = 2;
    const SIGTERM: c_int = 15;
    const SIGTTIN: c_int = 21;
    const SIG_IGN: usize = 1;
    const MSG_DONTWAIT: c_int =
        if cfg!(any(target_os = "linux", target_os = "android")) { 0x40 } else { 0x80 };

    unsafe extern "C" {
        /// Sends bytes on a socket: send(2).
        fn send(descriptor: c_int, bytes: *const c_void, count: usize, flags: c_int) -> isize;
        /// Says what a signal does from now on: signal(2).
        fn signal(number: c_int, handler: usize) -> usize;
        /// Writes bytes to a descriptor: write(2).
        fn write(descriptor: c_int, bytes: *const c_void, count: usize) -> isize;
    }

    pub fn send_now(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the pointer is valid for `bytes.len()` bytes, and the stream
        // keeps its descriptor open during the call. (A peer that is gone
        // raises no signal: the standard library ignores SIGPIPE.)
        let sent =
            unsafe { send(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    pub type Receiver = UnixStream;

    /// The descriptor of the socket that a request to stop is written to.
    static SENDER: AtomicI32 = AtomicI32::new(-1);

    pub fn catch() -> io::Result<Receiver> {
        let (sender, receiver) = UnixStream::pair()?;
        SENDER.store(sender.into_raw_fd(), Ordering::Relaxed);
        let handler = on_signal as extern "C" fn(c_int);
        // SAFETY: the handler has the type that signal(2) asks for, lives as
        // long as the program, and does only what signal-safety(7) allows.
        unsafe {
            signal(SIGINT, handler as usize);
            signal(SIGTERM, handler as usize);
            // A server in the background of a shell must not be stopped because
            // it reads from the terminal: with this the read fails instead.
            signal(SIGTTIN, SIG_IGN);
        }
        Ok(receiver)
    }

    extern "C" fn on_signal(_: c_int) {
        request_stop();
    }

    pub fn request_stop() {
        static REQUESTED: AtomicBool = AtomicBool::new(false);
        if !REQUESTED.swap(true, Ordering::Relaxed) {
            let byte = 0_u8;
            // SAFETY: the pointer is valid for the one byte that is written;
            // the descriptor is never closed. The call can't fail or wait,
            // because this is the only byte that is ever written there.
            unsafe { write(SENDER.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
        }
    }

    pub fn wait(receiver: &mut Receiver) {
        // This fails only if other code has closed our descriptor. Then no
        // request could ever arrive, so the program stops as if one had.
        let _ = receiver.read_exact(&mut [0]);
    }
}

/// Windows has no signals. It starts a thread for the handler, and that thread
/// may do what every thread may do.
#[cfg(windows)]
#[allow(unsafe_code)]
mod os {
    use std::io;
    use std::net::TcpStream;
    use std::sync::{Condvar, Mutex, PoisonError};
    use std::thread;

    /// The number of Ctrl-Break. Ctrl-C has a lower one. After the events with
    /// a higher number (the window is closed, the system shuts down) Windows
    /// ends the program as soon as the handler returns.
    const CTRL_BREAK_EVENT: u32 = 1;

    #[link(name = "kernel32")]
    unsafe extern "system" {
        /// Says who handles Ctrl-C and similar events: `SetConsoleCtrlHandler`
        /// in Microsoft's console reference.
        fn SetConsoleCtrlHandler(handler: Option<extern "system" fn(u32) -> i32>, add: i32) -> i32;
    }

    pub fn send_now(_: &TcpStream, _: &[u8]) -> io::Result<usize> {
        Ok(0)
    }

    pub struct Receiver;

    static REQUESTED: Mutex<bool> = Mutex::new(false);
    static CHANGED: Condvar = Condvar::new();

    pub fn catch() -> io::Result<Receiver> {
        // SAFETY: the handler has the type that is asked for and lives as long
        // as the program.
        if unsafe { SetConsoleCtrlHandler(Some(on_event), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Receiver)
    }

    extern "system" fn on_event(event: u32) -> i32 {
        request_stop();
        while event > CTRL_BREAK_EVENT {
            // The program ends while this thread sleeps.
            thread::park();
        }
        1
    }

    pub fn request_stop() {
        *REQUESTED.lock().unwrap_or_else(PoisonError::into_inner) = true;
        CHANGED.notify_all();
    }

    pub fn wait(_: &mut Receiver) {
        let mut requested = REQUESTED.lock().unwrap_or_else(PoisonError::into_inner);
        while !*requested {
            requested = CHANGED.wait(requested).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
