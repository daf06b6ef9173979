//! What a call gave, and whether that is what a vector expects.

use mlx_grpc::MlxGrpcError;
use mlx_grpc::v1::stream_generate_response::Event;
use mlx_grpc::v1::{FinishReason, GenerateResponse, StopDetail, StreamGenerateResponse, TokenLogprob, stop_detail};
use serde_json::{Map, Value, json};

use crate::proto_json::ProtoJson;

const LOGPROB_TOLERANCE: f64 = 0.001;

/// What was read of a call, whether it ended well or not.
#[derive(Default)]
pub struct Outcome {
    pub cancelled: bool,
    pub error: Option<MlxGrpcError>,
    pub response: Value,
    events: Vec<&'static str>,
    text: String,
    token_ids: Vec<u32>,
    logprobs: Vec<Value>,
    started: Value,
    usage: Value,
    finish_reason: &'static str,
    stop: Option<stop_detail::Stop>,
}

impl Outcome {
    pub fn add_event(&mut self, proto: &ProtoJson, message: &StreamGenerateResponse) {
        let kind = match message.event.as_ref().expect("events that are not known are passed over") {
            Event::Queued(_) => "queued",
            Event::Started(started) => {
                self.started = proto.write("StartedEvent", started);
                "started"
            }
            Event::Prefill(_) => "prefill",
            Event::Delta(delta) => {
                self.add_text(proto, &delta.text, &delta.token_ids, &delta.logprobs);
                "delta"
            }
            Event::Finished(finished) => {
                self.finish(finished.finish_reason(), finished.stop_detail.as_ref());
                "finished"
            }
            Event::Completed(completed) => {
                self.usage = proto.write("Usage", &completed.usage.unwrap_or_default());
                "completed"
            }
        };
        if self.events.last() != Some(&kind) {
            self.events.push(kind);
        }
    }

    pub fn add_response(&mut self, proto: &ProtoJson, answer: &GenerateResponse) {
        let first = &answer.candidates[0];
        self.add_text(proto, &first.text, &first.token_ids, &first.logprobs);
        self.finish(first.finish_reason(), first.stop_detail.as_ref());
        self.started = proto.write("GenerateResponse", answer);
        self.usage = proto.write("Usage", &answer.usage.unwrap_or_default());
    }

    fn add_text(&mut self, proto: &ProtoJson, text: &str, token_ids: &[u32], logprobs: &[TokenLogprob]) {
        self.text.push_str(text);
        self.token_ids.extend(token_ids);
        self.logprobs.extend(logprobs.iter().map(|one| proto.write("TokenLogprob", one)));
    }

    fn finish(&mut self, reason: FinishReason, detail: Option<&StopDetail>) {
        self.finish_reason = reason.as_str_name();
        self.stop = detail.and_then(|detail| detail.stop.clone());
    }

    /// What an expectation's key is about.
    fn value(&self, key: &str) -> Value {
        match key {
            "events" => json!(self.events),
            "text" => json!(self.text),
            "text_characters" => json!(self.text.chars().count()),
            "token_ids" => json!(self.token_ids),
            "token_ids_count" => json!(self.token_ids.len()),
            "token_ids_sum" => json!(self.token_ids.iter().map(|&id| u64::from(id)).sum::<u64>()),
            "logprobs" => json!(self.logprobs),
            "finish_reason" => json!(self.finish_reason),
            "stop_string" => match &self.stop {
                Some(stop_detail::Stop::StopString(found)) => json!(found),
                _ => json!(""),
            },
            "stop_token_id" => match &self.stop {
                Some(stop_detail::Stop::StopTokenId(found)) => json!(found),
                _ => Value::Null,
            },
            "started" => self.started.clone(),
            "usage" => self.usage.clone(),
            "response" => self.response.clone(),
            "cancelled" => json!(self.cancelled),
            _ => panic!("unknown expectation: {key}"),
        }
    }

    /// One line for each key of `expect` that does not hold.
    pub fn differences(&self, expect: &Map<String, Value>) -> Vec<String> {
        if let Some(error) = &self.error
            && !expect.contains_key("error")
        {
            return vec![format!("failed: {error}")];
        }
        let mut lines = Vec::new();
        if self.cancelled != expect.contains_key("cancelled") {
            lines.push(format!("cancelled is {}", self.cancelled));
        }
        for (key, wanted) in expect {
            match key.as_str() {
                "error" => lines.extend(error_differences(wanted, self.error.as_ref())),
                "text_starts_with" if self.text.starts_with(wanted.as_str().unwrap()) => {}
                "text_starts_with" => lines.push(format!("text is {:?}", self.text)),
                _ if alike(wanted, &self.value(key)) => {}
                _ => lines.push(format!("{key} is {}, not {wanted}", self.value(key))),
            }
        }
        lines
    }
}

/// Objects hold what is wanted of them, lists are as long and hold it item by item, log-probabilities are near.
fn alike(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().all(|(key, value)| {
            found.get(key).is_some_and(|other| if key == "logprob" { near(value, other) } else { alike(value, other) })
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(one, other)| alike(one, other))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => wanted == found,
    }
}

fn near(one: &Value, other: &Value) -> bool {
    one.as_f64().zip(other.as_f64()).is_some_and(|(one, other)| (one - other).abs() <= LOGPROB_TOLERANCE)
}

fn error_differences(wanted: &Value, error: Option<&MlxGrpcError>) -> Vec<String> {
    let Some(error) = error else { return vec![format!("ended well; expected {wanted}")] };
    let holds = |(key, wanted): (&String, &Value)| match key.as_str() {
        "type" => kinds(error).contains(&wanted.as_str().unwrap().to_owned()),
        "code" => format!("{:?}", error.code()).to_uppercase() == wanted.as_str().unwrap().replace('_', ""),
        "reason" => error.reason() == wanted,
        "field" => error.field() == wanted,
        "resource" => error.resource() == wanted,
        "message_has" => error.message().contains(wanted.as_str().unwrap()),
        "retry_after" => error.retry_after().is_some_and(|delay| !delay.is_zero()) == *wanted,
        "metadata" => wanted
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, value)| error.metadata().get(name).is_some_and(|found| found == value)),
        "metadata_keys" => {
            wanted.as_array().unwrap().iter().all(|name| error.metadata().contains_key(name.as_str().unwrap()))
        }
        _ => panic!("unknown expectation of an error: {key}"),
    };
    let fails = wanted.as_object().unwrap().iter().filter(|&entry| !holds(entry));
    fails.map(|(key, wanted)| format!("error's {key} is not {wanted}: {error:?}")).collect()
}

/// The name of the error's kind, and of the kind that it is a kind of.
fn kinds(error: &MlxGrpcError) -> Vec<String> {
    use mlx_grpc::Kind::{DeadlineExceeded, InvalidField, Unavailable};
    let families = [InvalidField, Unavailable, DeadlineExceeded].into_iter().filter(|&kind| error.is(kind));
    std::iter::once(error.kind()).chain(families).map(|kind| format!("{kind:?}")).collect()
}
