//! `python -m mlx_grpc.testing`: one of our own, or the one that MLX_GRPC_TEST_CONTROL names.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The program, until dropped: it ends when its standard input does.
pub struct Helper {
    control: String,
    process: Option<Child>,
}

impl Helper {
    /// Finds or starts it.
    pub fn open() -> Self {
        if let Ok(control) = std::env::var("MLX_GRPC_TEST_CONTROL") {
            return Self { control, process: None };
        }
        let mut process = Command::new(python())
            .args(["-m", "mlx_grpc.testing"])
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("MLX_GRPC_PYTHON names no Python");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let facts: Value = serde_json::from_str(&line).expect("mlx_grpc.testing did not start");
        Self { control: facts["control"].as_str().unwrap().to_owned(), process: Some(process) }
    }

    /// GET /name.
    pub fn get(&self, name: &str) -> Result<Value, String> {
        self.ask("GET", name, "")
    }

    /// POST /name.
    pub fn post(&self, name: &str, body: &Value) -> Result<Value, String> {
        self.ask("POST", name, &body.to_string())
    }

    /// HTTP/1.0 in short: one request a connection, the answer reaches to its end.
    fn ask(&self, method: &str, name: &str, body: &str) -> Result<Value, String> {
        let host = self.control.trim_start_matches("http://");
        let mut wire = TcpStream::connect(host).map_err(|error| error.to_string())?;
        let head = format!("{method} /{name} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut answer = String::new();
        wire.write_all(format!("{head}{body}").as_bytes())
            .and_then(|()| wire.read_to_string(&mut answer))
            .map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        match head.split(' ').nth(1) {
            Some("200") => serde_json::from_str(body).map_err(|error| error.to_string()),
            status => Err(format!("{name}: {status:?} {body}")),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            let _ = process.wait();
        }
    }
}

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The Python that has mlx_grpc.
pub fn python() -> PathBuf {
    std::env::var_os("MLX_GRPC_PYTHON").map_or_else(|| root().join(".venv/bin/python"), PathBuf::from)
}
