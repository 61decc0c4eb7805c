//! A client's connection for two threads: one sends, the other receives.
//!
//! Introduced by step 04.
//!
//! Lesson: [04_chat_client](../../../../../lessons/04_chat_client.md).

use crate::cli::{self, Failure};
use crate::net::tcp::{connect_error, connection_error};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, PoisonError};

/// One socket that two threads use: `&TcpStream` both reads and writes.
pub struct Connection {
    stream: TcpStream,
    /// The result of the last write. It is locked during a write.
    last_write: Mutex<io::Result<()>>,
}

impl Connection {
    /// Connects to `address`, where the example `server` should listen.
    ///
    /// # Errors
    ///
    /// The connection fails. The error says what to try.
    pub fn open(address: &str, server: &str) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(address).map_err(|e| connect_error(address, &e, server))?;
        // Each line leaves at once, even if the one before is not acknowledged.
        stream.set_nodelay(true)?;
        Ok(Connection { stream, last_write: Mutex::new(Ok(())) })
    }

    /// The stream, to read from.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all of `bytes`. Returns false if the connection is over: then the
    /// thread that reads reports why.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let mut last_write = self.last_write.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is written after an error, so the error stays for the report.
        if last_write.is_ok() {
            *last_write = (&self.stream).write_all(bytes);
        }
        last_write.is_ok()
    }

    /// Closes the sending half: this client will send no more.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reports how the connection has ended, after reading has come to the end
    /// of the stream.
    ///
    /// # Errors
    ///
    /// The connection was reset. The system reports a reset to one thread only,
    /// and that may have been the thread that sends.
    pub fn report_end(&self) -> Result<(), Failure> {
        // This ends a write that still waits, and so frees its lock.
        let _ = self.stream.shutdown(Shutdown::Both);
        match &*self.last_write.lock().unwrap_or_else(PoisonError::into_inner) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(connection_error(e)),
            _ => {
                cli::warn("* the server has closed the connection");
                Ok(())
            }
        }
    }
}
