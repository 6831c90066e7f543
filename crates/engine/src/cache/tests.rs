use super::*;
use std::sync::mpsc::{Receiver, sync_channel};
use xebec_core::{
    CorrelationId, Datatype, Gate, ModelName, Principal, SequenceMark, TenantId, Verb, Version,
    permit::{Admit, Ask, Decision},
};

/// Holds every request until the test answers it.
struct Holding {
    info: ModelInfo,
    config: ModelConfig,
    metrics: ModelMetrics,
    held: Mutex<Vec<(InferRequest, Reply)>>,
}

impl Upstream for Holding {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }
    fn submit(&self, _: &Permit, request: InferRequest, reply: Reply) {
        self.held.lock().unwrap().push((request, reply));
    }
}

struct Tenants;

impl Admit for Tenants {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let Principal::Anonymous { peer } = ask.principal;
        Decision::Allow(TenantId::parse(&format!("t{}", peer.port())).unwrap())
    }
}

fn permit(tenant: u16) -> Permit {
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], tenant).into() };
    let model = ModelName::parse("m").unwrap();
    Gate::new(Arc::new(Tenants)).admit(&who, Verb::Infer, Some(&model)).unwrap()
}

/// A caller that may go away: it has when its receiver is dropped.
struct Slot(std::sync::Weak<()>, std::sync::mpsc::SyncSender<Result<InferResponse, InferError>>);

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        let _ = self.1.send(outcome);
    }
}

struct Caller(Arc<()>, Receiver<Result<InferResponse, InferError>>);

impl Caller {
    /// The answer's bytes and whether it was kept.
    fn answer(&self) -> Result<(Vec<u8>, bool), InferError> {
        let response = self.1.try_recv().expect("no answer yet")?;
        Ok((response.outputs[0].data.to_vec(), response.timings.cached))
    }
}

struct House {
    inner: Arc<Holding>,
    cached: Cached,
}

fn tensor(name: &str, data: &'static [u8]) -> Tensor {
    Tensor { name: name.into(), datatype: Datatype::Uint8, shape: vec![1], data: Bytes::from_static(data) }
}

fn request(data: &'static [u8]) -> InferRequest {
    InferRequest {
        id: String::new(),
        inputs: vec![tensor("x", data)],
        outputs: Vec::new(),
        timeout: None,
        priority: 0,
        sequence: None,
        streamed: false,
        headers: Vec::new(),
        received: Instant::now(),
        trace: None,
    }
}

impl House {
    fn new(cache: &Arc<Cache>) -> Self {
        let info = ModelInfo {
            name: ModelName::parse("m").unwrap(),
            version: Version::FIRST,
            platform: String::new(),
            max_batch_size: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let (config, metrics) = (ModelConfig::default(), ModelMetrics::default());
        let inner = Arc::new(Holding { info, config, metrics, held: Mutex::default() });
        let cached = Cached::new(Arc::<Holding>::clone(&inner), Arc::clone(cache));
        Self { inner, cached }
    }

    fn send_as(&self, tenant: u16, request: InferRequest) -> Caller {
        let (to, from) = sync_channel(1);
        let here = Arc::new(());
        self.cached.submit(&permit(tenant), request, Box::new(Slot(Arc::downgrade(&here), to)));
        Caller(here, from)
    }

    fn send(&self, data: &'static [u8]) -> Caller {
        self.send_as(1, request(data))
    }

    /// Requests that came through.
    fn running(&self) -> usize {
        self.inner.held.lock().unwrap().len()
    }

    /// Answers the one that came through first, with its own input.
    fn finish(&self) {
        let (request, reply) = self.inner.held.lock().unwrap().remove(0);
        let outputs = vec![Tensor { name: "y".into(), ..request.inputs[0].clone() }];
        reply.send(Ok(InferResponse { outputs, timings: Timings::default() }));
    }

    fn fail(&self, error: InferError) {
        let (_, reply) = self.inner.held.lock().unwrap().remove(0);
        reply.send(Err(error));
    }
}

#[test]
fn a_hundred_equal_requests_run_once_and_all_get_the_answer() {
    let house = House::new(&Cache::new(1 << 20));
    let callers: Vec<Caller> = (0..100).map(|_| house.send(b"a")).collect();
    assert_eq!(house.running(), 1);
    house.finish();
    let answers: Vec<_> = callers.iter().map(|caller| caller.answer().unwrap()).collect();
    assert_eq!(answers.iter().filter(|(data, _)| data == b"a").count(), 100);
    assert_eq!(answers.iter().filter(|(_, kept)| !kept).count(), 1, "one ran");
    assert_eq!(house.send(b"a").answer(), Ok((b"a".to_vec(), true)));
    let counts = &house.inner.metrics.tenant(permit(1).tenant()).cache;
    assert_eq!((counts.hits.get(), counts.misses.get()), (100, 1));
}

#[test]
fn what_differs_in_anything_is_another_request() {
    let cache = Cache::new(1 << 20);
    let house = House::new(&cache);
    house.send(b"a");
    house.finish();
    let mut others = vec![request(b"b")];
    others.push(InferRequest { outputs: vec!["y".into()], ..request(b"a") });
    others.push(InferRequest { inputs: vec![tensor("z", b"a")], ..request(b"a") });
    for change in [
        |tensor: &mut Tensor| tensor.shape = vec![1, 1],
        |tensor: &mut Tensor| tensor.datatype = Datatype::Int8,
    ] {
        let mut other = request(b"a");
        change(&mut other.inputs[0]);
        others.push(other);
    }
    for (count, other) in others.into_iter().enumerate() {
        house.send_as(1, other);
        assert_eq!(house.running(), count + 1);
    }
    // Another tenant's is another one too, and so is one to another load of the model.
    house.send_as(2, request(b"a"));
    assert_eq!(house.running(), 6);
    let again = House::new(&cache);
    again.send(b"a");
    assert_eq!(again.running(), 1);
    // Inputs in another order are the same request.
    let two = |names: [&str; 2]| InferRequest {
        inputs: names.map(|name| tensor(name, if name == "p" { b"1" } else { b"2" })).into(),
        ..request(b"")
    };
    again.finish();
    again.send_as(1, two(["p", "q"]));
    again.finish();
    assert!(again.send_as(1, two(["q", "p"])).answer().unwrap().1);
    drop(again);
    assert_eq!(cache.metrics().entries.get(), 1, "the answers of a load go with it");
}

#[test]
fn an_error_is_told_to_all_who_wait_and_is_not_kept() {
    let house = House::new(&Cache::new(1 << 20));
    let callers = [house.send(b"a"), house.send(b"a")];
    house.fail(InferError::Timeout);
    assert!(callers.iter().all(|caller| caller.answer() == Err(InferError::Timeout)));
    let again = house.send(b"a");
    assert_eq!(house.running(), 1);
    // A run that breaks answers nobody, and the next one runs again.
    house.inner.held.lock().unwrap().clear();
    assert!(again.1.try_recv().is_err());
    house.send(b"a");
    assert_eq!(house.running(), 1);
}

#[test]
fn a_run_goes_on_for_as_long_as_anybody_waits() {
    let house = House::new(&Cache::new(1 << 20));
    let (first, second) = (house.send(b"a"), house.send(b"a"));
    let gone = || house.inner.held.lock().unwrap()[0].1.is_gone();
    drop(first);
    assert!(!gone());
    drop(second.0);
    assert!(gone());
}

#[test]
fn streams_sequences_and_requests_with_a_timeout_do_not_wait_for_others() {
    let house = House::new(&Cache::new(1 << 20));
    house.send(b"a");
    house.finish();
    let streamed = InferRequest { streamed: true, ..request(b"a") };
    let mark = SequenceMark { id: CorrelationId::Number(1), start: true, end: true };
    let sequence = InferRequest { sequence: Some(mark), ..request(b"a") };
    let callers = [house.send_as(1, streamed), house.send_as(1, sequence)];
    assert_eq!(house.running(), 2);
    house.finish();
    house.finish();
    assert!(callers.iter().all(|caller| caller.answer() == Ok((b"a".to_vec(), false))));
    // One that may not wait for long is answered by what is there, and else runs by itself.
    let timed = |data| InferRequest { timeout: Some(std::time::Duration::from_secs(1)), ..request(data) };
    assert!(house.send_as(1, timed(b"a")).answer().unwrap().1);
    house.send(b"b");
    house.send_as(1, timed(b"b"));
    assert_eq!(house.running(), 2);
    house.finish();
    house.finish();
    assert!(house.send(b"b").answer().unwrap().1);
}

#[test]
fn what_is_kept_has_no_more_bytes_than_may() {
    let cache = Cache::new(2000);
    let house = House::new(&cache);
    let inputs: [&'static [u8]; 3] = [&[1; 900], &[2; 900], &[3; 900]];
    for data in inputs {
        house.send(data);
        house.finish();
    }
    let metrics = cache.metrics();
    assert_eq!((metrics.entries.get(), metrics.evictions.get()), (1, 2));
    assert!(metrics.bytes.get() <= 2000);
    assert!(house.send(&[3; 900]).answer().unwrap().1);
}
