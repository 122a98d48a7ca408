//! Finds Postgres and Redis on this machine.

use super::spec::Spec;
use anyhow::{Context as _, bail};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

const POSTGRES_MAJOR_MIN: u32 = 15;
const REDIS_MIN: (u32, u32) = (6, 2);
const POSTGRES_PROGRAMS: &[&str] =
    &["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata"];

/// Where packagers put Postgres, newest version first; `*` is a version.
const POSTGRES_PLACES: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
];
const REDIS_PLACES: &[&str] = &["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];

const POWERDNS_MIN: (u32, u32) = (4, 7);
const POWERDNS_PLACES: &[&str] =
    &["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/bin", "/opt/homebrew/bin"];

const INSTALL_POSTGRES: &str = "install the PostgreSQL server, 15 or newer (Debian, Ubuntu: \
    `apt-get install postgresql`; macOS: `brew install postgresql@17`), or say where its programs \
    are with --pg-bin DIR or GODWIT_LAB_PG_BIN";
const INSTALL_REDIS: &str = "install Redis, 6.2 or newer (Debian, Ubuntu: `apt-get install \
    redis-server`; macOS: `brew install redis`), or say where it is with --redis-server FILE or \
    GODWIT_LAB_REDIS_SERVER";

const INSTALL_POWERDNS: &str = "install PowerDNS, 4.7 or newer, and its geoip backend (`.ci/setup dns`; \
    Debian, Ubuntu: `apt-get install pdns-backend-geoip`), or say where it is with --pdns-server FILE or \
    GODWIT_LAB_PDNS_SERVER";

/// The programs to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    pub postgres_bin: PathBuf,
    pub redis_server: PathBuf,
}

impl Tools {
    /// # Errors
    /// When one is missing or too old: with what to do about it.
    pub fn find(spec: &Spec) -> anyhow::Result<Self> {
        Ok(Self { postgres_bin: postgres(spec)?, redis_server: redis(spec)? })
    }
}

fn postgres(spec: &Spec) -> anyhow::Result<PathBuf> {
    let version = |dir: &Path| {
        let whole = POSTGRES_PROGRAMS.iter().all(|name| runs(&dir.join(name)));
        if whole { version_in(&printed(&dir.join("postgres"))?)?.first().copied() } else { None }
    };
    if let Some(told) = &spec.postgres_bin {
        let major = version(told).with_context(|| {
            format!("{} does not hold all of {}", told.display(), POSTGRES_PROGRAMS.join(", "))
        })?;
        if major < POSTGRES_MAJOR_MIN {
            bail!("PostgreSQL {major} in {} is too old: {INSTALL_POSTGRES}", told.display());
        }
        return Ok(told.clone());
    }
    let on_path = std::env::split_paths(&spec.search_path);
    let mut too_old = None;
    for dir in on_path.chain(POSTGRES_PLACES.iter().flat_map(|place| places(place))) {
        // A link among others' programs leads to where Postgres has all of its own.
        let real = fs::canonicalize(dir.join("postgres")).ok();
        let real = real.as_deref().and_then(Path::parent).map(Path::to_owned);
        for dir in [Some(dir), real].into_iter().flatten() {
            match version(&dir) {
                Some(major) if major >= POSTGRES_MAJOR_MIN => return Ok(dir),
                Some(major) => too_old = Some((major, dir)),
                None => {}
            }
        }
    }
    match too_old {
        Some((major, dir)) => {
            bail!("PostgreSQL {major} in {} is too old: {INSTALL_POSTGRES}", dir.display())
        }
        None => bail!("no PostgreSQL server on this machine: {INSTALL_POSTGRES}"),
    }
}

fn redis(spec: &Spec) -> anyhow::Result<PathBuf> {
    let redis = Server {
        name: "Redis",
        program: "redis-server",
        places: REDIS_PLACES,
        min: REDIS_MIN,
        before: "v=",
        install: INSTALL_REDIS,
    };
    redis.find(spec.redis_server.as_deref(), spec)
}

/// For a rehearsal of DNS: nothing else needs it.
///
/// # Errors
/// When it is missing or too old: with what to do about it.
pub fn powerdns(spec: &Spec) -> anyhow::Result<PathBuf> {
    let powerdns = Server {
        name: "PowerDNS",
        program: "pdns_server",
        places: POWERDNS_PLACES,
        min: POWERDNS_MIN,
        // A date comes first.
        before: "Authoritative Server ",
        install: INSTALL_POWERDNS,
    };
    powerdns.find(spec.pdns_server.as_deref(), spec)
}

/// A server of one program.
struct Server {
    name: &'static str,
    program: &'static str,
    places: &'static [&'static str],
    min: (u32, u32),
    /// What its version follows.
    before: &'static str,
    install: &'static str,
}

impl Server {
    /// The one that was told, or the first on the path, or where packagers put it.
    fn find(&self, told: Option<&Path>, spec: &Spec) -> anyhow::Result<PathBuf> {
        let Self { name, install, .. } = self;
        let version = |program: &Path| {
            let told = if runs(program) { printed(program)? } else { return None };
            let found = version_in(told.split_once(self.before)?.1)?;
            Some((*found.first()?, *found.get(1)?))
        };
        let candidates: Vec<PathBuf> = match told {
            Some(told) => vec![told.to_owned()],
            None => std::env::split_paths(&spec.search_path)
                .chain(self.places.iter().map(PathBuf::from))
                .map(|dir| dir.join(self.program))
                .collect(),
        };
        let mut too_old = None;
        for program in candidates {
            match version(&program) {
                Some(version) if version >= self.min => return Ok(program),
                Some(version) => too_old = Some((version, program)),
                None => {}
            }
        }
        match too_old {
            Some(((major, minor), program)) => {
                bail!("{name} {major}.{minor} in {} is too old: {install}", program.display())
            }
            None => bail!("no {name} on this machine: {install}"),
        }
    }
}

fn runs(program: &Path) -> bool {
    fs::metadata(program)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// What `--version` prints: `postgres (PostgreSQL) 15.18 (..)`, `Redis server v=7.0.15 sha=..`, and as PowerDNS tells
/// everything, on standard error, `Nov 22 19:32:19 PowerDNS Authoritative Server 4.7.3 (C) ..`.
fn printed(program: &Path) -> Option<String> {
    let printed = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&[printed.stdout, printed.stderr].concat()).into_owned())
}

/// The numbers of the first version in a text.
fn version_in(text: &str) -> Option<Vec<u32>> {
    let digits = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let mut digits = digits.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let number = |part: &str| {
        // `18beta1` is 18.
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    digits.next()?.split('.').map(number).collect()
}

/// The directories that a place with one `*` stands for, the highest version first.
fn places(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(OsStr::new(after.trim_start_matches('/')))))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_versions_that_programs_print() {
        for (text, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", vec![15, 18]),
            ("postgres (PostgreSQL) 18beta1", vec![18]),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", vec![7, 0, 15]),
            ("4.7.3 (C) 2001-2022 PowerDNS.COM BV", vec![4, 7, 3]),
        ] {
            // `v=7.0.15` is one word to the eye and two to the parser.
            assert_eq!(version_in(text), Some(version), "{text}");
        }
        assert_eq!(version_in("no version"), None);
    }

    #[test]
    fn says_what_to_install_when_nothing_is_where_it_was_told_to_look() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::new("lab".into(), "godwit".into(), std::ffi::OsString::new());
        spec.postgres_bin = Some(dir.path().to_owned());
        spec.redis_server = Some(dir.path().join("redis-server"));
        spec.pdns_server = Some(dir.path().join("pdns_server"));
        assert!(postgres(&spec).unwrap_err().to_string().contains("initdb"));
        assert!(redis(&spec).unwrap_err().to_string().contains("apt-get install"));
        assert!(powerdns(&spec).unwrap_err().to_string().contains("pdns-backend-geoip"));
    }

    #[test]
    fn the_highest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["9", "15", "16", "old"] {
            fs::create_dir(dir.path().join(version)).unwrap();
        }
        let root = dir.path().to_str().unwrap();
        let found = places(&format!("{root}/*/bin"));
        let expected = ["16", "15", "9"].map(|version| dir.path().join(version).join("bin"));
        assert_eq!(found, expected);
    }
}
