//! A region's data directory while its Postgres does not run.
//!
//! It has its own name only when it is whole; data that is half rewound has a mark beside it. Until
//! the mark is gone nothing starts it. The mark names the copy of log and control file that rewinding
//! begins from again: what `pg_rewind` overwrites first is the log that tells it what to fetch.

use super::{account::Account, layout::write_private};
use anyhow::Context as _;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    Replica,
}

/// Whether a whole data directory is there, and whether it is a replica's.
pub fn kept(data: &Path) -> Option<Role> {
    if !data.join("PG_VERSION").exists() || mark(data).exists() {
        return None;
    }
    Some(if data.join("standby.signal").exists() { Role::Replica } else { Role::Primary })
}

/// A rewind was broken off.
#[derive(Debug, thiserror::Error)]
#[error("{} is half rewound: rewind it again, or rebuild it", .0.display())]
pub struct HalfRewound(PathBuf);

/// [`kept`], for who is about to start it.
///
/// # Errors
/// When there is none, or it is half rewound.
pub fn startable(data: &Path) -> anyhow::Result<Role> {
    if mark(data).exists() {
        return Err(HalfRewound(data.to_owned()).into());
    }
    kept(data).with_context(|| format!("{} holds no database: rebuild it", data.display()))
}

/// Whether it was copied or rewound and never started since: Postgres takes this file away as it
/// starts.
pub fn is_fresh(data: &Path) -> bool {
    data.join("backup_label").exists()
}

/// Puts what was made under [`partial`] in the place of what is there.
pub fn place(data: &Path) -> io::Result<()> {
    if data.exists() {
        clear(&replaced(data))?;
        fs::rename(data, replaced(data))?;
    }
    // Before the new data has its name: the mark is of the old.
    unmark(data)?;
    fs::rename(partial(data), data)?;
    clear(&replaced(data))
}

/// Removes a data directory, so that a crash midway leaves none under its name.
pub fn discard(data: &Path) -> io::Result<()> {
    clear_unfinished(data)?;
    if data.exists() {
        fs::rename(data, replaced(data))?;
    }
    unmark(data)?;
    clear_unfinished(data)
}

/// Removes what the making of a data directory left when it was broken off.
pub fn clear_unfinished(data: &Path) -> io::Result<()> {
    for dir in [partial(data), replaced(data), copying(data)] {
        clear(&dir)?;
    }
    absent_is_well(fs::remove_file(password_file(data)))
}

/// Where `initdb` reads the superuser's password.
pub fn password_file(data: &Path) -> PathBuf {
    data.with_extension("password")
}

/// The name that a data directory has until it is whole.
pub fn partial(data: &Path) -> PathBuf {
    data.with_extension("partial")
}

fn replaced(data: &Path) -> PathBuf {
    data.with_extension("replaced")
}

fn copying(data: &Path) -> PathBuf {
    data.with_file_name("kept.partial")
}

fn mark(data: &Path) -> PathBuf {
    data.with_extension("rewinding")
}

/// Marks the data as half rewound, to be begun from `copy` again.
pub fn mark_rewinding(data: &Path, copy: &Path) -> anyhow::Result<()> {
    let name = copy.file_name().context("a copy without a name")?;
    write_private(&mark(data), name.as_encoded_bytes())
        .with_context(|| mark(data).display().to_string())
}

/// The copy that rewinding begins from again; `None` when the data is not half rewound.
pub fn rewinding_from(data: &Path) -> anyhow::Result<Option<PathBuf>> {
    match fs::read_to_string(mark(data)) {
        Ok(name) => Ok(Some(data.with_file_name(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| mark(data).display().to_string()),
    }
}

/// The data is whole again.
pub fn unmark(data: &Path) -> io::Result<()> {
    absent_is_well(fs::remove_file(mark(data)))
}

fn clear(dir: &Path) -> io::Result<()> {
    absent_is_well(fs::remove_dir_all(dir))
}

fn absent_is_well(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Copies that are left, each as large as the log.
const COPIES_MAX: usize = 3;

/// Copies the log and the control file beside the data, unless the newest copy is of this state, and
/// returns where the copy is. Half rewound data was copied before.
pub async fn keep(data: &Path, account: Option<Account>) -> anyhow::Result<PathBuf> {
    if let Some(copy) = rewinding_from(data)? {
        return Ok(copy);
    }
    let control = control_file(data);
    let now = fs::read(&control).with_context(|| control.display().to_string())?;
    let copies = copies(data)?;
    if let Some((_, newest)) = copies.last()
        && fs::read(newest.join("pg_control")).is_ok_and(|then| then == now)
    {
        return Ok(newest.clone());
    }
    let partial = copying(data);
    clear(&partial)?;
    for dir in [partial.clone(), partial.join("pg_wal")] {
        fs::create_dir(&dir)?;
        Account::give(account, &dir)?;
    }
    copy_files(&data.join("pg_wal"), &partial.join("pg_wal"), account).await?;
    copy_file(&control, &partial.join("pg_control"), account).await?;
    let number = copies.last().map_or(1, |(number, _)| number + 1);
    let copy = data.with_file_name(format!("kept-{number}"));
    fs::rename(&partial, &copy)?;
    for (_, old) in copies.iter().rev().skip(COPIES_MAX - 1) {
        clear(old)?;
    }
    Ok(copy)
}

/// Puts the log and the control file back as they were kept.
pub async fn restore(data: &Path, copy: &Path, account: Option<Account>) -> anyhow::Result<()> {
    let log = data.join("pg_wal");
    for name in files(&log)? {
        // What came from elsewhere is of another history.
        if !copy.join("pg_wal").join(&name).exists() {
            fs::remove_file(log.join(name))?;
        }
    }
    copy_files(&copy.join("pg_wal"), &log, account).await?;
    copy_file(&copy.join("pg_control"), &control_file(data), account).await
}

fn control_file(data: &Path) -> PathBuf {
    data.join("global/pg_control")
}

/// The copies that were kept, oldest first.
fn copies(data: &Path) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    let beside = data.parent().context("data without a directory")?;
    let mut found = Vec::new();
    for entry in fs::read_dir(beside)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("kept-")?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// The names of the files in a directory, without its directories.
fn files(dir: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

async fn copy_files(from: &Path, to: &Path, account: Option<Account>) -> anyhow::Result<()> {
    for name in files(from).with_context(|| from.display().to_string())? {
        copy_file(&from.join(&name), &to.join(&name), account).await?;
    }
    Ok(())
}

async fn copy_file(from: &Path, to: &Path, account: Option<Account>) -> anyhow::Result<()> {
    tokio::fs::copy(from, to).await.with_context(|| from.display().to_string())?;
    Ok(Account::give(account, to)?)
}

/// What `pg_controldata` prints of a data directory.
#[derive(Debug, PartialEq, Eq)]
pub struct Control {
    /// The latest that it is known to have been on.
    pub timeline: u32,
    /// Shut down, not killed.
    pub settled: bool,
}

impl Control {
    /// # Errors
    /// When it prints something else.
    pub fn parse(printed: &[u8]) -> anyhow::Result<Self> {
        let printed = String::from_utf8_lossy(printed);
        let value = |name: &str| {
            let lines = printed.lines().filter_map(|line| line.split_once(':'));
            let mut found = lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim());
            found.next().with_context(|| format!("pg_controldata prints no `{name}`"))
        };
        // A promotion is in the second at once, in the first with the next checkpoint.
        let checkpoint = value("Latest checkpoint's TimeLineID")?.parse()?;
        let recovery = value("Min recovery ending loc's timeline")?.parse()?;
        let settled = ["shut down", "shut down in recovery"];
        let settled = settled.contains(&value("Database cluster state")?);
        Ok(Self { timeline: u32::max(checkpoint, recovery), settled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory with a log of one file.
    fn made(dir: &Path) -> PathBuf {
        let data = dir.join("postgres");
        for dir in ["global", "pg_wal/archive_status"] {
            fs::create_dir_all(data.join(dir)).unwrap();
        }
        for (file, text) in [("PG_VERSION", "15"), ("global/pg_control", "a"), ("pg_wal/1", "one")]
        {
            fs::write(data.join(file), text).unwrap();
        }
        data
    }

    #[tokio::test]
    async fn a_state_is_kept_once_and_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let data = made(dir.path());
        let first = keep(&data, None).await.unwrap();
        assert_eq!(first, dir.path().join("kept-1"));
        assert_eq!(keep(&data, None).await.unwrap(), first);
        mark_rewinding(&data, &first).unwrap();
        for (file, text) in
            [("global/pg_control", "b"), ("pg_wal/1", "other"), ("pg_wal/2.history", "1")]
        {
            fs::write(data.join(file), text).unwrap();
        }
        assert_eq!(keep(&data, None).await.unwrap(), first, "half rewound is no state to keep");
        restore(&data, &first, None).await.unwrap();
        assert_eq!(fs::read(data.join("pg_wal/1")).unwrap(), b"one");
        assert_eq!(fs::read(data.join("global/pg_control")).unwrap(), b"a");
        assert!(!data.join("pg_wal/2.history").exists());
        unmark(&data).unwrap();
        fs::write(data.join("global/pg_control"), "c").unwrap();
        assert_eq!(keep(&data, None).await.unwrap(), dir.path().join("kept-2"));
    }

    #[test]
    fn half_rewound_data_is_not_started_and_new_data_is_not_half_rewound() {
        let dir = tempfile::tempdir().unwrap();
        let data = made(dir.path());
        assert_eq!(startable(&data).unwrap(), Role::Primary);
        mark_rewinding(&data, &dir.path().join("kept-3")).unwrap();
        assert_eq!(rewinding_from(&data).unwrap(), Some(dir.path().join("kept-3")));
        assert!(startable(&data).is_err() && kept(&data).is_none());
        fs::create_dir(partial(&data)).unwrap();
        fs::write(partial(&data).join("PG_VERSION"), "15").unwrap();
        fs::write(partial(&data).join("standby.signal"), "").unwrap();
        place(&data).unwrap();
        assert_eq!(startable(&data).unwrap(), Role::Replica);
        discard(&data).unwrap();
        assert!(startable(&data).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn reads_what_pg_controldata_prints() {
        let printed = |state: &str, checkpoint: u32, recovery: u32| {
            let text = format!(
                "Database cluster state:               {state}\n\
                 Latest checkpoint's REDO WAL file:    000000010000000000000003\n\
                 Latest checkpoint's TimeLineID:       {checkpoint}\n\
                 Min recovery ending loc's timeline:   {recovery}\n"
            );
            Control::parse(text.as_bytes()).unwrap()
        };
        assert_eq!(printed("in production", 1, 2), Control { timeline: 2, settled: false });
        assert_eq!(printed("shut down", 3, 0), Control { timeline: 3, settled: true });
        assert!(printed("shut down in recovery", 1, 1).settled);
        assert!(Control::parse(b"pg_controldata: error").is_err());
    }
}
