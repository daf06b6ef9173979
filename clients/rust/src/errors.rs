//! gRPC statuses as one error type.
//!
//! A status of the server carries google.rpc.Status details: its ErrorInfo's reason picks the kind. One that gRPC made
//! itself (nobody there, a deadline seen on this side, a message too large) has none: its code picks the nearest kind.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::kinds::Kind;

const DOMAIN: &str = "mlx_grpc";
/// Trailing metadata that goes into the error's, under a plain name.
const TRAILING: [(&str, &str); 2] = [("x-request-id", "request_id"), ("x-generation-id", "generation_id")];

/// A call that failed, as the server says it.
#[derive(Clone, Debug)]
pub struct MlxGrpcError(Box<Facts>);

#[derive(Clone, Debug)]
struct Facts {
    kind: Kind,
    code: Code,
    reason: String,
    message: String,
    field: String,
    retry_after: Option<Duration>,
    resource: String,
    metadata: HashMap<String, String>,
}

impl MlxGrpcError {
    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether this is of that kind, or of a kind of it: a `DeadlinePassed` is a `DeadlineExceeded`.
    pub fn is(&self, kind: Kind) -> bool {
        std::iter::successors(Some(self.0.kind), |kind| kind.parent()).any(|mine| mine == kind)
    }

    /// The gRPC status.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The stable word that programs may compare; empty where gRPC itself made the status.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// One line for a person.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The path of the field at fault (`sampling.top_k`); empty where none is.
    pub fn field(&self) -> &str {
        &self.0.field
    }

    /// How long to wait before trying again; None where the server named nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The name of what was not found; empty where nothing was looked for.
    pub fn resource(&self) -> &str {
        &self.0.resource
    }

    /// Further facts as text, among them `request_id` and `generation_id` once the server gave them.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.0.metadata
    }

    /// An error that no server made.
    pub(crate) fn local(kind: Kind, code: Code, message: String, field: &str) -> Self {
        Self(Box::new(Facts {
            kind,
            code,
            reason: String::new(),
            message,
            field: field.to_owned(),
            retry_after: None,
            resource: String::new(),
            metadata: HashMap::new(),
        }))
    }

    /// The deadline, seen on this side.
    pub(crate) fn deadline() -> Self {
        let message = "the deadline ran out".to_owned();
        Self::local(Kind::DeadlineExceeded, Code::DeadlineExceeded, message, "")
    }
}

impl From<Status> for MlxGrpcError {
    fn from(status: Status) -> Self {
        let mut error = Self::local(Kind::by_code(status.code()), status.code(), message(&status), "");
        let facts = &mut *error.0;
        for (key, name) in TRAILING {
            if let Some(value) = status.metadata().get(key).and_then(|value| value.to_str().ok()) {
                facts.metadata.insert(name.to_owned(), value.to_owned());
            }
        }
        let details = status.get_error_details();
        if let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) {
            facts.kind = Kind::by_reason(&info.reason).unwrap_or(facts.kind);
            facts.reason.clone_from(&info.reason);
            facts.metadata.extend(info.metadata.clone());
        }
        facts.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        if let Some(violation) = details.bad_request().and_then(|request| request.field_violations.first()) {
            facts.field.clone_from(&violation.field);
        }
        if let Some(info) = details.resource_info() {
            facts.resource.clone_from(&info.resource_name);
        }
        error
    }
}

/// The status's own words; where a failure below made it, that one's, too ("Connection refused").
fn message(status: &Status) -> String {
    let below = std::iter::successors(status.source(), |&error| error.source()).last();
    below.map_or_else(|| status.message().to_owned(), |error| format!("{}: {error}", status.message()))
}

impl fmt::Display for MlxGrpcError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl Error for MlxGrpcError {}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(reason: &str, domain: &str) -> Status {
        let mut details = ErrorDetails::with_error_info(reason, domain, [("limit".to_owned(), "32".to_owned())]);
        details.set_retry_info(Some(Duration::from_millis(1500)));
        details.add_bad_request_violation("sampling.top_k", "too large");
        details.set_resource_info("model", "none", "", "");
        Status::with_error_details(Code::InvalidArgument, "no", details)
    }

    /// The reason picks the kind, which is a kind of its parent.
    #[test]
    fn details_are_decoded() {
        let mut status = refused("PROMPT_TOO_LONG", "mlx_grpc");
        status.metadata_mut().insert("x-request-id", "mine".parse().unwrap());
        let error = MlxGrpcError::from(status);
        assert_eq!(error.kind(), Kind::PromptTooLong);
        assert!(error.is(Kind::InvalidField) && !error.is(Kind::NeverFits));
        assert_eq!((error.field(), error.resource()), ("sampling.top_k", "none"));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        assert_eq!((&*error.metadata()["limit"], &*error.metadata()["request_id"]), ("32", "mine"));
    }

    /// Logits that are not finite have a kind of their own beside `InternalError`, which has the same code.
    #[test]
    fn reasons_of_one_code_are_told_apart() {
        let details = ErrorDetails::with_error_info("NONFINITE_LOGITS", DOMAIN, []);
        let error = MlxGrpcError::from(Status::with_error_details(Code::Internal, "no", details));
        assert_eq!((error.kind(), error.code()), (Kind::NonfiniteLogits, Code::Internal));
        assert!(!error.is(Kind::InternalError));
    }

    /// Another service's reasons are not ours.
    #[test]
    fn another_domain_is_passed_over() {
        let error = MlxGrpcError::from(refused("PROMPT_TOO_LONG", "example.com"));
        assert_eq!((error.kind(), error.reason()), (Kind::InvalidField, ""));
    }

    /// A reason of a newer server is kept; the code picks the kind.
    #[test]
    fn an_unknown_reason_is_kept() {
        let error = MlxGrpcError::from(refused("NEW_REASON", "mlx_grpc"));
        assert_eq!((error.kind(), error.reason()), (Kind::InvalidField, "NEW_REASON"));
    }

    /// Details that do not parse leave the status.
    #[test]
    fn bad_details_leave_the_status() {
        let status = Status::with_details(Code::Unavailable, "gone", vec![0xff, 0xff].into());
        assert_eq!(MlxGrpcError::from(status).kind(), Kind::Unavailable);
    }
}
