//! The flags that drain a region: in the place of an object in another region's bucket.
//!
//! `GET /REGION/drained` is 200 while the flag is up, and 404 while it is not. S3 is not in the laboratory: all flags
//! are in one place, which no region's loss takes away, and which ends with the laboratory.

use crate::vocab::Region;
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const REQUEST_BYTES_MAX: u64 = 4 * 1024;
const PATIENCE: Duration = Duration::from_secs(2);

/// Dropping it closes the listener.
#[derive(Debug)]
pub struct Flags {
    address: SocketAddr,
    up: Arc<Mutex<BTreeSet<Region>>>,
    _serving: JoinSet<()>,
}

impl Flags {
    /// # Errors
    /// When the address cannot be bound.
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let up = Arc::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&up)));
        Ok(Self { address, up, _serving: serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, region: &Region, drained: bool) {
        let mut up = locked(&self.up);
        if drained {
            up.insert(region.clone());
        } else {
            up.remove(region);
        }
    }

    pub fn all(&self) -> BTreeSet<Region> {
        locked(&self.up).clone()
    }
}

fn locked(up: &Mutex<BTreeSet<Region>>) -> MutexGuard<'_, BTreeSet<Region>> {
    up.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, up: Arc<Mutex<BTreeSet<Region>>>) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let up = Arc::clone(&up);
                    answering.spawn(async move {
                        // A checker that went away asks again.
                        let _ = tokio::time::timeout(PATIENCE, answer(stream, &up)).await;
                    });
                }
                // Out of file descriptors, mostly: the callers wait in the backlog.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = answering.join_next() => {}
        }
    }
}

async fn answer(mut stream: TcpStream, up: &Mutex<BTreeSet<Region>>) -> io::Result<()> {
    let mut head = Vec::new();
    let (reader, mut writer) = stream.split();
    let mut reader = reader.take(REQUEST_BYTES_MAX);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if reader.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let is_up = flag(&head).is_some_and(|region| locked(up).contains(&region));
    let status = if is_up { "200 OK" } else { "404 Not Found" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    writer.write_all(answer.as_bytes()).await?;
    writer.shutdown().await
}

/// The region whose flag is asked for.
fn flag(head: &[u8]) -> Option<Region> {
    let head = String::from_utf8_lossy(head);
    let path = head.strip_prefix("GET /")?.split(' ').next()?;
    path.strip_suffix("/drained")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{api, ports::local};

    #[test]
    fn only_the_question_for_a_flag_is_one() {
        assert_eq!(flag(b"GET /eu-west-1/drained HTTP/1.1\r\n\r\n"), "eu-west-1".parse().ok());
        for other in ["", "GET / HTTP/1.1", "PUT /eu-west-1/drained x", "GET /../drained x"] {
            assert_eq!(flag(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_flag_is_there_while_it_is_up() {
        let flags = Flags::open(local(0)).await.unwrap();
        let region: Region = "eu-west-1".parse().unwrap();
        let ask = async || api::get(flags.address(), "/eu-west-1/drained").await;
        assert!(ask().await.unwrap_err().starts_with("404"));
        flags.set(&region, true);
        assert_eq!(ask().await, Ok(String::new()));
        assert_eq!(flags.all(), BTreeSet::from([region.clone()]));
        flags.set(&region, false);
        assert!(ask().await.is_err());
    }
}
