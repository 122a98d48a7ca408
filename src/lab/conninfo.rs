//! libpq's connection strings, `key=value` and blanks between, of which the laboratory reads those
//! that it is told to fetch from.

use anyhow::{Context as _, bail, ensure};
use std::{collections::BTreeMap, fmt};

/// One connection string, understood.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnInfo(BTreeMap<String, String>);

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnInfo").field(&self.to_fetch()).finish()
    }
}

impl ConnInfo {
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut pairs = BTreeMap::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=').context("a connection string without `=`")?;
            let key = key.trim_end();
            let letter = |letter: char| letter.is_ascii_lowercase() || letter == '_';
            ensure!(key.chars().all(letter) && !key.is_empty(), "a connection string with `{key}`");
            let (value, after) = value(after.trim_start())?;
            pairs.insert(key.to_owned(), value);
            rest = after.trim_start();
        }
        Ok(Self(pairs))
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The same for a program that fetches, as libpq reads it. Without the password: anybody on the
    /// machine sees a command line. Under a name of its own: what has a replica's would count as one
    /// that has a commit on its disk.
    pub fn to_fetch(&self) -> String {
        let pair = |(key, value): (&String, &String)| {
            format!("{key}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"))
        };
        let kept = |(key, _): &(&String, &String)| {
            !["password", "application_name"].contains(&key.as_str())
        };
        let kept: String = self.0.iter().filter(kept).map(pair).collect();
        kept + "application_name='godwit lab agent'"
    }
}

/// The value that `text` begins with, and what comes after it.
fn value(text: &str) -> anyhow::Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            letter if !quoted && letter.is_whitespace() => return Ok((value, &text[at..])),
            letter => value.push(letter),
        }
    }
    if quoted {
        bail!("a connection string with an open quote");
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_libpq_reads_it() {
        let text = r" host=127.0.0.1  port = 5541 user='o''  password='it\'s \\ x' dbname=a\ b ";
        assert!(ConnInfo::parse(text).is_err(), "a value goes on after its quote");
        let text = r" host=127.0.0.1  port = 5541 password='it\'s \\ x' dbname=a\ b options='' application_name=eu";
        let read = ConnInfo::parse(text).unwrap();
        assert_eq!(read.get("port"), Some("5541"));
        assert_eq!(read.get("password"), Some(r"it's \ x"));
        assert_eq!((read.get("dbname"), read.get("options")), (Some("a b"), Some("")));
        let shown = "dbname='a b' host='127.0.0.1' options='' port='5541' \
             application_name='godwit lab agent'";
        assert_eq!(read.to_fetch(), shown);
        assert_eq!(ConnInfo::parse(shown).unwrap().to_fetch(), shown);
        for text in ["postgres://u@h?a=b", "host='x", "host", "=x"] {
            assert!(ConnInfo::parse(text).is_err(), "{text}");
        }
    }
}
