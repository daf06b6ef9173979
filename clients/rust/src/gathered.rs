//! The events of a stream, put together to what a whole generation would have answered.

use crate::v1::{Candidate, GenerateResponse, StreamGenerateResponse, stream_generate_response::Event};

#[derive(Debug, Default)]
pub(crate) struct Gathered {
    response: GenerateResponse,
    candidate: Candidate,
}

impl Gathered {
    pub(crate) fn add(&mut self, message: &StreamGenerateResponse) {
        match &message.event {
            Some(Event::Started(started)) => {
                self.response.generation_id.clone_from(&started.generation_id);
                self.response.request_id.clone_from(&started.request_id);
                self.response.model.clone_from(&started.model);
                self.response.seed = started.seed;
            }
            Some(Event::Delta(delta)) => {
                self.candidate.text.push_str(&delta.text);
                self.candidate.token_ids.extend(&delta.token_ids);
                self.candidate.logprobs.extend(delta.logprobs.iter().cloned());
            }
            Some(Event::Finished(finished)) => {
                self.candidate.finish_reason = finished.finish_reason;
                self.candidate.stop_detail.clone_from(&finished.stop_detail);
            }
            Some(Event::Completed(completed)) => {
                self.response.usage = completed.usage;
                self.response.timings = completed.timings;
            }
            _ => {}
        }
    }

    pub(crate) fn into_response(mut self) -> GenerateResponse {
        self.response.candidates.push(self.candidate);
        self.response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{CompletedEvent, DeltaEvent, StartedEvent, Usage};

    /// Deltas are joined; the facts of the other events are kept.
    #[test]
    fn events_make_a_response() {
        let mut gathered = Gathered::default();
        let started = StartedEvent { seed: 7, ..Default::default() };
        let delta =
            |text: &str| Event::Delta(DeltaEvent { text: text.into(), token_ids: vec![1], ..Default::default() });
        let usage = Usage { completion_tokens: 2, ..Default::default() };
        let completed = CompletedEvent { usage: Some(usage), ..Default::default() };
        for event in [Event::Started(started), delta("Hel"), delta("lo"), Event::Completed(completed)] {
            gathered.add(&StreamGenerateResponse { event: Some(event) });
        }
        let response = gathered.into_response();
        assert_eq!((response.seed, response.usage), (7, Some(usage)));
        assert_eq!(response.candidates[0].text, "Hello");
        assert_eq!(response.candidates[0].token_ids, [1, 1]);
    }
}
