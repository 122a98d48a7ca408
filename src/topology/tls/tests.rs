use super::*;
use crate::config::RoutingConfig;

/// Makes a connection as far as TLS goes with a server that shows what nobody signed.
fn refusal(config: ClientConfig) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    wire.clear();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    let mut wire = wire.as_slice();
    while !wire.is_empty() {
        client.read_tls(&mut wire).unwrap();
        if let Err(error) = client.process_new_packets() {
            return error.to_string();
        }
    }
    panic!("it was believed");
}

#[test]
fn without_a_single_authority_plain_connections_are_made_and_tls_says_what_is_missing() {
    let nobody = Arc::new(RootCertStore::empty());
    let told = refusal(trusting(&nobody));
    assert!(told.contains("this machine has no CA certificates"), "{told}");
    assert!(super::super::probe::peer_client(&RoutingConfig::default(), None).is_ok());
}

#[test]
fn where_there_are_authorities_one_must_have_signed_it() {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
    let told = refusal(trusting(&Arc::new(roots)));
    assert!(told.contains("invalid peer certificate"), "{told}");
}
