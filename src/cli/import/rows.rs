//! From a file to rows: NDJSON or CSV, line by line, whatever is in it.

use crate::vocab::{Collection, ItemId};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// An item to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it is in the file, from 1.
    pub(super) line: u64,
    pub(super) id: ItemId,
    /// A JSON object, its numbers with every digit they were written with.
    pub(super) data: String,
}

/// A row that is not loaded, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refusal {
    pub(super) line: u64,
    pub(super) reason: Reason,
    pub(super) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    NotJson,
    NotAnObject,
    TooLong,
    BadId,
    DuplicateId,
    BadRow,
    OtherData,
    RefusedByApi,
    KeepsChanging,
}

impl Reason {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::NotJson => "not JSON",
            Self::NotAnObject => "not a JSON object",
            Self::TooLong => "longer than 1 MiB",
            Self::BadId => "id is not a UUID",
            Self::DuplicateId => "id is in the file twice",
            Self::BadRow => "not a row of this CSV",
            Self::OtherData => "exists with other data",
            Self::RefusedByApi => "refused by the API",
            Self::KeepsChanging => "kept changing meanwhile",
        }
    }
}

/// The API takes no longer item.
const ROW_BYTES_MAX: usize = 1024 * 1024;
/// A CSV row that goes on for this long has lost a quote.
const CSV_ROW_BYTES_MAX: u64 = 32 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A JSON object on each line
    Ndjson,
    /// A header row, then rows; numbers, true and false are typed, empty cells are null
    Csv,
}

/// Gives ids and sees to it that none comes twice.
pub(super) struct Ids {
    collection: Collection,
    /// The field that holds the id; `None`: every row gets one.
    field: Option<String>,
    seen: HashSet<ItemId>,
    /// How often a content without an id has come.
    contents: HashMap<[u8; 16], u64>,
}

impl Ids {
    pub(super) fn new(collection: Collection, field: Option<String>) -> Self {
        Self { collection, field, seen: HashSet::new(), contents: HashMap::new() }
    }

    fn row(&mut self, line: u64, mut data: Map<String, Value>) -> Result<Row, Refusal> {
        let refuse = |reason: Reason, detail: String| Err(Refusal { line, reason, detail });
        let named = self.field.as_ref().and_then(|field| data.remove(field));
        let named = match named {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => match text.parse::<ItemId>() {
                Ok(id) => Some(id),
                Err(_) => return refuse(Reason::BadId, "the id is not a UUID with hyphens".into()),
            },
            Some(_) => return refuse(Reason::BadId, "the id is not a text".into()),
        };
        let data = Value::Object(data).to_string();
        let id = named.unwrap_or_else(|| self.derive(&data));
        if !self.seen.insert(id) {
            return refuse(Reason::DuplicateId, format!("{id} is in an earlier line"));
        }
        Ok(Row { line, id, data })
    }

    /// From the content, and how often it came before: the same file gives the same ids, also when
    /// rows were added to it or it comes through a pipe. Version 8 (RFC 9562 section 5.8).
    fn derive(&mut self, data: &str) -> ItemId {
        let content = first_half(Sha256::digest(data.as_bytes()).into());
        let nth = self.contents.entry(content).or_default();
        *nth += 1;
        let mut hash = Sha256::new();
        hash.update(b"godwit import\0");
        hash.update(self.collection.as_str());
        hash.update(b"\0");
        hash.update(nth.to_be_bytes());
        hash.update(content);
        let id = uuid::Builder::from_custom_bytes(first_half(hash.finalize().into())).into_uuid();
        id.to_string().parse().expect("a UUID is an id")
    }
}

fn first_half(digest: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|at| digest[at])
}

/// Rows of one file, in order.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    ids: Ids,
}

enum Lines<R> {
    Ndjson { reader: io::BufReader<R>, line: u64 },
    Csv { reader: Box<csv::Reader<Bounded<R>>>, columns: csv::StringRecord },
}

impl<R: Read> Rows<R> {
    /// # Errors
    /// When a CSV has no usable header.
    pub(super) fn new(from: R, format: Format, ids: Ids) -> anyhow::Result<Self> {
        let lines = match format {
            Format::Ndjson => {
                Lines::Ndjson { reader: io::BufReader::with_capacity(64 * 1024, from), line: 0 }
            }
            Format::Csv => {
                let bounded = Bounded { inner: from, left: CSV_ROW_BYTES_MAX };
                let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bounded);
                let columns = reader.headers()?.clone();
                check_header(&columns)?;
                Lines::Csv { reader: Box::new(reader), columns }
            }
        };
        Ok(Self { lines, ids })
    }

    /// The next row, or why a line is not one. `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Row, Refusal>>> {
        let parsed = match &mut self.lines {
            Lines::Ndjson { reader, line } => next_json(reader, line)?,
            Lines::Csv { reader, columns } => next_csv(reader, columns)?,
        };
        Ok(parsed.map(|parsed| parsed.and_then(|(line, data)| self.ids.row(line, data))))
    }
}

type Parsed = Option<Result<(u64, Map<String, Value>), Refusal>>;

fn next_json<R: Read>(reader: &mut io::BufReader<R>, line: &mut u64) -> io::Result<Parsed> {
    let mut text = Vec::new();
    loop {
        text.clear();
        // One more than allowed, and the line break, to tell too long from just right.
        let limit = u64::try_from(ROW_BYTES_MAX + 3).unwrap_or(u64::MAX);
        if reader.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        *line += 1;
        let ended = text.last() == Some(&b'\n');
        let mut row = text.trim_ascii();
        if *line == 1 {
            row = row.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(row);
        }
        if row.len() > ROW_BYTES_MAX {
            if !ended {
                reader.skip_until(b'\n')?;
            }
            return Ok(Some(Err(too_long(*line))));
        }
        if !row.is_empty() {
            return Ok(Some(object(row, *line)));
        }
    }
}

fn too_long(line: u64) -> Refusal {
    Refusal { line, reason: Reason::TooLong, detail: "an item has at most 1 MiB".into() }
}

fn object(row: &[u8], line: u64) -> Result<(u64, Map<String, Value>), Refusal> {
    match serde_json::from_slice(row) {
        Ok(Value::Object(data)) => Ok((line, data)),
        Ok(_) => Err(Refusal {
            line,
            reason: Reason::NotAnObject,
            detail: "an item is a JSON object".into(),
        }),
        Err(error) => {
            // The parser's own line number is always 1 here.
            let column = error.column();
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            let detail = format!("{what} at column {column}");
            Err(Refusal { line, reason: Reason::NotJson, detail })
        }
    }
}

fn check_header(columns: &csv::StringRecord) -> anyhow::Result<()> {
    let mut names = HashSet::new();
    for (at, name) in columns.iter().enumerate() {
        anyhow::ensure!(!name.is_empty(), "column {} of the CSV's header has no name", at + 1);
        anyhow::ensure!(names.insert(name), "the CSV's header has two columns `{name}`");
    }
    anyhow::ensure!(!names.is_empty(), "the CSV has no header row");
    Ok(())
}

fn next_csv<R: Read>(
    reader: &mut csv::Reader<Bounded<R>>,
    columns: &csv::StringRecord,
) -> io::Result<Parsed> {
    reader.get_mut().left = CSV_ROW_BYTES_MAX;
    let mut record = csv::ByteRecord::new();
    let more = reader.read_byte_record(&mut record).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    })?;
    if !more {
        return Ok(None);
    }
    let line = record.position().map_or(0, csv::Position::line);
    let refuse = |reason, detail| Ok(Some(Err(Refusal { line, reason, detail })));
    if record.as_slice().len() > ROW_BYTES_MAX {
        return Ok(Some(Err(too_long(line))));
    }
    if record.len() != columns.len() {
        let detail = format!("{} cells under {} columns", record.len(), columns.len());
        return refuse(Reason::BadRow, detail);
    }
    let Ok(record) = csv::StringRecord::from_byte_record(record) else {
        return refuse(Reason::BadRow, "not UTF-8".into());
    };
    let cells =
        columns.iter().zip(record.iter()).map(|(name, cell)| (name.to_owned(), typed(cell)));
    Ok(Some(Ok((line, cells.collect()))))
}

/// Digits that every reader of JSON keeps exactly; a longer number is an identifier, so a text.
const DIGITS_MAX: usize = 15;

/// A cell's value. Only what cannot be meant otherwise is typed: `007`, `1e5` and `+1` stay texts.
fn typed(cell: &str) -> Value {
    match cell {
        "" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        _ => {}
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let unsigned = cell.strip_prefix('-').unwrap_or(cell);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let plain = digits(whole) && digits(part) && (whole == "0" || !whole.starts_with('0'));
    if plain && whole.len() + part.len() <= DIGITS_MAX + 1 && cell != "-0" {
        serde_json::from_str(cell).unwrap_or_else(|_| Value::from(cell))
    } else {
        Value::from(cell)
    }
}

/// A reader that refuses to go on once too much was read for one row.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("a CSV row has no end: a quote is not closed"));
        }
        let read = self.inner.read(into)?;
        self.left = self.left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

/// Tells how much was read, for the progress bar.
pub(super) struct Counting<R> {
    pub(super) inner: R,
    pub(super) bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids() -> Ids {
        Ids::new("cities".parse().unwrap(), Some("id".into()))
    }
    fn read(text: &[u8], format: Format) -> Vec<Result<Row, Refusal>> {
        let mut rows = Rows::new(text, format, ids()).unwrap();
        std::iter::from_fn(|| rows.next().unwrap()).collect()
    }
    fn data(rows: &[Result<Row, Refusal>]) -> Vec<&str> {
        rows.iter().map(|row| row.as_ref().unwrap().data.as_str()).collect()
    }
    fn refusal(row: &Result<Row, Refusal>) -> (u64, Reason) {
        row.as_ref().map_err(|r| (r.line, r.reason)).unwrap_err()
    }

    const ID: &str = "c4a90857-6362-8096-a9f6-304fb09f9d10";

    #[test]
    fn a_bad_line_is_refused_with_its_number_and_the_rest_goes_on() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(ROW_BYTES_MAX));
        let text = format!(
            "\u{FEFF}{{\"id\":\"{ID}\",\"n\":1}}\r\n\n{{\"n\":\n[1]\n{long}\n{{\"id\":7}}\n{{\"id\":\"{}\"}}\n{{\"id\":null,\"n\":2}}",
            ID.to_uppercase()
        );
        let rows = read(text.as_bytes(), Format::Ndjson);
        assert_eq!(rows[0].as_ref().unwrap().id.to_string(), ID);
        assert_eq!(rows[0].as_ref().unwrap().data, r#"{"n":1}"#);
        let refused: Vec<_> = rows[1..6].iter().map(refusal).collect();
        let expected = [
            (3, Reason::NotJson),
            (4, Reason::NotAnObject),
            (5, Reason::TooLong),
            (6, Reason::BadId),
            (7, Reason::DuplicateId),
        ];
        assert_eq!(refused, expected);
        assert_eq!(rows[6].as_ref().unwrap().line, 8);
        assert_eq!(rows.len(), 7);
    }

    #[test]
    fn a_row_of_just_the_longest_length_passes_and_one_more_does_not() {
        let of = |bytes: usize| format!("{{\"a\":\"{}\"}}\n", "x".repeat(bytes - 8));
        assert!(read(of(ROW_BYTES_MAX).as_bytes(), Format::Ndjson)[0].is_ok());
        assert!(read(of(ROW_BYTES_MAX + 1).as_bytes(), Format::Ndjson)[0].is_err());
    }

    #[test]
    fn numbers_keep_every_digit() {
        let rows = read(br#"{"n":12345678901234567890.10,"m":1.0,"e":1E+2}"#, Format::Ndjson);
        assert_eq!(data(&rows), [r#"{"e":1e+2,"m":1.0,"n":12345678901234567890.10}"#]);
    }

    #[test]
    fn cells_are_typed_where_there_is_no_doubt() {
        let text = b"a,b,c,d,e,f\n1,-2.50,true,,x y,007\n1e5,+1,TRUE,.5,1.,-0\n1234567890123456,0.1,false,0,\"a,\"\"b\",null\n";
        assert_eq!(
            data(&read(text, Format::Csv)),
            [
                r#"{"a":1,"b":-2.50,"c":true,"d":null,"e":"x y","f":"007"}"#,
                r#"{"a":"1e5","b":"+1","c":"TRUE","d":".5","e":"1.","f":"-0"}"#,
                r#"{"a":"1234567890123456","b":0.1,"c":false,"d":0,"e":"a,\"b","f":"null"}"#,
            ]
        );
    }

    #[test]
    fn a_csv_row_of_another_width_or_encoding_is_refused_where_it_is() {
        let rows = read(b"id,n\n,1\n,1,2\n\"\xFF\",1\nx,1\n", Format::Csv);
        assert!(rows[0].is_ok());
        assert_eq!(refusal(&rows[1]), (3, Reason::BadRow));
        assert_eq!(refusal(&rows[2]), (4, Reason::BadRow));
        assert_eq!(refusal(&rows[3]), (5, Reason::BadId));
    }

    #[test]
    fn a_header_that_cannot_name_columns_is_no_header() {
        for text in ["", "a,a\n1,2\n", "a,\n1,2\n"] {
            assert!(Rows::new(text.as_bytes(), Format::Csv, ids()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn equal_rows_without_an_id_are_two_items_and_keep_their_ids_when_rows_are_added() {
        let of = |text: &str| -> Vec<ItemId> {
            read(text.as_bytes(), Format::Ndjson).iter().map(|r| r.as_ref().unwrap().id).collect()
        };
        let first = of("{\"a\":1,\"b\":2}\n{\"b\":2,\"a\":1}\n{\"a\":3}\n");
        assert_ne!(first[0], first[1]);
        let later = of("{\"new\":true}\n{\"a\":3}\n{\"a\":1,\"b\":2}\n{\"a\":1,\"b\":2}\n");
        assert_eq!([later[2], later[3], later[1]], [first[0], first[1], first[2]]);
    }

    proptest! {
        #[test]
        fn anything_at_all_can_be_read(text: Vec<u8>, csv: bool) {
            let format = if csv { Format::Csv } else { Format::Ndjson };
            if let Ok(mut rows) = Rows::new(text.as_slice(), format, ids()) {
                while let Ok(Some(_)) = rows.next() {}
            }
        }
    }
}
