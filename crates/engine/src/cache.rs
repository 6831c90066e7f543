//! Answers that are kept: an equal request of the same tenant to the same load of a model is answered without a run.
//!
//! A layer before a model whose configuration has `response_cache { enable: true }`. Equal requests that come while the
//! first one runs wait for its answer instead of running too. Invariants: only answers are kept, never errors; what is
//! kept has no more bytes than may; a tenant is never answered with another's answer, nor can it tell that there is one;
//! a reload begins anew. Requests of streams and sequences never come here.
//!
//! Not here: what goes when there is no room (`store`).
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use store::{Key, Store};
use xebec_core::{
    InferError, InferRequest, InferResponse, ModelInfo, Permit, Tensor, Timings,
    metrics::{CacheMetrics, ModelMetrics},
    model_config::ModelConfig,
    port::{Answer, Extent, Reply, Upstream},
};

mod store;
#[cfg(test)]
mod tests;

/// Most requests that wait for one run; more run by themselves.
const MOST_WAITING: usize = 4096;

/// The answers of all models of a process.
pub(crate) struct Cache {
    state: Mutex<State>,
    metrics: CacheMetrics,
}

struct State {
    store: Store,
    flights: HashMap<Key, Arc<Flight>>,
}

/// A run for whose answer others wait; `None` once it is over.
struct Flight(Mutex<Option<Vec<Reply>>>);

impl Cache {
    /// For so many bytes of answers.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        let state = Mutex::new(State { store: Store::new(limit), flights: HashMap::new() });
        Arc::new(Self { state, metrics: CacheMetrics::default() })
    }

    /// What it holds, and has let go.
    pub(crate) fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, store: &Store) {
        self.metrics.bytes.set(i64::try_from(store.bytes()).unwrap_or(i64::MAX));
        self.metrics.entries.set(i64::try_from(store.len()).unwrap_or(i64::MAX));
    }
}

/// What there is for a request.
enum Found {
    Answer(Arc<[Tensor]>),
    /// It is the first: others will wait for it.
    Lead(Arc<Flight>),
    /// It waits for another's answer.
    Waits,
    /// It runs by itself, and its answer is kept.
    Alone(Reply),
}

/// A model whose answers are kept.
pub(crate) struct Cached {
    inner: Arc<dyn Upstream>,
    cache: Arc<Cache>,
    /// Which load of which model: answers of another are never given.
    load: u64,
}

impl Cached {
    pub(crate) fn new(inner: Arc<dyn Upstream>, cache: Arc<Cache>) -> Self {
        let load = cache.lock().store.begin();
        Self { inner, cache, load }
    }

    /// A digest of everything that an answer depends on, and of whose it is.
    fn key(&self, permit: &Permit, request: &InferRequest) -> Key {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            // With their lengths, so that no two lists of parts are the same bytes.
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(permit.tenant().as_str().as_bytes());
        let mut inputs: Vec<&Tensor> = request.inputs.iter().collect();
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        for Tensor { name, datatype, shape, data } in inputs {
            part(name.as_bytes());
            part(datatype.as_str().as_bytes());
            shape.iter().for_each(|extent| part(&extent.to_le_bytes()));
            part(b"data");
            part(data);
        }
        part(b"outputs");
        request.outputs.iter().for_each(|output| part(output.as_bytes()));
        part(b"headers");
        for (name, value) in &request.headers {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        Key { load: self.load, digest: hash.finalize().into() }
    }

    /// Looks a request up. One with a timeout of its own neither waits for another nor lets others wait for it.
    fn find(&self, key: &Key, timed: bool, reply: Reply) -> (Found, Option<Reply>) {
        let mut state = self.cache.lock();
        if let Some(answer) = state.store.get(key) {
            return (Found::Answer(answer), Some(reply));
        }
        if timed {
            return (Found::Alone(reply), None);
        }
        if let Some(flight) = state.flights.get(key) {
            let mut waiting = flight.0.lock().unwrap_or_else(PoisonError::into_inner);
            return match waiting.as_mut().filter(|waiting| waiting.len() < MOST_WAITING) {
                Some(waiting) => {
                    waiting.push(reply);
                    (Found::Waits, None)
                }
                None => (Found::Alone(reply), None),
            };
        }
        let flight = Arc::new(Flight(Mutex::new(Some(Vec::new()))));
        state.flights.insert(*key, Arc::clone(&flight));
        (Found::Lead(flight), Some(reply))
    }
}

impl Upstream for Cached {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        self.inner.labels(output)
    }

    fn metrics(&self) -> &ModelMetrics {
        self.inner.metrics()
    }

    fn headers(&self) -> &[Box<str>] {
        self.inner.headers()
    }

    fn extent(&self) -> Extent {
        self.inner.extent()
    }

    fn works_here(&self) -> bool {
        self.inner.works_here()
    }

    fn submit(&self, permit: &Permit, request: InferRequest, reply: Reply) {
        if request.streamed || request.sequence.is_some() {
            return self.inner.submit(permit, request, reply);
        }
        let began = Instant::now();
        let key = self.key(permit, &request);
        let (found, reply) = self.find(&key, request.timeout.is_some(), reply);
        let counts = &self.inner.metrics().tenant(permit.tenant()).cache;
        let (flight, reply) = match (found, reply) {
            (Found::Answer(answer), Some(reply)) => {
                counts.hit(began.elapsed());
                return reply.send(Ok(kept(&answer)));
            }
            (Found::Lead(flight), Some(reply)) => (Some(flight), reply),
            (Found::Alone(reply), _) => (None, reply),
            (Found::Waits, _) => return counts.hit(began.elapsed()),
            // An answer and a lead always come with their reply.
            (Found::Answer(_) | Found::Lead(_), None) => return,
        };
        counts.miss(began.elapsed());
        let reply = Keep { cache: Arc::clone(&self.cache), key, flight, reply: Some(reply) };
        self.inner.submit(permit, request, Box::new(reply));
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        state.store.forget(self.load);
        self.cache.note(&state.store);
    }
}

/// An answer that was kept. It took no run.
fn kept(answer: &[Tensor]) -> InferResponse {
    InferResponse { outputs: answer.to_vec(), timings: Timings { cached: true, ..Timings::default() } }
}

/// Keeps the answer of a run and hands it to all who wait for it.
struct Keep {
    cache: Arc<Cache>,
    key: Key,
    flight: Option<Arc<Flight>>,
    reply: Option<Reply>,
}

impl Keep {
    /// Keeps an answer, and ends the flight; returns who waited.
    fn land(&mut self, answer: Option<Arc<[Tensor]>>) -> Vec<Reply> {
        let mut state = self.cache.lock();
        if let Some(answer) = answer {
            let evicted = state.store.put(self.key, answer);
            self.cache.metrics.evictions.add(evicted);
            self.cache.note(&state.store);
        }
        let Some(flight) = self.flight.take() else { return Vec::new() };
        state.flights.remove(&self.key);
        drop(state);
        flight.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }
}

impl Answer for Keep {
    fn is_gone(&self) -> bool {
        if self.reply.as_ref().is_some_and(|reply| !reply.is_gone()) {
            return false;
        }
        let waiting =
            self.flight.as_ref().map(|flight| flight.0.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.is_none_or(|waiting| waiting.iter().flatten().all(|reply| reply.is_gone()))
    }

    fn send(mut self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        let answer = outcome.as_ref().ok().map(|response| response.outputs.iter().map(copied).collect());
        let waiting = self.land(answer.clone());
        for reply in waiting {
            reply.send(match (&answer, &outcome) {
                (Some(answer), _) => Ok(kept(answer)),
                (None, Err(error)) => Err(error.clone()),
                (None, Ok(_)) => Err(InferError::Cancelled),
            });
        }
        if let Some(reply) = self.reply.take() {
            reply.send(outcome);
        }
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        // Dropped without an answer, the run broke; so do those who waited, and the next one runs again.
        drop(self.land(None));
    }
}

/// A tensor with bytes of its own: what was cut from a batch would keep the whole batch in memory.
fn copied(tensor: &Tensor) -> Tensor {
    Tensor { data: Bytes::copy_from_slice(&tensor.data), ..tensor.clone() }
}
