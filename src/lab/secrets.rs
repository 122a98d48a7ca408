//! Passwords and keys: made once, kept for as long as the data they open.

use super::layout::{Layout, make_dir, write_private};
use crate::vocab::{Rng, rng::SystemRng};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;

/// All hexadecimal, so that they need no quoting anywhere.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// Postgres' superuser `godwit`.
    pub superuser: String,
    pub owner: String,
    pub app: String,
    pub reader: String,
    pub replication: String,
    pub redis: String,
    /// Signs what regions send each other.
    pub envelope: String,
}

impl Secrets {
    /// Reads those kept in the laboratory, or makes them.
    ///
    /// # Errors
    /// When the file cannot be read, understood or written.
    pub fn of(layout: &Layout) -> anyhow::Result<Self> {
        make_dir(&layout.secrets(), 0o700)?;
        let path = layout.secrets().join("secrets.json");
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = Self::make(&SystemRng);
                write_private(&path, &serde_json::to_vec_pretty(&made)?)?;
                Ok(made)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn make(rng: &dyn Rng) -> Self {
        let secret = || {
            let mut random = [0; 32];
            rng.fill(&mut random);
            hex::encode(random)
        };
        Self {
            superuser: secret(),
            owner: secret(),
            app: secret(),
            reader: secret(),
            replication: secret(),
            redis: secret(),
            envelope: secret(),
        }
    }
}
