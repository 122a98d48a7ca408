//! `godwit import`: rows of a file become items, through the API like everyone else's.
//!
//! Running it again is safe and is how to go on after a failure: each row has an id, its own or one
//! made from its content, and what is there already is left as it is.

mod load;
mod rows;
mod same;
mod work;

use super::{Misused, Output, client::ApiClient, target::DEFAULT_LAB};
use crate::{
    lab::LabFile,
    vocab::{Bookmark, Collection, Op, OpKind, Region},
};
use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use load::Loader;
use rows::{Counting, Format, Ids, Reason, Refusal, Row, Rows};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, IsTerminal as _, Read, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use work::{OPERATION_BYTES, Tally};

/// Load rows of a file into a collection
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit import loadtest/data/cities.ndjson --collection cities
         zcat big.csv.gz | godwit import - --format csv --collection rows --url URL --key KEY

A row is created under its id, or under one made from its content. A row that is there already with
the same data is counted and left alone, so running the same import again is safe and goes on where
the last one stopped. A bad line is refused with its number and never stops the rest.")]
pub struct Import {
    /// The file; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_name = "NAME")]
    collection: Collection,
    /// What the file is [default: by its name, else ndjson]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Field that holds a row's id, a UUID; it does not become part of the data
    #[arg(long, value_name = "FIELD", default_value = "id")]
    id_field: String,
    /// Make every id from the row's content; a field named id is data like any other
    #[arg(long, conflicts_with = "id_field")]
    make_ids: bool,
    /// Replace what exists with other data, rather than refuse the row
    #[arg(long)]
    replace: bool,
    /// Rows sent at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=500))]
    batch: u16,
    /// Read and check everything, send nothing
    #[arg(long)]
    dry_run: bool,
    /// Write every refused line's number and reason here, as NDJSON
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    #[command(flatten)]
    to: To,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The region that is spoken to.
#[derive(Debug, clap::Args)]
struct To {
    /// A laboratory's directory [default: .godwit, when there is one here]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    lab: Option<PathBuf>,
    /// The laboratory's region to speak to [default: the primary]
    #[arg(long, conflicts_with = "url")]
    region: Option<Region>,
    /// Base URL of a region's API
    #[arg(long)]
    url: Option<String>,
    /// API key with the scopes read and write
    #[arg(long, env = "GODWIT_KEY", hide_env_values = true)]
    key: Option<String>,
}

impl To {
    fn connect(&self) -> anyhow::Result<ApiClient> {
        let misused = |text: &str| Misused(text.to_owned());
        if let Some(url) = &self.url {
            // An empty variable is an unset one.
            let key = self.key.clone().filter(|key| !key.is_empty());
            let key = key.ok_or_else(|| misused("--url needs --key, or GODWIT_KEY"))?;
            return ApiClient::new(url, key.into());
        }
        let dir = self.lab.clone().unwrap_or_else(|| DEFAULT_LAB.into());
        let lab = LabFile::read(&dir)?;
        let region = self.region.as_ref().unwrap_or(&lab.primary);
        let facts = lab.regions.get(region);
        let facts = facts.ok_or_else(|| {
            let names: Vec<_> = lab.regions.keys().map(ToString::to_string).collect();
            misused(&format!(
                "no region {region} in the laboratory: there are {}",
                names.join(", ")
            ))
        })?;
        // The laboratory's own key: one in the environment is likely another cluster's.
        let key = lab.tenant.map(|tenant| tenant.api_key).or_else(|| self.key.clone());
        ApiClient::new(&facts.public, key.context("the laboratory has no API key yet")?.into())
    }
}

/// What came of it all.
#[derive(Debug, Serialize)]
struct Report {
    collection: Collection,
    dry_run: bool,
    rows: u64,
    created: u64,
    already_there: u64,
    replaced: u64,
    refused: u64,
    refused_by_reason: BTreeMap<Reason, u64>,
    /// The first of them.
    refusals: Vec<Refusal>,
    seconds: f64,
    /// Where a reader sees all of it.
    bookmark: Option<Bookmark>,
}

/// Refusals told on the terminal; `--refused` has all.
const REFUSALS_TOLD: usize = 20;
/// A batch's body; the API takes 1 MiB.
const BATCH_BYTES_MAX: usize = 900 * 1024;
/// Batches under way at once: enough to hide a long way to the primary.
const BATCHES: usize = 4;
/// Batches read ahead.
const READ_AHEAD: usize = 8;

/// From the reading thread.
enum Piece {
    Batch(Vec<Row>),
    Refused(Refusal),
    Failed(std::io::Error),
}

impl Import {
    pub fn run(self) -> anyhow::Result<()> {
        let op = Op::system(OpKind::Command, Duration::from_hours(24));
        let api = if self.dry_run { None } else { Some(self.to.connect()?) };
        let (file, bytes, format) = self.open()?;
        let mut refused_to = self.refused_to()?;
        let read = Arc::new(AtomicU64::new(0));
        let counting = Counting { inner: file, bytes: Arc::clone(&read) };
        let id_field = if self.make_ids { None } else { Some(self.id_field.clone()) };
        let rows = Rows::new(counting, format, Ids::new(self.collection.clone(), id_field))
            .with_context(|| self.file.display().to_string())?;
        let progress = progress(bytes);
        let loader = api.map(|api| Loader {
            api,
            collection: self.collection.clone(),
            replace: self.replace,
            op: op.clone(),
        });
        let started = op.clock.monotonic();
        let mut report = Report::new(self.collection.clone(), self.dry_run);
        let batch = usize::from(self.batch);
        let outcome = super::block_on(load(rows, batch, loader.as_ref(), |tally| {
            progress.set_position(read.load(Ordering::Relaxed));
            report.add(tally, refused_to.as_mut())?;
            progress.set_message(report.progress());
            Ok(())
        }));
        progress.finish_and_clear();
        if let Some(mut writer) = refused_to {
            writer.flush()?;
        }
        report.seconds = (op.clock.monotonic() - started).as_secs_f64();
        report.bookmark = loader.and_then(|loader| loader.api.bookmark());
        self.output.print(&report, Report::text)?;
        outcome.context("stopped early; run it again to go on")?;
        anyhow::ensure!(
            report.refused == 0,
            "{} of {} rows were refused",
            report.refused,
            report.rows
        );
        Ok(())
    }

    fn refused_to(&self) -> anyhow::Result<Option<BufWriter<File>>> {
        let Some(path) = &self.refused else { return Ok(None) };
        // Making it would empty the rows.
        if path.canonicalize().is_ok_and(|to| self.file.canonicalize().is_ok_and(|from| from == to))
        {
            return Err(Misused("--refused is the file to import".to_owned()).into());
        }
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Some(BufWriter::new(file)))
    }

    fn open(&self) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>, Format)> {
        let by_name = self.file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let by_name = if by_name { Format::Csv } else { Format::Ndjson };
        let format = self.format.unwrap_or(by_name);
        if self.file.as_os_str() == "-" {
            return Ok((Box::new(std::io::stdin()), None, format));
        }
        let named = || self.file.display().to_string();
        let file = File::open(&self.file).with_context(named)?;
        let facts = file.metadata().with_context(named)?;
        anyhow::ensure!(!facts.is_dir(), "{} is a directory", self.file.display());
        Ok((Box::new(file), facts.is_file().then_some(facts.len()), format))
    }
}

/// Reads on a thread of its own, sends several batches at once, and tells what came of each.
async fn load(
    rows: Rows<Counting<Box<dyn Read + Send>>>,
    batch_rows_max: usize,
    loader: Option<&Loader>,
    mut tell: impl FnMut(Tally) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (to, from) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || read(rows, batch_rows_max, &to));
    let pieces =
        stream::unfold(from, async |mut from| from.recv().await.map(|piece| (piece, from)));
    let tallies = pieces.map(async |piece| match (piece, loader) {
        (Piece::Batch(rows), Some(loader)) => loader.load(rows).await,
        // Of a dry run: what would be sent.
        (Piece::Batch(rows), None) => Ok(Tally { created: rows.len() as u64, ..Tally::default() }),
        (Piece::Refused(refusal), _) => Ok(Tally { refused: vec![refusal], ..Tally::default() }),
        (Piece::Failed(error), _) => {
            Err(anyhow::Error::new(error).context("the file cannot be read on"))
        }
    });
    let mut tallies = std::pin::pin!(tallies.buffer_unordered(BATCHES));
    while let Some(tally) = tallies.try_next().await? {
        tell(tally)?;
    }
    Ok(())
}

/// Ends early when nobody listens any more.
fn read(mut rows: Rows<impl Read>, rows_max: usize, to: &mpsc::Sender<Piece>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    loop {
        let piece = match rows.next() {
            Ok(Some(Ok(row))) => {
                let size = row.data.len() + OPERATION_BYTES;
                let full = batch.len() == rows_max || bytes + size > BATCH_BYTES_MAX;
                let before = if full { std::mem::take(&mut batch) } else { Vec::new() };
                bytes = if full { size } else { bytes + size };
                batch.push(row);
                if before.is_empty() {
                    continue;
                }
                Piece::Batch(before)
            }
            Ok(Some(Err(refusal))) => Piece::Refused(refusal),
            Ok(None) => break,
            Err(error) => {
                to.blocking_send(Piece::Failed(error)).ok();
                return;
            }
        };
        if to.blocking_send(piece).is_err() {
            return;
        }
    }
    if !batch.is_empty() {
        to.blocking_send(Piece::Batch(batch)).ok();
    }
}

impl Report {
    fn new(collection: Collection, dry_run: bool) -> Self {
        Self {
            collection,
            dry_run,
            rows: 0,
            created: 0,
            already_there: 0,
            replaced: 0,
            refused: 0,
            refused_by_reason: BTreeMap::new(),
            refusals: Vec::new(),
            seconds: 0.0,
            bookmark: None,
        }
    }

    fn add(&mut self, tally: Tally, mut to: Option<&mut BufWriter<File>>) -> anyhow::Result<()> {
        self.created += tally.created;
        self.already_there += tally.already_there;
        self.replaced += tally.replaced;
        self.refused += tally.refused.len() as u64;
        self.rows = self.created + self.already_there + self.replaced + self.refused;
        for refusal in tally.refused {
            *self.refused_by_reason.entry(refusal.reason).or_default() += 1;
            if let Some(to) = &mut to {
                serde_json::to_writer(&mut **to, &refusal)?;
                to.write_all(b"\n")?;
            }
            self.refusals.push(refusal);
        }
        // Batches end in any order; the first lines are the ones to keep.
        self.refusals.sort_by_key(|refusal| refusal.line);
        self.refusals.truncate(REFUSALS_TOLD);
        Ok(())
    }

    fn progress(&self) -> String {
        match self.refused {
            0 => format!("{} rows", self.rows),
            refused => format!("{} rows, {refused} refused", self.rows),
        }
    }

    fn text(&self) -> String {
        let told = self.refusals.iter().map(|refusal| {
            format!("line {}: {}: {}", refusal.line, refusal.reason.words(), refusal.detail)
        });
        let untold = self.refused - self.refusals.len() as u64;
        let untold =
            (untold > 0).then(|| format!("and {untold} more; --refused FILE keeps them all"));
        let sum = format!("{}: {} rows in {:.1} s", self.collection, self.rows, self.seconds);
        let counts = [
            (if self.dry_run { "would be sent" } else { "created" }, self.created),
            ("already there", self.already_there),
            ("replaced", self.replaced),
            ("refused", self.refused),
        ];
        let counts = counts.map(|(what, count)| format!("  {what:<16}{count:>10}"));
        let reasons = self.refused_by_reason.iter();
        let reasons =
            reasons.map(|(reason, count)| format!("    {:<24}{count:>10}", reason.words()));
        let lines = told.chain(untold).chain([sum]).chain(counts).chain(reasons);
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// On a terminal only; of a pipe's length nothing is known.
fn progress(bytes: Option<u64>) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let (length, template) = match bytes {
        Some(bytes) => {
            (Some(bytes), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}  {msg}  {eta} left")
        }
        None => (None, "{spinner} {bytes} {bytes_per_sec}  {msg}"),
    };
    let bar = ProgressBar::with_draw_target(length, target);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("cities".parse().unwrap(), false);
        let refusal = |line, reason| Refusal { line, reason, detail: "why".into() };
        let refused = (1..=22).rev().map(|line| refusal(line, Reason::NotJson));
        let refused = refused.chain([refusal(30, Reason::BadId)]).collect();
        let tally = Tally { created: 2_998, already_there: 1, replaced: 0, refused };
        report.add(tally, None).unwrap();
        report.seconds = 1.25;
        report
    }

    #[test]
    fn the_count_tells_the_first_refusals_and_sums_up_all() {
        let text = report().text();
        assert!(text.starts_with("line 1: not JSON: why\nline 2: "), "{text}");
        insta::assert_snapshot!(text.lines().skip(20).collect::<Vec<_>>().join("\n"), @r"
        and 3 more; --refused FILE keeps them all
        cities: 3022 rows in 1.2 s
          created               2998
          already there            1
          replaced                 0
          refused                 23
            not JSON                        22
            id is not a UUID                 1
        ");
    }

    #[tokio::test]
    async fn batches_are_bounded_by_rows_and_by_bytes() {
        let long = "x".repeat(400 * 1024);
        let lines: Vec<_> = (0..5)
            .map(|n| format!("{{\"n\":{n}}}\n"))
            .chain((0..5).map(|n| format!("{{\"n\":{n},\"long\":\"{long}\"}}\n")))
            .collect();
        let text = lines.concat();
        let ids = Ids::new("c".parse().unwrap(), None);
        let rows = Rows::new(text.as_bytes(), Format::Ndjson, ids).unwrap();
        let (to, mut from) = mpsc::channel(100);
        std::thread::scope(|threads| {
            threads.spawn(|| read(rows, 3, &to));
        });
        drop(to);
        let mut sizes = Vec::new();
        while let Some(Piece::Batch(batch)) = from.recv().await {
            sizes.push(batch.len());
        }
        assert_eq!(sizes, [3, 3, 2, 2]);
    }
}
