//! Which cluster a command acts on.

use super::{Misused, Output};
use crate::config::Config;
use anyhow::Context as _;
use std::path::{Path, PathBuf};

/// `--config FILE`, or `--lab DIR`; without either, the laboratory in `.godwit` when there is one.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Target {
    /// Settings of one region of the cluster
    #[arg(long, value_name = "FILE", conflicts_with = "lab")]
    pub config: Option<PathBuf>,
    /// A laboratory's directory [default: .godwit, when there is one here]
    #[arg(long, value_name = "DIR")]
    pub lab: Option<PathBuf>,
}

/// What every command takes that tells facts of a cluster: which one, and how they are printed.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct About {
    #[command(flatten)]
    pub target: Target,
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

impl Target {
    /// The settings: of the given file, or of the laboratory's primary region.
    ///
    /// # Errors
    /// When no cluster is named, or its settings cannot be used.
    pub fn load(&self) -> anyhow::Result<Config> {
        let file = self.file()?;
        Config::load(Some(&file)).with_context(|| file.display().to_string())
    }

    /// The laboratory's directory; `None` when the target is a settings file.
    #[must_use]
    pub fn lab_dir(&self) -> Option<PathBuf> {
        let here = || Path::new(DEFAULT_LAB).join("lab.json").exists().then(|| DEFAULT_LAB.into());
        if self.config.is_some() { None } else { self.lab.clone().or_else(here) }
    }

    fn file(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.config {
            return Ok(file.clone());
        }
        let dir = self.lab_dir().ok_or_else(|| {
            Misused("name a cluster: --config FILE, or --lab DIR for a laboratory".into())
        })?;
        let state = crate::lab::LabFile::read(&dir)?;
        Ok(crate::lab::Layout::new(&dir)?.config(&state.primary))
    }
}

/// Where `godwit lab` keeps itself unless told otherwise.
pub const DEFAULT_LAB: &str = ".godwit";
