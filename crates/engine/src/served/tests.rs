use super::*;
use crate::{
    TurnEnd,
    backend::{OutputView, RunError, Signature},
    later::later,
    workers,
};
use bytes::Bytes;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, ThreadId},
};
use xebec_core::{
    Datatype, InferResponse, ModelName, TenantId, Tensor, Version,
    model::TensorInfo,
    permit::{Admit, Ask, Decision, Gate, Principal, Verb},
    port::{Answer, Turn},
};

/// Marks in the data of the fake model.
const FAIL: f32 = -1.0;
const PANIC: f32 = -2.0;
/// An id that the observer breaks over.
const BREAK: &str = "break";

const LEVEL: QueuePolicy =
    QueuePolicy { max_queue: 4, timeout: None, timeout_override: true, waits_on: false };

const BATCHING: Batching = Batching {
    max_rows: 8,
    preferred: Vec::new(),
    max_delay: Duration::ZERO,
    queue: LEVEL,
    priorities: None,
    preserve_ordering: false,
    mixes: Ok(()),
};

/// y = 2 x, with a door in front of every run.
pub(crate) struct Fake {
    door: Option<Arc<Door>>,
    /// Rows too many in the output of a batch.
    extra_rows: i64,
    slow: Duration,
    panics_over_zeros: bool,
    signature: Signature,
}

/// Lets the test see a run begin and let it go on.
struct Door {
    entered: SyncSender<usize>,
    leave: Mutex<Receiver<()>>,
    open: AtomicBool,
}

struct FakeStream {
    door: Option<Arc<Door>>,
    extra_rows: i64,
    slow: Duration,
    panics_over_zeros: bool,
    shape: Vec<i64>,
    data: Vec<u8>,
}

impl Model for Fake {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn shared_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        let &Self { extra_rows, slow, panics_over_zeros, .. } = self;
        let door = self.door.clone();
        Ok(Box::new(FakeStream { door, extra_rows, slow, panics_over_zeros, shape: vec![], data: vec![] }))
    }
    fn own_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        self.shared_stream()
    }
}

impl Stream for FakeStream {
    fn run(&mut self, batch: &[crate::backend::BatchInput<'_>]) -> Result<Duration, RunError> {
        let began = Instant::now();
        let whole = batch[0].parts.concat();
        let values: Vec<f32> = whole.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        let trial = values.iter().all(|value| *value == 0.0);
        if let (Some(door), false) = (&self.door, trial)
            && !door.open.load(SeqCst)
        {
            door.entered.send(batch[0].parts.len()).unwrap();
            door.leave.lock().unwrap().recv().unwrap();
        }
        while began.elapsed() < self.slow {
            std::hint::spin_loop();
        }
        assert!(!values.contains(&PANIC), "asked to panic");
        assert!(!(trial && self.panics_over_zeros), "asked to panic over zeros");
        if values.contains(&FAIL) {
            return Err(RunError { message: "asked to fail".into(), callers_fault: true });
        }
        self.data = values.iter().flat_map(|value| (value * 2.0).to_le_bytes()).collect();
        self.shape = batch[0].shape.to_vec();
        if !trial && batch[0].parts.len() > 1 {
            self.shape[0] += self.extra_rows;
        }
        Ok(Duration::ZERO)
    }
    fn output(&self, _: usize) -> OutputView<'_> {
        OutputView { shape: &self.shape, data: &self.data }
    }
}

/// Who was in each run, and which thread it was on.
#[derive(Default)]
struct Seen(Mutex<Vec<(Vec<String>, ThreadId)>>);

impl Observer for Seen {
    fn ran(&self, _: &[crate::backend::BatchInput<'_>], ids: &[&str]) {
        assert!(ids != [BREAK], "asked to break");
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        self.0.lock().unwrap().push((ids, thread::current().id()));
    }
}

struct Channel {
    gone: Arc<AtomicBool>,
    to: SyncSender<Result<InferResponse, InferError>>,
}

impl Answer for Channel {
    fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }
    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        self.to.send(outcome).unwrap();
    }
}

struct Everybody;

impl Admit for Everybody {
    fn decide(&self, _: &Ask<'_>) -> Decision {
        Decision::Allow(TenantId::default_tenant())
    }
}

pub(crate) fn permit() -> Permit {
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], 1).into() };
    Gate::new(Arc::new(Everybody)).admit(&who, Verb::Infer, None).unwrap()
}

/// What one test works with.
pub(crate) struct House {
    pub(crate) served: Option<Served>,
    seen: Arc<Seen>,
    pub(crate) entered: Receiver<usize>,
    leave: SyncSender<()>,
    door: Arc<Door>,
}

struct Waiting {
    gone: Arc<AtomicBool>,
    from: Receiver<Result<InferResponse, InferError>>,
}

impl Waiting {
    fn value(&self) -> Result<Vec<f32>, String> {
        let response = self.from.recv().unwrap().map_err(|error| error.to_string())?;
        let data = &response.outputs[0].data;
        Ok(data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }
}

fn send(served: &Served, id: &str, shape: &[i64], first: f32, timeout: Option<Duration>) -> Waiting {
    send_urgent(served, id, shape, first, timeout, 0)
}

fn send_urgent(
    served: &Served,
    id: &str,
    shape: &[i64],
    first: f32,
    timeout: Option<Duration>,
    priority: u64,
) -> Waiting {
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap();
    let data: Vec<u8> = std::iter::repeat_n(first, count).flat_map(f32::to_le_bytes).collect();
    let tensor =
        Tensor { name: "x".into(), datatype: Datatype::Fp32, shape: shape.to_vec(), data: Bytes::from(data) };
    let request = InferRequest {
        id: id.into(),
        inputs: vec![tensor],
        outputs: vec![],
        timeout,
        priority,
        sequence: None,
        streamed: false,
        headers: Vec::new(),
        received: Instant::now(),
        trace: None,
    };
    let (to, from) = sync_channel(1);
    let gone = Arc::new(AtomicBool::new(false));
    let reply = Box::new(Channel { gone: Arc::clone(&gone), to });
    served.submit(&permit(), request, reply);
    Waiting { gone, from }
}

/// For a model of rows of `extent` elements.
fn plan(extent: i64, batching: Batching) -> Plan {
    let tensor =
        |name: &str| TensorInfo { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, extent] };
    let info = ModelInfo {
        name: ModelName::parse("m").unwrap(),
        version: Version::FIRST,
        platform: "fake".into(),
        max_batch_size: 8,
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    };
    Plan {
        info,
        config: ModelConfig::default(),
        batching,
        edges: None,
        labels: Labels::new(),
        warmups: Vec::new(),
        instances: None,
        limits: Vec::new(),
        limiter: None,
        cores: 1,
        load: LoadOptions::default(),
        inline_below: Duration::from_micros(100),
        observer: None,
        metrics: Arc::default(),
        guard: None,
    }
}

impl House {
    /// `slow` makes the model one that is queued.
    pub(crate) fn new(slow: bool, change: impl FnOnce(&mut Batching, &mut Fake)) -> Self {
        let (enter, entered) = sync_channel(100);
        let (leave, left) = sync_channel(100);
        let door = Arc::new(Door { entered: enter, leave: Mutex::new(left), open: AtomicBool::new(!slow) });
        let mut model = Fake {
            door: Some(Arc::clone(&door)),
            extra_rows: 0,
            slow: if slow { Duration::from_micros(300) } else { Duration::ZERO },
            panics_over_zeros: false,
            signature: Signature { inputs: vec![], outputs: vec![] },
        };
        let mut batching = BATCHING;
        change(&mut batching, &mut model);
        let seen = Arc::new(Seen::default());
        let mut plan = plan(if slow { -1 } else { 1 }, batching);
        plan.observer = Some(Arc::clone(&seen) as Arc<dyn Observer>);
        let served = Served::start(Arc::new(model), plan).unwrap();
        assert_eq!(served.is_inline(), !slow);
        Self { served: Some(served), seen, entered, leave, door }
    }

    fn send(&self, id: &str, shape: &[i64], first: f32) -> Waiting {
        self.send_within(id, shape, first, None)
    }

    fn send_within(&self, id: &str, shape: &[i64], first: f32, timeout: Option<Duration>) -> Waiting {
        send(self.served.as_ref().unwrap(), id, shape, first, timeout)
    }

    pub(crate) fn runs(&self) -> Vec<Vec<String>> {
        self.seen.0.lock().unwrap().iter().map(|(ids, _)| ids.clone()).collect()
    }

    fn pending(&self) -> i64 {
        self.served.as_ref().unwrap().metrics().pending.get()
    }

    /// Lets every run through from now on, also the one that stands in the door.
    pub(crate) fn open(&self) {
        self.door.open.store(true, SeqCst);
        self.leave.send(()).unwrap();
    }
}

#[test]
fn what_waits_while_a_run_goes_on_is_the_next_batch() {
    let house = House::new(true, |_, _| ());
    let first = house.send("0", &[1, 2], 1.0);
    assert_eq!(house.entered.recv(), Ok(1));
    let others: Vec<_> = (1..4u8).map(|i| house.send(&i.to_string(), &[1, 2], f32::from(i))).collect();
    assert_eq!(house.pending(), 3);
    house.leave.send(()).unwrap();
    assert_eq!(house.entered.recv(), Ok(3));
    house.leave.send(()).unwrap();
    assert_eq!(first.value(), Ok(vec![2.0, 2.0]));
    for (i, other) in others.iter().enumerate() {
        let want = (i as f32 + 1.0) * 2.0;
        assert_eq!(other.value(), Ok(vec![want, want]));
    }
    assert_eq!(house.runs(), [vec!["0"], vec!["1", "2", "3"]]);
    assert_eq!((house.pending(), house.served.as_ref().unwrap().metrics().executions.get()), (0, 2));
}

/// What a thread has to do behind the request that it sends.
#[derive(Clone, Copy)]
enum Behind {
    Nothing,
    /// Another request.
    Another,
    /// Something that an answer brought about.
    PutDown,
}

/// Has a thread that is there for work send a request, and wait for it: which thread that is, and what came.
fn send_from_worker(
    served: &Arc<Served>,
    id: &'static str,
    behind: Behind,
) -> Receiver<(ThreadId, Result<Vec<f32>, String>)> {
    let (tell, told) = sync_channel(1);
    let served = Arc::clone(served);
    let work = move || {
        let ask = || send(&served, id, &[1, 2], 1.0, None);
        let waiting = match behind {
            Behind::Nothing => ask(),
            Behind::Another => workers::in_passing(ask),
            Behind::PutDown => {
                later(|| ());
                ask()
            }
        };
        tell.send((thread::current().id(), waiting.value())).unwrap();
    };
    assert!(workers::give(Box::new(work)).is_ok());
    told
}

#[test]
fn who_is_there_for_work_runs_its_request_itself_where_an_instance_rests() {
    let mut house = House::new(true, |_, _| ());
    let served = Arc::new(house.served.take().unwrap());
    let Engine::Pool(pool) = &served.engine else { panic!("it is slow") };
    let until = |done: &dyn Fn() -> bool| {
        while !done() {
            thread::yield_now();
        }
    };
    until(&|| pool.resting() == 1);
    let here = send_from_worker(&served, "here", Behind::Nothing);
    assert_eq!(house.entered.recv(), Ok(1));
    // Its place is taken: the next one waits for it as for any run.
    let queued = send_from_worker(&served, "queued", Behind::Nothing);
    until(&|| served.metrics().pending.get() == 1);
    house.open();
    let ((first, answer), (second, after)) = (here.recv().unwrap(), queued.recv().unwrap());
    assert_eq!((answer, after), (Ok(vec![2.0, 2.0]), Ok(vec![2.0, 2.0])));
    // Who has something else to do does not.
    until(&|| pool.resting() == 1);
    let (third, _) = send_from_worker(&served, "another", Behind::Another).recv().unwrap();
    until(&|| pool.resting() == 1);
    let (fourth, _) = send_from_worker(&served, "more", Behind::PutDown).recv().unwrap();
    let seen = house.seen.0.lock().unwrap().clone();
    let ran: Vec<(&str, bool)> = seen
        .iter()
        .zip([first, second, third, fourth])
        .map(|((ids, thread), sender)| (ids[0].as_str(), *thread == sender))
        .collect();
    assert_eq!(ran, [("here", true), ("queued", false), ("another", false), ("more", false)]);
}

#[test]
fn requests_of_different_shape_never_share_a_run() {
    let house = House::new(true, |_, _| ());
    let all: Vec<_> = [(1, 2), (1, 2), (1, 3), (2, 2)]
        .iter()
        .enumerate()
        .map(|(i, (rows, width))| {
            let waiting = house.send(&i.to_string(), &[*rows, *width], 1.0);
            if i == 0 {
                house.entered.recv().unwrap();
            }
            waiting
        })
        .collect();
    house.open();
    for (waiting, values) in all.iter().zip([2, 2, 3, 4]) {
        assert_eq!(waiting.value(), Ok(vec![2.0; values]));
    }
    assert_eq!(house.runs(), [vec!["0"], vec!["1", "3"], vec!["2"]]);
}

#[test]
fn a_model_whose_rows_mix_runs_every_request_alone() {
    let house = House::new(true, |batching, _| batching.mixes = Err("softmax over the batch".into()));
    let first = house.send("0", &[1, 2], 1.0);
    house.entered.recv().unwrap();
    let others = [house.send("1", &[1, 2], 1.0), house.send("2", &[3, 2], 1.0)];
    house.open();
    assert!(others.iter().chain([&first]).all(|waiting| waiting.value().is_ok()));
    assert_eq!(house.runs(), [["0"], ["1"], ["2"]]);
}

#[test]
fn one_bad_request_in_a_batch_fails_alone() {
    let house = House::new(true, |_, _| ());
    let _first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let good = [house.send("1", &[1, 1], 1.0), house.send("2", &[1, 1], 3.0)];
    let bad = house.send("3", &[1, 1], FAIL);
    house.open();
    assert_eq!(good[0].value(), Ok(vec![2.0]));
    assert_eq!(good[1].value(), Ok(vec![6.0]));
    assert_eq!(bad.value(), Err("asked to fail".into()));
}

#[test]
fn a_panic_in_a_run_is_that_requests_error_and_the_model_goes_on() {
    let house = House::new(true, |_, _| ());
    house.open();
    assert_eq!(
        house.send("0", &[1, 1], PANIC).value(),
        Err("internal error: the engine panicked in this run".into())
    );
    assert_eq!(house.send("1", &[1, 1], 4.0).value(), Ok(vec![8.0]));
}

#[test]
fn a_cancelled_request_that_still_waits_never_runs() {
    let house = House::new(true, |_, _| ());
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let cancelled = house.send("1", &[1, 1], 1.0);
    let last = house.send("2", &[1, 1], 1.0);
    cancelled.gone.store(true, SeqCst);
    house.open();
    assert!(first.value().is_ok() && last.value().is_ok());
    assert_eq!(cancelled.value(), Err(InferError::Cancelled.to_string()));
    assert_eq!(house.runs(), [["0"], ["2"]]);
    assert_eq!(house.pending(), 0);
}

#[test]
fn a_request_that_has_waited_too_long_is_told_so_and_never_runs() {
    let house = House::new(true, |batching, _| batching.queue.timeout = Some(Duration::from_secs(3600)));
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let late = house.send_within("1", &[1, 1], 1.0, Some(Duration::ZERO));
    house.open();
    assert!(first.value().is_ok());
    assert_eq!(late.value(), Err("Request timeout expired".into()));
    assert_eq!(house.runs(), [["0"]]);
}

#[test]
fn a_deadline_is_kept_while_the_only_instance_is_in_a_long_run() {
    let house = House::new(true, |_, _| ());
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let later = house.send_within("1", &[1, 1], 1.0, Some(Duration::from_secs(3600)));
    let late = house.send_within("2", &[1, 1], 1.0, Some(Duration::from_millis(1)));
    assert_eq!(late.value(), Err("Request timeout expired".into()));
    house.open();
    assert!(first.value().is_ok() && later.value().is_ok());
    assert_eq!(house.runs(), [["0"], ["1"]]);
}

#[test]
fn a_policy_without_override_ignores_what_a_request_asks_for() {
    let house = House::new(true, |batching, _| batching.queue.timeout_override = false);
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let second = house.send_within("1", &[1, 1], 1.0, Some(Duration::ZERO));
    house.open();
    assert!(first.value().is_ok() && second.value().is_ok());
}

#[test]
fn a_panic_of_an_observer_costs_its_batch_and_not_the_instance() {
    let house = House::new(true, |_, _| ());
    house.door.open.store(true, SeqCst);
    let lost = house.send(BREAK, &[1, 1], 1.0);
    assert!(lost.from.recv().is_err());
    assert!(house.send("1", &[1, 1], 1.0).value().is_ok());
}

#[test]
fn a_model_that_panics_over_zeros_is_served_all_the_same() {
    let house = House::new(true, |_, model| model.panics_over_zeros = true);
    house.door.open.store(true, SeqCst);
    assert_eq!(house.send("0", &[1, 1], 1.0).value(), Ok(vec![2.0]));
}

#[test]
fn a_tiny_model_is_inline_only_if_its_rows_have_one_size_and_nobody_asked_for_instances() {
    let model = || {
        let signature = Signature { inputs: vec![], outputs: vec![] };
        let (door, slow) = (None, Duration::ZERO);
        Arc::new(Fake { door, extra_rows: 0, slow, panics_over_zeros: false, signature })
    };
    let is_inline = |extent, instances, threads| {
        let mut plan = plan(extent, BATCHING);
        (plan.instances, plan.load.threads) = (instances, threads);
        Served::start(model(), plan).unwrap().is_inline()
    };
    assert!(is_inline(1, None, None));
    assert!(is_inline(1, None, Some(1)));
    assert!(!is_inline(-1, None, None));
    assert!(!is_inline(1, Some(1), None));
    assert!(!is_inline(1, None, Some(2)));
}

#[test]
fn a_full_queue_refuses_with_its_limit_and_the_server_goes_on() {
    let house = House::new(true, |batching, _| batching.queue.max_queue = 2);
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let waiting = [house.send("1", &[1, 1], 1.0), house.send("2", &[1, 1], 1.0)];
    let refused = house.send("3", &[1, 1], 1.0).from.recv().unwrap().unwrap_err();
    assert_eq!(refused, InferError::QueueFull { model: "m".into(), limit: 2 });
    house.open();
    assert!(waiting.iter().chain([&first]).all(|waiting| waiting.value().is_ok()));
}

#[test]
fn dropping_the_model_runs_what_waits() {
    let mut house = House::new(true, |_, _| ());
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let waiting = house.send("1", &[1, 1], 5.0);
    house.open();
    drop(house.served.take());
    assert!(first.value().is_ok());
    assert_eq!(waiting.value(), Ok(vec![10.0]));
}

#[test]
fn outputs_that_are_not_the_batchs_rows_are_never_cut() {
    let house = House::new(true, |_, model| model.extra_rows = 1);
    let first = house.send("0", &[1, 1], 1.0);
    house.entered.recv().unwrap();
    let others = [house.send("1", &[1, 1], 2.0), house.send("2", &[1, 1], 3.0)];
    house.open();
    assert_eq!(first.value(), Ok(vec![2.0]));
    assert_eq!((others[0].value(), others[1].value()), (Ok(vec![4.0]), Ok(vec![6.0])));
    assert_eq!(house.runs(), [vec!["0"], vec!["1", "2"], vec!["1"], vec!["2"]]);
}

#[test]
fn a_turn_of_an_io_core_is_one_run_of_a_tiny_model() {
    let house = House::new(false, |_, _| ());
    let all: Vec<_> = (0..3u8).map(|i| house.send(&i.to_string(), &[1, 1], f32::from(i) + 1.0)).collect();
    assert_eq!((house.runs().len(), house.pending()), (0, 3));
    TurnEnd.flush();
    assert_eq!(house.runs(), [["0", "1", "2"]]);
    assert_eq!(all[2].value(), Ok(vec![6.0]));
    TurnEnd.flush();
    assert_eq!((house.runs().len(), house.pending()), (1, 0));
}

#[test]
fn a_tiny_model_runs_at_once_when_a_batch_is_full_and_skips_who_has_gone() {
    let house = House::new(false, |batching, _| {
        batching.max_rows = 3;
        batching.queue.max_queue = 100;
    });
    let all: Vec<_> = (0..3u8).map(|i| house.send(&i.to_string(), &[1, 1], 1.0)).collect();
    assert_eq!(house.runs().len(), 1);
    assert!(all.iter().all(|waiting| waiting.value().is_ok()));
    let gone = house.send("3", &[1, 1], 1.0);
    gone.gone.store(true, SeqCst);
    TurnEnd.flush();
    assert_eq!((house.runs().len(), house.pending()), (1, 0));
    assert_eq!(gone.value(), Err(InferError::Cancelled.to_string()));
}

#[test]
fn every_lane_has_a_thread_and_every_thread_its_turn() {
    let house = House::new(false, |batching, _| batching.queue.max_queue = 1000);
    let answered = AtomicUsize::new(0);
    let served = house.served.as_ref().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..50u8 {
                    let waiting = send(served, "t", &[1, 1], f32::from(i), None);
                    TurnEnd.flush();
                    assert_eq!(waiting.value(), Ok(vec![f32::from(i) * 2.0]));
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!((answered.load(SeqCst), house.pending()), (200, 0));
}

#[test]
fn the_rows_of_an_inline_run_keep_its_core_no_longer_than_allowed() {
    let ms = Duration::from_millis;
    assert_eq!(rows_within(ms(1), 64, Duration::from_micros(50)), 64);
    assert_eq!(rows_within(ms(1), 64, ms(4)), 16);
    assert_eq!(rows_within(ms(1), 64, ms(400)), 1);
}

#[test]
fn a_request_of_a_higher_priority_is_run_before_those_that_came_earlier() {
    let house = House::new(true, |batching, _| {
        (batching.max_rows, batching.priorities) = (
            1,
            Some(Priorities {
                levels: vec![LEVEL, LEVEL, QueuePolicy { max_queue: 1, ..LEVEL }],
                default: 2,
            }),
        );
    });
    let send = |id, priority| send_urgent(house.served.as_ref().unwrap(), id, &[1, 1], 1.0, None, priority);
    let first = send("0", 1);
    house.entered.recv().unwrap();
    let waiting = [send("low", 3), send("default", 0), send("high", 1), send("middle", 2)];
    let refused = send("lower", 3).from.recv().unwrap().unwrap_err();
    assert_eq!(refused, InferError::QueueFull { model: "m".into(), limit: 1 });
    // What is no level is the default, as in Triton.
    let strays = [send("four", 4), send("most", u64::MAX)];
    house.open();
    assert!(waiting.iter().chain([&first]).chain(&strays).all(|waiting| waiting.value().is_ok()));
    assert_eq!(house.runs(), [["0"], ["high"], ["default"], ["middle"], ["four"], ["most"], ["low"]]);
}

#[test]
fn a_priority_changes_nothing_where_there_are_no_levels() {
    let house = House::new(true, |batching, _| batching.max_rows = 1);
    let send = |id, priority| send_urgent(house.served.as_ref().unwrap(), id, &[1, 1], 1.0, None, priority);
    let first = send("0", 0);
    house.entered.recv().unwrap();
    let waiting = [send("1", 7), send("2", 0), send("3", 1)];
    house.open();
    assert!(waiting.iter().chain([&first]).all(|waiting| waiting.value().is_ok()));
    assert_eq!(house.runs(), [["0"], ["1"], ["2"], ["3"]]);
}

#[test]
fn a_level_has_its_own_timeout_and_may_let_who_is_late_wait_on() {
    let late = QueuePolicy { timeout: Some(Duration::ZERO), waits_on: true, ..LEVEL };
    let house = House::new(true, |batching, _| {
        (batching.max_rows, batching.priorities) =
            (1, Some(Priorities { levels: vec![LEVEL, late], default: 1 }));
    });
    let send = |id, priority| send_urgent(house.served.as_ref().unwrap(), id, &[1, 1], 1.0, None, priority);
    let first = send("0", 1);
    house.entered.recv().unwrap();
    let waiting = [send("late", 2), send("1", 1)];
    house.open();
    assert!(waiting.iter().chain([&first]).all(|waiting| waiting.value().is_ok()));
    assert_eq!(house.runs(), [["0"], ["1"], ["late"]]);
}

#[test]
fn answers_go_out_in_the_order_of_their_requests_where_the_owner_wants_it() {
    for keeps in [true, false] {
        let mut house = House::new(true, |batching, _| {
            (batching.preserve_ordering, batching.max_rows) = (keeps, 1);
        });
        // The second instance answers while the first still stands in the door.
        house.served = None;
        let (door, seen) = (Arc::clone(&house.door), Arc::clone(&house.seen));
        let signature = Signature { inputs: vec![], outputs: vec![] };
        let model = Fake {
            door: Some(door),
            extra_rows: 0,
            slow: Duration::ZERO,
            panics_over_zeros: false,
            signature,
        };
        let mut plan = plan(-1, Batching { preserve_ordering: keeps, max_rows: 1, ..BATCHING });
        (plan.instances, plan.observer) = (Some(2), Some(seen as Arc<dyn Observer>));
        let served = Served::start(Arc::new(model), plan).unwrap();
        let first = send(&served, "0", &[1, 1], 1.0, None);
        house.entered.recv().unwrap();
        house.door.open.store(true, SeqCst);
        let second = send(&served, "1", &[1, 1], 2.0, None);
        let third = send(&served, "2", &[1, 1], 3.0, None);
        let end = Instant::now() + Duration::from_secs(20);
        // Who runs the third has handed over the second's answer.
        while house.runs().len() < 2 {
            assert!(Instant::now() < end, "the second instance never ran");
            std::thread::yield_now();
        }
        if keeps {
            assert!(second.from.try_recv().is_err(), "it went before the first");
        } else {
            assert_eq!(second.value(), Ok(vec![4.0]));
        }
        house.leave.send(()).unwrap();
        assert_eq!(first.value(), Ok(vec![2.0]));
        if keeps {
            assert_eq!(second.value(), Ok(vec![4.0]));
        }
        assert_eq!(third.value(), Ok(vec![6.0]));
    }
}

#[test]
fn what_leaves_without_a_run_is_told_at_once_also_where_answers_keep_their_order() {
    let house = House::new(true, |batching, _| {
        (batching.preserve_ordering, batching.max_rows) = (true, 1);
        (batching.queue.max_queue, batching.queue.timeout_override) = (2, true);
    });
    let send = |id, timeout| house.send_within(id, &[1, 1], 1.0, timeout);
    let first = send("0", None);
    house.entered.recv().unwrap();
    // All of these would come behind the first, which still runs.
    let late = send("late", Some(Duration::from_millis(1)));
    assert_eq!(late.from.recv().unwrap().unwrap_err(), InferError::Timeout);
    let waiting = [send("1", None), send("2", None)];
    let full = send("full", None);
    assert_eq!(full.from.recv().unwrap().unwrap_err(), InferError::QueueFull { model: "m".into(), limit: 2 });
    assert!(first.from.try_recv().is_err());
    house.open();
    assert!(waiting.iter().chain([&first]).all(|waiting| waiting.value().is_ok()));
}

/// A model whose runs wait at `door` and take so much of R, if anything.
fn limited(
    name: &str,
    door: &Arc<Door>,
    limiter: &Arc<Limiter>,
    instances: u32,
    need: Option<u32>,
) -> Served {
    let model = Fake {
        door: Some(Arc::clone(door)),
        extra_rows: 0,
        slow: Duration::ZERO,
        panics_over_zeros: false,
        signature: Signature { inputs: vec![], outputs: vec![] },
    };
    let mut plan = plan(1, BATCHING);
    plan.info.name = ModelName::parse(name).unwrap();
    let key = ("R".into(), crate::limiter::Scope::Device(0));
    plan.limits = vec![(instances, need.map(|count| Limit { needs: vec![(key, count)], priority: 1 }))];
    plan.instances = Some(instances);
    plan.limiter = Some(Arc::clone(limiter));
    Served::start(Arc::new(model), plan).unwrap()
}

/// A door that opens for one run at a time.
fn door() -> (Arc<Door>, Receiver<usize>, SyncSender<()>) {
    let ((enter, entered), (leave, left)) = (sync_channel(100), sync_channel(100));
    let door = Door { entered: enter, leave: Mutex::new(left), open: AtomicBool::new(false) };
    (Arc::new(door), entered, leave)
}

#[test]
fn a_run_waits_until_what_it_takes_is_given_back() {
    let (door, entered, leave) = door();
    let limiter = Arc::new(Limiter::new(Vec::new()));
    let start = |name, need| limited(name, &door, &limiter, 1, need);
    let (one, other, free) = (start("one", Some(2)), start("other", Some(1)), start("free", None));
    assert!(!one.is_inline(), "an instance takes turns, an I/O core does not");
    let first = send(&one, "first", &[1, 1], 1.0, None);
    assert_eq!(entered.recv(), Ok(1));
    let second = send(&other, "second", &[1, 1], 2.0, None);
    let third = send(&other, "third", &[1, 1], 3.0, None);
    let late = send(&other, "late", &[1, 1], 4.0, Some(Duration::from_millis(1)));
    assert!(late.value().unwrap_err().contains("timeout"), "who waits for a turn can wait too long");
    let fourth = send(&free, "fourth", &[1, 1], 5.0, None);
    assert_eq!(entered.recv(), Ok(1), "what takes nothing waits for nobody");
    assert!(entered.try_recv().is_err() && second.from.try_recv().is_err());
    // For all three runs: nobody knows which of those in the door goes first.
    for _ in 0..3 {
        leave.send(()).unwrap();
    }
    assert_eq!((first.value().unwrap(), fourth.value().unwrap()), (vec![2.0], vec![10.0]));
    assert_eq!(entered.recv(), Ok(2), "what came while it waited is in the batch");
    assert_eq!((second.value().unwrap(), third.value().unwrap()), (vec![4.0], vec![6.0]));
}

#[test]
fn what_waits_for_a_turn_when_the_model_goes_is_still_run() {
    let (door, entered, leave) = door();
    let limiter = Arc::new(Limiter::new(Vec::new()));
    let start = || limited("m", &door, &limiter, 2, Some(1));
    let (old, new) = (start(), start());
    let first = send(&old, "first", &[1, 1], 1.0, None);
    assert_eq!(entered.recv(), Ok(1));
    let second = send(&old, "second", &[1, 1], 2.0, None);
    let third = send(&new, "third", &[1, 1], 3.0, None);
    drop(old);
    for _ in 0..3 {
        leave.send(()).unwrap();
    }
    let all: Vec<_> = [first, second, third].iter().map(|waiting| waiting.value().unwrap()).collect();
    assert_eq!(all, [[2.0], [4.0], [6.0]]);
}
