//! TLS to Postgres for the pipelined connection, by the same words in the URL as sqlx reads:
//! `sslmode` (`disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`; `prefer` when
//! absent), `sslrootcert`, `sslcert` and `sslkey` (PEM files). As in libpq, only `verify-ca` and
//! `verify-full` look at the server's certificate.

use super::StorageError;
use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use std::sync::Arc;
use tokio_postgres::config::SslMode;

pub(super) type Connector = tokio_postgres_rustls::MakeRustlsConnect;

/// How much of the server's certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Nothing,
    /// Who signed it,
    Authority,
    /// and for which host.
    Host,
}

/// The words about TLS, taken out of a URL: tokio-postgres refuses those it does not know.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// A Postgres URL as tokio-postgres wants it, and the TLS it asks for.
pub(super) fn parse(url: &str) -> Result<(tokio_postgres::Config, Connector), StorageError> {
    let (plain, words) = split(url);
    let mut config: tokio_postgres::Config =
        plain.parse().map_err(|error: tokio_postgres::Error| StorageError::Other(error.into()))?;
    let (mode, trust) = match words.mode.as_deref().unwrap_or("prefer") {
        "disable" => (SslMode::Disable, Trust::Nothing),
        "allow" | "prefer" => (SslMode::Prefer, Trust::Nothing),
        "require" => (SslMode::Require, Trust::Nothing),
        "verify-ca" => (SslMode::Require, Trust::Authority),
        "verify-full" => (SslMode::Require, Trust::Host),
        _ => return Err(StorageError::Other("unknown sslmode in a database URL".into())),
    };
    config.ssl_mode(mode);
    Ok((config, Connector::new(client_config(&words, trust)?)))
}

fn split(url: &str) -> (String, Words) {
    let mut words = Words::default();
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), words);
    };
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match name {
            "sslmode" | "ssl-mode" => &mut words.mode,
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => &mut words.root,
            "sslcert" | "ssl-cert" => &mut words.certificate,
            "sslkey" | "ssl-key" => &mut words.key,
            // Of sqlx alone.
            "statement-cache-capacity" => continue,
            _ => {
                rest.push(pair);
                continue;
            }
        };
        *slot = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
    }
    let mark = if rest.is_empty() { "" } else { "?" };
    (format!("{base}{mark}{}", rest.join("&")), words)
}

fn client_config(words: &Words, trust: Trust) -> Result<ClientConfig, StorageError> {
    let other = |error: Box<dyn std::error::Error + Send + Sync>| StorageError::Other(error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if trust == Trust::Nothing {
        Arc::new(Lenient { provider: Arc::clone(&provider), inner: None })
    } else {
        let roots = Arc::new(roots(words.root.as_deref())?);
        let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let inner = builder.build().map_err(|error| other(error.into()))?;
        if trust == Trust::Host {
            inner
        } else {
            Arc::new(Lenient { provider: Arc::clone(&provider), inner: Some(inner) })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(error.into()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    Ok(match (&words.certificate, &words.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| other(error.to_string().into()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| other(error.into()))?
        }
        _ => builder.with_no_client_auth(),
    })
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, StorageError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| StorageError::Other(error.to_string().into()))
}

/// The authorities of `sslrootcert`, or the machine's.
fn roots(path: Option<&str>) -> Result<RootCertStore, StorageError> {
    let mut roots = RootCertStore::empty();
    let found = match path {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    Ok(roots)
}

/// Looks at less of a certificate than the web does: not at the host it names, or at nothing.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    inner: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        let seen =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match seen {
            Err(Error::InvalidCertificate(
                rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            seen => seen,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_words_about_tls_out_of_a_url() {
        let url =
            "postgres://u:p@h/d?sslmode=verify-full&application_name=x&sslrootcert=%2Fa%20b.pem";
        let (plain, words) = split(url);
        assert_eq!(plain, "postgres://u:p@h/d?application_name=x");
        assert_eq!(words.mode.as_deref(), Some("verify-full"));
        assert_eq!(words.root.as_deref(), Some("/a b.pem"));
        assert_eq!(split("postgres://h/d"), ("postgres://h/d".to_owned(), Words::default()));
    }

    #[test]
    fn refuses_a_mode_it_does_not_know_and_a_certificate_it_cannot_read() {
        assert!(parse("postgres://h/d?sslmode=disable").is_ok());
        assert!(parse("postgres://h/d?sslmode=perhaps").is_err());
        assert!(parse("postgres://h/d?sslmode=verify-ca&sslrootcert=/nonexistent.pem").is_err());
        assert!(parse("mysql://h/d").is_err());
    }
}
