//! The pulls that a host still allows, by the headers of its responses, and the pulls that the user reserves.
//!
//! Docker Hub counts each `GET` of a manifest, but neither `HEAD` nor blobs, and names the rest in every response. With a
//! reserve, the first pull is preceded by one `HEAD`, so that parallel pulls do not exceed the limit. Hosts without such
//! headers, and limits of less than a minute, which concern the pace only, do not end a run.

use super::client::RegistryClient;
use super::retry::format_duration;
use super::{Call, Payload, Response};
use crate::error::{Error, Result};
use crate::transport::registry::auth::token::Scope;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use ureq::http::Method;

/// A limit for a shorter period is a limit of the pace, which pauses handle.
const MIN_PERIOD: Duration = Duration::from_secs(60);
/// A longer period is not believed.
const MAX_PERIOD: Duration = Duration::from_secs(31 * 24 * 3600);

/// The pulls that a host still allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullsLeft {
    /// Their number.
    pub remaining: u64,
    /// The time after which pulls are allowed again at the latest, where the host says so.
    pub period: Option<Duration>,
}

impl PullsLeft {
    /// Reads the headers of `response`.
    pub fn of(response: &Response) -> Option<PullsLeft> {
        PullsLeft::parse(|name| response.header(name))
    }

    /// Reads `RateLimit-Remaining: 76;w=21600` (Docker Hub), the same with `RateLimit-Reset: 60`, and the two forms of
    /// `RateLimit` in the IETF's drafts: `limit=100, remaining=76, reset=60` and `"default";r=76;t=60`.
    fn parse<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Option<PullsLeft> {
        let seconds = |text: Option<&str>| text.and_then(number).map(Duration::from_secs);
        let (remaining, period) = match header("ratelimit-remaining") {
            Some(text) => {
                let remaining = number(text.split([';', ',']).next()?)?;
                let limit = || parameter(header("ratelimit-limit")?, "w");
                let window = parameter(text, "w").or_else(|| header("ratelimit-reset")).or_else(limit);
                (remaining, seconds(window))
            }
            None => {
                let text = header("ratelimit")?;
                let named = |name| parameter(text, name);
                match named("remaining") {
                    Some(remaining) => (number(remaining)?, seconds(named("reset"))),
                    // Several limits: the nearest one counts.
                    None => {
                        let items = text.split(',').filter_map(|item| Some((number(parameter(item, "r")?)?, item)));
                        let (remaining, item) = items.min_by_key(|(remaining, _)| *remaining)?;
                        (remaining, seconds(parameter(item, "t")))
                    }
                }
            }
        };
        let period = period.filter(|period| *period <= MAX_PERIOD);
        period.is_none_or(|period| period >= MIN_PERIOD).then_some(PullsLeft { remaining, period })
    }
}

/// The value of `NAME=VALUE` in `text`.
fn parameter<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut parts = text.split([';', ',']).filter_map(|part| part.split_once('='));
    parts.find(|(own, _)| own.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A number of digits only.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The pulls at one host, of all repositories with the same credentials.
#[derive(Default)]
pub struct PullLimit {
    state: Mutex<PullState>,
    /// The host was asked before the first pull; held while it is asked.
    asked: Mutex<bool>,
}

#[derive(Default)]
struct PullState {
    left: Option<PullsLeft>,
    /// The pulls that `left` may not count yet.
    in_flight: u64,
    /// The number of responses that named the rest.
    named: u64,
}

/// One pull, until it is dropped.
pub struct Pull {
    limit: Arc<PullLimit>,
    /// The responses that named the rest before it.
    named: u64,
}

impl PullLimit {
    /// Returns the pulls that the last response named.
    pub fn left(&self) -> Option<PullsLeft> {
        self.state().left
    }

    /// Records the pulls that a response names.
    pub fn record(&self, left: PullsLeft) {
        let mut state = self.state();
        state.named += 1;
        // A slightly larger number is that of an earlier response, which arrived late.
        let is_late = state.left.is_some_and(|before| {
            left.remaining > before.remaining && left.remaining - before.remaining <= state.in_flight
        });
        if !is_late {
            state.left = Some(left);
        }
    }

    /// Enters a pull, unless fewer than `reserve` pulls would be left after it: then returns those that are left.
    fn enter(self: &Arc<Self>, reserve: u64) -> std::result::Result<Pull, PullsLeft> {
        let mut state = self.state();
        if let Some(left) = state.left
            && left.remaining.saturating_sub(state.in_flight) <= reserve
        {
            return Err(left);
        }
        state.in_flight += 1;
        Ok(Pull { limit: self.clone(), named: state.named })
    }

    fn state(&self) -> MutexGuard<'_, PullState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let mut state = self.limit.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        // The response did not name the rest.
        if state.named == self.named
            && let Some(left) = &mut state.left
        {
            left.remaining = left.remaining.saturating_sub(1);
        }
    }
}

impl RegistryClient {
    /// Enters a pull by `get`, a `GET` of a manifest, if the user reserves pulls. Fails with `Network`
    /// ([`Error::is_pull_limit`]) if only reserved pulls are left.
    pub fn enter_pull(&self, get: &Call, scope: &Scope, what: &str) -> Result<Option<Pull>> {
        let Some(reserve) = self.access.hub_reserve else { return Ok(None) };
        {
            let mut asked = self.pulls.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if !*asked && self.pulls.left().is_none() {
                let head = Call { method: Method::HEAD, ..get.clone() };
                self.send(&head, Payload::Nothing, scope, what)?.drain();
            }
            *asked = true;
        }
        self.pulls.enter(reserve).map(Some).map_err(|left| {
            let when = match left.period {
                Some(period) => format!("in {} at the latest", format_duration(period)),
                None => "later".to_owned(),
            };
            let (host, remaining) = (&self.host, left.remaining);
            Error::pull_limit(format!(
                "{host}: {remaining} pulls are left, and {reserve} are reserved; run imgmv again {when}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(headers: &[(&str, &str)]) -> Option<(u64, Option<u64>)> {
        let find = |name: &str| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        PullsLeft::parse(find).map(|left| (left.remaining, left.period.map(|period| period.as_secs())))
    }

    #[test]
    fn every_form_of_the_headers_is_read() {
        const REMAINING: &str = "ratelimit-remaining";
        for (headers, expected) in [
            (&[(REMAINING, "76;w=21600")][..], Some((76, Some(21600)))),
            (&[(REMAINING, " 0 ; w=21600 ")], Some((0, Some(21600)))),
            (&[(REMAINING, "76"), ("ratelimit-limit", "100;w=21600")], Some((76, Some(21600)))),
            (&[(REMAINING, "76"), ("ratelimit-reset", "600")], Some((76, Some(600)))),
            (&[(REMAINING, "76")], Some((76, None))),
            (&[("ratelimit", "limit=100, remaining=76, reset=600")], Some((76, Some(600)))),
            (&[("ratelimit", r#""burst";r=90;t=70, "daily";r=76;t=600"#)], Some((76, Some(600)))),
            // A limit of the pace.
            (&[(REMAINING, "3;w=1")], None),
            (&[("ratelimit", "limit=10, remaining=3, reset=5")], None),
            (&[(REMAINING, "3;w=99999999999")], Some((3, None))),
            (&[(REMAINING, "-1;w=21600")], None),
            (&[(REMAINING, "+1;w=21600")], None),
            (&[(REMAINING, ""), ("ratelimit", "")], None),
            (&[(REMAINING, "99999999999999999999999")], None),
            (&[("ratelimit", "remaining")], None),
            (&[], None),
        ] {
            assert_eq!(parse(headers), expected, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_are_read_without_a_panic(remaining in ".*", limit in ".*", all in ".*") {
            parse(&[("ratelimit-remaining", &remaining), ("ratelimit-limit", &limit), ("ratelimit-reset", &limit)]);
            parse(&[("ratelimit", &all)]);
        }
    }

    #[test]
    fn pulls_in_flight_count_and_a_late_response_does_not_raise_the_rest() {
        let limit = Arc::new(PullLimit::default());
        let left = |remaining| PullsLeft { remaining, period: None };
        // The host has not named a limit.
        drop(limit.enter(5).unwrap());
        limit.record(left(8));
        let pulls: Vec<Pull> = (0..3).map(|_| limit.enter(5).unwrap()).collect();
        assert_eq!(limit.enter(5).err(), Some(left(8)));
        limit.record(left(6));
        limit.record(left(7));
        assert_eq!(limit.left(), Some(left(6)));
        drop(pulls);
        drop(limit.enter(5).unwrap());
        // That response did not name the rest.
        assert_eq!(limit.enter(5).err(), Some(left(5)));
        limit.record(left(100));
        assert!(limit.enter(5).is_ok());
    }
}
