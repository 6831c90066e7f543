use super::*;
use crate::onnx::generated::{
    AttributeProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TypeProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
};
use proptest::prelude::*;

/// Builds a graph node by node.
#[derive(Default)]
struct Builder {
    graph: GraphProto,
    opset: i64,
}

fn info(name: &str, elem: tensor_proto::DataType, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| Dimension {
        value: match text.parse::<i64>() {
            Ok(extent) => Some(dimension::Value::DimValue(extent)),
            Err(_) if *text == "?" => None,
            Err(_) => Some(dimension::Value::DimParam((*text).to_owned())),
        },
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: elem as i32, shape: Some(shape) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }),
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: ints.to_vec(),
        r#type: AttributeType::Ints as i32,
        ..AttributeProto::default()
    }
}

fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        s: s.to_owned().into(),
        r#type: AttributeType::String as i32,
        ..AttributeProto::default()
    }
}

fn branch(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        g: Some(g),
        r#type: AttributeType::Graph as i32,
        ..AttributeProto::default()
    }
}

impl Builder {
    fn new() -> Self {
        Self { opset: 17, ..Self::default() }
    }

    fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    fn input(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.input.push(info(name, tensor_proto::DataType::Float, dims));
        self
    }

    fn output(mut self, name: &str) -> Self {
        self.graph.output.push(info(name, tensor_proto::DataType::Float, &[]));
        self
    }

    fn weight(mut self, name: &str, dims: &[i64]) -> Self {
        let tensor =
            TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, ..TensorProto::default() };
        self.graph.initializer.push(tensor);
        self
    }

    fn numbers(mut self, name: &str, numbers: &[i64]) -> Self {
        let dims = vec![numbers.len() as i64];
        let int64_data = numbers.to_vec();
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            dims,
            data_type: 7,
            int64_data,
            ..TensorProto::default()
        });
        self
    }

    fn number(mut self, name: &str, number: i64) -> Self {
        let int64_data = vec![number];
        self.graph.initializer.push(TensorProto {
            name: name.into(),
            data_type: 7,
            int64_data,
            ..TensorProto::default()
        });
        self
    }

    fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str], attribute: &[AttributeProto]) -> Self {
        let (op_type, domain) = op.rsplit_once(':').map_or((op, ""), |(domain, op)| (op, domain));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.graph.node.push(NodeProto {
            input: names(inputs),
            output: names(outputs),
            name: format!("{}_{}", op_type.to_lowercase(), self.graph.node.len()),
            op_type: op_type.into(),
            domain: domain.into(),
            attribute: attribute.to_vec(),
        });
        self
    }

    fn bytes(self) -> Vec<u8> {
        let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
        let opset_import = vec![opset("", self.opset), opset("ai.onnx.ml", 3), opset("com.microsoft", 1)];
        ModelProto { ir_version: 8, opset_import, graph: Some(self.graph), ..ModelProto::default() }
            .encode_to_vec()
    }

    fn analyse(self) -> Batchability {
        Model::parse(self.bytes().into()).unwrap().batchability()
    }

    #[track_caller]
    fn is_batchable(self) {
        assert_eq!(self.analyse(), Batchability::Yes);
    }

    #[track_caller]
    fn is_not(self, words: &str) {
        match self.analyse() {
            Batchability::No { reason } if reason.contains(words) => (),
            other => panic!("{other:?} does not say '{words}'"),
        }
    }
}

fn mlp() -> Builder {
    Builder::new()
        .input("x", &["batch", "30"])
        .weight("w", &[30, 4])
        .weight("b", &[4])
        .node("Gemm", &["x", "w", "b"], &["h"], &[])
        .node("Relu", &["h"], &["r"], &[])
        .node("Softmax", &["r"], &["y"], &[int("axis", -1)])
        .output("y")
}

#[test]
fn layers_that_work_row_by_row_may_be_batched() {
    mlp().is_batchable();
}

#[test]
fn softmax_over_the_rows_may_not() {
    let over = |opset, axis| {
        Builder::new()
            .opset(opset)
            .input("x", &["batch", "3"])
            .node("Softmax", &["x"], &["y"], &[int("axis", axis)])
            .output("y")
    };
    over(17, 0).is_not("node 'softmax_0' (Softmax) works over the batch axis");
    over(17, -2).is_not("works over the batch axis");
    over(17, 1).is_batchable();
    // Before operator set 13 an axis meant "this one and all behind it".
    over(11, 0).is_not("works over the batch axis");
    over(11, 1).is_batchable();
}

#[test]
fn reductions_over_the_rows_may_not_also_inside_an_if() {
    let reduce = |axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .node("ReduceMean", &["x"], &["y"], &[ints("axes", &[axis]), int("keepdims", 1)])
            .output("y")
    };
    reduce(1).is_batchable();
    reduce(0).is_not("works over the batch axis");
    reduce(-2).is_not("works over the batch axis");
    Builder::new()
        .input("x", &["n", "3"])
        .node("ReduceMax", &["x"], &["y"], &[])
        .output("y")
        .is_not("(ReduceMax)");
    let inner = |op: &str, attributes: &[AttributeProto]| {
        Builder::new().node(op, &["x"], &["inner"], attributes).output("inner").graph
    };
    let choose = |condition: &str, then: GraphProto| {
        Builder::new()
            .input("x", &["n", "3"])
            .number("flag", 1)
            .node("Identity", &["x"], &["seen"], &[])
            .node(
                "If",
                &[condition],
                &["y"],
                &[branch("then_branch", then), branch("else_branch", inner("Relu", &[]))],
            )
            .output("y")
    };
    choose("flag", inner("Neg", &[])).is_batchable();
    choose("flag", inner("ReduceSum", &[ints("axes", &[0])])).is_not("(ReduceSum) works over the batch axis");
    choose("seen", inner("Neg", &[])).is_not("takes a branch by what is in the batch");
}

#[test]
fn loops_over_the_batch_and_unknown_operators_may_not() {
    let body = Builder::new().node("Add", &["x", "x"], &["z"], &[]).output("z").graph;
    Builder::new()
        .input("x", &["n", "3"])
        .number("times", 3)
        .node("Loop", &["times", "", "x"], &["y"], &[branch("body", body)])
        .output("y")
        .is_not("(Loop) works on 'x'");
    Builder::new()
        .input("x", &["n", "3"])
        .node("NonZero", &["x"], &["y"], &[])
        .output("y")
        .is_not("is not known to keep rows apart");
    Builder::new()
        .input("x", &["n", "3"])
        .node("my.own:Relu", &["x"], &["y"], &[])
        .output("y")
        .is_not("is not known");
    Builder::new()
        .input("x", &["n", "3"])
        .node("RandomNormalLike", &["x"], &["r"], &[])
        .node("Add", &["x", "r"], &["y"], &[])
        .output("y")
        .is_not("draws random numbers");
}

#[test]
fn quantising_over_the_whole_tensor_may_not() {
    Builder::new()
        .input("x", &["n", "3"])
        .node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[])
        .node("DequantizeLinear", &["q", "s", "z"], &["y"], &[])
        .output("y")
        .is_not("takes its range over the whole batch");
    let fixed = |dims: &[i64], axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .weight("s", dims)
            .weight("z", dims)
            .node("QuantizeLinear", &["x", "s", "z"], &["y"], &[int("axis", axis)])
            .output("y")
    };
    fixed(&[], 1).is_batchable();
    fixed(&[3], 1).is_batchable();
    fixed(&[3], 0).is_not("works over the batch axis");
}

#[test]
fn a_reshape_keeps_rows_apart_or_is_refused() {
    let reshape = |to: &[i64]| {
        Builder::new().input("x", &["n", "s", "8"]).numbers("to", to).node(
            "Reshape",
            &["x", "to"],
            &["r"],
            &[],
        )
    };
    reshape(&[0, 0, 2, 4]).output("r").is_batchable();
    // Rows times positions, and back.
    reshape(&[-1, 8])
        .weight("w", &[8, 8])
        .node("MatMul", &["r", "w"], &["m"], &[])
        .node("Shape", &["x"], &["shape"], &[])
        .node("Reshape", &["m", "shape"], &["y"], &[])
        .output("y")
        .is_batchable();
    reshape(&[-1, 8]).output("r").is_not("another number of rows");
    reshape(&[8, -1]).output("r").is_not("folds the batch into another axis");
    reshape(&[1, -1, 8]).output("r").is_not("has the batch at axis 1");
    reshape(&[-1, 7]).output("r").is_not("shape that is not followed");
    // The second axis holds the batch behind the sequence: no chunk of it is one sample's.
    Builder::new()
        .input("x", &["n", "s", "8"])
        .numbers("to", &[-1, 8])
        .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
        .node("Reshape", &["t", "to"], &["r"], &[])
        .output("r")
        .is_not("folds the batch");
}

#[test]
fn attention_as_pytorch_exports_it_may_be_batched() {
    let mut builder = Builder::new()
        .input("x", &["batch", "sequence", "8"])
        .number("zero", 0)
        .number("one", 1)
        .numbers("at0", &[0])
        .numbers("tail", &[2, 4]);
    for (name, axis) in [("b", "zero"), ("s", "one")] {
        builder = builder
            .node("Shape", &["x"], &[&format!("shape_{name}")], &[])
            .node("Gather", &[&format!("shape_{name}"), axis], &[&format!("one_{name}")], &[int("axis", 0)])
            .node("Unsqueeze", &[&format!("one_{name}"), "at0"], &[name], &[]);
    }
    builder = builder.node("Concat", &["b", "s", "tail"], &["split"], &[int("axis", 0)]);
    for (name, perm) in [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])] {
        builder = builder
            .weight(&format!("w{name}"), &[8, 8])
            .node("MatMul", &["x", &format!("w{name}")], &[&format!("{name}0")], &[])
            .node("Reshape", &[&format!("{name}0"), "split"], &[&format!("{name}1")], &[])
            .node("Transpose", &[&format!("{name}1")], &[name], &[ints("perm", &perm)]);
    }
    builder
        .numbers("eight", &[8])
        .node("MatMul", &["q", "k"], &["scores"], &[])
        .node("Softmax", &["scores"], &["weights"], &[int("axis", -1)])
        .node("MatMul", &["weights", "v"], &["mixed"], &[])
        .node("Transpose", &["mixed"], &["back"], &[ints("perm", &[0, 2, 1, 3])])
        .node("Concat", &["b", "s", "eight"], &["join"], &[int("axis", 0)])
        .node("Reshape", &["back", "join"], &["y"], &[])
        .output("y")
        .is_batchable();
}

#[test]
fn products_between_rows_may_not() {
    Builder::new()
        .input("x", &["n", "3"])
        .node("Transpose", &["x"], &["t"], &[])
        .node("MatMul", &["x", "t"], &["y"], &[])
        .output("y")
        .is_not("multiplies rows with rows");
    Builder::new()
        .input("x", &["n", "3"])
        .node("Transpose", &["x"], &["t"], &[])
        .node("MatMul", &["t", "x"], &["y"], &[])
        .output("y")
        .is_not("sums over the batch axis");
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[3, 2])
        .node("Gemm", &["x", "w"], &["y"], &[int("transA", 1)])
        .output("y")
        .is_not("sums over the batch axis");
    let einsum = |equation| {
        Builder::new()
            .input("x", &["n", "3"])
            .input("z", &["n", "3"])
            .node("Einsum", &["x", "z"], &["y"], &[text("equation", equation)])
            .output("y")
    };
    einsum("ni,ni->n").is_batchable();
    einsum("ni,ni->i").is_not("sums over the batch axis");
    einsum("ni,mi->nm").is_not("lays the batch along two axes");
}

#[test]
fn joining_with_a_value_of_fixed_rows_may_not() {
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[1, 2])
        .node("Concat", &["x", "w"], &["y"], &[int("axis", 1)])
        .output("y")
        .is_not("joins rows with a value");
    Builder::new()
        .input("x", &["n", "3"])
        .node("Concat", &["x", "x"], &["y"], &[int("axis", 0)])
        .output("y")
        .is_not("joins along the batch axis");
    Builder::new()
        .input("x", &["n", "3"])
        .node("Concat", &["x", "x"], &["y"], &[int("axis", 1)])
        .output("y")
        .is_batchable();
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[5, 3])
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y")
        .is_not("as many rows as only some batches have");
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[1, 3])
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y")
        .is_batchable();
}

#[test]
fn the_number_of_rows_must_not_be_computed_with() {
    Builder::new()
        .input("x", &["n", "3"])
        .number("zero", 0)
        .node("Shape", &["x"], &["shape"], &[])
        .node("Gather", &["shape", "zero"], &["rows"], &[])
        .node("Cast", &["rows"], &["real"], &[int("to", 1)])
        .node("Div", &["x", "real"], &["y"], &[])
        .output("y")
        .is_not("computes with the number of rows");
    Builder::new()
        .input("x", &["n", "3"])
        .number("zero", 0)
        .number("one", 1)
        .node("Shape", &["x"], &["shape"], &[])
        .node("Gather", &["shape", "zero"], &["rows"], &[])
        .node("Range", &["zero", "rows", "one"], &["count"], &[])
        .node("Identity", &["count"], &["y"], &[])
        .output("y")
        .is_not("counts the rows");
}

#[test]
fn look_ups_and_movements_follow_the_batch() {
    let lookup = |axis| {
        Builder::new()
            .input("i", &["n"])
            .weight("table", &[10, 4])
            .node("Gather", &["table", "i"], &["y"], &[int("axis", axis)])
            .output("y")
    };
    lookup(0).is_batchable();
    lookup(1).is_not("has the batch at axis 1");
    let pick = |axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .number("i", 0)
            .node("Gather", &["x", "i"], &["y"], &[int("axis", axis)])
            .output("y")
    };
    pick(1).is_batchable();
    pick(0).is_not("picks from the batch axis");
    let slice = |axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .numbers("from", &[0])
            .numbers("to", &[1])
            .numbers("axes", &[axis])
            .node("Slice", &["x", "from", "to", "axes"], &["y"], &[])
            .output("y")
    };
    slice(1).is_batchable();
    slice(0).is_not("cuts the batch axis");
    slice(-2).is_not("cuts the batch axis");
    let pad = |pads: &[i64]| {
        Builder::new()
            .input("x", &["n", "3"])
            .numbers("pads", pads)
            .node("Pad", &["x", "pads"], &["y"], &[])
            .output("y")
    };
    pad(&[0, 1, 0, 1]).is_batchable();
    pad(&[0, 1, 1, 1]).is_not("pads the batch axis");
}

#[test]
fn images_sequences_and_trees_may_be_batched() {
    let image = || {
        Builder::new().input("x", &["n", "3", "h", "w"]).weight("k", &[8, 3, 3, 3]).node(
            "Conv",
            &["x", "k"],
            &["c"],
            &[],
        )
    };
    image()
        .node("GlobalAveragePool", &["c"], &["g"], &[])
        .node("Flatten", &["g"], &["y"], &[])
        .output("y")
        .is_batchable();
    image()
        .node("MaxPool", &["c"], &["y", "places"], &[])
        .output("y")
        .output("places")
        .is_not("output 1 is not known");
    image()
        .weight("s", &[8])
        .node("BatchNormalization", &["c", "s", "s", "s", "s"], &["y"], &[])
        .output("y")
        .is_batchable();
    image()
        .weight("s", &[8])
        .node("BatchNormalization", &["c", "s", "s", "s", "s"], &["y"], &[int("training_mode", 1)])
        .output("y")
        .is_not("takes its statistics from the batch");
    Builder::new()
        .input("x", &["n", "s", "8"])
        .weight("w", &[1, 16, 8])
        .weight("r", &[1, 16, 4])
        .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
        .node("LSTM", &["t", "w", "r"], &["all", "last"], &[])
        .numbers("first", &[0])
        .node("Squeeze", &["last", "first"], &["y"], &[])
        .output("y")
        .is_batchable();
    Builder::new()
        .input("x", &["n", "30"])
        .node("ai.onnx.ml:TreeEnsembleClassifier", &["x"], &["label", "p"], &[])
        .output("label")
        .output("p")
        .is_batchable();
    Builder::new()
        .input("x", &["n", "30"])
        .node("ai.onnx.ml:ZipMap", &["x"], &["y"], &[])
        .output("y")
        .is_not("is not known");
}

#[test]
fn inputs_and_outputs_need_one_free_first_axis() {
    Builder::new()
        .input("x", &["4", "3"])
        .node("Neg", &["x"], &["y"], &[])
        .output("y")
        .is_not("no free first axis");
    Builder::new()
        .input("x", &["a"])
        .input("z", &["b"])
        .node("Neg", &["x"], &["y"], &[])
        .output("y")
        .is_not("'a' and 'b'");
    Builder::new()
        .input("x", &["n", "n"])
        .node("Neg", &["x"], &["y"], &[])
        .output("y")
        .is_not("the batch in two axes");
    Builder::new()
        .input("x", &["n"])
        .weight("w", &[3])
        .node("Neg", &["w"], &["y"], &[])
        .output("y")
        .is_not("has no batch axis");
}

#[test]
fn what_is_no_model_is_refused_with_the_way_out() {
    let refusal = |bytes: &[u8]| Model::parse(bytes.to_vec().into()).unwrap_err().to_string();
    assert_eq!(refusal(b""), "the file is empty; export or copy the model again");
    assert!(refusal(b"PK\x03\x04rest").contains("zip archive"));
    assert!(refusal(b"\x80\x04\x95abc").contains("pickle"));
    assert!(refusal(b"GGUF....").contains("GGUF"));
    assert!(refusal(b"This is a text and no model at all").contains("damaged or not ONNX"));
    assert!(refusal(&[8, 8]).contains("no operator set"));
    let whole = mlp().bytes();
    assert!(refusal(&whole[..whole.len() / 2]).contains("damaged or not ONNX"));
}

#[test]
fn external_data_stays_below_the_models_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("secret.bin"), [0; 64]).unwrap();
    std::fs::write(inside.join("weights.bin"), [0; 8]).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret.bin"), inside.join("link.bin")).unwrap();
    let check = |location: &str, length: &str| {
        let mut builder = mlp();
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let tensor = &mut builder.graph.initializer[0];
        tensor.data_location = tensor_proto::DataLocation::External as i32;
        tensor.external_data = vec![entry("location", location), entry("length", length)];
        Model::parse(builder.bytes().into())
            .unwrap()
            .check_external(&inside)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check("weights.bin", "8").unwrap().len(), 1);
    for (location, words) in [
        ("../secret.bin", "without '..'"),
        ("/etc/passwd", "must be a relative path"),
        ("", "must be a relative path"),
        ("link.bin", "a link out of the model's folder"),
        ("missing.bin", "cannot be read"),
    ] {
        let error = check(location, "8").unwrap_err();
        assert!(error.contains(words), "{location}: {error}");
    }
    assert!(check("weights.bin", "9").unwrap_err().contains("8 bytes, but 9"));
    assert!(check("weights.bin", "many").unwrap_err().contains("not a number"));
    assert!(check("weights.bin", "18446744073709551615").unwrap_err().contains("are wanted"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(model) = Model::parse(bytes.into()) {
            let _ = (model.batchability(), model.operators());
        }
    }

    #[test]
    fn no_flipped_bit_makes_the_reader_panic(place in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = mlp().bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let cut = cut.index(bytes.len());
        for bytes in [bytes.clone(), bytes[..cut].to_vec()] {
            if let Ok(model) = Model::parse(bytes.into()) {
                let _ = (model.batchability(), model.operators(), model.check_external(Path::new("/nowhere")));
            }
        }
    }
}
