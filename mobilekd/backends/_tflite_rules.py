"""Which ONNX operator is written how: the one table of the TFLite writer."""

from collections.abc import Mapping

from mobilekd.backends import _tflite_activations as act
from mobilekd.backends import _tflite_conv as conv
from mobilekd.backends import _tflite_math as math
from mobilekd.backends import _tflite_norm as norm
from mobilekd.backends import _tflite_shape as shape
from mobilekd.backends._tflite_call import Rule, fuses_always

# Without the second field an operator is written in float between DEQUANTIZE and QUANTIZE. For Sigmoid that is because
# LOGISTIC writes int8 at 1/256 only: another scale behind it would round twice.
RULES: Mapping[str, Rule] = {
    "Abs": Rule(math.unary, math.always),
    "Add": Rule(math.binary, math.sum_is_int8, fuses=fuses_always),
    "AveragePool": Rule(norm.average_pool),
    "BatchNormalization": Rule(math.affine),
    "Cast": Rule(shape.identity, math.always, moves=True),
    "Clip": Rule(act.clip, math.always),
    "Concat": Rule(shape.concat, math.flows_only),
    "Conv": Rule(conv.conv, conv.has_int8_weight, fuses=fuses_always),
    "ConvTranspose": Rule(conv.conv_transpose, conv.has_int8_weight),
    "DepthToSpace": Rule(shape.depth_to_space, math.always, moves=True),
    "Div": Rule(math.binary, fuses=fuses_always),
    "Dropout": Rule(shape.identity, math.always, moves=True),
    "Elu": Rule(act.elu),
    "Erf": Rule(math.erf),
    "Exp": Rule(math.unary, math.always),
    "Expand": Rule(shape.expand, math.always, moves=True),
    "Flatten": Rule(shape.reshape, math.always, moves=True),
    "Gather": Rule(shape.gather, math.always, moves=True),
    "Gelu": Rule(act.gelu, math.always),
    "Gemm": Rule(conv.gemm, conv.product_is_int8, fuses=fuses_always),
    "GlobalAveragePool": Rule(norm.global_average_pool),
    "GlobalMaxPool": Rule(norm.global_max_pool, math.always, moves=True),
    "GroupNormalization": Rule(norm.group_normalization),
    "HardSigmoid": Rule(act.hard_sigmoid, act.hard_sigmoid_is_int8),
    # HARD_SWISH in int8 is a step off for 0.2 % of values, and no kernel of XNNPACK; DEQUANTIZE, HARD_SWISH, QUANTIZE
    # is exact, and XNNPACK joins the three to one table: 15 us against 612 us for 56x56x64 (x86_64, LiteRT 2.3.0).
    "HardSwish": Rule(math.unary),
    "Identity": Rule(shape.identity, math.always, moves=True),
    "InstanceNormalization": Rule(norm.instance_normalization),
    "LayerNormalization": Rule(norm.layer_normalization),
    "LeakyRelu": Rule(act.leaky_relu, act.leaky_is_int8),
    "Log": Rule(math.unary),
    "LogSoftmax": Rule(norm.softmax),
    "MatMul": Rule(conv.matmul, conv.product_is_int8, fuses=conv.is_by_constant),
    "Max": Rule(math.extremum, math.flows_only),
    "MaxPool": Rule(norm.max_pool, math.always, moves=True),
    "Min": Rule(math.extremum, math.flows_only),
    "Mish": Rule(act.mish),
    "Mul": Rule(math.binary, math.sum_is_int8, fuses=fuses_always),
    "Neg": Rule(math.negate, math.always),
    "PRelu": Rule(act.prelu),
    "Pad": Rule(shape.pad, shape.pads_zero, moves=True),
    "Pow": Rule(math.power),
    "Reciprocal": Rule(math.reciprocal),
    "ReduceMax": Rule(norm.reduce, math.always, moves=True),
    "ReduceMean": Rule(norm.reduce),
    "ReduceMin": Rule(norm.reduce),
    "ReduceSum": Rule(norm.reduce),
    "Relu": Rule(math.unary, math.always),
    "Reshape": Rule(shape.reshape, math.always, moves=True),
    "Resize": Rule(shape.resize, shape.is_nearest, moves=True),
    "Sigmoid": Rule(math.unary),
    "Slice": Rule(shape.slices, math.always, moves=True),
    "Softmax": Rule(norm.softmax),
    "Softplus": Rule(act.softplus),
    "SpaceToDepth": Rule(shape.space_to_depth, math.always, moves=True),
    "Split": Rule(shape.split, math.always, moves=True),
    "Sqrt": Rule(math.unary),
    "Squeeze": Rule(shape.reshape, math.always, moves=True),
    "Sub": Rule(math.binary, math.sum_is_int8, fuses=fuses_always),
    "Tanh": Rule(math.unary, math.always),
    "Tile": Rule(shape.expand, math.always, moves=True),
    "Transpose": Rule(shape.transpose, math.always, moves=True),
    "Unsqueeze": Rule(shape.reshape, math.always, moves=True),
}
