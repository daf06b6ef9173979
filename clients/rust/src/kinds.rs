//! The kinds of errors, named as in mlx_grpc's own tree.

use tonic::Code;

/// What went wrong; [`MlxGrpcError::is`](crate::MlxGrpcError::is) knows which kinds are kinds of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A field holds what no request may hold.
    InvalidField,
    /// The prompt leaves no room in the model's context: an `InvalidField`.
    PromptTooLong,
    /// The request needs more KV cache than the whole memory budget: an `InvalidField`.
    NeverFits,
    /// A good field that this model or build cannot honour.
    UnsupportedField,
    /// No such model here.
    ModelNotFound,
    /// The model could not be loaded, or its engine died too often.
    ModelFailed,
    /// Nobody can serve this now; trying again later, or elsewhere, may help.
    Unavailable,
    /// The model is loading, or its engine restarting: an `Unavailable`.
    ModelLoading,
    /// The server is going down: an `Unavailable`.
    Draining,
    /// A limit of gRPC's own or of a proxy, such as a message that is too large.
    ResourceExhausted,
    /// The bounded queue has no place.
    QueueFull,
    /// Too many bytes were taken in and not yet answered, of all clients or of this connection.
    IntakeFull,
    /// This client has had its share of requests, tokens or places for now.
    RateLimited,
    /// The client did not read its stream for too long.
    SlowReader,
    /// The call's deadline ran out.
    DeadlineExceeded,
    /// By measured rates the first token cannot come before the deadline: a `DeadlineExceeded`.
    DeadlineUnreachable,
    /// The deadline ran out in the queue, in prefill or in decode: a `DeadlineExceeded`.
    DeadlinePassed,
    /// An operator ended the request.
    CancelledByAdmin,
    /// No bearer token, or one that is not known.
    NoToken,
    /// The caller may not do this.
    WrongScope,
    /// The request crashed the engine alone, twice.
    PoisonRequest,
    /// The model's logits for this request are not finite: it cannot go on. Other requests were not touched.
    NonfiniteLogits,
    /// A bug of the server's; metadata `error_id` is in its log.
    InternalError,
    /// The call was cancelled by something on the way.
    Cancelled,
    /// A status that has no kind of its own.
    MlxGrpcError,
}

impl Kind {
    /// The kind that this one is a kind of.
    pub(crate) fn parent(self) -> Option<Self> {
        match self {
            Self::PromptTooLong | Self::NeverFits => Some(Self::InvalidField),
            Self::ModelLoading | Self::Draining => Some(Self::Unavailable),
            Self::DeadlineUnreachable | Self::DeadlinePassed => Some(Self::DeadlineExceeded),
            _ => None,
        }
    }

    pub(crate) fn by_reason(reason: &str) -> Option<Self> {
        Some(match reason {
            "INVALID_FIELD" => Self::InvalidField,
            "PROMPT_TOO_LONG" => Self::PromptTooLong,
            "NEVER_FITS" => Self::NeverFits,
            "UNSUPPORTED_FIELD" => Self::UnsupportedField,
            "MODEL_NOT_FOUND" => Self::ModelNotFound,
            "MODEL_FAILED" => Self::ModelFailed,
            "MODEL_LOADING" => Self::ModelLoading,
            "DRAINING" => Self::Draining,
            "QUEUE_FULL" => Self::QueueFull,
            "INTAKE_FULL" => Self::IntakeFull,
            "RATE_LIMITED" => Self::RateLimited,
            "SLOW_READER" => Self::SlowReader,
            "DEADLINE_UNREACHABLE" => Self::DeadlineUnreachable,
            "DEADLINE_PASSED" => Self::DeadlinePassed,
            "CANCELLED_BY_ADMIN" => Self::CancelledByAdmin,
            "NO_TOKEN" => Self::NoToken,
            "WRONG_SCOPE" => Self::WrongScope,
            "POISON_REQUEST" => Self::PoisonRequest,
            "NONFINITE_LOGITS" => Self::NonfiniteLogits,
            "INTERNAL" => Self::InternalError,
            _ => return None,
        })
    }

    pub(crate) fn by_code(code: Code) -> Self {
        match code {
            Code::Cancelled => Self::Cancelled,
            Code::InvalidArgument => Self::InvalidField,
            Code::NotFound => Self::ModelNotFound,
            Code::FailedPrecondition => Self::ModelFailed,
            Code::Unimplemented => Self::UnsupportedField,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Aborted => Self::CancelledByAdmin,
            Code::Unauthenticated => Self::NoToken,
            Code::PermissionDenied => Self::WrongScope,
            Code::Internal => Self::InternalError,
            _ => Self::MlxGrpcError,
        }
    }
}
