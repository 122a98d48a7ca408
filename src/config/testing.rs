//! Settings for tests, and certificates in the files that they name.

use super::{Config, ConfigError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};

pub const MINIMAL: &str = r#"
    region = "us-east-1"
    [regions.us-east-1]
    internal_url = "http://127.0.0.1:9081"
    [database]
    url = "postgres://writer:w@127.0.0.1/godwit"
    read_url = "postgres://reader:r@127.0.0.1/godwit"
    [redis]
    url = "redis://127.0.0.1:6381"
    [cluster]
    envelope_key_current = "k1"
    [cluster.envelope_keys.k1]
    secret = "0123456789abcdef0123456789abcdef"
"#;

/// Of `MINIMAL` and what a test adds.
#[must_use]
pub fn config(text: &str) -> Config {
    load(text, &[]).unwrap()
}

pub(super) fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, toml.as_bytes()).unwrap();
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load_from(Some(file.path()), environment)
}

/// An authority, and what it signed for `localhost`.
pub struct Signed {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Signed {
    /// Made anew, as PEM files in `dir` whose names begin with `name`.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self::until(dir, name, 4096)
    }

    /// The same, valid until that year begins.
    #[must_use]
    pub fn until(dir: &Path, name: &str, year: i32) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let file = |part: &str, text: String| {
            let path = dir.join(format!("{name}-{part}.pem"));
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            authority: file("authority", issuer.pem()),
            certificate: file("certificate", certificate.pem()),
            key: file("key", key.serialize_pem()),
        }
    }
}
