//! Connections: how many there may be, which of them has to go for a new one, and that none is kept by who does not read.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::Sleep;

/// How long who asked may take nothing of the answer before the connection is given up.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Which connections there are.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// The zero of the times in this file.
    began: Instant,
    /// How many of them wait or hear events, and are not to go for others.
    lasting: AtomicU32,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// When something came in last, in milliseconds.
    heard_ms: AtomicU64,
    /// Whether a request is being answered.
    is_busy: AtomicBool,
    /// Whether its request lasts by its nature.
    lasts: AtomicBool,
    /// It has to go.
    evicted: Notify,
}

/// Takes a connection out of the count when it ends.
#[derive(Debug)]
pub(super) struct Admitted {
    connections: Arc<Connections>,
    number: u64,
    pub(super) connection: Arc<Connection>,
}

/// Says, as long as it lives, that a request lasts by its nature.
#[derive(Debug)]
pub(super) struct Lasting {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

/// Says, as long as it lives, that a request is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

/// The two kinds of streams.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream that notes when something comes in, and gives up who does not read.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    /// When who does not read is given up.
    stalled: Option<Pin<Box<Sleep>>>,
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(most: u32) -> Arc<Connections> {
        Arc::new(Connections {
            most: most as usize,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            began: Instant::now(),
            lasting: AtomicU32::new(0),
        })
    }

    /// Counts a new connection in. Where there are too many one has to go that does nothing, or has said nothing for the
    /// longest time: whoever opens thousands of them keeps nobody else out.
    pub(super) fn admit(self: &Arc<Connections>) -> Admitted {
        let connection = Arc::new(Connection {
            heard_ms: AtomicU64::new(self.now_ms()),
            is_busy: AtomicBool::new(false),
            lasts: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open();
        if open.len() >= self.most {
            let idle_first = |connection: &Arc<Connection>| {
                (connection.is_busy.load(Ordering::Relaxed), connection.heard_ms.load(Ordering::Relaxed))
            };
            let may_go = open.iter().filter(|(_, connection)| !connection.lasts.load(Ordering::Relaxed));
            let goes = may_go.min_by_key(|(_, connection)| idle_first(connection)).map(|(number, _)| *number);
            if let Some(gone) = goes.and_then(|number| open.remove(&number)) {
                gone.evicted.notify_one();
            }
        }
        open.insert(number, Arc::clone(&connection));
        drop(open);
        Admitted { connections: Arc::clone(self), number, connection }
    }

    /// Notes that the request of a connection lasts by its nature, unless half of all do already: the others must leave
    /// room for who only asks something.
    pub(super) fn lasts(self: &Arc<Connections>, connection: &Arc<Connection>) -> Option<Lasting> {
        let most = u32::try_from(self.most / 2).unwrap_or(u32::MAX);
        let more = |lasting: u32| (lasting < most).then_some(lasting + 1);
        self.lasting.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        connection.lasts.store(true, Ordering::Relaxed);
        Some(Lasting { connections: Arc::clone(self), connection: Arc::clone(connection) })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        // Nothing panics while it is held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Connection ===

impl Connection {
    /// Ends when it has to go.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Notes that a request is being answered.
    pub(super) fn busy(self: &Arc<Connection>) -> Busy {
        self.is_busy.store(true, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.connection.lasts.store(false, Ordering::Relaxed);
        self.connections.lasting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_busy.store(false, Ordering::Relaxed);
    }
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(stream: Stream, admitted: &Admitted) -> Watched {
        let connection = Arc::clone(&admitted.connection);
        Watched { stream, connections: Arc::clone(&admitted.connections), connection, stalled: None }
    }

    /// Passes on what a write came to; one that has waited too long is given up.
    fn written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_PATIENCE)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        });
        self.connection.heard_ms.store(self.connections.now_ms(), Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(connections: &Arc<Connections>) -> Vec<u64> {
        let mut numbers: Vec<u64> = connections.open().keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn idlest_connection_goes_for_a_new_one() {
        let connections = Connections::new(3);
        let [first, second, third] = [(); 3].map(|()| connections.admit());
        first.connection.heard_ms.store(9, Ordering::Relaxed);
        second.connection.heard_ms.store(1, Ordering::Relaxed);
        third.connection.heard_ms.store(5, Ordering::Relaxed);
        let busy = second.connection.busy();
        let fourth = connections.admit();
        fourth.connection.heard_ms.store(7, Ordering::Relaxed);
        assert_eq!(numbers(&connections), [0, 1, 3], "the one that is busy stays");
        drop(busy);
        let fifth = connections.admit();
        assert_eq!(numbers(&connections), [0, 3, 4]);
        drop([first, second, third, fourth, fifth]);
        assert!(numbers(&connections).is_empty());
    }

    #[test]
    fn what_lasts_stays_and_is_at_most_half_of_all() {
        let connections = Connections::new(2);
        let [first, second] = [(); 2].map(|()| connections.admit());
        let lasting = connections.lasts(&first.connection).expect("it is the first");
        assert!(connections.lasts(&second.connection).is_none());
        let third = connections.admit();
        assert_eq!(numbers(&connections), [0, 2]);
        drop(lasting);
        assert!(connections.lasts(&third.connection).is_some());
    }
}
