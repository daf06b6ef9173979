//! A call of a vector: its task, what it expects and what it gave.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mlx_grpc::v1::stream_generate_response::Event;
use mlx_grpc::{Client, MlxGrpcError};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use crate::outcome::Outcome;
use crate::proto_json::ProtoJson;

const PATIENCE: Duration = Duration::from_secs(60);

/// A call that runs in a task of its own; aborting that task drops its future, or its stream.
pub struct Call {
    pub name: String,
    expect: Map<String, Value>,
    outcome: Arc<Mutex<Outcome>>,
    task: JoinHandle<()>,
}

impl Call {
    pub fn start(client: &Client, proto: &ProtoJson, step: &Value) -> Self {
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let run = Run {
            client: match step["deadline_ms"].as_u64() {
                Some(limit) => client.with_timeout(Duration::from_millis(limit)),
                None => client.clone(),
            },
            proto: proto.clone(),
            step: step.clone(),
            outcome: outcome.clone(),
        };
        let name = step["name"].as_str().or(step["call"].as_str()).unwrap().to_owned();
        let expect = step["expect"].as_object().cloned().unwrap_or_default();
        Self { name, expect, outcome, task: tokio::spawn(run.run()) }
    }

    /// Leave it as a user of the client would.
    pub fn leave(&self) {
        self.outcome.lock().unwrap().cancelled = true;
        self.task.abort();
    }

    /// Waits for its end; what differs from what is expected.
    pub async fn end(self) -> Vec<String> {
        match tokio::time::timeout(PATIENCE, self.task).await {
            Err(_) => return vec![format!("{}: still running after {PATIENCE:?}", self.name)],
            Ok(Err(error)) if error.is_panic() => return vec![format!("{}: {error}", self.name)],
            Ok(_) => {}
        }
        let lines = self.outcome.lock().unwrap().differences(&self.expect);
        lines.into_iter().map(|line| format!("{}: {line}", self.name)).collect()
    }
}

struct Run {
    client: Client,
    proto: ProtoJson,
    step: Value,
    outcome: Arc<Mutex<Outcome>>,
}

impl Run {
    async fn run(self) {
        let result = match self.method() {
            "stream" => self.stream().await,
            "generate" => self.generate().await,
            _ => self.respond().await,
        };
        self.outcome.lock().unwrap().error = result.err();
    }

    async fn stream(&self) -> Result<(), MlxGrpcError> {
        let mut stream = self.client.stream(self.proto.read("GenerateRequest", &self.request())).await?;
        let mut deltas = 0;
        while let Some(event) = stream.next().await {
            let event = event?;
            self.outcome.lock().unwrap().add_event(&self.proto, &event);
            if !matches!(event.event, Some(Event::Delta(_))) {
                continue;
            }
            deltas += 1;
            let delay = &self.step["read_delay"];
            if delay["every"].as_u64().is_some_and(|every| deltas % every == 0) {
                tokio::time::sleep(Duration::from_millis(delay["ms"].as_u64().unwrap())).await;
            }
            if self.step["cancel_after_deltas"] == deltas {
                self.outcome.lock().unwrap().cancelled = true;
                break;
            }
        }
        Ok(())
    }

    async fn generate(&self) -> Result<(), MlxGrpcError> {
        let answer = self.client.generate(self.proto.read("GenerateRequest", &self.request())).await?;
        self.outcome.lock().unwrap().add_response(&self.proto, &answer);
        Ok(())
    }

    async fn respond(&self) -> Result<(), MlxGrpcError> {
        let (client, proto, request) = (&self.client, &self.proto, self.request());
        let id = request["model"].as_str().unwrap_or_default();
        let model = |model| json!({"model": proto.write("Model", &model)});
        let response = match self.method() {
            "tokenize" => {
                proto.write("TokenizeResponse", &client.tokenize(proto.read("TokenizeRequest", &request)).await?)
            }
            "detokenize" => {
                proto.write("DetokenizeResponse", &client.detokenize(proto.read("DetokenizeRequest", &request)).await?)
            }
            "count_tokens" => proto
                .write("CountTokensResponse", &client.count_tokens(proto.read("CountTokensRequest", &request)).await?),
            "render_chat" => {
                proto.write("RenderChatResponse", &client.render_chat(proto.read("RenderChatRequest", &request)).await?)
            }
            "list_models" => {
                let models = client.list_models().await?;
                json!({"models": models.iter().map(|one| proto.write("Model", one)).collect::<Vec<_>>()})
            }
            "get_model" => model(client.get_model(id).await?),
            "load_model" => model(client.load_model(id).await?),
            "unload_model" => model(client.unload_model(id, request["force"] == true).await?),
            "server_info" => proto.write("GetServerInfoResponse", &client.server_info().await?),
            "health" => {
                let status = client.health(request["service"].as_str().unwrap_or_default()).await?;
                json!({"status": status.as_str_name()})
            }
            unknown => panic!("unknown method: {unknown}"),
        };
        self.outcome.lock().unwrap().response = response;
        Ok(())
    }

    fn method(&self) -> &str {
        self.step["call"].as_str().unwrap()
    }

    fn request(&self) -> Value {
        if self.step["request"].is_null() { json!({}) } else { self.step["request"].clone() }
    }
}
