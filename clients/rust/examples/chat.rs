//! Asks one question and prints the answer as it comes: `chat [QUESTION [HOST:PORT]]`.

use std::io::{Write, stdout};
use std::process::ExitCode;

use mlx_grpc::v1::{GenerateRequest, Stop};
use mlx_grpc::{Client, ClientOptions, DEFAULT_TARGET, MlxGrpcError, user};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let question = arguments.next().unwrap_or_else(|| "What is the capital of France?".to_owned());
    let target = arguments.next().unwrap_or_else(|| DEFAULT_TARGET.to_owned());
    let Err(error) = chat(&question, &target).await else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    if let Some(delay) = error.retry_after() {
        eprintln!("try again in {} ms", delay.as_millis());
    }
    ExitCode::FAILURE
}

async fn chat(question: &str, target: &str) -> Result<(), MlxGrpcError> {
    let client = Client::open(target, ClientOptions::default())?;
    let stop = Stop { max_tokens: Some(200), ..Default::default() };
    let request = GenerateRequest { stop: Some(stop), ..Default::default() };
    let mut stream = client.chat([user(question)], request).await?;
    let mut text = stream.text();
    while let Some(piece) = text.next().await {
        print!("{}", piece?);
        stdout().flush().ok();
    }
    let whole = stream.result().await?;
    let reason = whole.candidates[0].finish_reason();
    println!("\n[{} tokens, {}]", whole.usage.unwrap_or_default().completion_tokens, reason.as_str_name());
    Ok(())
}
