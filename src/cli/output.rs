//! How a command prints facts.

use comfy_table::{Cell, Table, presets};
use serde::Serialize;
use std::io::Write as _;

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

impl Output {
    /// Prints `facts` as JSON, or what `text` makes of them.
    ///
    /// # Errors
    /// When standard output cannot be written, except that nobody reads it any more.
    pub fn print<T: Serialize>(
        self,
        facts: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut printed = match self {
            Self::Text => text(facts),
            Self::Json => serde_json::to_string_pretty(facts)?,
        };
        if !printed.ends_with('\n') {
            printed.push('\n');
        }
        match std::io::stdout().write_all(printed.as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Columns without lines around them, as wide as they need to be, to be read and to be cut.
pub(super) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.iter().map(Cell::new)).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.to_string();
    lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
