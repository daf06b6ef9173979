//! A connection and its methods.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::errors::MlxGrpcError;
use crate::kinds::Kind;
use crate::options::ClientOptions;
use crate::retry::{self, Throttle};
use crate::stream::Stream;
use crate::v1::generate_request::Input;
use crate::v1::inference_service_client::InferenceServiceClient;
use crate::v1::model_service_client::ModelServiceClient;
use crate::v1::server_service_client::ServerServiceClient;
use crate::v1::tokenizer_service_client::TokenizerServiceClient;
use crate::v1::{
    Chat, CountTokensRequest, CountTokensResponse, DetokenizeRequest, DetokenizeResponse, GenerateRequest,
    GenerateResponse, GetModelRequest, GetServerInfoRequest, GetServerInfoResponse, ListModelsRequest,
    LoadModelRequest, Message, Model, RenderChatRequest, RenderChatResponse, TokenizeRequest, TokenizeResponse,
    UnloadModelRequest,
};

/// Where a server listens unless told otherwise.
pub const DEFAULT_TARGET: &str = "localhost:50051";

const MAX_RESPONSE_BYTES: usize = 64 << 20;

type Answer<T> = Result<T, MlxGrpcError>;

/// A connection to an mlx_grpc server. Cheap to clone; it connects at its first call, and closes with its last clone.
///
/// Calls that fail with UNAVAILABLE or RESOURCE_EXHAUSTED before their first message are tried again: four attempts in all,
/// 0.2 s, 0.4 s and 0.8 s apart, or as long as the server says; never past the deadline. Dropping a call's future cancels it;
/// the server then takes it out of the batch.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    timeout: Option<Duration>,
    throttle: Option<Arc<Throttle>>,
}

impl Client {
    /// A client of the server at HOST:PORT. To be called inside a tokio runtime.
    pub fn open(target: &str, options: ClientOptions) -> Answer<Self> {
        Ok(Self {
            channel: options.channel(target)?,
            authorization: options.authorization()?,
            timeout: options.timeout,
            throttle: options.retry.then(Arc::default),
        })
    }

    /// This client with another deadline for each call: `client.with_timeout(limit).generate(request)`.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// Generates and returns when all is done.
    pub async fn generate(&self, request: GenerateRequest) -> Answer<GenerateResponse> {
        self.call(request, |channel, request| async { inference(channel).generate(request).await }).await
    }

    /// Generates and gives the events as they come.
    pub async fn stream(&self, request: GenerateRequest) -> Answer<Stream> {
        let deadline = self.deadline();
        let open = |channel, request| async { inference(channel).stream_generate(request).await };
        Ok(Stream::new(self.call_until(deadline, request, open).await?, deadline))
    }

    /// As [`Client::stream`], for these turns of a conversation and all else as in `request`.
    pub async fn chat(&self, messages: impl Into<Vec<Message>>, request: GenerateRequest) -> Answer<Stream> {
        let chat = match request.input {
            Some(Input::Chat(chat)) => chat,
            _ => Chat::default(),
        };
        let chat = Chat { messages: messages.into(), ..chat };
        self.stream(GenerateRequest { input: Some(Input::Chat(chat)), ..request }).await
    }

    /// Turns text or a conversation into token ids.
    pub async fn tokenize(&self, request: TokenizeRequest) -> Answer<TokenizeResponse> {
        self.call(request, |channel, request| async { tokenizer(channel).tokenize(request).await }).await
    }

    /// Turns token ids into text.
    pub async fn detokenize(&self, request: DetokenizeRequest) -> Answer<DetokenizeResponse> {
        self.call(request, |channel, request| async { tokenizer(channel).detokenize(request).await }).await
    }

    /// Counts the tokens of a text or a conversation, as generation would.
    pub async fn count_tokens(&self, request: CountTokensRequest) -> Answer<CountTokensResponse> {
        self.call(request, |channel, request| async { tokenizer(channel).count_tokens(request).await }).await
    }

    /// Renders a conversation with the model's chat template.
    pub async fn render_chat(&self, request: RenderChatRequest) -> Answer<RenderChatResponse> {
        self.call(request, |channel, request| async { tokenizer(channel).render_chat(request).await }).await
    }

    /// All models that the server knows, page after page.
    pub async fn list_models(&self) -> Answer<Vec<Model>> {
        let mut models = Vec::new();
        let mut request = ListModelsRequest::default();
        loop {
            let page = self
                .call(request.clone(), |channel, request| async { self::models(channel).list_models(request).await })
                .await?;
            models.extend(page.models);
            if page.next_page_token.is_empty() {
                return Ok(models);
            }
            request.page_token = Some(page.next_page_token);
        }
    }

    /// What the server knows of a model; of its default one for "".
    pub async fn get_model(&self, id: &str) -> Answer<Model> {
        let request = GetModelRequest { model: (!id.is_empty()).then(|| id.to_owned()) };
        let call = |channel, request| async { models(channel).get_model(request).await };
        Ok(self.call(request, call).await?.model.unwrap_or_default())
    }

    /// Starts to load a model and returns at once: poll [`Client::get_model`].
    pub async fn load_model(&self, id: &str) -> Answer<Model> {
        let request = LoadModelRequest { model: id.to_owned() };
        let call = |channel, request| async { models(channel).load_model(request).await };
        Ok(self.call(request, call).await?.model.unwrap_or_default())
    }

    /// Lets a model finish its requests, or ends them when `force`; then frees its memory. Returns at once.
    pub async fn unload_model(&self, id: &str, force: bool) -> Answer<Model> {
        let request = UnloadModelRequest { model: id.to_owned(), force: Some(force) };
        let call = |channel, request| async { models(channel).unload_model(request).await };
        Ok(self.call(request, call).await?.model.unwrap_or_default())
    }

    /// Versions, device, limits and features.
    pub async fn server_info(&self) -> Answer<GetServerInfoResponse> {
        let call = |channel, request| async { ServerServiceClient::new(channel).get_server_info(request).await };
        self.call(GetServerInfoRequest {}, call).await
    }

    /// The health of the process (""), of a gRPC service or of `models/<id>`; `ServiceUnknown` for any other.
    pub async fn health(&self, service: &str) -> Answer<ServingStatus> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let call = |channel, request| async { HealthClient::new(channel).check(request).await };
        match self.call(request, call).await {
            Ok(answer) => Ok(answer.status()),
            Err(error) if error.is(Kind::ModelNotFound) => Ok(ServingStatus::ServiceUnknown),
            Err(error) => Err(error),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.timeout.map(|timeout| Instant::now() + timeout)
    }

    async fn call<Q: Clone, R, Attempt>(&self, message: Q, make: impl Fn(Channel, Request<Q>) -> Attempt) -> Answer<R>
    where
        Attempt: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_until(self.deadline(), message, make).await
    }

    async fn call_until<Q: Clone, R, Attempt>(
        &self,
        deadline: Option<Instant>,
        message: Q,
        make: impl Fn(Channel, Request<Q>) -> Attempt,
    ) -> Answer<R>
    where
        Attempt: Future<Output = Result<Response<R>, Status>>,
    {
        let attempt = || make(self.channel.clone(), self.request(deadline, message.clone()));
        Ok(retry::call(self.throttle.as_deref(), deadline, attempt).await?.into_inner())
    }

    fn request<Q>(&self, deadline: Option<Instant>, message: Q) -> Request<Q> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if let Some(deadline) = deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }
}

fn inference(channel: Channel) -> InferenceServiceClient<Channel> {
    InferenceServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES)
}

fn tokenizer(channel: Channel) -> TokenizerServiceClient<Channel> {
    TokenizerServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES)
}

fn models(channel: Channel) -> ModelServiceClient<Channel> {
    ModelServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES)
}
