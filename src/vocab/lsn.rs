//! Log sequence numbers (PostgreSQL manual, chapter 30.6 "WAL Internals").

use super::Malformed;
use std::{fmt, str::FromStr};

/// A byte position in the write-ahead log. Comparable only within one epoch: across epochs use
/// [`super::Bookmark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lsn(u64);

impl Lsn {
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Bytes of log between `earlier` and this position; 0 when `earlier` is in fact later.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Postgres' own spelling, `16/B374D848`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let half = |t: &str| {
            let digits = (1..=8).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_hexdigit());
            if digits { u64::from_str_radix(t, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or(Malformed::new("lsn", "two hexadecimal numbers with a slash, as in 16/B374D848"))
    }
}
super::serde_as_text!(Lsn);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_postgres_prints_and_prints_what_it_reads() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/1000028"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_anything_else() {
        for text in ["", "/", "0", "0/", "/0", "G/0", "0/+1", "123456789/0", "0/0/0", " 0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
