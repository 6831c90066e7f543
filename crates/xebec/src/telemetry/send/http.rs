//! OTLP over HTTP, with Protocol Buffers.
use super::{ANSWER_BYTES, ATTEMPT, Fault, Send, partial};
use bytes::Bytes;
use http::{HeaderMap, header};
use std::time::Duration;
use ureq::Agent;
use xebec_net::wire::otlp::PartialSuccess;

/// A collector behind a URL.
pub(super) struct Http {
    agent: Agent,
    url: String,
}

impl Http {
    pub(super) fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(ATTEMPT))
            .http_status_as_error(false)
            .max_redirects(0)
            // What the operator named is where traces go, whatever the environment says.
            .proxy(None)
            .build();
        Self { agent: config.new_agent(), url: url.to_owned() }
    }
}

impl Send for Http {
    fn send(&mut self, request: Bytes) -> Result<Option<PartialSuccess>, Fault> {
        let post = self.agent.post(&self.url).content_type("application/x-protobuf");
        let mut answer = post.send(&*request).map_err(|error| Fault::later(error.to_string()))?;
        let status = answer.status().as_u16();
        let after = retry_after(answer.headers());
        let body =
            answer.body_mut().with_config().limit(ANSWER_BYTES as u64).read_to_vec().unwrap_or_default();
        let why = || format!("the collector answers with status {status}");
        match status {
            200..=299 => Ok(partial(&body)),
            429 | 502..=504 => Err(Fault::Later { after, why: why() }),
            _ => Err(Fault::Never { why: why() }),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
