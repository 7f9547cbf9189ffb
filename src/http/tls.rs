//! TLS for HTTPS: 1.3, at least 1.2.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate and key cannot be served with. The texts hold no key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file is not PEM or has no certificate.
    #[error("no certificate could be read: {0}")]
    Certificate(#[source] rustls_pki_types::pem::Error),
    /// The key file is not PEM or has no private key.
    #[error("no private key could be read: {0}")]
    Key(#[source] rustls_pki_types::pem::Error),
    /// The two do not belong together, or are of a kind we cannot use.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(#[source] rustls::Error),
}

/// A server's configuration from a PEM chain (own certificate first) and a PEM private key.
/// ALPN: `h2`, `http/1.1`, and `stun.turn` (RFC 7443) for TURN clients that offer it. No early data: offers are not for replaying.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(cert_pem: &[u8], key_pem: &[u8]) -> Result<ServerConfig, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<_, _>>()
        .map_err(TlsError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsError::Certificate(rustls_pki_types::pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(TlsError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"stun.turn".to_vec()];
    Ok(config)
}
