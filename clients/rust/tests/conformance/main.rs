//! Plays all conformance vectors, and reports as tests/conformance/README.md says. Arguments are the names of the vectors to
//! play; none: all.

mod call;
mod helper;
mod outcome;
mod proto_json;

use std::process::ExitCode;

use mlx_grpc::{Client, ClientOptions};
use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::helper::{Helper, root};
use crate::proto_json::ProtoJson;

#[tokio::main]
async fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with("--")).collect();
    let (helper, proto) = (Helper::open(), ProtoJson::compile());
    let features = helper.get("features").expect("the helper program answers");
    let mut results = Map::new();
    for vector in vectors() {
        let name = vector["name"].as_str().unwrap();
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let result = result(&helper, &proto, &features["features"], &vector).await;
        let (word, why) = result.split_at(result.find(':').unwrap_or(result.len()));
        println!("{} {name}{why}", word.to_uppercase());
        results.insert(name.to_owned(), result.into());
    }
    let failed = results.values().any(|result| result.as_str().unwrap().starts_with("fail"));
    if let Ok(path) = std::env::var("MLX_GRPC_CONFORMANCE_OUT") {
        std::fs::write(path, json!({"client": "rust", "results": results}).to_string()).unwrap();
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn vectors() -> Vec<Value> {
    let folder = root().join("tests/conformance");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    let read = |path| -> Vec<Value> { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    paths.into_iter().flat_map(read).collect()
}

async fn result(helper: &Helper, proto: &ProtoJson, features: &Value, vector: &Value) -> String {
    let missing = |need: &&Value| !features.as_array().unwrap().contains(need);
    if let Some(need) = vector["needs"].as_array().unwrap().iter().find(missing) {
        return format!("skip: the server has no {need}");
    }
    match play(helper, proto, vector).await {
        Ok(differences) if differences.is_empty() => "pass".to_owned(),
        Ok(differences) => format!("fail: {}", differences.join("; ")),
        Err(error) => format!("fail: {error}"),
    }
}

/// What differs.
async fn play(helper: &Helper, proto: &ProtoJson, vector: &Value) -> Result<Vec<String>, String> {
    let facts = helper.post("server", &vector["server"])?;
    let client = Client::open(facts["grpc"].as_str().unwrap(), options(&vector["client"], &facts))
        .map_err(|error| error.to_string())?;
    let (mut background, mut lines) = (Vec::<Call>::new(), Vec::new());
    for step in vector["steps"].as_array().unwrap() {
        let find = |calls: &[Call], name: &Value| calls.iter().position(|call| call.name == *name).unwrap();
        if !step["call"].is_null() {
            let call = Call::start(&client, proto, step);
            if step["background"] == true {
                background.push(call);
            } else {
                lines.extend(call.end().await);
            }
        } else if let Some(name) = step["control"].as_str() {
            helper.post(name, step.get("body").unwrap_or(&json!({})))?;
        } else if step["wait"].is_string() {
            wait(helper, step)?;
        } else if step["cancel"].is_string() {
            background[find(&background, &step["cancel"])].leave();
        } else if step["join"].is_string() {
            let at = find(&background, &step["join"]);
            lines.extend(background.remove(at).end().await);
        } else {
            lines.extend(look(&step["state"], &helper.get("state")?));
        }
    }
    for call in background {
        lines.extend(call.end().await);
    }
    Ok(lines)
}

fn options(given: &Value, facts: &Value) -> ClientOptions {
    let fact = |name: &str, wanted: &str| (given[wanted] == true).then(|| facts[name].as_str().unwrap().to_owned());
    ClientOptions {
        root_certificates: fact("root_certificates", "tls"),
        private_key: fact("private_key", "mutual_tls"),
        certificate_chain: fact("certificate_chain", "mutual_tls"),
        token: given["token"].as_str().map(str::to_owned),
        retry: given["retry"] != false,
        ..Default::default()
    }
}

/// Other threads go on with the calls meanwhile.
fn wait(helper: &Helper, step: &Value) -> Result<(), String> {
    let mut body = step.as_object().unwrap().clone();
    let name = body.remove("wait").unwrap();
    body.insert("for".to_owned(), name);
    tokio::task::block_in_place(|| helper.post("wait", &body.into())).map(|_| ())
}

fn look(expect: &Value, state: &Value) -> Vec<String> {
    let holds = |wanted: &Value, found: u64| match wanted.as_u64() {
        Some(exactly) => found == exactly,
        None => {
            wanted["at_most"].as_u64().is_none_or(|most| found <= most)
                && wanted["at_least"].as_u64().is_none_or(|least| found >= least)
        }
    };
    let numbers = expect.as_object().unwrap().iter();
    let wrong = numbers.filter(|(name, wanted)| !holds(wanted, state[name.as_str()].as_u64().unwrap()));
    wrong.map(|(name, wanted)| format!("{name} is {}, not {wanted}", state[name])).collect()
}
