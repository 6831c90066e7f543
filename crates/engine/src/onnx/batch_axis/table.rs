//! Which rule an operator has. One that stands here nowhere mixes rows as soon as it touches the batch.
use super::{
    arith,
    call::{Call, Outcome},
    extent::Extent,
    fact::{Elem, Fact},
    movement, neural,
};
use crate::onnx::generated::NodeProto;

/// Applies the rule of the call's node.
pub(super) fn apply(domain: &str, call: &mut Call<'_>) -> Outcome {
    match domain {
        _ if draws(call.node) => {
            Err("draws random numbers, so an answer depends on what else the engine runs".into())
        }
        "" if call.node.op_type == "Constant" => constant(call),
        "" => standard(call),
        "ai.onnx.ml" => learned(call),
        "com.microsoft" => fused(call),
        _ => Err(UNKNOWN.into()),
    }
}

const UNKNOWN: &str = "is not known to keep rows apart";

/// Whether a node of a loop's body, which no rule looks at, answers the same each time it is given the same.
pub(super) fn is_steady(domain: &str, node: &NodeProto) -> bool {
    let may_train = node.op_type == "Dropout" && node.input.get(2).is_some_and(|name| !name.is_empty());
    matches!(domain, "" | "ai.onnx.ml") && !draws(node) && !may_train
}

fn draws(node: &NodeProto) -> bool {
    matches!(
        node.op_type.as_str(),
        "RandomNormal"
            | "RandomUniform"
            | "RandomNormalLike"
            | "RandomUniformLike"
            | "Multinomial"
            | "Bernoulli"
    )
}

/// What ONNX's own operators without a rule do with weights is their affair, but not with the batch.
fn unknown(call: &Call<'_>) -> Outcome {
    if call.touches_batch() { Err(UNKNOWN.into()) } else { Ok(call.plain_outputs()) }
}

fn constant(call: &Call<'_>) -> Outcome {
    let whole = |numbers: &[i64]| numbers.iter().copied().map(Extent::constant).collect::<Vec<_>>();
    let fact = if let Some(tensor) = call.tensor("value") {
        Fact::constant(tensor)
    } else if let Some(ints) = call.ints("value_ints") {
        Fact::list(Elem::Int64, whole(ints))
    } else if call.has("value_int") {
        Fact::whole(Vec::new(), Elem::Int64, whole(&[call.int("value_int", 0)]))
    } else if call.has("value_float") || call.has("value_string") {
        Fact::plain(Vec::new())
    } else {
        Fact::unknown()
    };
    Ok(vec![Ok(fact)])
}

fn standard(call: &mut Call<'_>) -> Outcome {
    match call.node.op_type.as_str() {
        "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot" | "Ceil" | "Celu"
        | "Clip" | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid"
        | "HardSwish" | "Identity" | "IsInf" | "IsNaN" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Not"
        | "PRelu" | "Reciprocal" | "Relu" | "Round" | "Selu" | "Shrink" | "Sigmoid" | "Sign" | "Sin"
        | "Sinh" | "Softplus" | "Softsign" | "Sqrt" | "Swish" | "Tan" | "Tanh" | "ThresholdedRelu"
        | "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Max" | "Min" | "Mean" | "Sum" | "And" | "Or"
        | "Xor" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "BitShift" | "Equal" | "Greater" | "Less"
        | "GreaterOrEqual" | "LessOrEqual" | "Where" | "Cast" | "StringConcat" => arith::elementwise(call),
        "CastLike" => arith::cast_like(call),
        "Dropout" => neural::dropout(call),
        "QuantizeLinear" | "DequantizeLinear" => arith::quantise(call),
        "DynamicQuantizeLinear" => arith::dynamic(call),
        "MatMul" | "MatMulInteger" => arith::matmul(call, 0, 1),
        "QLinearMatMul" => arith::matmul(call, 0, 3),
        "Gemm" => arith::gemm(call),
        "Einsum" => arith::einsum(call),
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" => arith::reduce(call),
        "ArgMax" | "ArgMin" => arith::arg(call),
        "CumSum" => arith::cumulative(call),
        "TopK" => arith::top_k(call),
        "Reshape" => movement::reshape(call),
        "Flatten" => movement::flatten(call),
        "Squeeze" => movement::squeeze(call),
        "Unsqueeze" => movement::unsqueeze(call),
        "Transpose" => movement::transpose(call),
        "Concat" => movement::concat(call),
        "Split" => movement::split(call),
        "Slice" => movement::slice(call),
        "Gather" => movement::gather(call),
        "GatherElements" => movement::gather_elements(call),
        "Expand" => movement::expand(call),
        "Tile" => movement::tile(call),
        "Pad" => movement::pad(call),
        "Shape" => movement::shape(call),
        "Size" => movement::size(call),
        "ConstantOfShape" => movement::constant_of_shape(call),
        "Range" => movement::range(call),
        "OneHot" => movement::one_hot(call),
        "Resize" | "Upsample" => movement::resize(call),
        "Softmax" | "LogSoftmax" | "Hardmax" => neural::softmax(call),
        "LayerNormalization" | "RMSNormalization" => neural::layer_norm(call),
        "LpNormalization" => neural::along_axis(call, -1),
        "Trilu" => neural::triangle(call),
        "BatchNormalization" => neural::batch_norm(call),
        "InstanceNormalization" | "GroupNormalization" | "LRN" | "DepthToSpace" | "SpaceToDepth" => {
            neural::per_sample(call, 0)
        }
        "MeanVarianceNormalization" => neural::mean_variance(call),
        "Conv" | "ConvTranspose" | "ConvInteger" | "QLinearConv" | "MaxPool" | "AveragePool" | "LpPool"
        | "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => neural::convolution(call),
        "LSTM" | "GRU" | "RNN" => neural::recurrent(call),
        _ => unknown(call),
    }
}

fn learned(call: &mut Call<'_>) -> Outcome {
    match call.node.op_type.as_str() {
        "TreeEnsembleClassifier" | "LinearClassifier" | "SVMClassifier" => neural::classifier(call),
        "TreeEnsembleRegressor" | "TreeEnsemble" | "LinearRegressor" | "SVMRegressor" => {
            neural::regressor(call)
        }
        "Scaler" | "Imputer" | "Binarizer" | "LabelEncoder" | "Normalizer" => neural::feature_wise(call),
        "ArrayFeatureExtractor" => neural::feature_extractor(call),
        _ => unknown(call),
    }
}

fn fused(call: &mut Call<'_>) -> Outcome {
    match call.node.op_type.as_str() {
        "Gelu" | "FastGelu" | "BiasGelu" | "QuickGelu" => arith::elementwise(call),
        "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" => arith::dynamic(call),
        "QuantizeLinear" | "DequantizeLinear" => arith::quantise(call),
        "FusedMatMul"
            if call.int("transA", 0) == 0
                && call.int("transB", 0) == 0
                && call.int("transBatchA", 0) == 0
                && call.int("transBatchB", 0) == 0 =>
        {
            arith::matmul(call, 0, 1)
        }
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => neural::skip_layer_norm(call),
        "SimplifiedLayerNormalization" => neural::layer_norm(call),
        "Attention" | "MultiHeadAttention" => neural::attention(call),
        // Some of this domain draw random numbers, also from weights: none is plain unless it is known.
        _ => Err(UNKNOWN.into()),
    }
}
