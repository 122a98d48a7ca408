//! Where a laboratory keeps things.

use crate::vocab::Region;
use anyhow::{Context as _, bail};
use nix::unistd::Uid;
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Written by `lab up` alone, into a directory that was empty: so what has one of the names below
/// is the laboratory's to replace and remove.
const MARKER: &str = ".godwit-laboratory";

/// Everything that a laboratory, or `make up`, leaves in its directory, in the order of removal.
const NAMES: [&str; 13] = [
    "control",
    "control.partial",
    "control.sock",
    "data",
    "dns",
    "lab.json",
    "lab.json.partial",
    "loaded.ndjson",
    "logs",
    "regions",
    "secrets",
    "lock",
    // The last: an interrupted removal can be gone on with.
    MARKER,
];

/// What drills saved, before there was a laboratory or after it was removed. It stays.
pub const DRILLS: &str = "drills";

/// Where data that Postgres' user cannot reach below the laboratory is kept.
const ELSEWHERE: [&str; 2] = ["/var/tmp", "/tmp"];

/// The directory has something in it and was not made by `lab up`.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is not empty and no laboratory's: name a directory that is empty or not there yet",
    .0.display()
)]
pub struct NotOurs(PathBuf);

/// The paths below a laboratory's directory, all absolute, so that a process can be recognised by
/// them whoever started it from wherever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Of the laboratory in `dir`, which need not exist.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let root = fs::canonicalize(dir).or_else(|_| std::path::absolute(dir))?;
        Ok(Self { root })
    }

    /// Makes the directory and that of the logs. Goes back to one that it made before.
    ///
    /// # Errors
    /// [`NotOurs`] when what is there is no laboratory's; when they cannot be made.
    pub fn make(dir: &Path) -> anyhow::Result<Self> {
        let named = |path: &Path| path.display().to_string();
        // Passable, so that Postgres' user can come to its data; what must be kept from others is
        // closed in itself.
        make_dir(dir, 0o711).with_context(|| named(dir))?;
        let layout = Self::new(dir)?;
        let root = &layout.root;
        let foreign = |name: &String| name != DRILLS;
        if !layout.holds_one() && entries(root).with_context(|| named(root))?.iter().any(foreign) {
            return Err(NotOurs(layout.root).into());
        }
        // A laboratory of a version without the marker gets it now.
        let marker = root.join(MARKER);
        let made = fs::File::options().write(true).create(true).truncate(false).open(&marker);
        made.with_context(|| named(&marker))?;
        for path in layout.all().filter(|path| *path != layout.data()) {
            if path.is_symlink() {
                bail!("{} is a link, and none of the laboratory's", path.display());
            }
        }
        make_dir(&layout.logs(), 0o700).with_context(|| named(&layout.logs()))?;
        Ok(layout)
    }

    /// Whether a laboratory was ever started there.
    #[must_use]
    pub fn holds_one(&self) -> bool {
        is_own_file(&self.root.join(MARKER)) || self.holds_unmarked()
    }

    /// Whether there is one of a version without the marker: what each of its starts made, and
    /// nothing that none made.
    fn holds_unmarked(&self) -> bool {
        let only = |dir: &Path, known: &dyn Fn(&str) -> bool| {
            entries(dir).is_ok_and(|names| names.iter().all(|name| known(name)))
        };
        let is_region = |name: &str| is_own_file(&self.regions().join(name).join("godwit.toml"));
        let is_log = |name: &str| [".log", ".log.before"].iter().any(|end| name.ends_with(end));
        is_own_file(&self.lock())
            && is_own_file(&self.secrets().join("secrets.json"))
            && only(&self.root, &|name| NAMES.contains(&name))
            && only(&self.logs(), &is_log)
            && only(&self.regions(), &is_region)
            && self.real_data().is_ok_and(|data| data.is_none_or(|data| only(&data, &is_region)))
    }

    /// Everything that a laboratory, or `make up`, leaves in its directory, in the order of
    /// removal.
    pub(super) fn all(&self) -> impl Iterator<Item = PathBuf> {
        NAMES.into_iter().map(|name| self.root.join(name))
    }

    /// Where data is kept that Postgres' user cannot reach below the laboratory, best first.
    pub(super) fn elsewhere(&self) -> impl Iterator<Item = PathBuf> {
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
        let name = format!("godwit-lab-{}", hex::encode(&digest[..8]));
        ELSEWHERE.into_iter().map(move |parent| Path::new(parent).join(&name))
    }

    /// The real path of the data directory; `None` while there is none. Follows the link that
    /// this laboratory made, and no other.
    ///
    /// # Errors
    /// When what is there is not what this laboratory made.
    pub(super) fn real_data(&self) -> io::Result<Option<PathBuf>> {
        let data = self.data();
        let foreign = |path: &Path| {
            Err(io::Error::other(format!("{} was not made by this laboratory", path.display())))
        };
        let target = match fs::symlink_metadata(&data) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(facts) if facts.is_dir() => return Ok(Some(data)),
            Ok(facts) if !facts.is_symlink() => return foreign(&data),
            Ok(_) => fs::read_link(&data)?,
        };
        if !self.elsewhere().any(|place| place == target) {
            return foreign(&data);
        }
        match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            // Anybody may write beside it: take nothing that is not ours.
            Ok(facts) if facts.is_dir() && facts.uid() == Uid::effective().as_raw() => {
                fs::canonicalize(&target).map(Some)
            }
            Ok(_) => foreign(&target),
        }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    #[must_use]
    pub fn lab_file(&self) -> PathBuf {
        self.root.join("lab.json")
    }
    /// Held by the supervisor for as long as it lives; contains its process id.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.logs().join("supervisor.log")
    }
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// A directory, or a link to one that Postgres' user can reach.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }
    #[must_use]
    pub fn regions(&self) -> PathBuf {
        self.root.join("regions")
    }
    /// What the name server of a rehearsal is told.
    #[must_use]
    pub fn dns(&self) -> PathBuf {
        self.root.join("dns")
    }
    /// The settings of a region's first API process, which are also those for commands.
    #[must_use]
    pub fn config(&self, region: &Region) -> PathBuf {
        self.config_of(region, 1)
    }
    /// The settings of a region's API process, counted from 1.
    #[must_use]
    pub fn config_of(&self, region: &Region, process: usize) -> PathBuf {
        let name =
            if process == 1 { "godwit.toml".into() } else { format!("godwit-{process}.toml") };
        self.regions().join(region.as_str()).join(name)
    }
}

/// The names of what is in a directory.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into());
    fs::read_dir(dir)?.map(name).collect()
}

/// Whether there is a file, and no link to one.
fn is_own_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| facts.is_file())
}

/// Makes a directory, and those above it, unless it is there.
pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Replaces a file in one step: a reader sees the old text or the new. Readable by its owner only.
pub(super) fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let _ = fs::remove_file(&partial);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    io::Write::write_all(&mut file, text)?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_holds_drills_and_nothing_else_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DRILLS)).unwrap();
        Layout::make(dir.path()).unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join(DRILLS)).unwrap();
        fs::write(other.path().join("mine"), "").unwrap();
        assert!(Layout::make(other.path()).is_err());
    }
}
