//! A link of a test's own: it remembers what it carries, and breaks off one connection at a byte,
//! falls silent or refuses, as it is told.

use godwit::lab::Direction;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

struct Shared {
    target: SocketAddr,
    /// Each waits for its byte once the one before it is done.
    cuts: Mutex<VecDeque<(Direction, u64)>>,
    fired: AtomicUsize,
    /// Bytes carried, by direction.
    carried: [AtomicUsize; 2],
    mood: watch::Sender<Mood>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Mood {
    refusing: bool,
    /// By direction.
    held: [bool; 2],
}

/// The connection ends by a reset.
struct Reset;

impl Wire {
    pub async fn bind(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            cuts: Mutex::default(),
            fired: AtomicUsize::new(0),
            carried: Default::default(),
            mood: watch::Sender::default(),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _accepting: accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets the connection that delivers the byte after so many more in this direction, once
    /// every cut asked for before has been made.
    pub fn cut(&self, direction: Direction, after: u64) {
        self.shared.cuts().push_back((direction, after));
    }

    /// Forgets the cuts that still wait.
    pub fn uncut(&self) {
        self.shared.cuts().clear();
    }

    /// Cuts made so far.
    pub fn fired(&self) -> usize {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// Bytes that came in so far to be carried in this direction.
    pub fn carried(&self, direction: Direction) -> usize {
        self.shared.carried[direction as usize].load(Ordering::SeqCst)
    }

    /// Keeps what comes in this direction, or delivers it.
    pub fn hold(&self, direction: Direction, held: bool) {
        self.shared.mood.send_modify(|mood| mood.held[direction as usize] = held);
    }

    /// Resets every connection, and each new one, until told otherwise.
    pub fn refuse(&self, refusing: bool) {
        self.shared.mood.send_modify(|mood| mood.refusing = refusing);
    }
}

impl Shared {
    fn cuts(&self) -> MutexGuard<'_, VecDeque<(Direction, u64)>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `bytes` are delivered, and whether the connection is cut after them.
    fn allowance(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        let mut cuts = self.cuts();
        match cuts.front_mut() {
            Some((wanted, left)) if *wanted == direction => match usize::try_from(*left) {
                Ok(allowed) if allowed <= bytes => {
                    cuts.pop_front();
                    self.fired.fetch_add(1, Ordering::SeqCst);
                    (allowed, true)
                }
                _ => {
                    *left -= bytes as u64;
                    (bytes, false)
                }
            },
            _ => (bytes, false),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut carrying = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        carrying.spawn(carry(client, Arc::clone(&shared)));
    }
}

async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut mood = shared.mood.subscribe();
    let mut server = None;
    let carried = async {
        let server = server.insert(TcpStream::connect(shared.target).await.map_err(|_| Reset)?);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::try_join!(
            pump(&shared, Direction::Request, from_client, to_server),
            pump(&shared, Direction::Response, from_server, to_client),
        )
    };
    let reset = tokio::select! {
        biased;
        _ = mood.wait_for(|mood| mood.refusing) => true,
        ended = carried => ended.is_err(),
    };
    if reset {
        for stream in [Some(client), server].into_iter().flatten() {
            // Fails only on a connection that is gone.
            let _ = stream.set_zero_linger();
        }
    }
}

async fn pump(
    shared: &Shared,
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
) -> Result<(), Reset> {
    let mut mood = shared.mood.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Reset)?;
        shared.carried[direction as usize].fetch_add(read, Ordering::SeqCst);
        let delivering = mood.wait_for(|mood| !mood.held[direction as usize]).await;
        delivering.map_err(|_| Reset)?;
        if read == 0 {
            return to.shutdown().await.map_err(|_| Reset);
        }
        let (allowed, cut) = shared.allowance(direction, read);
        to.write_all(&buffer[..allowed]).await.map_err(|_| Reset)?;
        if cut {
            return Err(Reset);
        }
    }
}
