//! Where a laboratory keeps things.

use crate::vocab::Region;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

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

    /// Makes the directory and that of the logs.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(dir: &Path) -> io::Result<Self> {
        // Passable, so that Postgres' user can come to its data; what must be kept from others is
        // closed in itself.
        make_dir(dir, 0o711)?;
        let layout = Self::new(dir)?;
        make_dir(&layout.logs(), 0o700)?;
        Ok(layout)
    }

    /// Whether a laboratory was ever started there.
    #[must_use]
    pub fn holds_one(&self) -> bool {
        self.lock().is_file() && self.logs().is_dir()
    }

    /// Everything that a laboratory, or `make up`, leaves in its directory.
    pub(super) fn all(&self) -> impl Iterator<Item = PathBuf> {
        let names = [
            "control",
            "control.partial",
            "control.sock",
            "data",
            "lab.json",
            "lab.json.partial",
            "loaded.ndjson",
            "logs",
            "regions",
            "secrets",
            // The last: while it is there, this is a laboratory's directory.
            "lock",
        ];
        names.into_iter().map(|name| self.root.join(name))
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
