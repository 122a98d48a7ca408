//! `[telemetry]`: logs and traces.

use super::ConfigError;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A `tracing_subscriber::EnvFilter` directive list. `request=info` is one line per request.
    pub log: String,
    /// Where traces go, as in `http://collector:4318/v1/traces` (OTLP over HTTP, protobuf). None: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces kept, 0 to 1; a caller's own decision (`traceparent` flags) is honoured.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), otlp_endpoint: None, sample_ratio: 0.1 }
    }
}

impl TelemetryConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(ConfigError::invalid("telemetry.sample_ratio", "must be 0 to 1"));
        }
        Ok(())
    }
}
