//! `godwit openapi`: the description of the API.

use super::Output;

/// Print the OpenAPI description of the API
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  godwit openapi > docs/openapi.json")]
pub struct OpenApi {}

impl OpenApi {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self {} = self;
        Output::Text.print(&(), |()| crate::assembly::description())
    }
}
