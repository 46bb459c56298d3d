//! A TCP proxy that can be cut or stalled.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

/// A way to a server that can fail.
pub struct Proxy {
    /// The server's URL, by way of the proxy.
    pub url: String,
    flowing: watch::Sender<bool>,
    cut: CancellationToken,
    _stop: DropGuard,
}

impl Proxy {
    pub async fn before(url: &str) -> Self {
        let mut url: Url = url.parse().unwrap();
        let server = format!("127.0.0.1:{}", url.port().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        url.set_port(Some(port)).unwrap();
        let (flowing, flow) = watch::channel(true);
        let cut = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (connections, severed) = (tasks.clone(), cut.clone());
        let stop = CancellationToken::new();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&server).await else {
                    continue;
                };
                let (near_reader, near_writer) = near.into_split();
                let (far_reader, far_writer) = far.into_split();
                let there = pass(near_reader, far_writer, flow.clone());
                let back = pass(far_reader, near_writer, flow.clone());
                let severed = severed.clone();
                // Both ways end together, as one cable does.
                connections.spawn(async move {
                    tokio::select! {
                        () = there => {}
                        () = back => {}
                        () = severed.cancelled() => {}
                    }
                });
            }
        }));
        Self {
            url: url.into(),
            flowing,
            cut,
            _stop: stop.drop_guard(),
        }
    }

    /// Cuts every connection there is or will be.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Lets nothing through any more, though all connections stay open.
    pub fn stall(&self) {
        self.flowing.send_replace(false);
    }

    /// Lets through again, first of all what was kept back.
    pub fn flow(&self) {
        self.flowing.send_replace(true);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<bool>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if flow.wait_for(|flowing| *flowing).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
