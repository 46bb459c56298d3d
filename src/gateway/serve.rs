//! The HTTP server and the limits of its connections.

use std::{net::TcpListener, time::Duration};

use actix_web::{
    App, HttpServer, dev::Server, dev::ServerHandle, middleware, rt::net::TcpStream, web,
};
use socket2::SockRef;
use tokio::time::{Instant, sleep_until};

use crate::{
    gateway::{Gateway, StartError},
    routes,
};

/// How long sent data may stay unacknowledged before a connection counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// What the kernel may hold for a peer, in bytes.
const SEND_BUFFER: usize = 16 << 10;
/// How long an idle connection is kept: longer than balancers keep theirs (60 s an ALB does, 75 s as
/// our page for it has it), so that none sends a request into a connection that ends.
const KEPT_ALIVE: Duration = Duration::from_secs(90);

/// How often a worker is timed.
const LAG_EVERY: Duration = Duration::from_millis(500);

/// Serves `gateway` on `listener`, until the handle stops it.
///
/// # Errors
/// If the listener cannot be used.
pub fn serve(
    gateway: &web::Data<Gateway>,
    listener: TcpListener,
    workers: usize,
) -> Result<(ServerHandle, Server), StartError> {
    routes::begin_counts(&gateway.metrics);
    let shared = web::Data::clone(gateway);
    let app = move || {
        // Of the server's workers, so that draining does not wait for it.
        shared.chores.spawn_local(watch_lag(shared.clone()));
        App::new()
            .app_data(web::Data::clone(&shared))
            .wrap(middleware::from_fn(routes::count))
            .configure(routes::table)
    };
    let most = gateway.connections.most();
    let server = HttpServer::new(app)
        .workers(workers)
        .disable_signals()
        .tcp_nodelay(true)
        .client_request_timeout(Duration::from_secs(5))
        .client_disconnect_timeout(Duration::from_secs(1))
        .keep_alive(KEPT_ALIVE)
        // Webhooks and pages beside the media sockets.
        .max_connections(most.saturating_add(1_024))
        .shutdown_timeout(1)
        .on_connect(|connection, _| {
            if let Some(tcp) = connection.downcast_ref::<TcpStream>() {
                limit(tcp);
            }
        })
        .listen(listener)
        .map_err(StartError::Server)?
        .run();
    Ok((server.handle(), server))
}

/// Notes how late this worker comes to what is due, until the gateway stops: so late come its
/// calls' frames, too.
async fn watch_lag(gateway: web::Data<Gateway>) {
    let stopping = gateway.stopping.clone();
    loop {
        let due = Instant::now() + LAG_EVERY;
        if stopping
            .run_until_cancelled(sleep_until(due))
            .await
            .is_none()
        {
            return;
        }
        gateway.metrics.process.lagged(due.elapsed());
    }
}

/// Bounds what a peer that has gone, or reads no more, can hold of ours.
fn limit(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    #[cfg(target_os = "linux")]
    let limited = socket.set_tcp_user_timeout(Some(LOST_AFTER));
    #[cfg(not(target_os = "linux"))]
    let limited = socket.set_keepalive(true);
    // Voice that waits in the kernel is stale: less than a second and a half of it may.
    if let Err(error) = limited.and_then(|()| socket.set_send_buffer_size(SEND_BUFFER)) {
        tracing::debug!(%error, "a connection could not be bounded");
    }
}
