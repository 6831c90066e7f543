//! What happens when more is asked than can be run: over a model with a door.
use super::*;
use crate::served::tests::{House, permit};
use bytes::Bytes;
use std::{sync::mpsc, time::Duration};
use xebec_core::{Datatype, SequenceMark};

/// Longer than any answer takes: a test that would wait for ever fails instead.
const BOUND: Duration = Duration::from_secs(60);

struct Slot(mpsc::SyncSender<Result<InferResponse, InferError>>);

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        false
    }
    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        self.0.send(outcome).unwrap();
    }
}

struct Waiting(mpsc::Receiver<Result<InferResponse, InferError>>);

impl Waiting {
    fn outcome(&self) -> Result<f32, InferError> {
        let response = self.0.recv_timeout(BOUND).unwrap()?;
        Ok(f32::from_le_bytes(response.outputs[0].data[..].try_into().unwrap()))
    }
}

/// A stateful model of so many places, over `house`.
fn sequenced(house: &mut House, places: usize) -> Arc<Sequenced> {
    Sequenced::start(Arc::new(house.served.take().unwrap()), Plan::bare(places)).unwrap()
}

fn send(model: &Sequenced, id: u64, start: bool, x: f32) -> Waiting {
    let data = Bytes::copy_from_slice(&x.to_le_bytes());
    let request = InferRequest {
        id: String::new(),
        inputs: vec![Tensor { name: "x".into(), datatype: Datatype::Fp32, shape: vec![1, 1], data }],
        outputs: vec![],
        timeout: None,
        priority: 9,
        sequence: Some(SequenceMark { id: CorrelationId::Number(id), start, end: false }),
        streamed: false,
        headers: Vec::new(),
        received: Instant::now(),
        trace: None,
    };
    let (to, from) = mpsc::sync_channel(1);
    model.submit(&permit(), request, Box::new(Slot(to)));
    Waiting(from)
}

#[test]
fn a_sequence_that_is_sent_without_waiting_gets_its_answers_in_order_where_the_owner_wants_it() {
    let mut house = House::new(true, |batching, _| {
        (batching.preserve_ordering, batching.queue.max_queue) = (true, 200);
    });
    let model = sequenced(&mut house, 2);
    let first = send(&model, 1, true, 1.0);
    house.entered.recv().unwrap();
    let sent: Vec<Waiting> = (0..200u8).map(|x| send(&model, 1, false, f32::from(x))).collect();
    house.open();
    assert_eq!(first.outcome(), Ok(2.0));
    for (x, waiting) in (0..200u8).zip(sent) {
        assert_eq!(waiting.outcome(), Ok(f32::from(x) * 2.0));
    }
}

#[test]
fn however_many_are_refused_one_after_the_other_they_are_told_and_the_process_goes_on() {
    const MANY: usize = 4000;
    let mut house = House::new(true, |batching, _| (batching.max_rows, batching.queue.max_queue) = (1, MANY));
    let model = sequenced(&mut house, MANY + 1);
    let first = send(&model, 0, true, 1.0);
    house.entered.recv().unwrap();
    // These wait for the first, which stands in the door, and these fill the queue of the runs.
    let behind: Vec<Waiting> = (1..MANY).map(|_| send(&model, 0, false, 1.0)).collect();
    let others: Vec<Waiting> = (1..=MANY as u64).map(|id| send(&model, id, true, 2.0)).collect();
    house.open();
    assert_eq!(first.outcome(), Ok(2.0));
    // Each of them finds the queue full, and so lets the next one try.
    for waiting in behind {
        assert_eq!(waiting.outcome(), Err(InferError::QueueFull { model: "m".into(), limit: MANY }));
    }
    assert!(others.iter().all(|waiting| waiting.outcome() == Ok(4.0)));
    // A sequence whose requests were refused is as it was.
    assert_eq!(send(&model, 0, false, 3.0).outcome(), Ok(6.0));
}
