use super::{plan::Member, *};
use crate::repository::{complete::Misfit, config::parse};
use proptest::prelude::*;
use std::sync::{
    Barrier,
    mpsc::{Receiver, SyncSender, sync_channel},
};
use xebec_core::{
    Code, Datatype, ModelName, Principal, TenantId, Verb, Version,
    error::FailureReason,
    model::TensorInfo,
    permit::{Admit, Ask, Decision, Gate},
};

/// How a fake member answers.
#[derive(Clone)]
enum Way {
    /// Before `submit` returns.
    AtOnce,
    /// From another thread.
    Elsewhere,
    /// From another thread, when all members with this barrier have been asked.
    Together(Arc<Barrier>),
    /// With an error.
    Fails,
    /// Not at all: the reply is dropped.
    Breaks,
    /// When the test says so, which is told how long there is time.
    Waits(SyncSender<(Reply, Option<Duration>)>),
}

/// `inputs` of shape [-1]; `sum` is their sum and 1 more, `product` their product.
struct Op {
    info: ModelInfo,
    config: ModelConfig,
    metrics: ModelMetrics,
    way: Way,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn tensor(name: &str, values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = vec![i64::try_from(values.len()).unwrap()];
    Tensor { name: name.into(), datatype: Datatype::Fp32, shape, data: data.into() }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn floats(name: &str) -> TensorInfo {
    TensorInfo { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1] }
}

fn compute(inputs: &[Tensor], outputs: &[String]) -> Vec<Tensor> {
    let all: Vec<Vec<f32>> = inputs.iter().map(values).collect();
    let each = |of: fn(f32, f32) -> f32, start: f32| -> Vec<f32> {
        (0..all[0].len()).map(|at| all.iter().fold(start, |so_far, one| of(so_far, one[at]))).collect()
    };
    let made = [tensor("sum", &each(|a, b| a + b, 1.0)), tensor("product", &each(|a, b| a * b, 0.5))];
    made.into_iter()
        .filter(|made| outputs.is_empty() || outputs.iter().any(|name| *name == *made.name))
        .collect()
}

impl Op {
    fn new(name: &str, inputs: usize, way: Way) -> Arc<Self> {
        let info = ModelInfo {
            name: ModelName::parse(name).unwrap(),
            version: Version::FIRST,
            platform: "fake".into(),
            max_batch_size: 0,
            inputs: NAMES[..inputs].iter().map(|name| floats(name)).collect(),
            outputs: vec![floats("sum"), floats("product")],
        };
        Arc::new(Self { info, config: ModelConfig::default(), metrics: ModelMetrics::default(), way })
    }
}

impl Upstream for Op {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }
    fn submit(&self, permit: &Permit, mut request: InferRequest, reply: Reply) {
        assert_eq!(permit.model(), Some(&self.info.name));
        if let Err(error) = check(&self.info, None, &mut request) {
            return reply.send(Err(error));
        }
        let answer = move || {
            let outputs = compute(&request.inputs, &request.outputs);
            Ok(InferResponse { outputs, timings: Timings::default() })
        };
        match &self.way {
            Way::AtOnce => reply.send(answer()),
            Way::Elsewhere => drop(std::thread::spawn(move || reply.send(answer()))),
            Way::Together(barrier) => {
                let barrier = Arc::clone(barrier);
                std::thread::spawn(move || {
                    barrier.wait();
                    reply.send(answer());
                });
            }
            Way::Fails => reply.send(Err(InferError::invalid("asked to fail"))),
            Way::Breaks => drop(reply),
            Way::Waits(to) => to.send((reply, request.timeout)).unwrap(),
        }
    }
}

/// Members by name, some of which must be woken first.
#[derive(Default)]
struct Shelf {
    members: Vec<Arc<Op>>,
    asleep: Mutex<Vec<String>>,
}

impl Members for Shelf {
    fn route(&self, permit: &Permit, _: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        let name = permit.model().unwrap();
        let model = name.to_string();
        if self.asleep.lock().unwrap().contains(&model) {
            return Err(InferError::NotResident { model });
        }
        let found = self.members.iter().find(|op| op.info.name == *name);
        found.map(|op| Arc::clone(op) as Arc<dyn Upstream>).ok_or(InferError::UnknownModel { model })
    }
    fn wake(&self, permit: &Permit, done: Done) {
        self.asleep.lock().unwrap().retain(|name| name != permit.model().unwrap().as_str());
        std::thread::spawn(move || done(Ok(())));
    }
}

struct Everybody;

impl Admit for Everybody {
    fn decide(&self, _: &Ask<'_>) -> Decision {
        Decision::Allow(TenantId::default_tenant())
    }
}

fn permit() -> Permit {
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], 1).into() };
    let model = ModelName::parse("graph").unwrap();
    Gate::new(Arc::new(Everybody)).admit(&who, Verb::Infer, Some(&model)).unwrap()
}

type Outcome = Result<InferResponse, InferError>;

struct Channel(SyncSender<Outcome>);

impl Answer for Channel {
    fn is_gone(&self) -> bool {
        false
    }
    fn send(self: Box<Self>, outcome: Outcome) {
        self.0.send(outcome).unwrap();
    }
}

fn request(inputs: Vec<Tensor>) -> InferRequest {
    InferRequest {
        id: "1".into(),
        inputs,
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

fn planned(config: &str, shelf: &Shelf) -> Result<(plan::Plan, ModelInfo, ModelConfig), Misfit> {
    let config = parse(config).map_err(Misfit::new)?;
    let find = |member: &Member| -> Result<Arc<dyn Upstream>, Misfit> {
        let found = shelf.members.iter().find(|op| op.info.name == member.name);
        found
            .map(|op| Arc::clone(op) as Arc<dyn Upstream>)
            .ok_or_else(|| Misfit::new(format!("'{}' is not there", member.name)))
    };
    let name = ModelName::parse("graph").unwrap();
    let (plan, info) = plan::plan(&name, Version::FIRST, &config, &find)?;
    Ok((plan, info, config))
}

/// A graph, and what keeps its members.
struct House {
    graph: Graph,
    memory: Arc<Memory>,
    shelf: Arc<Shelf>,
}

fn house_of(config: &str, shelf: Shelf, most: u64) -> House {
    let shelf = Arc::new(shelf);
    let (plan, info, config) = planned(config, &shelf).unwrap();
    let members: Weak<dyn Members> = Arc::downgrade(&shelf) as Weak<dyn Members>;
    let memory = Memory::new(most);
    let metrics = Arc::new(ModelMetrics::default());
    let (labels, memory_of) = (Labels::new(), Arc::clone(&memory));
    let graph = Graph::new(Parts {
        info,
        config,
        plan,
        labels,
        headers: Vec::new(),
        extent: xebec_core::port::Extent { depth: 1, runs: 1 },
        metrics,
        members,
        memory: memory_of,
    });
    House { graph, memory, shelf }
}

impl House {
    fn send(&self, request: InferRequest) -> Receiver<Outcome> {
        let (to, from) = sync_channel(1);
        self.graph.submit(&permit(), request, Box::new(Channel(to)));
        from
    }

    fn ask(&self, request: InferRequest) -> Outcome {
        self.send(request).recv().unwrap()
    }
}

/// A step of a config.
fn step(member: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> String {
    let map = |field: &str, pairs: &[(&str, &str)]| -> String {
        pairs.iter().map(|(key, value)| format!("{field} {{ key: \"{key}\" value: \"{value}\" }} ")).collect()
    };
    let (inputs, outputs) = (map("input_map", inputs), map("output_map", outputs));
    format!("step {{ model_name: \"{member}\" model_version: -1 {inputs} {outputs} }}\n")
}

fn graph(steps: &[String]) -> String {
    format!("ensemble_scheduling {{ {} }}", steps.concat())
}

fn edges(inputs: &[&str], outputs: &[&str]) -> String {
    let list = |kind: &str, names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("{kind} {{ name: \"{name}\" data_type: TYPE_FP32 dims: -1 }}\n"))
            .collect()
    };
    list("input", inputs) + &list("output", outputs)
}

/// What a member answers whose `sum` alone is wanted.
fn sum(values: &[f32]) -> Outcome {
    Ok(InferResponse { outputs: vec![tensor("sum", values)], timings: Timings::default() })
}

/// A diamond: two branches of one input that meet again.
fn diamond() -> String {
    let steps = [
        step("first", &[("a", "x")], &[("sum", "l")]),
        step("second", &[("a", "x")], &[("product", "r")]),
        step("join", &[("a", "l"), ("b", "r")], &[("sum", "y")]),
    ];
    edges(&["x"], &["y"]) + &graph(&steps)
}

fn shelf(first: Way, second: Way, join: Way) -> Shelf {
    let members = vec![Op::new("first", 1, first), Op::new("second", 1, second), Op::new("join", 2, join)];
    Shelf { members, asleep: Mutex::default() }
}

const PLENTY: u64 = 1 << 20;

#[test]
fn two_branches_run_side_by_side_and_meet() {
    let barrier = Arc::new(Barrier::new(2));
    let together = || Way::Together(Arc::clone(&barrier));
    let house = house_of(&diamond(), shelf(together(), together(), Way::AtOnce), PLENTY);
    let response = house.ask(request(vec![tensor("x", &[2.0, 4.0])])).unwrap();
    assert_eq!(response.outputs, [tensor("y", &[5.0, 8.0])]);
    assert_eq!(house.memory.usage().0, 0);
}

#[test]
fn the_first_error_ends_the_rest_and_says_where_it_was() {
    let (to, from) = sync_channel(1);
    let house = house_of(&diamond(), shelf(Way::Waits(to), Way::Fails, Way::AtOnce), PLENTY);
    let error = house.ask(request(vec![tensor("x", &[1.0])])).unwrap_err();
    assert_eq!(error.to_string(), "in ensemble 'graph', asked to fail");
    assert_eq!(error.code(), Code::InvalidArgument);
    // The other branch need not run any more, and its answer changes nothing.
    let (waits, _) = from.recv().unwrap();
    assert!(waits.is_gone());
    waits.send(sum(&[1.0]));
    let failed = |at: usize| {
        house.shelf.members[at]
            .metrics
            .tenant(&TenantId::default_tenant())
            .failure(FailureReason::Other)
            .get()
    };
    assert_eq!([failed(0), failed(1), failed(2)], [0, 1, 0]);
}

#[test]
fn a_member_that_never_answers_is_an_error() {
    let house = house_of(&diamond(), shelf(Way::AtOnce, Way::AtOnce, Way::Breaks), PLENTY);
    let error = house.ask(request(vec![tensor("x", &[1.0])])).unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.to_string().contains("ended without an answer"), "{error}");
}

#[test]
fn a_member_that_is_not_in_memory_is_woken() {
    let shelf = shelf(Way::AtOnce, Way::Elsewhere, Way::AtOnce);
    *shelf.asleep.lock().unwrap() = vec!["join".into(), "second".into()];
    let house = house_of(&diamond(), shelf, PLENTY);
    assert_eq!(house.ask(request(vec![tensor("x", &[2.0])])).unwrap().outputs, [tensor("y", &[5.0])]);
}

#[test]
fn what_is_kept_between_steps_is_bounded_and_given_back() {
    let house = house_of(&diamond(), shelf(Way::AtOnce, Way::AtOnce, Way::AtOnce), 8);
    assert!(house.ask(request(vec![tensor("x", &[1.0])])).is_ok());
    let error = house.ask(request(vec![tensor("x", &[1.0, 2.0])])).unwrap_err();
    assert_eq!((error.code(), error.retry_after_seconds()), (Code::Unavailable, Some(1)));
    assert_eq!(house.memory.usage(), (0, 8));
}

#[test]
fn steps_of_which_nothing_is_wanted_are_left_out() {
    let both = edges(&["x"], &["l", "r"])
        + &graph(&[
            step("first", &[("a", "x")], &[("sum", "l")]),
            step("second", &[("a", "x")], &[("sum", "r")]),
        ]);
    let house = house_of(&both, shelf(Way::AtOnce, Way::Fails, Way::AtOnce), PLENTY);
    let one = InferRequest { outputs: vec!["l".into(), "l".into()], ..request(vec![tensor("x", &[1.0])]) };
    assert_eq!(house.ask(one).unwrap().outputs, [tensor("l", &[2.0])]);
    assert!(house.ask(request(vec![tensor("x", &[1.0])])).is_err());
}

#[test]
fn one_deadline_is_for_all_steps() {
    let (to, from) = sync_channel(1);
    let house = house_of(&diamond(), shelf(Way::AtOnce, Way::Waits(to), Way::AtOnce), PLENTY);
    let timeout = Some(Duration::from_nanos(1));
    let late = house.send(InferRequest { timeout, ..request(vec![tensor("x", &[1.0])]) });
    assert!(from.try_recv().is_err(), "its time was up before the first step");
    assert_eq!(late.recv().unwrap().unwrap_err(), InferError::Timeout);
}

#[test]
fn what_is_left_of_the_time_is_for_the_steps_to_come() {
    let ((to_first, first), (to_join, join)) = (sync_channel(1), sync_channel(1));
    let house = house_of(&diamond(), shelf(Way::Waits(to_first), Way::AtOnce, Way::Waits(to_join)), PLENTY);
    let ask = |time: Duration| {
        house.send(InferRequest { timeout: Some(time), ..request(vec![tensor("x", &[2.0])]) })
    };
    let hour = Duration::from_secs(3600);
    let answer = ask(hour);
    let (reply, given) = first.recv().unwrap();
    reply.send(sum(&[3.0]));
    let (reply, left) = join.recv().unwrap();
    assert!(Some(hour) > given && given > left && left > Some(Duration::ZERO), "{given:?}, then {left:?}");
    reply.send(sum(&[5.0]));
    assert_eq!(answer.recv().unwrap().unwrap().outputs, [tensor("y", &[5.0])]);
    // A step that took all of it is the last.
    let short = Duration::from_millis(20);
    let answer = ask(short);
    let began = Instant::now();
    let Ok((reply, _)) = first.try_recv() else {
        // So busy is the machine that it was up before.
        return assert_eq!(answer.recv().unwrap().unwrap_err(), InferError::Timeout);
    };
    while began.elapsed() <= short {
        std::thread::yield_now();
    }
    reply.send(sum(&[3.0]));
    assert_eq!(answer.recv().unwrap().unwrap_err(), InferError::Timeout);
    assert!(join.try_recv().is_err());
}

#[test]
fn a_wrong_request_is_told_in_the_words_for_any_model() {
    let house = house_of(&diamond(), shelf(Way::AtOnce, Way::AtOnce, Way::AtOnce), PLENTY);
    let error = house.ask(request(vec![tensor("z", &[1.0])])).unwrap_err();
    assert_eq!(error.to_string(), "unexpected inference input 'z' for model 'graph'");
    let mark = xebec_core::SequenceMark { id: xebec_core::CorrelationId::Number(1), start: true, end: false };
    let error = house.ask(InferRequest { sequence: Some(mark), ..request(vec![tensor("x", &[1.0])]) });
    assert!(error.unwrap_err().to_string().contains("not stateful"));
}

#[test]
fn inputs_and_outputs_that_are_not_said_are_those_that_nobody_makes_or_uses() {
    let steps = [
        step("first", &[("a", "x")], &[("sum", "l")]),
        step("join", &[("a", "l"), ("b", "z")], &[("sum", "y")]),
    ];
    let (_, info, _) = planned(&graph(&steps), &shelf(Way::AtOnce, Way::AtOnce, Way::AtOnce)).unwrap();
    assert_eq!(info.inputs, [floats("x"), floats("z")]);
    assert_eq!(info.outputs, [floats("y")]);
    assert_eq!((info.platform.as_str(), info.max_batch_size), ("ensemble", 0));
}

#[test]
fn what_is_wrong_in_a_graph_is_named() {
    let one = |inputs: &[(&str, &str)], outputs: &[(&str, &str)]| graph(&[step("first", inputs, outputs)]);
    let two = |a: String, b: String| edges(&["x"], &["y"]) + &graph(&[a, b]);
    let xy = edges(&["x"], &["y"]);
    let cases = [
        (graph(&[]), "has 0 steps"),
        (graph(&[step("graph", &[("a", "x")], &[("sum", "y")])]), "is the graph itself"),
        (graph(&[step("nobody", &[("a", "x")], &[("sum", "y")])]), "'nobody' is not there"),
        (graph(&[step("a/b", &[("a", "x")], &[("sum", "y")])]), "model_name"),
        (
            one(&[("q", "x")], &[("sum", "y")]),
            "input_map of 'first' names 'q', which it does not have; it has 'a'",
        ),
        (
            one(&[("a", "x")], &[("q", "y")]),
            "output_map of 'first' names 'q', which it does not have; it has 'sum', 'product'",
        ),
        (one(&[("a", "")], &[("sum", "y")]), "is given no name of a tensor"),
        (one(&[], &[("sum", "y")]), "input 'a' of 'first' in step 1 has no tensor"),
        (one(&[("a", "x")], &[]), "'first' in step 1 makes nothing"),
        (
            two(
                step("first", &[("a", "x")], &[("sum", "y")]),
                step("second", &[("a", "x")], &[("sum", "y")]),
            ),
            "tensor 'y' is made by step 1 and by step 2",
        ),
        (
            two(
                step("first", &[("a", "x")], &[("sum", "x")]),
                step("second", &[("a", "x")], &[("sum", "y")]),
            ),
            "tensor 'x' is an input of the graph, and output 'sum' of 'first' in step 1 makes it too",
        ),
        (
            two(
                step("first", &[("a", "x")], &[("sum", "l")]),
                step("second", &[("a", "x")], &[("sum", "y")]),
            ),
            "tensor 'l', which step 1 makes, is used by nobody",
        ),
        (
            xy.clone() + &one(&[("a", "w")], &[("sum", "y")]),
            "tensor 'w' is made by no step and is no input of the graph, but step 1 needs it",
        ),
        (
            edges(&["x", "w"], &["y"]) + &one(&[("a", "x")], &[("sum", "y")]),
            "input 'w' of the graph is used by nobody",
        ),
        (
            edges(&["x"], &["y", "z"]) + &one(&[("a", "x")], &[("sum", "y")]),
            "tensor 'z' is made by no step and is no input of the graph, but it is an output",
        ),
        (edges(&["x", "x"], &["y"]) + &one(&[("a", "x")], &[("sum", "y")]), "lists input 'x' twice"),
        (edges(&["x"], &["y", "x"]) + &one(&[("a", "x")], &[("sum", "y")]), "is an input and an output"),
        (
            two(
                step("join", &[("a", "x"), ("b", "r")], &[("sum", "l"), ("product", "y")]),
                step("second", &[("a", "l")], &[("sum", "r")]),
            ),
            "the graph has a cycle: step 1 ('join') -> step 2 ('second') -> step 1 ('join')",
        ),
        (
            xy.replace("TYPE_FP32", "TYPE_INT64") + &one(&[("a", "x")], &[("sum", "y")]),
            "tensor 'x' is INT64 by config's input, but FP32 by input 'a' of 'first' in step 1",
        ),
        (
            xy.replace("dims: -1", "dims: [ 1, 2 ]") + &one(&[("a", "x")], &[("sum", "y")]),
            "tensor 'x' has shape [1,2] by config's input, but [-1] by input 'a'",
        ),
        (
            xy.replace("data_type: TYPE_FP32", "") + &one(&[("a", "x")], &[("sum", "y")]),
            "says no data_type of input 'x'",
        ),
    ];
    let shelf = shelf(Way::AtOnce, Way::AtOnce, Way::AtOnce);
    for (config, want) in cases {
        let told = planned(&config, &shelf).unwrap_err().to_string();
        assert!(told.contains(want), "{config}\n{told}\nwants: {want}");
    }
}

/// A random graph: for each step the tensors that it takes, which are made by earlier ones or are one of two inputs, and
/// how it answers.
fn random() -> impl Strategy<Value = (Vec<(Vec<usize>, bool)>, Vec<usize>)> {
    let steps = prop::collection::vec(
        (prop::collection::vec(any::<prop::sample::Index>(), 1..=3), any::<bool>()),
        1..12,
    );
    let drawn = steps.prop_map(|steps| {
        let place = |(at, (inputs, elsewhere)): (usize, (Vec<prop::sample::Index>, bool))| {
            // Tensors 0 and 1 are the inputs; a step makes two.
            (inputs.into_iter().map(|input| input.index(2 + 2 * at)).collect(), elsewhere)
        };
        steps.into_iter().enumerate().map(place).collect::<Vec<(Vec<usize>, bool)>>()
    });
    drawn.prop_flat_map(|steps| {
        let order = Just((0..steps.len()).collect::<Vec<usize>>()).prop_shuffle();
        (Just(steps), order)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn answers_are_those_of_the_steps_one_after_the_other((steps, order) in random()) {
        let name = |at: usize| format!("t{at}");
        let used = |at: usize| steps.iter().any(|(inputs, _)| inputs.contains(&at));
        let mut tensors = vec![vec![1.5, -2.0], vec![0.25, 3.0]];
        let (mut lines, mut members, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (inputs, elsewhere)) in steps.iter().enumerate() {
            let given: Vec<Tensor> = inputs.iter().zip(NAMES).map(|(from, name)| tensor(name, &tensors[*from])).collect();
            tensors.extend(compute(&given, &[]).iter().map(values));
            let member = format!("m{at}");
            let way = if *elsewhere { Way::Elsewhere } else { Way::AtOnce };
            members.push(Op::new(&member, inputs.len(), way));
            let (sum, product) = (2 + 2 * at, 3 + 2 * at);
            // What nobody uses is an output, but for the second where the first is enough.
            let kept: Vec<(&str, usize)> = [("sum", sum), ("product", product)]
                .into_iter()
                .filter(|(kind, made)| used(*made) || *kind == "sum")
                .collect();
            outputs.extend(kept.iter().map(|(_, made)| *made).filter(|made| !used(*made)));
            let ins: Vec<(&str, String)> = NAMES.into_iter().zip(inputs.iter().map(|from| name(*from))).collect();
            let outs: Vec<(&str, String)> = kept.iter().map(|(kind, made)| (*kind, name(*made))).collect();
            let text = |pairs: &[(&'static str, String)]| -> Vec<(String, String)> {
                pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
            };
            let (ins, outs) = (text(&ins.iter().map(|(a, b)| (*NAMES.iter().find(|n| *n == a).unwrap(), b.clone())).collect::<Vec<_>>()), outs);
            let ins: Vec<(&str, &str)> = ins.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let outs: Vec<(&str, &str)> = outs.iter().map(|(key, value)| (*key, value.as_str())).collect();
            lines.push(step(&member, &ins, &outs));
        }
        // The order in which steps are written means nothing.
        let shuffled: Vec<String> = order.iter().map(|at| lines[*at].clone()).collect();
        let inputs: Vec<String> = (0..2).filter(|at| used(*at)).map(name).collect();
        let names: Vec<String> = outputs.iter().map(|at| name(*at)).collect();
        let as_text = |all: &[String]| all.to_vec();
        let (inputs, names) = (as_text(&inputs), as_text(&names));
        let config = edges(
            &inputs.iter().map(String::as_str).collect::<Vec<_>>(),
            &names.iter().map(String::as_str).collect::<Vec<_>>(),
        ) + &graph(&shuffled);
        let house = house_of(&config, Shelf { members, asleep: Mutex::default() }, PLENTY);
        let given = (0..2).filter(|at| used(*at)).map(|at| tensor(&name(at), &tensors[at])).collect();
        let got = house.ask(request(given)).unwrap().outputs;
        let want: Vec<Tensor> = outputs.iter().map(|at| tensor(&name(*at), &tensors[*at])).collect();
        prop_assert_eq!(got, want);
        prop_assert_eq!(house.memory.usage().0, 0);
    }
}
