//! The agent's TCP stream, which can move to another worker.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    thread::{self, ThreadId},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// How long sent audio may stay unacknowledged before the connection counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// A TCP stream that can be registered anew with the worker that uses it, beneath the TLS and
/// WebSocket layers that buffer what was already received.
#[derive(Debug)]
pub struct Movable {
    /// `None` only after a move that failed.
    tcp: Option<TcpStream>,
    home: ThreadId,
}

impl Movable {
    /// Connects to the first address of `host` that answers.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let tcp = TcpStream::connect((host, port)).await?;
        // Voice is small packets: none may wait for the next.
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(LOST_AFTER))?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(LOST_AFTER))?;
        Ok(Self {
            tcp: Some(tcp),
            home: thread::current().id(),
        })
    }

    /// Registers the stream with this worker; tells whether another one held it.
    ///
    /// # Errors
    /// If the operating system refuses; the stream is lost then.
    pub fn come_here(&mut self) -> io::Result<bool> {
        let here = thread::current().id();
        if self.home == here {
            return Ok(false);
        }
        if let Some(tcp) = self.tcp.take() {
            self.tcp = Some(TcpStream::from_std(tcp.into_std()?)?);
        }
        self.home = here;
        Ok(true)
    }

    fn tcp(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let tcp = self.tcp.as_mut().map(Pin::new);
        tcp.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Movable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.tcp()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_shutdown(cx)
    }
}
