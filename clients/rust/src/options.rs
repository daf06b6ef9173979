//! How a client reaches its server.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::errors::MlxGrpcError;
use crate::kinds::Kind;

const USER_AGENT: &str = concat!("mlx-grpc-rust/", env!("CARGO_PKG_VERSION"));

/// How a [`Client`](crate::Client) reaches its server:
/// `ClientOptions { token: Some(token), ..Default::default() }`.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Whether the connection is encrypted; implied by any certificate. Default: no.
    pub tls: bool,
    /// PEM of whom to trust. Default: whom this machine trusts.
    pub root_certificates: Option<String>,
    /// PEM for mutual TLS; goes with `certificate_chain`.
    pub private_key: Option<String>,
    /// PEM for mutual TLS; goes with `private_key`.
    pub certificate_chain: Option<String>,
    /// Sent with every call as `authorization: Bearer …`. Without TLS it is readable on the way.
    pub token: Option<String>,
    /// The deadline of every call, counted from its start. Default: none.
    pub timeout: Option<Duration>,
    /// Whether calls are tried again as [`Client`](crate::Client) says. Default: yes.
    pub retry: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            tls: false,
            root_certificates: None,
            private_key: None,
            certificate_chain: None,
            token: None,
            timeout: None,
            retry: true,
        }
    }
}

impl ClientOptions {
    /// A channel that connects at its first call.
    pub(crate) fn channel(&self, target: &str) -> Result<Channel, MlxGrpcError> {
        let scheme = if self.encrypted() { "https" } else { "http" };
        let uri = if target.contains("://") { target.to_owned() } else { format!("{scheme}://{target}") };
        let mut endpoint = Endpoint::from_shared(uri)
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(|error| invalid("target", &error))?
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if self.encrypted() {
            endpoint = endpoint.tls_config(self.tls_config()?).map_err(|error| invalid("tls", &error))?;
        }
        Ok(endpoint.connect_lazy())
    }

    /// What goes with each call.
    pub(crate) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, MlxGrpcError> {
        let Some(token) = &self.token else { return Ok(None) };
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|error| invalid("token", &error))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn encrypted(&self) -> bool {
        self.tls || self.root_certificates.is_some() || self.private_key.is_some()
    }

    fn tls_config(&self) -> Result<ClientTlsConfig, MlxGrpcError> {
        let config = match &self.root_certificates {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match (&self.private_key, &self.certificate_chain) {
            (Some(key), Some(chain)) => Ok(config.identity(Identity::from_pem(chain, key))),
            (None, None) => Ok(config),
            _ => Err(invalid("private_key", &"goes together with certificate_chain: give both or neither")),
        }
    }
}

fn invalid(option: &str, why: &dyn std::fmt::Display) -> MlxGrpcError {
    MlxGrpcError::local(Kind::InvalidField, tonic::Code::InvalidArgument, format!("{option}: {why}"), option)
}
