//! Retries as gRPC's own clients make them (gRFC A6), which tonic does not.
//!
//! A call that fails with UNAVAILABLE or RESOURCE_EXHAUSTED before the server's answer began is made again: four attempts in
//! all, or as long apart as the server's `grpc-retry-pushback-ms` says. The throttle keeps clients from feeding a storm.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};

use crate::errors::MlxGrpcError;

const MAX_ATTEMPTS: u32 = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";

/// Counts in halves: a failure takes one, a success gives half of one back.
#[derive(Debug)]
pub(crate) struct Throttle(AtomicI32);

const FULL: i32 = 200;
const FAILURE: i32 = 2;
const SUCCESS: i32 = 1;

impl Default for Throttle {
    fn default() -> Self {
        Self(AtomicI32::new(FULL))
    }
}

impl Throttle {
    fn succeeded(&self) {
        self.add(SUCCESS);
    }

    /// Whether another attempt is allowed.
    fn failed(&self) -> bool {
        self.add(-FAILURE) > FULL / 2
    }

    fn add(&self, change: i32) -> i32 {
        let next = |now: i32| (now + change).clamp(0, FULL);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(next(now))) {
            Ok(before) | Err(before) => next(before),
        }
    }
}

/// Makes the call, again where that may help. Without a throttle it is made once.
pub(crate) async fn call<T, Attempt>(
    throttle: Option<&Throttle>,
    deadline: Option<Instant>,
    attempt: impl Fn() -> Attempt,
) -> Result<T, MlxGrpcError>
where
    Attempt: Future<Output = Result<T, Status>>,
{
    for made in 1.. {
        let status = match before(deadline, attempt()).await? {
            Ok(answer) => {
                throttle.inspect(|throttle| throttle.succeeded());
                return Ok(answer);
            }
            Err(status) => status,
        };
        match pause(throttle, made, &status) {
            Some(pause) if deadline.is_none_or(|deadline| Instant::now() + pause < deadline) => sleep(pause).await,
            _ => return Err(status.into()),
        }
    }
    unreachable!("attempts are bounded")
}

/// What the future gives, unless the deadline comes first; dropping it cancels the call.
async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, MlxGrpcError> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.map_err(|_| MlxGrpcError::deadline()),
        None => Ok(future.await),
    }
}

/// How long to wait before the next attempt; None: there is none.
fn pause(throttle: Option<&Throttle>, made: u32, status: &Status) -> Option<Duration> {
    let throttle = throttle?;
    let retryable = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
    let pushback = status.metadata().get(PUSHBACK_KEY).map(|value| value.to_str().ok()?.parse::<u64>().ok());
    let allowed = if retryable || pushback == Some(None) { throttle.failed() } else { true };
    if !retryable || !allowed || made >= MAX_ATTEMPTS {
        return None;
    }
    match pushback {
        // What does not parse, such as -1, is the server's word for "never".
        Some(milliseconds) => milliseconds.map(Duration::from_millis),
        None => Some(varied(FIRST_BACKOFF * 2u32.pow(made - 1))),
    }
}

/// Up to a fifth longer or shorter, so that clients do not come back together.
fn varied(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    pause.mul_f64(0.8 + 0.4 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed_back(text: &'static str) -> Status {
        let mut status = Status::resource_exhausted("full");
        status.metadata_mut().insert(PUSHBACK_KEY, text.parse().unwrap());
        status
    }

    /// 0.2, 0.4 and 0.8 s, each varied by a fifth, and no fifth attempt.
    #[test]
    fn pauses_double() {
        let (throttle, status) = (Throttle::default(), Status::unavailable("gone"));
        for (made, wanted) in [(1, 0.2), (2, 0.4), (3, 0.8)] {
            let found = pause(Some(&throttle), made, &status).unwrap().as_secs_f64();
            assert!((wanted * 0.799..=wanted * 1.201).contains(&found), "{found}");
        }
        assert_eq!(pause(Some(&throttle), 4, &status), None);
    }

    /// The server's word goes before ours, "never" among it.
    #[test]
    fn pushback_is_honoured() {
        let throttle = Throttle::default();
        assert_eq!(pause(Some(&throttle), 1, &pushed_back("1500")), Some(Duration::from_millis(1500)));
        assert_eq!(pause(Some(&throttle), 1, &pushed_back("-1")), None);
    }

    /// Only what may pass by itself is tried again, and nothing when retries are off.
    #[test]
    fn other_statuses_are_final() {
        assert_eq!(pause(Some(&Throttle::default()), 1, &Status::internal("bug")), None);
        assert_eq!(pause(None, 1, &Status::unavailable("gone")), None);
    }

    /// 50 failures in a row end all retries; 2 successes outweigh one failure.
    #[test]
    fn the_throttle_closes_and_opens() {
        let throttle = Throttle::default();
        assert_eq!((0..60).filter(|_| throttle.failed()).count(), 49);
        (0..30).for_each(|_| throttle.succeeded());
        assert!(throttle.failed());
    }

    /// Four attempts, then the status.
    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded() {
        let made = AtomicI32::new(0);
        let error = call(Some(&Throttle::default()), None, || async {
            made.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Status::unavailable("gone"))
        })
        .await
        .unwrap_err();
        assert_eq!((error.code(), made.into_inner()), (Code::Unavailable, 4));
    }

    /// An attempt that hangs ends with the deadline.
    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_an_attempt() {
        let deadline = Instant::now() + Duration::from_secs(1);
        let forever = || std::future::pending::<Result<(), Status>>();
        let error = call(Some(&Throttle::default()), Some(deadline), forever).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
}
