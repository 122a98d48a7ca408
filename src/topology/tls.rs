//! TLS between regions: what a process shows, and whom it believes. Both can change while it runs.
//!
//! Certificates are renewed by replacing their files, long before they end. A loop looks at them, and from then on
//! new connections are made with what they hold; those that are there go on. Files that cannot be used change
//! nothing: what was held is kept, and the log tells why, once.

use crate::{
    config::{Config, InternalTls, PeerTls},
    loops::{Loop, Schedule, Tick},
    telemetry::metrics::Certificate,
    vocab::{Op, causes},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};
use x509_cert::{der::Decode as _, time::Validity};

/// How connections to peers say that they speak HTTP/2 (RFC 9113, section 3.2).
const HTTP_2: &[u8] = b"h2";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read", file.display())]
    Unread { file: PathBuf, source: io::Error },
    #[error("{} holds no PEM of the kind that is wanted", file.display())]
    NoPem { file: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{} holds no certificate", file.display())]
    Empty { file: PathBuf },
    #[error("the certificate and its key cannot be used")]
    Unusable(#[source] Error),
    #[error("the authority cannot be used")]
    Authority(#[source] rustls::server::VerifierBuilderError),
    #[error("the certificate does not tell when it ends")]
    NoEnd(#[source] x509_cert::der::Error),
    #[error("the certificate is valid from {from} to {to}, in seconds since 1970: not now")]
    NotNow { from: u64, to: u64 },
}

/// What a process has for itself; nothing where all is plain HTTP.
#[derive(Debug, Clone, Default)]
pub struct Certificates {
    pub internal: Option<Arc<Tls>>,
    pub peer: Option<Arc<Tls>>,
}

impl Certificates {
    /// # Errors
    /// When the files that the settings name cannot be used.
    pub fn load(config: &Config) -> Result<Self, TlsError> {
        Ok(Self {
            internal: config.server.internal_tls.as_ref().map(Tls::internal).transpose()?,
            peer: config.cluster.peer_tls.as_ref().map(Tls::peer).transpose()?,
        })
    }

    pub fn each(&self) -> impl Iterator<Item = &Arc<Tls>> {
        self.internal.iter().chain(&self.peer)
    }
}

/// What files hold, and a name for it.
#[derive(Debug)]
pub struct Tls {
    pub certificate: Certificate,
    chain: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    held: RwLock<Arc<Held>>,
}

/// As read at one time.
#[derive(Debug)]
struct Held {
    files: Digest,
    shown: Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<dyn ServerCertVerifier>,
    /// When all of its chain is valid, in seconds since 1970.
    valid: RangeInclusive<u64>,
}

/// SHA-256 of the three files: by their times alone a renewal within one tick of the file system's clock, or a
/// link that was turned to older files, would be missed.
type Digest = [u8; 32];

/// The three files' bytes. One of them is a secret.
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

impl Tls {
    /// Of the internal listener.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn internal(files: &InternalTls) -> Result<Arc<Self>, TlsError> {
        Self::open(Certificate::Internal, &files.certificate, &files.key, &files.authority)
    }

    /// Of connections to peers.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn peer(files: &PeerTls) -> Result<Arc<Self>, TlsError> {
        Self::open(Certificate::Peer, &files.identity, &files.identity, &files.authority)
    }

    fn open(
        certificate: Certificate,
        chain: &Path,
        key: &Path,
        authority: &Path,
    ) -> Result<Arc<Self>, TlsError> {
        let (chain, key, authority) = (chain.to_owned(), key.to_owned(), authority.to_owned());
        let files = Files::read(&chain, &key, &authority)?;
        let held = RwLock::new(Arc::new(Held::of(&files, [&chain, &key, &authority])?));
        Ok(Arc::new(Self { certificate, chain, key, authority, held }))
    }

    /// Reads the files anew. Tells whether there was something new to be held.
    ///
    /// # Errors
    /// When they cannot be used: what is held stays.
    fn reload(&self, now: u64) -> Result<bool, TlsError> {
        let files = Files::read(&self.chain, &self.key, &self.authority)?;
        let before = self.held();
        if files.digest() == before.files {
            return Ok(false);
        }
        let held = Held::of(&files, [&self.chain, &self.key, &self.authority])?;
        if before.valid.contains(&now) && !held.valid.contains(&now) {
            let (from, to) = held.valid.into_inner();
            return Err(TlsError::NotNow { from, to });
        }
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
        Ok(true)
    }

    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the first of the certificates that are shown ends, in seconds since 1970.
    #[must_use]
    pub fn ends_at(&self) -> u64 {
        *self.held().valid.end()
    }

    /// Lets in only whom the authority signed.
    #[must_use]
    pub fn server(self: &Arc<Self>) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocols")
            .with_client_cert_verifier(Arc::new(Clients(Arc::clone(self))))
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        // A session that is resumed is not verified again: it would outlive the authority that let it in.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config
    }

    /// Speaks only to whom the authority signed.
    #[must_use]
    pub fn client(self: &Arc<Self>) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocols")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_client_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesClientCert>);
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        config
    }
}

/// Speaks to whom an authority of this machine signed. A machine may have none, which matters to nobody who
/// speaks plain HTTP.
pub fn of_this_machine() -> ClientConfig {
    // Some hundred certificates, which change with the machine's image.
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return trusting(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(error = %causes(error), "CA certificates of this machine that cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // They may come.
        return trusting(&Arc::new(roots));
    }
    trusting(ROOTS.get_or_init(|| Arc::new(roots)))
}

fn trusting(roots: &Arc<RootCertStore>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the protocols");
    let mut config = if roots.is_empty() {
        let verifier = Arc::new(NoAuthorities(provider()));
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth()
    };
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

impl Files {
    fn read(chain: &Path, key: &Path, authority: &Path) -> Result<Self, TlsError> {
        let read = |file: &Path| {
            fs::read(file).map_err(|source| TlsError::Unread { file: file.to_owned(), source })
        };
        Ok(Self { chain: read(chain)?, key: read(key)?, authority: read(authority)? })
    }

    fn digest(&self) -> Digest {
        let parts = [&self.chain, &self.key, &self.authority].map(Sha256::digest);
        Sha256::digest(parts.concat()).into()
    }
}

impl Held {
    fn of(files: &Files, [chain, key, authority]: [&PathBuf; 3]) -> Result<Self, TlsError> {
        let shown = certificates(&files.chain, chain)?;
        if shown.is_empty() {
            return Err(TlsError::Empty { file: chain.clone() });
        }
        let mut valid = 0..=u64::MAX;
        for certificate in &shown {
            let told = x509_cert::Certificate::from_der(certificate).map_err(TlsError::NoEnd)?;
            let Validity { not_before, not_after } = told.tbs_certificate.validity;
            let [from, to] = [not_before, not_after].map(|at| at.to_unix_duration().as_secs());
            valid = *valid.start().max(&from)..=*valid.end().min(&to);
        }
        let secret = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|source| TlsError::NoPem { file: key.clone(), source })?;
        let provider = provider();
        let shown = CertifiedKey::from_der(shown, secret, &provider).map_err(TlsError::Unusable)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.authority, authority)? {
            roots.add(root).map_err(TlsError::Unusable)?;
        }
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider);
        Ok(Self {
            files: files.digest(),
            shown: Arc::new(shown),
            clients: clients.build().map_err(TlsError::Authority)?,
            servers: servers.build().map_err(TlsError::Authority)?,
            valid,
        })
    }
}

fn certificates(pem: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::NoPem { file: file.to_owned(), source })
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.held().shown))
    }
}

impl ResolvesClientCert for Tls {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.held().shown))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Tls {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let servers = Arc::clone(&self.held().servers);
        servers.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.held().servers.verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.held().servers.verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.held().servers.supported_verify_schemes()
    }
}

/// Whom the listener lets in: a type of its own, as both verifiers name their methods alike.
#[derive(Debug)]
struct Clients(Arc<Tls>);

impl ClientCertVerifier for Clients {
    /// None: they are lent for as long as this lives, and can change. A peer has one certificate to show.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.held().clients.verify_client_cert(end_entity, intermediates, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.held().clients.verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.held().clients.verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.held().clients.supported_verify_schemes()
    }
}

/// Believes nobody, and says why.
#[derive(Debug)]
struct NoAuthorities(Arc<CryptoProvider>);

impl ServerCertVerifier for NoAuthorities {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(Error::General(
            "this machine has no CA certificates: install them, or name the authority in \
             cluster.peer_tls"
                .to_owned(),
        ))
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Looks whether the files hold something new.
pub struct CertificateLoop {
    tls: Arc<Tls>,
    /// What is wrong, as the log was told.
    told: Option<String>,
}

impl CertificateLoop {
    #[must_use]
    pub const fn new(tls: Arc<Tls>) -> Self {
        Self { tls, told: None }
    }

    /// A kubelet needs about a minute to bring a renewed Secret to its files; this adds little.
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(10), pass_max: Duration::from_secs(10) }
    }
}

impl Loop for CertificateLoop {
    const NAME: &'static str = "topology.certificate";

    async fn tick(&mut self, op: &Op) -> Tick {
        let name = self.tls.certificate.as_str();
        // Some kilobytes of a mounted Secret, which is memory.
        let now = u64::try_from(op.now().timestamp()).unwrap_or(0);
        let loaded = self.tls.reload(now);
        let wrong = loaded.as_ref().err().map(|error| causes(error));
        let news = wrong != self.told;
        self.told.clone_from(&wrong);
        if let Some(wrong) = wrong {
            if news {
                tracing::error!(
                    certificate = name,
                    error = %wrong,
                    "the files of a certificate cannot be used: the one before is kept, until it ends"
                );
            }
            return Tick::Waiting(format!("{name}: {wrong}").into());
        }
        if !loaded.is_ok_and(|changed| changed) {
            return Tick::Idle;
        }
        let ends_at = self.tls.ends_at();
        tracing::info!(certificate = name, ends_at, "a renewed certificate is shown from now on");
        Tick::Worked(1)
    }
}

#[cfg(test)]
mod tests;
