use super::*;
use crate::onnx::generated::{
    AttributeProto, FunctionProto, OperatorSetIdProto, SparseTensorProto, StringStringEntryProto,
    TensorShapeProto, TypeProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
};
use proptest::prelude::*;

const FLOAT: i32 = 1;
const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;

/// Builds a graph node by node.
#[derive(Default)]
struct Builder {
    graph: GraphProto,
    opset: i64,
    functions: Vec<FunctionProto>,
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

    /// A constant of any shape, by ONNX's number of its type.
    fn constant(mut self, name: &str, data_type: i32, dims: &[i64], numbers: &[f32]) -> Self {
        let tensor =
            TensorProto { name: name.into(), dims: dims.to_vec(), data_type, ..TensorProto::default() };
        let whole = numbers.iter().map(|number| *number as i64);
        self.graph.initializer.push(match data_type {
            FLOAT => TensorProto { float_data: numbers.to_vec(), ..tensor },
            INT64 => TensorProto { int64_data: whole.collect(), ..tensor },
            _ => TensorProto { int32_data: whole.map(|number| number as i32).collect(), ..tensor },
        });
        self
    }

    fn function(mut self, domain: &str, name: &str, body: Self) -> Self {
        self.functions.push(FunctionProto {
            name: name.into(),
            domain: domain.into(),
            node: body.graph.node,
            ..FunctionProto::default()
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
        let domains = ["ai.onnx.ml", "com.microsoft", "my.own"].map(|domain| opset(domain, 1));
        let opset_import = [vec![opset("", self.opset)], domains.to_vec()].concat();
        let (graph, functions) = (Some(self.graph), self.functions);
        ModelProto { ir_version: 8, opset_import, graph, functions, ..ModelProto::default() }.encode_to_vec()
    }

    fn analyse(self) -> Batchability {
        Model::parse(self.bytes().into()).unwrap().batchability()
    }

    #[track_caller]
    fn may_batch(self) {
        assert_eq!(self.analyse(), Batchability::Yes);
    }

    #[track_caller]
    fn may_not(self, words: &str) {
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
    mlp().may_batch();
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
    over(17, 0).may_not("node 'softmax_0' (Softmax) works over the batch axis");
    over(17, -2).may_not("works over the batch axis");
    over(17, 1).may_batch();
    // Before operator set 13 an axis meant "this one and all behind it".
    over(11, 0).may_not("works over the batch axis");
    over(11, 1).may_batch();
}

#[test]
fn reductions_over_the_rows_may_not_also_inside_an_if() {
    let reduce = |axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .node("ReduceMean", &["x"], &["y"], &[ints("axes", &[axis]), int("keepdims", 1)])
            .output("y")
    };
    reduce(1).may_batch();
    reduce(0).may_not("works over the batch axis");
    reduce(-2).may_not("works over the batch axis");
    Builder::new()
        .input("x", &["n", "3"])
        .node("ReduceMax", &["x"], &["y"], &[])
        .output("y")
        .may_not("(ReduceMax)");
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
    choose("flag", inner("Neg", &[])).may_batch();
    choose("flag", inner("ReduceSum", &[ints("axes", &[0])]))
        .may_not("(ReduceSum) works over the batch axis");
    choose("seen", inner("Neg", &[])).may_not("takes a branch by what is in the batch");
}

#[test]
fn loops_over_the_batch_and_unknown_operators_may_not() {
    let body = Builder::new().node("Add", &["x", "x"], &["z"], &[]).output("z").graph;
    Builder::new()
        .input("x", &["n", "3"])
        .number("times", 3)
        .node("Loop", &["times", "", "x"], &["y"], &[branch("body", body)])
        .output("y")
        .may_not("(Loop) works on 'x'");
    Builder::new()
        .input("x", &["n", "3"])
        .node("NonZero", &["x"], &["y"], &[])
        .output("y")
        .may_not("is not known to keep rows apart");
    Builder::new()
        .input("x", &["n", "3"])
        .node("my.own:Relu", &["x"], &["y"], &[])
        .output("y")
        .may_not("is not known");
    Builder::new()
        .input("x", &["n", "3"])
        .node("RandomNormalLike", &["x"], &["r"], &[])
        .node("Add", &["x", "r"], &["y"], &[])
        .output("y")
        .may_not("draws random numbers");
}

#[test]
fn quantising_over_the_whole_tensor_may_not() {
    Builder::new()
        .input("x", &["n", "3"])
        .node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[])
        .node("DequantizeLinear", &["q", "s", "z"], &["y"], &[])
        .output("y")
        .may_not("takes its range over the whole batch");
    let fixed = |dims: &[i64], axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .weight("s", dims)
            .weight("z", dims)
            .node("QuantizeLinear", &["x", "s", "z"], &["y"], &[int("axis", axis)])
            .output("y")
    };
    fixed(&[], 1).may_batch();
    fixed(&[3], 1).may_batch();
    fixed(&[3], 0).may_not("works over the batch axis");
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
    reshape(&[0, 0, 2, 4]).output("r").may_batch();
    // Rows times positions, and back.
    reshape(&[-1, 8])
        .weight("w", &[8, 8])
        .node("MatMul", &["r", "w"], &["m"], &[])
        .node("Shape", &["x"], &["shape"], &[])
        .node("Reshape", &["m", "shape"], &["y"], &[])
        .output("y")
        .may_batch();
    reshape(&[-1, 8]).output("r").may_not("another number of rows");
    reshape(&[8, -1]).output("r").may_not("folds the batch into another axis");
    reshape(&[1, -1, 8]).output("r").may_not("has the batch at axis 1");
    reshape(&[-1, 7]).output("r").may_not("shape that is not followed");
    // The second axis holds the batch behind the sequence: no chunk of it is one sample's.
    Builder::new()
        .input("x", &["n", "s", "8"])
        .numbers("to", &[-1, 8])
        .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
        .node("Reshape", &["t", "to"], &["r"], &[])
        .output("r")
        .may_not("folds the batch");
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
        .may_batch();
}

#[test]
fn products_between_rows_may_not() {
    Builder::new()
        .input("x", &["n", "3"])
        .node("Transpose", &["x"], &["t"], &[])
        .node("MatMul", &["x", "t"], &["y"], &[])
        .output("y")
        .may_not("multiplies rows with rows");
    Builder::new()
        .input("x", &["n", "3"])
        .node("Transpose", &["x"], &["t"], &[])
        .node("MatMul", &["t", "x"], &["y"], &[])
        .output("y")
        .may_not("sums over the batch axis");
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[3, 2])
        .node("Gemm", &["x", "w"], &["y"], &[int("transA", 1)])
        .output("y")
        .may_not("sums over the batch axis");
    let einsum = |equation| {
        Builder::new()
            .input("x", &["n", "3"])
            .input("z", &["n", "3"])
            .node("Einsum", &["x", "z"], &["y"], &[text("equation", equation)])
            .output("y")
    };
    einsum("ni,ni->n").may_batch();
    einsum("ni,ni->i").may_not("sums over the batch axis");
    einsum("ni,mi->nm").may_not("lays the batch along two axes");
}

#[test]
fn joining_with_a_value_of_fixed_rows_may_not() {
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[1, 2])
        .node("Concat", &["x", "w"], &["y"], &[int("axis", 1)])
        .output("y")
        .may_not("joins rows with a value");
    Builder::new()
        .input("x", &["n", "3"])
        .node("Concat", &["x", "x"], &["y"], &[int("axis", 0)])
        .output("y")
        .may_not("joins along the batch axis");
    Builder::new()
        .input("x", &["n", "3"])
        .node("Concat", &["x", "x"], &["y"], &[int("axis", 1)])
        .output("y")
        .may_batch();
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[5, 3])
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y")
        .may_not("as many rows as only some batches have");
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[1, 3])
        .node("Add", &["x", "w"], &["y"], &[])
        .output("y")
        .may_batch();
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
        .may_not("computes with the number of rows");
    Builder::new()
        .input("x", &["n", "3"])
        .number("zero", 0)
        .number("one", 1)
        .node("Shape", &["x"], &["shape"], &[])
        .node("Gather", &["shape", "zero"], &["rows"], &[])
        .node("Range", &["zero", "rows", "one"], &["count"], &[])
        .node("Identity", &["count"], &["y"], &[])
        .output("y")
        .may_not("counts the rows");
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
    lookup(0).may_batch();
    lookup(1).may_not("has the batch at axis 1");
    let pick = |axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .number("i", 0)
            .node("Gather", &["x", "i"], &["y"], &[int("axis", axis)])
            .output("y")
    };
    pick(1).may_batch();
    pick(0).may_not("picks from the batch axis");
    let slice = |axis| {
        Builder::new()
            .input("x", &["n", "3"])
            .numbers("from", &[0])
            .numbers("to", &[1])
            .numbers("axes", &[axis])
            .node("Slice", &["x", "from", "to", "axes"], &["y"], &[])
            .output("y")
    };
    slice(1).may_batch();
    slice(0).may_not("cuts the batch axis");
    slice(-2).may_not("cuts the batch axis");
    let pad = |pads: &[i64]| {
        Builder::new()
            .input("x", &["n", "3"])
            .numbers("pads", pads)
            .node("Pad", &["x", "pads"], &["y"], &[])
            .output("y")
    };
    pad(&[0, 1, 0, 1]).may_batch();
    pad(&[0, 1, 1, 1]).may_not("pads the batch axis");
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
        .may_batch();
    image()
        .node("MaxPool", &["c"], &["y", "places"], &[])
        .output("y")
        .output("places")
        .may_not("output 1 is not known");
    image()
        .weight("s", &[8])
        .node("BatchNormalization", &["c", "s", "s", "s", "s"], &["y"], &[])
        .output("y")
        .may_batch();
    image()
        .weight("s", &[8])
        .node("BatchNormalization", &["c", "s", "s", "s", "s"], &["y"], &[int("training_mode", 1)])
        .output("y")
        .may_not("takes its statistics from the batch");
    Builder::new()
        .input("x", &["n", "s", "8"])
        .weight("w", &[1, 16, 8])
        .weight("r", &[1, 16, 4])
        .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
        .node("LSTM", &["t", "w", "r"], &["all", "last"], &[])
        .numbers("first", &[0])
        .node("Squeeze", &["last", "first"], &["y"], &[])
        .output("y")
        .may_batch();
    Builder::new()
        .input("x", &["n", "30"])
        .node("ai.onnx.ml:TreeEnsembleClassifier", &["x"], &["label", "p"], &[])
        .output("label")
        .output("p")
        .may_batch();
    Builder::new()
        .input("x", &["n", "30"])
        .node("ai.onnx.ml:ZipMap", &["x"], &["y"], &[])
        .output("y")
        .may_not("is not known");
}

#[test]
fn inputs_and_outputs_need_one_free_first_axis() {
    Builder::new()
        .input("x", &["4", "3"])
        .node("Neg", &["x"], &["y"], &[])
        .output("y")
        .may_not("no free first axis");
    Builder::new()
        .input("x", &["a"])
        .input("z", &["b"])
        .node("Neg", &["x"], &["y"], &[])
        .output("y")
        .may_not("'a' and 'b'");
    Builder::new()
        .input("x", &["n", "n"])
        .node("Neg", &["x"], &["y"], &[])
        .output("y")
        .may_not("the batch in two axes");
    Builder::new()
        .input("x", &["n"])
        .weight("w", &[3])
        .node("Neg", &["w"], &["y"], &[])
        .output("y")
        .may_not("has no batch axis");
}

/// Sums over an axis that a graph computes, with the batch moved to axis 1.
fn sum_over(axis: &str, computed: impl FnOnce(Builder) -> Builder) -> Builder {
    let moved = Builder::new().input("x", &["batch", "3", "4"]).node(
        "Transpose",
        &["x"],
        &["t"],
        &[ints("perm", &[1, 0, 2])],
    );
    computed(moved)
        .node("ReduceSum", &["t", axis], &["s"], &[int("keepdims", 1)])
        .node("Sub", &["t", "s"], &["u"], &[])
        .node("Transpose", &["u"], &["y"], &[ints("perm", &[1, 0, 2])])
        .output("y")
}

#[test]
fn arithmetic_on_constants_is_followed_only_where_it_is_the_engines() {
    let fold = |op: &str, data_type, a: (&[i64], &[f32]), b: (&[i64], &[f32])| {
        sum_over("axis", |graph| {
            graph.constant("a", data_type, a.0, a.1).constant("b", data_type, b.0, b.1).node(
                op,
                &["a", "b"],
                &["axis"],
                &[],
            )
        })
    };
    let (two, one) = ((&[1i64] as &[i64], &[2f32] as &[f32]), (&[1i64] as &[i64], &[1f32] as &[f32]));
    fold("Mul", INT64, two, one).may_batch();
    fold("Sub", INT64, one, one).may_batch();
    fold("Sub", INT64, two, one).may_not("works over the batch axis");
    fold("Div", INT64, one, two).may_batch();
    // Of reals, a half and not 0.
    fold("Div", FLOAT, one, two).may_not("axes that are not constant");
    // 65536 times itself wraps to 0.
    fold("Mul", INT32, (&[1], &[65536.0]), (&[1], &[65536.0])).may_not("axes that are not constant");
    fold("Mul", INT64, (&[1], &[9e18]), (&[1], &[9e18])).may_not("axes that are not constant");
    fold("Div", INT64, (&[1], &[i64::MIN as f32]), (&[1], &[-1.0])).may_not("axes that are not constant");
}

#[test]
fn constants_that_broadcast_over_several_axes_are_not_followed() {
    sum_over("axis", |graph| {
        graph
            .constant("a", INT64, &[2, 1], &[0.0, 1.0])
            .constant("b", INT64, &[2], &[1.0, 1.0])
            .numbers("flat", &[-1])
            .numbers("second", &[1])
            .node("Mul", &["a", "b"], &["c"], &[])
            .node("Reshape", &["c", "flat"], &["d"], &[])
            .node("Gather", &["d", "second"], &["axis"], &[])
    })
    .may_not("axes that are not constant");
}

#[test]
fn a_cast_is_followed_between_whole_numbers_only() {
    let through = |to: i64| {
        sum_over("axis", |graph| {
            graph.numbers("two", &[2]).node("Cast", &["two"], &["cast"], &[int("to", to)]).node(
                "Cast",
                &["cast"],
                &["axis"],
                &[int("to", i64::from(INT64))],
            )
        })
    };
    through(i64::from(INT32)).may_batch();
    // 2 is true, and true is 1: the batch.
    through(i64::from(BOOL)).may_not("axes that are not constant");
    through(i64::from(FLOAT)).may_not("axes that are not constant");
    // The type is the second input's, but no row of it.
    Builder::new()
        .input("x", &["n", "3"])
        .weight("w", &[1, 3])
        .node("CastLike", &["w", "x"], &["y"], &[])
        .output("y")
        .may_not("has no batch axis");
}

#[test]
fn a_constant_is_what_the_engine_reads_of_it() {
    let external = |graph: &mut Builder| {
        graph.graph.initializer[0].data_location = tensor_proto::DataLocation::External as i32;
    };
    let mut graph = sum_over("axis", |graph| graph.numbers("axis", &[0]));
    external(&mut graph);
    graph.may_not("axes that are not constant");
    sum_over("axis", |graph| graph.numbers("axis", &[0]).numbers("axis", &[1]))
        .may_not("two values are called 'axis'");
    sum_over("axis", |graph| graph.constant("axis", INT64, &[2], &[0.0]))
        .may_not("axes that are not constant");
    sum_over("axis", |graph| {
        graph.numbers("a", &[0]).node("Identity", &["a"], &["axis"], &[]).node("Neg", &["a"], &["axis"], &[])
    })
    .may_not("two values are called 'axis'");
}

#[test]
fn shapes_through_smaller_whole_numbers_are_followed() {
    Builder::new()
        .input("x", &["batch", "s", "8"])
        .numbers("first", &[0])
        .constant("rest", INT32, &[1], &[-1.0])
        .node("Shape", &["x"], &["shape"], &[])
        .node("Cast", &["shape"], &["small"], &[int("to", i64::from(INT32))])
        .node("Gather", &["small", "first"], &["rows"], &[])
        .node("Concat", &["rows", "rest"], &["to32"], &[int("axis", 0)])
        .node("Cast", &["to32"], &["to"], &[int("to", i64::from(INT64))])
        .node("Reshape", &["x", "to"], &["y"], &[])
        .output("y")
        .may_batch();
}

#[test]
fn a_few_nodes_that_square_and_double_are_judged_at_once() {
    let mut squares =
        Builder::new().input("x", &["batch", "n"]).numbers("i", &[1]).node("Shape", &["x"], &["l0"], &[]);
    let mut doubles = Builder::new().input("x", &["batch", "n"]).node("Shape", &["x"], &["l0"], &[]);
    squares = squares.node("Gather", &["l0", "i"], &["k0"], &[]);
    for step in 0..100 {
        let (k, next_k) = (format!("k{step}"), format!("k{}", step + 1));
        let (l, next_l) = (format!("l{step}"), format!("l{}", step + 1));
        squares = squares.node("Mul", &[&k, &k], &[&next_k], &[]);
        doubles = doubles.node("Concat", &[&l, &l], &[&next_l], &[int("axis", 0)]);
    }
    for graph in [squares, doubles] {
        graph.node("Relu", &["x"], &["y"], &[]).output("y").may_batch();
    }
}

#[test]
fn values_that_many_nodes_read_are_not_copied() {
    let mut graph = Builder::new().input("x", &["batch", "n"]).numbers("long", &[7; 64]);
    graph = graph.node("Sum", &vec!["long"; 200_000], &["sum"], &[]);
    let name = "n".repeat(1 << 20);
    graph = graph.node("NonZero", &["x"], &[&name], &[]);
    for step in 0..500 {
        let from = if step == 0 { name.clone() } else { format!("v{step}") };
        graph = graph.node("Neg", &[&from], &[&format!("v{}", step + 1)], &[]);
    }
    match graph.output("v500").analyse() {
        Batchability::No { reason } => assert!(reason.len() < 300, "{} bytes", reason.len()),
        Batchability::Yes => panic!("the rows are mixed"),
    }
}

#[test]
fn nesting_ends_at_the_decoders_limit() {
    let nested = |depth: usize| {
        let mut graph = Builder::new().node("Neg", &["x"], &["v0"], &[]).output("v0").graph;
        for level in 0..depth {
            let outer = format!("v{}", level + 1);
            let other = Builder::new()
                .node("Relu", &["x"], &[&format!("r{level}")], &[])
                .output(&format!("r{level}"));
            let branches = [branch("then_branch", graph), branch("else_branch", other.graph)];
            graph = Builder::new().node("If", &["flag"], &[&outer], &branches).output(&outer).graph;
        }
        let mut whole = Builder::new().input("x", &["batch", "3"]).number("flag", 1);
        whole.graph.node = graph.node;
        whole.output(&format!("v{depth}"))
    };
    nested(20).may_batch();
    let refusal = Model::parse(nested(200).bytes().into()).unwrap_err().to_string();
    assert!(refusal.contains("damaged or not ONNX"), "{refusal}");
}

#[test]
fn functions_of_the_model_are_not_followed_however_often_they_call_each_other() {
    let mut graph = Builder::new().input("x", &["batch", "3"]);
    for level in 0..64 {
        let inner = format!("my.own:f{level}");
        let body = Builder::new().node(&inner, &["a"], &["b"], &[]).node(&inner, &["b"], &["c"], &[]);
        graph = graph.function("my.own", &format!("f{}", level + 1), body);
    }
    graph.node("my.own:f64", &["x"], &["y"], &[]).output("y").may_not("calls a function of the model");
    // One that has an operator's name may run in its place.
    for (domain, op) in [("", "Relu"), ("com.microsoft", "Gelu"), ("ai.onnx.ml", "Scaler")] {
        let body = Builder::new().node("ReduceMax", &["a"], &["b"], &[ints("axes", &[0])]);
        Builder::new()
            .input("x", &["batch", "3"])
            .function(domain, op, body)
            .node(&format!("{domain}:{op}"), &["x"], &["y"], &[])
            .output("y")
            .may_not("calls a function of the model");
    }
}

#[test]
fn a_squeeze_without_axes_makes_a_scalar_of_one_number_only() {
    let pick = |indices: &[i64]| {
        Builder::new()
            .input("x", &["batch", "4"])
            .numbers("l", indices)
            .node("Squeeze", &["l"], &["i"], &[])
            .node("Gather", &["x", "i"], &["g"], &[int("axis", 1)])
            .output("g")
    };
    pick(&[1]).may_batch();
    // Two columns, and not one: what was the batch alone is now a matrix that a transposition turns.
    let turned = |indices: &[i64]| {
        pick(indices)
            .numbers("flat", &[-1])
            .node("Transpose", &["g"], &["t"], &[])
            .node("Reshape", &["t", "flat"], &["y"], &[])
            .output("y")
    };
    turned(&[1]).may_batch();
    turned(&[0, 1]).may_not("folds the batch");
}

#[test]
fn a_letter_of_one_element_broadcasts_in_an_einsum() {
    Builder::new()
        .input("x", &["batch", "1"])
        .weight("w", &[5])
        .numbers("flat", &[-1])
        .node("Einsum", &["x", "w"], &["e"], &[text("equation", "bj,j->bj")])
        .node("Transpose", &["e"], &["t"], &[ints("perm", &[1, 0])])
        .node("Reshape", &["t", "flat"], &["y"], &[])
        .output("y")
        .may_not("folds the batch");
    let scale = |equation| {
        Builder::new()
            .input("x", &["batch", "s", "8"])
            .weight("w", &[8])
            .node("Einsum", &["x", "w"], &["y"], &[text("equation", equation)])
            .output("y")
    };
    scale("bsd,d->bs").may_batch();
    scale("bsd,b->bs").may_not("works over the batch axis");
    scale("bsd,d").may_not("an equation that is not followed");
    scale("b...,d->b...").may_not("an equation that is not followed");
}

#[test]
fn a_resize_that_crops_or_chooses_its_own_scales_may_not() {
    let resize = |attributes: &[AttributeProto]| {
        Builder::new()
            .opset(18)
            .input("x", &["batch", "3", "h", "w"])
            .constant("roi", FLOAT, &[8], &[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
            .constant("scales", FLOAT, &[4], &[1.0, 1.0, 2.0, 2.0])
            .node("Resize", &["x", "roi", "scales"], &["y"], attributes)
            .output("y")
    };
    let mode = |mode| text("coordinate_transformation_mode", mode);
    resize(&[]).may_batch();
    resize(&[mode("asymmetric")]).may_batch();
    resize(&[mode("tf_crop_and_resize")]).may_not("shape that is not followed");
    resize(&[mode("tf_half_pixel_for_nn")]).may_not("shape that is not followed");
    resize(&[text("keep_aspect_ratio_policy", "not_larger")]).may_not("shape that is not followed");
    resize(&[ints("axes", &[2, 3])]).may_not("shape that is not followed");
    // A 1 in the crop is no scale of 1.
    Builder::new()
        .input("x", &["batch", "4"])
        .constant("roi", FLOAT, &[2], &[1.0, 1.0])
        .constant("scales", FLOAT, &[2], &[2.0, 1.0])
        .node("Resize", &["x", "roi", "scales"], &["y"], &[])
        .output("y")
        .may_not("is not known to leave the batch axis");
}

#[test]
fn attention_takes_masks_of_exactly_the_batch() {
    let masked = |dims: &[&str], flat: &[i64]| {
        Builder::new()
            .input("x", &["batch", "3", "4"])
            .input("m", dims)
            .weight("w", &[4, 12])
            .weight("b", &[12])
            .numbers("to", flat)
            .node("Reshape", &["m", "to"], &["mask"], &[])
            .node("com.microsoft:Attention", &["x", "w", "b", "mask"], &["y"], &[int("num_heads", 1)])
            .output("y")
    };
    masked(&["batch", "3"], &[0, 0]).may_batch();
    masked(&["batch"], &[-1]).may_batch();
    // All ends, then all starts: the second half of one request is the other's.
    masked(&["batch", "2"], &[-1]).may_not("works over the batch axis");
    Builder::new()
        .input("x", &["batch", "3", "4"])
        .weight("w", &[4, 12])
        .weight("b", &[12])
        .numbers("mask", &[3, 2, 1])
        .node("com.microsoft:Attention", &["x", "w", "b", "mask"], &["y"], &[int("num_heads", 1)])
        .output("y")
        .may_not("works over the batch axis");
}

#[test]
fn weights_as_long_as_the_batch_belong_to_places_and_not_to_rows() {
    let multiply = |dims: &[i64]| {
        Builder::new()
            .input("x", &["batch", "4"])
            .weight("w", &[4, 2])
            .weight("zx", dims)
            .weight("zw", &[2])
            .node("MatMulInteger", &["x", "w", "zx", "zw"], &["y"], &[])
            .output("y")
    };
    multiply(&[]).may_batch();
    multiply(&[5]).may_not("scales each row by its place");
    let recur = |inputs: &[&str]| {
        Builder::new()
            .input("x", &["batch", "s", "8"])
            .weight("w", &[1, 16, 8])
            .weight("r", &[1, 16, 4])
            .weight("h", &[1, 5, 4])
            .numbers("first", &[0])
            .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
            .node("LSTM", inputs, &["all", "last"], &[])
            .node("Squeeze", &["last", "first"], &["y"], &[])
            .output("y")
    };
    recur(&["t", "w", "r"]).may_batch();
    recur(&["t", "w", "r", "", "", "h"]).may_not("or weights where it belongs");
}

#[test]
fn extents_that_only_share_a_name_are_not_taken_as_equal() {
    let mixed = |one: &[&str], other: &[&str], from: &str, at: i64| {
        Builder::new()
            .input("x", one)
            .input("b", other)
            .numbers("i", &[at])
            .numbers("rest", &[-1])
            .node("Transpose", &["x"], &["t"], &[])
            .node("Shape", &[from], &["sb"], &[])
            .node("Gather", &["sb", "i"], &["n"], &[])
            .node("Concat", &["n", "rest"], &["to"], &[int("axis", 0)])
            .node("Reshape", &["t", "to"], &["r"], &[])
            .node("Transpose", &["r"], &["u"], &[])
            .node("Shape", &["x"], &["sx"], &[])
            .node("Reshape", &["u", "sx"], &["y"], &[])
            .output("y")
    };
    mixed(&["batch", "n"], &["batch", "n"], "x", 1).may_batch();
    mixed(&["batch", "n"], &["batch", "n"], "b", 1).may_not("shape that is not followed");
    Builder::new()
        .input("x", &["batch", "n", "n"])
        .numbers("i", &[2])
        .numbers("rest", &[-1])
        .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
        .node("Shape", &["x"], &["shape"], &[])
        .node("Gather", &["shape", "i"], &["n"], &[])
        .node("Concat", &["n", "rest"], &["to"], &[int("axis", 0)])
        .node("Reshape", &["t", "to"], &["r"], &[])
        .node("Transpose", &["r"], &["y"], &[])
        .output("y")
        .may_not("folds the batch");
}

#[test]
fn an_axis_that_is_named_twice_is_refused_and_no_panic() {
    let twice = |op: &str, key: &str| {
        Builder::new()
            .input("x", &["batch", "1", "1"])
            .node("Transpose", &["x"], &["t"], &[ints("perm", &[1, 0, 2])])
            .node(op, &["t"], &["y"], &[ints(key, &[0, 0, -3])])
            .output("y")
    };
    twice("ReduceMax", "axes").may_not("names axis 0 twice");
    twice("Squeeze", "axes").may_not("names axis 0 twice");
    twice("Unsqueeze", "axes").may_not("names axis 0 twice");
    twice("Transpose", "perm").may_not("names axis 0 twice");
}

#[test]
fn random_numbers_make_a_model_answer_alone_wherever_they_are_drawn() {
    let draw = |op: &str| Builder::new().node(op, &[], &["r"], &[ints("shape", &[1, 3])]).output("r").graph;
    let same = || Builder::new().node("Identity", &["k"], &["z"], &[]).output("z").graph;
    let with = |op: &str, inputs: &[&str], attributes: &[AttributeProto]| {
        Builder::new()
            .input("x", &["batch", "3"])
            .weight("k", &[1, 3])
            .number("times", 2)
            .constant("yes", BOOL, &[], &[1.0])
            .node(op, inputs, &["noise"], attributes)
            .node("Add", &["x", "noise"], &["y"], &[])
            .output("y")
    };
    with("Identity", &["k"], &[]).may_batch();
    for op in ["RandomNormal", "RandomUniform"] {
        with(op, &[], &[ints("shape", &[1, 3])]).may_not("draws random numbers");
        let branches = [branch("then_branch", draw(op)), branch("else_branch", same())];
        with("If", &["yes"], &branches).may_not("draws random numbers");
        with("Loop", &["times", "yes"], &[branch("body", draw(op))])
            .may_not("not known to answer the same each time");
        let body = Builder::new().node(op, &[], &["r"], &[]);
        with("my.own:Noise", &["k"], &[]).function("my.own", "Noise", body).may_not("calls a function");
    }
    with("Loop", &["times", "yes"], &[branch("body", same())]).may_not("unknown rank");
    for op in ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"] {
        with(op, &["k"], &[]).may_not("draws random numbers");
    }
    // An operator that nobody knows may draw too, also from weights.
    with("my.own:Noise", &["k"], &[]).may_not("is not known");
    with("com.microsoft:BitmaskDropout", &["k"], &[]).may_not("is not known");
}

#[test]
fn dropout_is_followed_only_where_it_does_not_train() {
    let drop = |inputs: &[&str]| {
        Builder::new()
            .input("x", &["batch", "3"])
            .weight("k", &[1, 3])
            .constant("half", FLOAT, &[], &[0.5])
            .constant("no", BOOL, &[], &[0.0])
            .constant("yes", BOOL, &[], &[1.0])
            .node("Dropout", inputs, &["d"], &[])
            .node("Add", &["x", "d"], &["y"], &[])
            .output("y")
    };
    drop(&["x", "half"]).may_batch();
    drop(&["x", "half", "no"]).may_batch();
    drop(&["x", "half", "yes"]).may_not("may draw random numbers");
    drop(&["k", "half", "yes"]).may_not("may draw random numbers");
    let body = Builder::new().node("Dropout", &["k", "", "yes"], &["d"], &[]).output("d").graph;
    Builder::new()
        .input("x", &["batch", "3"])
        .weight("k", &[1, 3])
        .constant("yes", BOOL, &[], &[1.0])
        .number("times", 2)
        .node("Loop", &["times", "yes"], &["d"], &[branch("body", body)])
        .node("Add", &["x", "d"], &["y"], &[])
        .output("y")
        .may_not("not known to answer the same each time");
}

#[test]
fn operator_sets_that_the_rules_do_not_know_may_not() {
    let relu = |opset| {
        Builder::new().opset(opset).input("x", &["batch", "3"]).node("Relu", &["x"], &["y"], &[]).output("y")
    };
    relu(7).may_batch();
    relu(25).may_batch();
    relu(6).may_not("the operator set is 6");
    relu(26).may_not("the operator set is 26");
    let mut twice = ModelProto::decode(relu(17).bytes().as_slice()).unwrap();
    twice.opset_import.push(OperatorSetIdProto { domain: "ai.onnx".into(), version: 11 });
    match Model::parse(twice.encode_to_vec().into()).unwrap().batchability() {
        Batchability::No { reason } => assert!(reason.contains("two operator sets"), "{reason}"),
        Batchability::Yes => panic!("which of the two holds is not known"),
    }
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
    std::os::unix::fs::symlink(folder.path(), inside.join("parent")).unwrap();
    std::fs::hard_link(folder.path().join("secret.bin"), inside.join("hard.bin")).unwrap();
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
        ("parent/secret.bin", "a link out of the model's folder"),
        ("hard.bin", "one file under 2 names"),
        ("missing.bin", "cannot be read"),
    ] {
        let error = check(location, "8").unwrap_err();
        assert!(error.contains(words), "{location}: {error}");
    }
    assert!(check("weights.bin", "9").unwrap_err().contains("8 bytes, but 9"));
    assert!(check("weights.bin", "many").unwrap_err().contains("not a number"));
    assert!(check("weights.bin", "18446744073709551615").unwrap_err().contains("are wanted"));
}

/// A tensor whose data lies in `locations`, one after another.
fn external(locations: &[&str]) -> TensorProto {
    let entry =
        |location: &&str| StringStringEntryProto { key: "location".into(), value: (*location).into() };
    TensorProto {
        name: "w".into(),
        dims: vec![2],
        data_type: FLOAT,
        data_location: tensor_proto::DataLocation::External as i32,
        external_data: locations.iter().map(entry).collect(),
        ..TensorProto::default()
    }
}

#[test]
fn external_data_is_found_wherever_a_model_can_hold_a_tensor() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ok.bin"), [0; 8]).unwrap();
    let sparse = |tensor| SparseTensorProto { values: Some(tensor), ..SparseTensorProto::default() };
    let attribute = |t| AttributeProto { t: Some(t), ..AttributeProto::default() };
    let holder = |attribute: AttributeProto| Builder::new().node("Constant", &[], &["c"], &[attribute]);
    let inside =
        |graph: Builder| Builder::new().node("If", &["c"], &["d"], &[branch("then_branch", graph.graph)]);
    type Place = (&'static str, fn(&mut ModelProto, Builder));
    let places: [Place; 4] = [
        ("graph", |model, holder| model.graph.as_mut().unwrap().node.extend(holder.graph.node)),
        ("initializers", |model, holder| {
            model.graph.as_mut().unwrap().initializer.extend(holder.graph.node[0].attribute[0].t.clone());
        }),
        ("function", |model, holder| {
            model.functions.push(FunctionProto { node: holder.graph.node, ..FunctionProto::default() });
        }),
        ("default", |model, holder| {
            let attribute_proto = holder.graph.node[0].attribute.clone();
            model.functions.push(FunctionProto { attribute_proto, ..FunctionProto::default() });
        }),
    ];
    for (name, place) in places {
        for kind in ["tensor", "tensors", "sparse", "sparses", "nested"] {
            let holder = |tensor: TensorProto| match kind {
                "tensors" => holder(AttributeProto { tensors: vec![tensor], ..AttributeProto::default() }),
                "sparse" => holder(AttributeProto {
                    sparse_tensor: Some(sparse(tensor)),
                    ..AttributeProto::default()
                }),
                "sparses" => holder(AttributeProto {
                    sparse_tensors: vec![sparse(tensor)],
                    ..AttributeProto::default()
                }),
                "nested" => inside(holder(attribute(tensor))),
                _ => holder(attribute(tensor)),
            };
            if name == "initializers" && kind != "tensor" {
                continue;
            }
            let check = |locations: &[&str]| {
                let mut model = ModelProto::decode(mlp().bytes().as_slice()).unwrap();
                place(&mut model, holder(external(locations)));
                let model = Model::parse(model.encode_to_vec().into()).unwrap();
                model.check_external(folder.path()).map_err(|error| error.to_string())
            };
            assert_eq!(check(&["ok.bin"]).map(|files| files.len()), Ok(1), "{kind} in {name}");
            let error = check(&["../secret.bin"]).unwrap_err();
            assert!(error.contains("without '..'"), "{kind} in {name}: {error}");
            let error = check(&["ok.bin", "../secret.bin"]).unwrap_err();
            assert!(error.contains("its location is given twice"), "{kind} in {name}: {error}");
        }
    }
    let mut memory = ModelProto::decode(mlp().bytes().as_slice()).unwrap();
    memory.graph.as_mut().unwrap().initializer.push(external(&["*/_ORT_MEM_ADDR_/*"]));
    let error =
        Model::parse(memory.encode_to_vec().into()).unwrap().check_external(folder.path()).unwrap_err();
    assert!(error.to_string().contains("an address in memory"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(model) = Model::parse(bytes.into()) {
            let _ = model.batchability();
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
                let _ = (model.batchability(), model.check_external(Path::new("/nowhere")));
            }
        }
    }
}
