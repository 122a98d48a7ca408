//! `godwit lab`: three regions on this machine.

use super::{Output, target::DEFAULT_LAB};
use crate::lab::LabFile;
use std::path::PathBuf;

/// Three regions on this machine, with the real distances between them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: godwit lab status --output json")]
pub struct Lab {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// What runs, and how the links are
    Status {
        /// Where the laboratory keeps itself
        #[arg(long, default_value = DEFAULT_LAB)]
        dir: PathBuf,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

impl Lab {
    pub fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Status { dir, output } => {
                let facts = LabFile::read(&dir)?;
                output.print(&facts, |facts| {
                    let line = |(name, region): (&_, &crate::lab::RegionFacts)| {
                        format!("{name}  {}\n", region.public)
                    };
                    facts.regions.iter().map(line).collect()
                })
            }
        }
    }
}
