//! `godwit serve`: one region's process.

use crate::{
    assembly,
    config::{Config, broken},
    telemetry,
};
use std::path::PathBuf;

/// Serve one region: the API, the internal listener for the other regions, metrics and probes.
///
/// Never changes the schema. SIGTERM drains: no new work, requests in flight end, then it exits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  godwit serve --config /etc/godwit/us-east-1.toml")]
pub struct Serve {
    /// Settings of this region
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = Config::load(self.config.as_deref())?;
        // Dropped last: what is logged on the way out is written.
        let guard = telemetry::init(&config.telemetry, &config.region, telemetry::Format::Json)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let process = assembly::build(config, guard.telemetry())?;
            if let Some(word) = broken::word() {
                tracing::warn!(
                    word,
                    "this server is broken on purpose: it proves that a drill finds it"
                );
            }
            tracing::info!(region = %process.app.region, process = %process.app.process, "serving");
            process.run().await
        })
    }
}
