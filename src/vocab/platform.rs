//! Who runs a region's database.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What is told to move a region's database. It decides what a move is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Postgres itself, by SQL, and the agent.
    #[default]
    Postgres,
    /// The operator, by its `Cluster` object.
    CloudNativePg,
    /// Amazon RDS for `PostgreSQL`: an instance and its replicas in other regions.
    Rds,
    /// Amazon Aurora for `PostgreSQL`: a global cluster.
    Aurora,
}

impl Platform {
    /// Whether the old primary must give its place up before another may be promoted, and says
    /// something that the next one is to be told.
    #[must_use]
    pub const fn hands_over(self) -> bool {
        matches!(self, Self::CloudNativePg)
    }

    /// Whether it makes the old primary a replica by itself once it was asked to promote another: from then on
    /// there is none to be asked.
    #[must_use]
    pub const fn demotes(self) -> bool {
        matches!(self, Self::CloudNativePg | Self::Aurora)
    }

    /// Whether a primary that was handed over can be made a replica without a new copy that a person has
    /// made.
    #[must_use]
    pub const fn comes_back(self) -> bool {
        !matches!(self, Self::Rds)
    }

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::CloudNativePg => "cloudnativepg",
            Self::Rds => "rds",
            Self::Aurora => "aurora",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
