//! The way of one inference call, the same for every protocol: admit, route, submit, wait, record.
use crate::{
    Service,
    record::{AccessEntry, Protocol},
};
use http::HeaderMap;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use xebec_core::{
    Code, InferError, InferRequest, InferResponse, ModelName, Permit, Principal, Verb, VersionRef,
    error::FailureReason,
    port::{Answer, Done, Upstream},
    trace::{Parent, Traced},
};

/// Longest text of a caller that goes into a log.
const LOGGED_BYTES: usize = 128;

/// How often a model is brought back that is sent out of memory again before it is used.
const WAKES: usize = 4;

/// Gives an order and waits until it is carried out. It goes on if the caller goes away.
pub(crate) async fn wait(order: impl FnOnce(Done)) -> Result<(), InferError> {
    let (tell, told) = oneshot::channel();
    order(Box::new(move |outcome| drop(tell.send(outcome))));
    told.await.unwrap_or_else(|_| Err(InferError::Internal("the order was lost".into())))
}

/// Hands an outcome to the task that waits for it; knows when nobody does.
struct Slot(oneshot::Sender<Result<InferResponse, InferError>>);

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        // The caller may have gone between the run and here: then nobody misses the answer.
        let _ = self.0.send(outcome);
    }
}

/// A call that was admitted and has found its revision.
pub(crate) struct Routed<'a> {
    pub(crate) permit: Permit,
    pub(crate) upstream: Arc<dyn Upstream>,
    /// The version that was asked for.
    version: VersionRef<'a>,
}

/// What a call says in the headers that a revision looks at.
pub(crate) fn headers_for(upstream: &dyn Upstream, headers: &HeaderMap) -> Vec<(Box<str>, Box<str>)> {
    let said = |name: &str| Some((name.into(), headers.get(name)?.to_str().ok()?.into()));
    upstream.headers().iter().filter_map(|name| said(name)).collect()
}

/// Reads a model's name as callers write it.
pub(crate) fn model_name(raw: &str) -> Result<ModelName, InferError> {
    let unknown =
        || InferError::UnknownModel { model: raw.chars().filter(|c| !c.is_control()).take(255).collect() };
    ModelName::parse(raw).map_err(|_| unknown())
}

impl Service {
    /// Admits a caller to a verb.
    pub(crate) fn admit(
        &self,
        principal: &Principal,
        verb: Verb,
        model: Option<&ModelName>,
    ) -> Result<Permit, InferError> {
        Ok(self.0.gate.admit(principal, verb, model)?)
    }

    /// Admits a caller to a model and finds the revision, if it is in memory.
    pub(crate) fn route<'a>(
        &self,
        principal: &Principal,
        verb: Verb,
        model: &str,
        version_text: &'a str,
    ) -> Result<Routed<'a>, InferError> {
        let permit = self.admit_to(principal, verb, model)?;
        let version = VersionRef::read(version_text);
        let upstream = self.0.router.route(&permit, version)?;
        Ok(Routed { permit, upstream, version })
    }

    /// Whether a request to the revision would be answered.
    ///
    /// # Errors
    /// The caller may not ask. What is unknown is not ready.
    pub(crate) fn probe(
        &self,
        principal: &Principal,
        model: &str,
        version_text: &str,
    ) -> Result<bool, InferError> {
        let permit = self.admit_to(principal, Verb::Probe, model);
        let probed = permit.and_then(|permit| self.0.router.probe(&permit, VersionRef::read(version_text)));
        match probed {
            Ok(()) => Ok(!self.0.drain.is_draining()),
            Err(error) if error.code() == Code::PermissionDenied => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// As [`Self::route`], and waits until the model is in memory if it was sent out.
    pub(crate) async fn route_awake<'a>(
        &self,
        principal: &Principal,
        verb: Verb,
        model: &str,
        version_text: &'a str,
    ) -> Result<Routed<'a>, InferError> {
        let permit = self.admit_to(principal, verb, model)?;
        let version = VersionRef::read(version_text);
        let upstream = self.find_awake(&permit, version).await?;
        Ok(Routed { permit, upstream, version })
    }

    /// Admits a caller to read about a model. Only one that was never in memory is loaded for that: who reads about all
    /// models must not send those out of memory that others use.
    pub(crate) async fn read_about<'a>(
        &self,
        principal: &Principal,
        model: &str,
        version_text: &'a str,
    ) -> Result<Routed<'a>, InferError> {
        let permit = self.admit_to(principal, Verb::ReadModel, model)?;
        let version = VersionRef::read(version_text);
        let upstream = self.awake(&permit, || self.0.router.describe(&permit, version)).await?;
        Ok(Routed { permit, upstream, version })
    }

    async fn find_awake(
        &self,
        permit: &Permit,
        version: VersionRef<'_>,
    ) -> Result<Arc<dyn Upstream>, InferError> {
        self.awake(permit, || self.0.router.route(permit, version)).await
    }

    async fn awake(
        &self,
        permit: &Permit,
        find: impl Fn() -> Result<Arc<dyn Upstream>, InferError>,
    ) -> Result<Arc<dyn Upstream>, InferError> {
        match find() {
            // On the heap: every call would be as large as one that waits.
            Err(InferError::NotResident { .. }) => Box::pin(self.wake(permit, find)).await,
            found => found,
        }
    }

    async fn wake(
        &self,
        permit: &Permit,
        find: impl Fn() -> Result<Arc<dyn Upstream>, InferError>,
    ) -> Result<Arc<dyn Upstream>, InferError> {
        for _ in 0..WAKES {
            wait(|done| self.0.router.wake(permit, done)).await?;
            match find() {
                Err(InferError::NotResident { .. }) => {}
                found => return found,
            }
        }
        // Sent out again each time before its turn came.
        Err(no_memory(permit))
    }

    fn admit_to(&self, principal: &Principal, verb: Verb, model: &str) -> Result<Permit, InferError> {
        let name = model_name(model)?;
        let permit = self.admit(principal, verb, Some(&name))?;
        if verb == Verb::Infer && self.0.drain.is_draining() {
            return Err(InferError::Draining);
        }
        Ok(permit)
    }

    /// Submits a request and waits for its answer. `routed` is the revision that gave it.
    pub(crate) async fn run(
        &self,
        routed: &mut Routed<'_>,
        request: InferRequest,
    ) -> Result<InferResponse, InferError> {
        if request.sequence.is_some() {
            return Box::pin(self.run_in_sequence(routed, request)).await;
        }
        routed.submit(request).await
    }

    /// A sequence is answered by the revision that has begun it, and begins in one that stays.
    async fn run_in_sequence(
        &self,
        routed: &mut Routed<'_>,
        request: InferRequest,
    ) -> Result<InferResponse, InferError> {
        for _ in 0..WAKES {
            let mark = request.sequence.as_ref();
            if let Some(older) = mark.and_then(|mark| routed.upstream.revision_of(&routed.permit, mark)) {
                routed.upstream = older;
            }
            match routed.submit(request.clone()).await {
                // It was replaced or sent out of memory since it was found.
                Err(InferError::NotResident { .. }) => {
                    routed.upstream = self.find_awake(&routed.permit, routed.version).await?;
                }
                outcome => return outcome,
            }
        }
        Err(no_memory(&routed.permit))
    }
}

impl Routed<'_> {
    async fn submit(&self, request: InferRequest) -> Result<InferResponse, InferError> {
        let (sender, receiver) = oneshot::channel();
        self.upstream.submit(&self.permit, request, Box::new(Slot(sender)));
        receiver
            .await
            .unwrap_or_else(|_| Err(InferError::Internal("the model ended without an answer".into())))
    }
}

fn no_memory(permit: &Permit) -> InferError {
    InferError::NoModelMemory { model: permit.model().map(ToString::to_string).unwrap_or_default() }
}

/// Records one inference call, also one whose future is dropped because its caller went away.
pub(crate) struct Record<'a> {
    pub(crate) service: &'a Service,
    pub(crate) principal: &'a Principal,
    pub(crate) protocol: Protocol,
    /// Whether it is one of several in a stream.
    pub(crate) streamed: bool,
    pub(crate) started: Instant,
    /// When the time is up that the caller gives it.
    pub(crate) until: Option<Instant>,
    /// When its last byte was read.
    pub(crate) received: Option<Instant>,
    /// When its bytes had become tensors.
    pub(crate) decoded: Option<Instant>,
    /// How old it may be when its turn comes.
    pub(crate) max_age: Option<Duration>,
    /// Whether its answer is to say that it is the last.
    pub(crate) final_response: bool,
    /// What the caller said of its trace.
    pub(crate) parent: Option<Parent>,
    /// Its trace, if it is traced.
    pub(crate) traced: Option<Arc<Traced>>,
    /// As the caller named it.
    pub(crate) model: &'a str,
    /// The request's own mark.
    pub(crate) id: String,
    pub(crate) bytes_in: usize,
    pub(crate) routed: Option<Routed<'a>>,
    done: bool,
}

/// Where the time of an answered call went.
pub(crate) struct Spent {
    pub(crate) rows: u64,
    /// When the answer was back from the model.
    pub(crate) answered: Instant,
    pub(crate) done: Instant,
    pub(crate) timings: xebec_core::Timings,
}

impl<'a> Record<'a> {
    pub(crate) fn new(service: &'a Service, principal: &'a Principal, protocol: Protocol) -> Self {
        Self {
            service,
            principal,
            protocol,
            streamed: false,
            started: Instant::now(),
            until: None,
            received: None,
            decoded: None,
            max_age: None,
            final_response: false,
            parent: None,
            traced: None,
            model: "",
            id: String::new(),
            bytes_in: 0,
            routed: None,
            done: false,
        }
    }

    /// How old the call is, if it failed because it was older than its caller wants.
    pub(crate) fn too_old(&self, error: &InferError) -> Option<Duration> {
        let age = self.received?.elapsed();
        (matches!(error, InferError::Timeout) && self.max_age.is_some_and(|most| age >= most)).then_some(age)
    }

    /// The call was answered.
    pub(crate) fn succeed(&mut self, spent: &Spent, bytes_out: usize) {
        self.done = true;
        if let Some(Routed { permit, upstream, .. }) = &self.routed {
            let tenant = upstream.metrics().tenant(permit.tenant());
            let received = self.received.unwrap_or(self.started);
            let decode = self.decoded.unwrap_or(received) - received;
            let durations = (decode, spent.done - spent.answered, spent.done - received);
            tenant.succeed(spent.rows, &spent.timings, spent.done, durations);
            if let Some(traced) = &self.traced {
                tenant.exemplify(traced.span, &spent.timings, durations);
            }
        }
        self.tell(Some(spent), bytes_out, None);
        self.log(200, bytes_out, None);
    }

    /// The call failed.
    pub(crate) fn fail(&mut self, error: &InferError) {
        self.done = true;
        self.count(error);
        self.tell(None, 0, Some(error));
        self.log(error.code().http(), 0, Some(&error.to_string()));
    }

    fn count(&self, error: &InferError) {
        match &self.routed {
            Some(Routed { permit, upstream, .. }) => {
                let tenant = upstream.metrics().tenant(permit.tenant());
                tenant.fail(error.failure_reason(), self.started.elapsed());
            }
            None => self.service.0.unrouted.add(error.code()),
        }
    }

    /// The request's own mark, as far as it is written down.
    pub(crate) fn shortened_id(&self) -> &str {
        shortened(&self.id)
    }

    fn log(&self, status: u16, bytes_out: usize, error: Option<&str>) {
        let Some(log) = &self.service.0.access_log else { return };
        log.record(&AccessEntry {
            protocol: self.protocol,
            verb: "infer",
            model: shortened(self.model),
            version: self.routed.as_ref().map_or(0, |routed| routed.upstream.info().version.get()),
            tenant: self.routed.as_ref().map_or("", |routed| routed.permit.tenant().as_str()),
            status,
            request_id: self.shortened_id(),
            span: self.span(),
            bytes_in: self.bytes_in,
            bytes_out,
            duration: self.started.elapsed(),
            principal: self.principal,
            error,
        });
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        debug_assert_eq!(InferError::Cancelled.failure_reason(), FailureReason::Canceled);
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        let error = if late { InferError::DeadlineExceeded } else { InferError::Cancelled };
        self.count(&error);
        self.tell(None, 0, Some(&error));
        if late {
            self.log(error.code().http(), 0, Some(&error.to_string()));
        } else {
            // nginx's number for a caller that has gone.
            self.log(499, 0, Some("the caller has gone"));
        }
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LOGGED_BYTES)).unwrap_or(text)
}
