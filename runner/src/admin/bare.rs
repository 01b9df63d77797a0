//! The least that a way in over HTTP can do, to measure ours against: axum, a handler that does nothing, and a thread that
//! makes all bodies durable that wait for it, together.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::sync::oneshot;

use crate::queue::sqlite::bare::BareQueue;

/// The most bodies that are made durable together.
const TOGETHER_MAX: usize = 1_000;

type Waiting = SyncSender<(Bytes, oneshot::Sender<()>)>;

/// Serves `POST /`, on a thread of its own, until the process ends; says where.
pub(crate) fn serve(queue: BareQueue, job_type: String) -> std::io::Result<SocketAddr> {
    let (waiting, bodies) = sync_channel(TOGETHER_MAX);
    std::thread::Builder::new().name("bare-writer".to_owned()).spawn(move || write(queue, &job_type, &bodies))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Whoever calls this is on a runtime, and may not wait on another.
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/", post(take)).with_state(waiting);
    let serve =
        move || runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await });
    std::thread::Builder::new().name("bare-api".to_owned()).spawn(serve)?;
    Ok(address)
}

async fn take(State(waiting): State<Waiting>, body: Bytes) -> StatusCode {
    let (done, durable) = oneshot::channel();
    let taken = waiting.try_send((body, done)).is_ok() && durable.await.is_ok();
    if taken { StatusCode::CREATED } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn write(mut queue: BareQueue, job_type: &str, bodies: &Receiver<(Bytes, oneshot::Sender<()>)>) {
    while let Ok(first) = bodies.recv() {
        let together: Vec<_> = std::iter::once(first).chain(bodies.try_iter().take(TOGETHER_MAX - 1)).collect();
        let body = String::from_utf8_lossy(&together[0].0).into_owned();
        // Whoever waits for what failed hears that it is dropped.
        if queue.fill(job_type, &body, together.len() as u64).is_err() {
            continue;
        }
        for (_, done) in together {
            done.send(()).ok();
        }
    }
}
