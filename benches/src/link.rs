//! One end of a WebSocket on a socket that does not block.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use crate::frame::LONGEST_PAYLOAD;

/// The size of the buffer that is read into, in bytes: room for the longest frame twice.
pub const INBOX: usize = 2 * LONGEST_PAYLOAD;

/// How much may wait for a socket that takes nothing, in bytes, before its call is given up.
const LONGEST_BACKLOG: usize = 1024 * 1024;

/// A socket, what was read of a frame that is not whole, and what the socket did not take.
///
/// Both buffers are empty and without memory while the other end keeps up.
pub struct Link {
    pub stream: TcpStream,
    partial: Vec<u8>,
    backlog: Vec<u8>,
}

/// What one `recv` brought.
pub struct Received<'a> {
    /// The bytes that wait for being understood, older ones included.
    pub bytes: &'a mut [u8],
    /// Whether the socket is known to hold no more. The next byte, or the end, raises an event.
    pub drained: bool,
}

impl Link {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            backlog: Vec::new(),
        }
    }

    /// Reads once, into `inbox`, behind what [`Self::keep`] kept. Returns `None` if there is
    /// nothing to read.
    ///
    /// # Errors
    /// The end of the stream is an `UnexpectedEof`.
    pub fn receive<'a>(&mut self, inbox: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let kept = self.partial.len();
        let read = loop {
            match self.stream.read(&mut inbox[kept..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        inbox[..kept].copy_from_slice(&self.partial);
        self.partial.clear();
        // A short read means that the socket is empty, as epoll(7) says in its questions.
        let drained = kept + read < inbox.len();
        Ok(Some(Received {
            bytes: &mut inbox[..kept + read],
            drained,
        }))
    }

    /// Keeps what is not a whole frame yet for the next [`Self::receive`].
    pub fn keep(&mut self, partial: &[u8]) {
        self.partial.extend_from_slice(partial);
    }

    /// Writes `bytes`, or keeps what the socket does not take for [`Self::flush`].
    ///
    /// # Errors
    /// Also when too much waits already.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.backlog.is_empty() {
            self.postpone(bytes)?;
            return self.flush();
        }
        let taken = write(&mut self.stream, bytes)?;
        self.postpone(&bytes[taken..])
    }

    /// Keeps `bytes` for [`Self::flush`], without trying the socket.
    ///
    /// # Errors
    /// When too much waits already.
    pub fn postpone(&mut self, bytes: &[u8]) -> io::Result<()> {
        if LONGEST_BACKLOG < self.backlog.len() + bytes.len() {
            return Err(io::Error::other("the other end takes nothing"));
        }
        self.backlog.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.backlog.is_empty() {
            let taken = write(&mut self.stream, &self.backlog)?;
            self.backlog.drain(..taken);
        }
        Ok(())
    }
}

/// Writes to a socket that does not block, and returns how much it took.
///
/// # Errors
/// When the socket is broken. One that takes nothing is not.
pub fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match stream.write(&bytes[taken..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => taken += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}
