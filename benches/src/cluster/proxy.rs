//! A way to Redis that leads elsewhere or nowhere when it is told to, at an address that stays.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::ports;

/// Where what comes in goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// New connections lead there. Those that are open stay where they are.
    To(SocketAddr),
    /// Nothing is passed on and nothing closed, as behind a firewall that drops everything. What
    /// is sent meanwhile arrives once there is a way again, as what TCP sends again would.
    Silent,
    /// Open connections are cut, and nobody listens.
    Refused,
}

/// A TCP proxy; dropping it ends it.
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
}

impl Proxy {
    /// Starts on a thread of its own: who measures may be busy, and Redis must not look slow for
    /// it.
    ///
    /// # Errors
    /// If there is no port or no thread for it.
    pub(super) fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let (way, ways) = watch::channel(Way::To(to));
        // Bound here, so that whoever is told the address can use it.
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || runtime.block_on(serve(listener, address, ways)))
            .context("no thread for a proxy")?;
        Ok(Self { address, way })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn lead(&self, way: Way) {
        self.way.send_replace(way);
    }
}

/// Ends with the proxy.
async fn serve(
    listener: std::net::TcpListener,
    address: SocketAddr,
    mut ways: watch::Receiver<Way>,
) {
    let mut listener = TcpListener::from_std(listener).expect("it does not block");
    let mut refusals = ways.clone();
    loop {
        let mut connections = JoinSet::new();
        let is_dropped = loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((near, _)) = accepted {
                    connections.spawn(pass(near, ways.clone()));
                },
                refused = refusals.wait_for(|way| *way == Way::Refused) => break refused.is_err(),
            }
            while connections.try_join_next().is_some() {}
        };
        drop((listener, connections));
        if is_dropped || ways.wait_for(|way| *way != Way::Refused).await.is_err() {
            return;
        }
        // Nobody is started meanwhile who could have been given the port.
        listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => panic!("the proxy's own port is taken: {error}"),
        };
    }
}

async fn pass(near: TcpStream, mut ways: watch::Receiver<Way>) -> io::Result<()> {
    let target = open(&mut ways).await?;
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_reader, near_writer), (far_reader, far_writer)) =
        (near.into_split(), far.into_split());
    // Both directions end together, as one cable does.
    tokio::select! {
        ended = forward(near_reader, far_writer, ways.clone()) => ended,
        ended = forward(far_reader, near_writer, ways) => ended,
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut ways: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1_024];
    loop {
        let read = from.read(&mut buffer).await;
        // While there is silence nobody hears of an end either.
        open(&mut ways).await?;
        match read? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).await?,
        }
    }
}

/// Waits until there is a way, and returns where it leads.
async fn open(ways: &mut watch::Receiver<Way>) -> io::Result<SocketAddr> {
    loop {
        if let Way::To(target) = *ways.borrow_and_update() {
            return Ok(target);
        }
        ways.changed().await.map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo(listener: TcpListener, letter: u8) {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                while stream.read_u8().await.is_ok() {
                    stream.write_u8(letter).await.unwrap();
                }
            });
        }
    }

    async fn ask(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_u8(b'?').await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_way_falls_silent_is_refused_and_leads_elsewhere() {
        let mut servers = JoinSet::new();
        let mut addresses = Vec::new();
        for letter in [b'a', b'b'] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            servers.spawn(echo(listener, letter));
        }
        let proxy = Proxy::start(addresses[0]).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), b'a');

        proxy.lead(Way::Silent);
        let mut late = TcpStream::connect(proxy.address()).await.unwrap();
        {
            let mut answers = std::pin::pin!(async {
                let both = tokio::join!(ask(&mut stream), ask(&mut late));
                (both.0.unwrap(), both.1.unwrap())
            });
            tokio::select! {
                biased;
                answers = &mut answers => panic!("{answers:?} out of silence"),
                () = tokio::task::yield_now() => {}
            }
            proxy.lead(Way::To(addresses[1]));
            assert_eq!(answers.await, (b'a', b'b'), "what was open stays");
        }

        proxy.lead(Way::Refused);
        assert!(stream.read_u8().await.is_err());
        while TcpStream::connect(proxy.address()).await.is_ok() {}
        proxy.lead(Way::To(addresses[0]));
        let mut again = loop {
            if let Ok(stream) = TcpStream::connect(proxy.address()).await {
                break stream;
            }
        };
        assert_eq!(ask(&mut again).await.unwrap(), b'a');
    }
}
