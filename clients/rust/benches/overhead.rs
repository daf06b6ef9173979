//! What a streamed message costs this client, in rounds that alternate with the Python client's against one server with the
//! scripted model. Prints one JSON line: the median round of each, in microseconds a message.

#[allow(dead_code)] // the runner of the vectors uses more of it
#[path = "../tests/conformance/helper.rs"]
mod helper;

use std::process::Command;
use std::time::Instant;

use mlx_grpc::v1::{GenerateRequest, Stop};
use mlx_grpc::{Client, ClientOptions, MlxGrpcError, prompt};
use serde_json::{Value, json};

use crate::helper::{Helper, python, root};

const ROUNDS: usize = 3;
const TOKENS: u32 = 10_000;
const WARM_UP_TOKENS: u32 = 500;
/// Of /proc/self/stat, on every Linux of today.
const TICK_MICROSECONDS: f64 = 10_000.0;

#[tokio::main]
async fn main() -> Result<(), MlxGrpcError> {
    let helper = Helper::open();
    let script = json!({"context_length": 16384, "step_seconds": 0.0002});
    let facts = helper.post("server", &json!({"script": script, "settings": {}, "engine": "process"})).unwrap();
    let target = facts["grpc"].as_str().unwrap();
    let (mut own, mut python) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        own.push(measure(target).await?);
        python.push(measure_python(target));
    }
    let report = json!({
        "client": "rust", "tokens": TOKENS, "rounds": ROUNDS, "own": median(own), "python": median(python),
    });
    println!("{report}");
    Ok(())
}

async fn measure(target: &str) -> Result<Value, MlxGrpcError> {
    let client = Client::open(target, ClientOptions::default())?;
    read(&client, WARM_UP_TOKENS).await?;
    let (wall, cpu) = (Instant::now(), cpu_microseconds());
    let messages = f64::from(read(&client, TOKENS).await?);
    let cpu = cpu_microseconds().zip(cpu).map(|(after, before)| (after - before) / messages);
    Ok(json!({"messages": messages, "wall_us": wall.elapsed().as_secs_f64() * 1e6 / messages, "cpu_us": cpu}))
}

async fn read(client: &Client, max_tokens: u32) -> Result<u32, MlxGrpcError> {
    let stop = Some(Stop { max_tokens: Some(max_tokens), ..Default::default() });
    let mut stream = client.stream(GenerateRequest { stop, ..prompt("go on") }).await?;
    let mut messages = 0;
    while let Some(event) = stream.next().await {
        event?;
        messages += 1;
    }
    Ok(messages)
}

/// Time in user and kernel mode of this process, where the kernel says it.
fn cpu_microseconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2).flat_map(str::parse::<f64>).sum::<f64>();
    Some(ticks * TICK_MICROSECONDS)
}

fn measure_python(target: &str) -> Value {
    let script = root().join("clients/bench_python.py");
    let output = Command::new(python()).arg(script).args([target, &TOKENS.to_string()]).output().unwrap();
    serde_json::from_slice(&output.stdout).expect("the Python client measures, too")
}

fn median(mut rounds: Vec<Value>) -> Value {
    rounds.sort_by(|one, other| one["wall_us"].as_f64().partial_cmp(&other["wall_us"].as_f64()).unwrap());
    rounds.swap_remove(rounds.len() / 2)
}
