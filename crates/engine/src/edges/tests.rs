use super::*;
use bytes::Bytes;
use proptest::prelude::*;

fn tensor(name: &str, shape: &[i64], data: &[u8]) -> Tensor {
    let data = Bytes::copy_from_slice(data);
    Tensor { name: name.into(), datatype: Datatype::Uint8, shape: shape.to_vec(), data }
}

fn caller(name: &str, reshape: Option<Reshape>, ragged: bool, optional: bool) -> InputEdge {
    InputEdge { name: name.into(), source: Source::Caller { reshape, ragged, optional } }
}

fn shapes_of(edges: &Edges, requests: &[&[Tensor]]) -> Vec<Vec<i64>> {
    let made = edges.make(requests);
    edges.gather(requests, &made).unwrap().inputs().iter().map(|input| input.shape.to_vec()).collect()
}

#[test]
fn an_input_is_given_to_the_graph_in_its_other_shape_and_an_output_comes_back() {
    let reshape = Reshape::new(&[2, -1], &[2, -1, 1]).unwrap();
    let output = OutputEdge { reshape: Some(Reshape::new(&[], &[1]).unwrap()), scatter: None };
    let edges = Edges {
        inputs: vec![caller("x", Some(reshape), false, false)],
        outputs: vec![output],
        batched: true,
    };
    let (a, b) = ([tensor("x", &[1, 2, 3], b"123456")], [tensor("x", &[2, 2, 3], b"abcdefghijkl")]);
    assert_eq!(shapes_of(&edges, &[&a, &b]), [vec![3, 2, 3, 1]]);
    assert_eq!(edges.outward(0, vec![3]), Some(vec![3, 1]));
    assert_eq!(edges.outward(0, vec![3, 4]), None);
    let whole = Edges { batched: false, ..edges };
    assert_eq!(whole.outward(0, vec![]), Some(vec![1]));
}

#[test]
fn requests_without_an_optional_input_share_runs_among_themselves_alone() {
    let edges = Edges {
        inputs: vec![caller("x", None, false, false), caller("bias", None, false, true)],
        batched: true,
        ..Edges::default()
    };
    let full = [tensor("x", &[1, 2], b"12"), tensor("bias", &[1, 2], b"34")];
    let bare = [tensor("x", &[1, 2], b"12")];
    assert!(edges.mix(&full, &full) && edges.mix(&bare, &bare) && !edges.mix(&full, &bare));
    assert_eq!(shapes_of(&edges, &[&bare, &bare]), [vec![2, 2], vec![]]);
    assert_eq!(shapes_of(&edges, &[&full, &full]), [vec![2, 2], vec![2, 2]]);
    assert!(edges.is_optional("bias") && !edges.is_optional("x"));
}

#[test]
fn ragged_inputs_lie_end_to_end_and_every_kind_of_batch_input_is_made() {
    let made = |name: &str, kind| InputEdge {
        name: name.into(),
        source: Source::Made { kind, from: "x".into(), datatype: Datatype::Int64 },
    };
    let edges = Edges {
        inputs: vec![
            caller("x", None, true, false),
            made("count", Kind::Count),
            made("ends", Kind::Accumulated),
            made("bounds", Kind::AccumulatedWithZero),
            made("most", Kind::MaxAsShape),
            made("items", Kind::ItemShape),
            made("flat", Kind::ItemShapeFlat),
        ],
        batched: true,
        ..Edges::default()
    };
    let (a, b) = ([tensor("x", &[2, 3, 1], b"abcdef")], [tensor("x", &[1, 2, 2], b"1234")]);
    assert!(edges.mix(&a, &b) && edges.is_ragged());
    let requests: [&[Tensor]; 2] = [&a, &b];
    let made = edges.make(&requests);
    let gathered = edges.gather(&requests, &made).unwrap();
    let inputs = gathered.inputs();
    let numbers = |index: usize| -> Vec<i64> {
        let bytes = inputs[index].parts.concat();
        bytes.chunks(8).map(|number| i64::from_le_bytes(number.try_into().unwrap())).collect()
    };
    assert_eq!((inputs[0].shape, inputs[0].parts.concat()), (&[10][..], b"abcdef1234".to_vec()));
    assert_eq!((inputs[1].shape, numbers(1)), (&[2][..], vec![6, 4]));
    assert_eq!((inputs[2].shape, numbers(2)), (&[2][..], vec![6, 10]));
    assert_eq!((inputs[3].shape, numbers(3)), (&[3][..], vec![0, 6, 10]));
    assert_eq!((inputs[4].shape, numbers(4).len()), (&[6][..], 6));
    assert_eq!((inputs[5].shape, numbers(5)), (&[3, 2][..], vec![3, 1, 3, 1, 2, 2]));
    assert_eq!((inputs[6].shape, numbers(6)), (&[6][..], vec![3, 1, 3, 1, 2, 2]));
}

#[test]
fn an_output_is_scattered_by_the_shapes_of_an_input() {
    let scatter = Some(("x".into(), vec![-1, -1, 4]));
    let outputs = vec![OutputEdge { reshape: None, scatter }, OutputEdge::default()];
    let edges = Edges { inputs: Vec::new(), outputs, batched: true };
    let (a, b) = ([tensor("x", &[1, 3], b"123")], [tensor("x", &[2, 2], b"1234")]);
    assert_eq!(edges.scattered(0, &[&a, &b]), Some(vec![vec![1, 3, 4], vec![2, 2, 4]]));
    assert_eq!(edges.scattered(1, &[&a, &b]), None);
}

#[test]
fn numbers_are_made_in_the_datatype_that_is_configured() {
    assert_eq!(encode(&[1, 256], Datatype::Int32), [1, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(encode(&[2], Datatype::Fp32), 2f32.to_le_bytes());
    assert_eq!(encode(&[-1], Datatype::Int64), [255; 8]);
}

#[test]
fn shapes_of_another_number_of_elements_are_no_reshape() {
    let fits = |from: &[i64], to: &[i64]| Reshape::new(from, to).is_ok();
    assert!(fits(&[1], &[]) && fits(&[4, -1, 2], &[2, 2, -1, 2]) && fits(&[-1], &[-1, 1]));
    assert!(!fits(&[4], &[5]) && !fits(&[-1], &[1]) && !fits(&[2, -1], &[-1, 3]));
    assert!(!fits(&[i64::MAX, 2], &[i64::MAX, 2]), "more elements than can be counted");
}

proptest! {
    #[test]
    fn a_reshape_there_and_back_is_the_shape_that_it_was(
        segments in prop::collection::vec((1..4i64, 1..4i64), 1..4),
        free in prop::collection::vec(1..9i64, 3),
    ) {
        let join = |parts: Vec<Vec<i64>>| parts.join(&-1);
        let from = join(segments.iter().map(|(a, b)| vec![*a, *b]).collect());
        let to = join(segments.iter().map(|(a, b)| vec![*a * *b]).collect());
        let reshape = Reshape::new(&from, &to).unwrap();
        let mut extents = free.into_iter();
        let shape: Vec<i64> = from.iter().map(|known| if *known == -1 { extents.next().unwrap() } else { *known }).collect();
        let there = reshape.apply(&shape).unwrap();
        prop_assert_eq!(there.iter().product::<i64>(), shape.iter().product::<i64>());
        prop_assert_eq!(reshape.inverse().apply(&there), Some(shape));
    }
}
