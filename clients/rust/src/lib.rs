//! Client of mlx_grpc, a gRPC inference service for MLX language models.
//!
//! [`Client`] opens a connection; its methods take and give the generated messages of [`v1`]; [`Stream`] reads an answer as
//! it comes; every failure is an [`MlxGrpcError`].
//!
//! ```no_run
//! # async fn run() -> Result<(), mlx_grpc::MlxGrpcError> {
//! let client = mlx_grpc::Client::open("localhost:50051", Default::default())?;
//! let mut stream = client.stream(mlx_grpc::prompt("Once upon a time")).await?;
//! let mut text = stream.text();
//! while let Some(piece) = text.next().await {
//!     print!("{}", piece?);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod client;
mod errors;
mod gathered;
mod kinds;
mod messages;
mod options;
mod retry;
mod stream;

pub use client::{Client, DEFAULT_TARGET};
pub use errors::MlxGrpcError;
pub use kinds::Kind;
pub use messages::{assistant, prompt, system, user};
pub use options::ClientOptions;
pub use stream::{Stream, Text};
pub use tonic::Code;
pub use tonic_health::pb::health_check_response::ServingStatus;

/// The messages and bare clients of the protos, as generated.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
#[rustfmt::skip]
#[path = "gen/mlx_grpc.v1.rs"]
pub mod v1;
