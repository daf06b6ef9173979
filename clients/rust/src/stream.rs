//! The events of a generation, as they come.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Streaming;

use crate::errors::MlxGrpcError;
use crate::gathered::Gathered;
use crate::v1::{GenerateResponse, StreamGenerateResponse, stream_generate_response::Event};

/// The events of a generation, as they come: a `futures` stream that has a `next` of its own.
///
/// Dropping it cancels the call, and the server takes its row out of the batch.
#[derive(Debug)]
pub struct Stream {
    /// None once the call has ended.
    messages: Option<Streaming<StreamGenerateResponse>>,
    deadline: Option<Pin<Box<Sleep>>>,
    gathered: Gathered,
}

impl Stream {
    pub(crate) fn new(messages: Streaming<StreamGenerateResponse>, deadline: Option<Instant>) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Self { messages: Some(messages), deadline, gathered: Gathered::default() }
    }

    /// The next event; None at the end.
    pub async fn next(&mut self) -> Option<Result<StreamGenerateResponse, MlxGrpcError>> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// The pieces of text alone.
    pub fn text(&mut self) -> Text<'_> {
        Text(self)
    }

    /// Reads to the end and gives all of it, the events that were read before included.
    pub async fn result(mut self) -> Result<GenerateResponse, MlxGrpcError> {
        while let Some(event) = self.next().await {
            event?;
        }
        Ok(self.gathered.into_response())
    }

    /// Cancels the call; the same as dropping the stream.
    pub fn close(self) {}

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<StreamGenerateResponse, MlxGrpcError>>> {
        loop {
            let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
            let message = match futures_core::Stream::poll_next(Pin::new(messages), context) {
                Poll::Ready(message) => message,
                Poll::Pending => {
                    // tonic ends a stream at its deadline only where the server does.
                    if let Some(deadline) = &mut self.deadline {
                        ready!(deadline.as_mut().poll(context));
                        self.messages = None;
                        return Poll::Ready(Some(Err(MlxGrpcError::deadline())));
                    }
                    return Poll::Pending;
                }
            };
            match message {
                // One that this version does not know is passed over.
                Some(Ok(message)) if message.event.is_none() => {}
                Some(Ok(message)) => {
                    self.gathered.add(&message);
                    return Poll::Ready(Some(Ok(message)));
                }
                ended => {
                    self.messages = None;
                    return Poll::Ready(ended.map(|result| result.map_err(MlxGrpcError::from)));
                }
            }
        }
    }
}

impl futures_core::Stream for Stream {
    type Item = Result<StreamGenerateResponse, MlxGrpcError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(context)
    }
}

/// The pieces of text of a [`Stream`].
#[derive(Debug)]
pub struct Text<'a>(&'a mut Stream);

impl Text<'_> {
    /// The next piece; None at the end.
    pub async fn next(&mut self) -> Option<Result<String, MlxGrpcError>> {
        poll_fn(|context| self.poll_text(context)).await
    }

    fn poll_text(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<String, MlxGrpcError>>> {
        loop {
            match ready!(self.0.poll_event(context)) {
                Some(Ok(StreamGenerateResponse { event: Some(Event::Delta(delta)) })) if !delta.text.is_empty() => {
                    return Poll::Ready(Some(Ok(delta.text)));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl futures_core::Stream for Text<'_> {
    type Item = Result<String, MlxGrpcError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_text(context)
    }
}
