//! A region's note of what it has granted and promised (`topology::lease`), as text whose meaning is
//! not known here, and the note that its own processes hold the lease.
//!
//! The note has no expiry of its own: what it promises must not go by itself. A Redis that evicts
//! must spare keys without one (`maxmemory-policy noeviction` or `volatile-*`).

use super::Redis;
use crate::{
    storage::StorageError,
    vocab::{Epoch, Op, Region},
};
use deadpool_redis::redis::{self, Script};
use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

const KEY: &str = "gw:lease";

/// The store at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteFound {
    /// Tells this run of the server from any other (`run_id` of `INFO server`).
    pub instance: String,
    /// Its clock, read before the note.
    pub now_ms: u64,
    pub text: Option<String>,
}

/// Replaces the text only if it still is the one that was found. Lua's `false` is no text.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local found = redis.call('GET', KEYS[1])
if ARGV[1] == '0' and found then return 0 end
if ARGV[1] == '1' and found ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3])
return 1
",
    )
});

/// Never shortens: a neighbour may have renewed later.
static NOTE_HELD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
end
return 1
",
    )
});

fn held_key(epoch: Epoch) -> String {
    format!("{KEY}:held:{epoch}")
}

/// Reads the note.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`.
pub async fn look(redis: &Redis, op: &Op) -> Result<NoteFound, StorageError> {
    let mut connection = redis.hot.clone();
    let mut commands = redis::pipe();
    commands.cmd("INFO").arg("server").cmd("TIME").cmd("GET").arg(KEY);
    let asked = commands.query_async(&mut connection);
    let (info, (seconds, micros), text): (String, (u64, u64), Option<String>) =
        redis.bounded(op.remaining(), asked).await?;
    let instance = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    let instance = instance.ok_or(StorageError::Corrupt { table: "INFO", column: "run_id" })?;
    Ok(NoteFound {
        instance: instance.trim().to_owned(),
        now_ms: seconds * 1_000 + micros / 1_000,
        text,
    })
}

/// Replaces the note, if it still is `before`. `false` when it is not.
///
/// # Errors
/// [`StorageError::Unavailable`]: it may have been replaced or not.
pub async fn replace(
    redis: &Redis,
    before: Option<&str>,
    after: &str,
    op: &Op,
) -> Result<bool, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = REPLACE.key(KEY);
    call.arg(u8::from(before.is_some())).arg(before.unwrap_or_default()).arg(after);
    let answer = call.invoke_async(&mut connection);
    redis.bounded(op.remaining(), answer).await
}

/// Notes that a process of this region holds the lease of `epoch` for `left`.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`.
pub async fn note_held(
    redis: &Redis,
    epoch: Epoch,
    left: Duration,
    op: &Op,
) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = NOTE_HELD.key(held_key(epoch));
    call.arg(left.as_millis().max(1).to_string());
    let answer = call.invoke_async(&mut connection);
    redis.bounded(op.remaining(), answer).await
}

/// Whether any process of this region holds the lease of `epoch`.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`.
pub async fn is_held(redis: &Redis, epoch: Epoch, op: &Op) -> Result<bool, StorageError> {
    let mut connection = redis.hot.clone();
    let mut exists = redis::cmd("EXISTS");
    exists.arg(held_key(epoch));
    redis.bounded(op.remaining(), exists.query_async(&mut connection)).await
}

fn welcome_key(region: &Region) -> String {
    format!("{KEY}:welcome:{region}")
}

/// Notes that a region is being added to the cluster in `epoch`, for `span`.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`.
pub async fn note_welcome(
    redis: &Redis,
    region: &Region,
    epoch: Epoch,
    span: Duration,
    op: &Op,
) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let mut set = redis::cmd("SET");
    set.arg(welcome_key(region))
        .arg(epoch.get())
        .arg("PX")
        .arg(span.as_millis().max(1).to_string());
    redis.bounded(op.remaining(), set.query_async(&mut connection)).await
}

/// Those of `regions` that are being added in `epoch`.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`.
pub async fn welcomed(
    redis: &Redis,
    regions: &[Region],
    epoch: Epoch,
    op: &Op,
) -> Result<BTreeSet<Region>, StorageError> {
    if regions.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut connection = redis.hot.clone();
    let mut get = redis::cmd("MGET");
    get.arg(regions.iter().map(welcome_key).collect::<Vec<_>>());
    let asked = get.query_async(&mut connection);
    let noted: Vec<Option<u32>> = redis.bounded(op.remaining(), asked).await?;
    // A note of an epoch before is void: the region was added, or its adding was overtaken.
    let welcome = regions.iter().zip(noted).filter(|(_, noted)| *noted == Some(epoch.get()));
    Ok(welcome.map(|(region, _)| region.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::redis::testing::{Server, connect},
        vocab::OpKind,
    };

    fn op() -> Op {
        Op::system(OpKind::Test, Duration::from_secs(20))
    }

    #[tokio::test]
    async fn a_note_is_replaced_only_by_who_has_seen_it() {
        let server = Server::start().await;
        let (redis, op) = (connect(server.port), op());
        assert_eq!(look(&redis, &op).await.unwrap().text, None);
        assert!(!replace(&redis, Some("a"), "b", &op).await.unwrap());
        assert!(replace(&redis, None, "a", &op).await.unwrap());
        assert!(!replace(&redis, None, "b", &op).await.unwrap());
        assert!(!replace(&redis, Some("c"), "b", &op).await.unwrap());
        assert!(replace(&redis, Some("a"), "b", &op).await.unwrap());
        assert_eq!(look(&redis, &op).await.unwrap().text.as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn a_restarted_server_is_another_instance() {
        let server = Server::start().await;
        let (redis, op) = (connect(server.port), op());
        let before = look(&redis, &op).await.unwrap();
        assert_eq!(look(&redis, &op).await.unwrap().instance, before.instance);
        let port = server.stop().await;
        let _server = Server::start_on(port).await.unwrap();
        let after = loop {
            match look(&redis, &op).await {
                Ok(found) => break found,
                Err(error) => assert!(!op.remaining().is_zero(), "{error}"),
            }
        };
        assert_ne!(after.instance, before.instance);
        assert_eq!(after.text, None);
    }

    #[tokio::test]
    async fn a_region_is_welcome_for_its_time() {
        let server = Server::start().await;
        let (redis, op) = (connect(server.port), op());
        let regions: Vec<Region> =
            ["us-east-1", "eu-west-1"].iter().map(|name| name.parse().unwrap()).collect();
        let (first, second) = (Epoch::FIRST, Epoch::new(2).unwrap());
        assert!(welcomed(&redis, &regions, first, &op).await.unwrap().is_empty());
        let span = Duration::from_millis(500);
        note_welcome(&redis, &regions[1], first, span, &op).await.unwrap();
        assert!(welcomed(&redis, &regions, second, &op).await.unwrap().is_empty());
        let found = welcomed(&redis, &regions, first, &op).await.unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), regions[1..]);
        while !welcomed(&redis, &regions, first, &op).await.unwrap().is_empty() {
            assert!(!op.remaining().is_zero());
        }
    }

    #[tokio::test]
    async fn a_hold_is_noted_for_its_time_and_never_shortened() {
        let server = Server::start().await;
        let (redis, op) = (connect(server.port), op());
        let second = Epoch::new(2).unwrap();
        assert!(!is_held(&redis, Epoch::FIRST, &op).await.unwrap());
        note_held(&redis, Epoch::FIRST, Duration::from_secs(60), &op).await.unwrap();
        note_held(&redis, Epoch::FIRST, Duration::from_millis(1), &op).await.unwrap();
        assert!(is_held(&redis, Epoch::FIRST, &op).await.unwrap());
        assert!(!is_held(&redis, second, &op).await.unwrap());
        note_held(&redis, second, Duration::from_millis(20), &op).await.unwrap();
        while is_held(&redis, second, &op).await.unwrap() {
            assert!(!op.remaining().is_zero());
        }
    }
}
