//! One link of the laboratory's wide-area network: a TCP relay with a real distance.
//!
//! A link is what one region connects to in order to reach another. Bytes stay on the way for the
//! one-way delay, and a bounded number can be on the way at once, so that the delay does not limit
//! the bandwidth but a slow receiver slows its sender. Opening a connection costs one round trip.
//! A cut link swallows nothing: it holds bytes and closings until it heals, as a network does that
//! TCP retransmits over. A severed one resets its connections.

use crate::vocab::SharedClock;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

/// On the way at once, per connection and direction: at the longest one-way delay of 95 ms it lets
/// 44 MB/s through.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;
/// Bounds the bookkeeping of many small writes.
const CHUNKS_MAX: usize = 8 * 1024;

/// Which way bytes go: `Request` from who connected, `Response` back to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Request,
    Response,
}

/// What a link does to what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Distance {
    one_way: Duration,
    cut: bool,
}

/// A listener and all connections made through it. Dropping it resets them.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

/// What `lab status` tells of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    pub round_trip_ms: u64,
    pub cut: bool,
    pub connections: usize,
    /// How often the link was severed.
    pub severed: u64,
    /// A fault waits for its last byte.
    pub sever_pending: bool,
}

struct Shared {
    clock: SharedClock,
    targets: Vec<SocketAddr>,
    next_target: AtomicUsize,
    connections: AtomicUsize,
    distance: watch::Sender<Distance>,
    /// Bytes left before the link is severed: of requests, of responses.
    severing: Mutex<[Option<u64>; 2]>,
    /// Counts the severings; each change resets every connection.
    severed: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("targets", &self.targets).finish_non_exhaustive()
    }
}

impl Link {
    /// Listens on `address` and carries each connection to one of `targets` in turn, or to the next
    /// that accepts.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        clock: SharedClock,
        address: SocketAddr,
        targets: Vec<SocketAddr>,
        one_way: Duration,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            clock,
            targets,
            next_target: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            distance: watch::Sender::new(Distance { one_way, cut: false }),
            severing: Mutex::default(),
            severed: watch::Sender::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _accepting: accepting })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds everything from now on, both ways.
    pub fn cut(&self) {
        self.shared.distance.send_modify(|distance| distance.cut = true);
    }

    /// Delivers what was held and what comes.
    pub fn heal(&self) {
        self.shared.distance.send_modify(|distance| distance.cut = false);
    }

    /// Changes the one-way delay, also of what is on the way.
    pub fn delay(&self, one_way: Duration) {
        self.shared.distance.send_modify(|distance| distance.one_way = one_way);
    }

    /// Resets every connection once `after` more bytes were delivered in `direction`, counted over
    /// all connections; with 0, when the next byte would be. Replaces an earlier one.
    pub fn sever(&self, direction: Direction, after: u64) {
        self.shared.severing()[direction as usize] = Some(after);
    }

    #[must_use]
    pub fn state(&self) -> LinkState {
        let Distance { one_way, cut } = *self.shared.distance.borrow();
        LinkState {
            round_trip_ms: u64::try_from((one_way * 2).as_millis()).unwrap_or(u64::MAX),
            cut,
            connections: self.shared.connections.load(Ordering::Relaxed),
            severed: *self.shared.severed.borrow(),
            sever_pending: self.shared.severing().iter().any(Option::is_some),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut carrying = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(carrying.spawn(carry(client, Arc::clone(&shared)))),
                // Out of file descriptors, mostly: the callers wait in the backlog.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = carrying.join_next() => {}
        }
    }
}

/// Why a connection ends otherwise than by both sides closing it.
struct Reset;

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let _counted = Counted::new(&shared.connections);
    quicken(&client);
    let mut severed = shared.severed.subscribe();
    let mut server = None;
    let carried = async {
        // SYN there and SYN-ACK back. The bytes that follow are read only then.
        shared.travel(shared.clock.monotonic(), 2).await;
        let server = server.insert(shared.connect().await?);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(
            pump(&shared, Direction::Request, from_client, to_server),
            pump(&shared, Direction::Response, from_server, to_client),
        )
    };
    let reset = tokio::select! {
        biased;
        _ = severed.changed() => true,
        ended = carried => ended.is_err(),
    };
    if reset {
        for stream in [Some(client), server].into_iter().flatten() {
            // Fails only when the other side is gone already, which is what it is for.
            let _ = stream.set_zero_linger();
        }
    }
}

/// The relay adds the distance and nothing else.
fn quicken(stream: &TcpStream) {
    // Fails only on a connection that is gone, which the next read tells.
    let _ = stream.set_nodelay(true);
}

impl Shared {
    async fn connect(&self) -> Result<TcpStream, Reset> {
        let first = self.next_target.fetch_add(1, Ordering::Relaxed);
        for offset in 0..self.targets.len() {
            let target = self.targets[(first + offset) % self.targets.len()];
            if let Ok(stream) = TcpStream::connect(target).await {
                quicken(&stream);
                return Ok(stream);
            }
        }
        Err(Reset)
    }

    /// Returns once what left at `since` has arrived over `legs` one-way trips.
    async fn travel(&self, since: Instant, legs: u32) {
        let mut distance = self.distance.subscribe();
        loop {
            let Distance { one_way, cut } = *distance.borrow_and_update();
            let arrives_at = since + one_way * legs;
            if !cut && (one_way.is_zero() || arrives_at <= self.clock.monotonic()) {
                return;
            }
            let arrived = async {
                if cut {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep_until(arrives_at.into()).await;
            };
            tokio::select! {
                () = arrived => {}
                // `self` holds the sender, so this cannot end.
                _ = distance.changed() => {}
            }
        }
    }

    /// How many of `bytes` may be delivered, and whether the link is severed after them.
    fn allowance(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        let mut severing = self.severing();
        let Some(left) = &mut severing[direction as usize] else { return (bytes, false) };
        match usize::try_from(*left) {
            Ok(allowed) if allowed <= bytes => {
                severing[direction as usize] = None;
                (allowed, true)
            }
            _ => {
                *left -= bytes as u64;
                (bytes, false)
            }
        }
    }

    fn severing(&self) -> MutexGuard<'_, [Option<u64>; 2]> {
        self.severing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Sent {
    Bytes(Bytes),
    End,
    Reset,
}

/// Carries one direction of one connection, until its end or a reset has been delivered.
async fn pump(
    shared: &Shared,
    direction: Direction,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<(), Reset> {
    let room = Semaphore::new(BUFFER_BYTES);
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let ((), delivered) = tokio::join!(
        send(shared, &room, from, sender),
        deliver(shared, &room, direction, to, receiver)
    );
    delivered
}

async fn send(
    shared: &Shared,
    room: &Semaphore,
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<(Instant, Sent)>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES_MAX);
        let read = tokio::select! {
            read = from.read_buf(&mut buffer) => read,
            () = sender.closed() => return,
        };
        let sent = match read {
            Ok(0) => Sent::End,
            Ok(_) => Sent::Bytes(buffer.split().freeze()),
            Err(_) => Sent::Reset,
        };
        if let Sent::Bytes(bytes) = &sent {
            let Ok(permit) =
                room.acquire_many(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).await
            else {
                return;
            };
            // Given back by `deliver`.
            permit.forget();
        }
        let last = !matches!(sent, Sent::Bytes(_));
        // Stamped when there is room for it: what waits for room is not on the way yet.
        if sender.send((shared.clock.monotonic(), sent)).await.is_err() || last {
            return;
        }
    }
}

async fn deliver(
    shared: &Shared,
    room: &Semaphore,
    direction: Direction,
    mut to: WriteHalf<'_>,
    mut receiver: mpsc::Receiver<(Instant, Sent)>,
) -> Result<(), Reset> {
    while let Some((sent_at, sent)) = receiver.recv().await {
        shared.travel(sent_at, 1).await;
        match sent {
            Sent::Bytes(bytes) => {
                let (allowed, sever) = shared.allowance(direction, bytes.len());
                let written = to.write_all(&bytes[..allowed]).await;
                if sever {
                    shared.severed.send_modify(|count| *count += 1);
                    return Err(Reset);
                }
                if written.is_err() {
                    room.close();
                    return Err(Reset);
                }
                room.add_permits(bytes.len());
            }
            Sent::End => {
                // Fails only when the receiver has gone; its own end tells the sender.
                let _ = to.shutdown().await;
                return Ok(());
            }
            Sent::Reset => return Err(Reset),
        }
    }
    Err(Reset)
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}
impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
