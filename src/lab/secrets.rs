//! Passwords and keys: made once, kept for as long as the data they open.

use super::layout::{Layout, make_dir, write_private};
use crate::vocab::{Rng, rng::SystemRng};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{io::ErrorKind, path::Path};

/// All hexadecimal, so that they need no quoting anywhere.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// Postgres' superuser `godwit`.
    pub superuser: String,
    pub owner: String,
    pub app: String,
    pub reader: String,
    pub replication: String,
    /// Who moves the primary. Absent where an earlier version made the others.
    #[serde(default)]
    pub control: String,
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
            Ok(text) => {
                let kept: Self =
                    serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
                if !kept.control.is_empty() {
                    return Ok(kept);
                }
                Self { control: secret(&SystemRng), ..kept }.keep(&path)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Self::make(&SystemRng).keep(&path),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn keep(self, path: &Path) -> anyhow::Result<Self> {
        write_private(path, &serde_json::to_vec_pretty(&self)?)?;
        Ok(self)
    }

    fn make(rng: &dyn Rng) -> Self {
        let secret = || secret(rng);
        Self {
            superuser: secret(),
            owner: secret(),
            app: secret(),
            reader: secret(),
            replication: secret(),
            control: secret(),
            redis: secret(),
            envelope: secret(),
        }
    }
}

fn secret(rng: &dyn Rng) -> String {
    let mut random = [0; 32];
    rng.fill(&mut random);
    hex::encode(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_an_earlier_version_get_what_they_lack_and_keep_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let made = serde_json::to_value(Secrets::of(&layout).unwrap()).unwrap();
        let mut earlier = made.clone();
        earlier.as_object_mut().unwrap().remove("control");
        let path = layout.secrets().join("secrets.json");
        std::fs::write(&path, earlier.to_string()).unwrap();
        let of_now = || serde_json::to_value(Secrets::of(&layout).unwrap()).unwrap();
        let mut completed = of_now();
        assert_eq!(completed, of_now());
        let control = completed.as_object_mut().unwrap().remove("control").unwrap();
        assert!(completed == earlier && control != made["control"]);
        assert_eq!(control.as_str().unwrap().len(), 64);
    }
}
