"""A QDQ graph small enough to work by hand: convolution, ReLU, pooling and a linear layer."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

IMAGE_SCALE, RELU_SCALE, POOL_SCALE, LOGITS_SCALE = 0.25, 0.125, 0.0625, 0.0625
CONV_SCALES = np.array([2**-8, 2**-7], np.float32)
GEMM_SCALES = np.array([2**-7, 2**-8, 2**-9], np.float32)


def tiny_qdq(conv_bias: tuple[float, float] = (0.3, -1.0)) -> ModelProto:
    """Return the graph: image [1, 3, 4, 4] -> conv (2 channels) -> relu -> mean -> gemm -> logits [1, 3]."""
    rng = np.random.default_rng(0)
    constants = {
        "conv_int8": rng.integers(-127, 128, (2, 3, 1, 1)).astype(np.int8),
        "conv_scales": CONV_SCALES,
        "conv_zeros": np.zeros(2, np.int8),
        "stem.conv.weight_bias": np.array(conv_bias, np.float32),
        "gemm_int8": rng.integers(-127, 128, (3, 2)).astype(np.int8),
        "gemm_scales": GEMM_SCALES,
        "gemm_zeros": np.zeros(3, np.int8),
        "head.bias": np.array([0.1, 0.2, 0.3], np.float32),
        "axes": np.array([-1, -2], np.int64),
        "shape": np.array([1, 2], np.int64),
        "zero": np.int8(0),
    }
    for name, scale in (("i", IMAGE_SCALE), ("r", RELU_SCALE), ("p", POOL_SCALE), ("l", LOGITS_SCALE)):
        constants[f"{name}_scale"] = np.float32(scale)
    nodes = [
        *_rounded("image", "i", "image_dq"),
        helper.make_node("DequantizeLinear", ["conv_int8", "conv_scales", "conv_zeros"], ["conv_w"], "dq_w", axis=0),
        helper.make_node("Conv", ["image_dq", "conv_w", "stem.conv.weight_bias"], ["conv"], "node_conv"),
        helper.make_node("Relu", ["conv"], ["relu"], "node_relu"),
        *_rounded("relu", "r", "relu_dq"),
        helper.make_node("ReduceMean", ["relu_dq", "axes"], ["mean"], "node_mean", keepdims=1),
        *_rounded("mean", "p", "mean_dq"),
        helper.make_node("Reshape", ["mean_dq", "shape"], ["flat"], "node_flat"),
        *_rounded("flat", "p", "flat_dq"),
        helper.make_node("DequantizeLinear", ["gemm_int8", "gemm_scales", "gemm_zeros"], ["gemm_w"], "dq_g", axis=0),
        helper.make_node("Gemm", ["flat_dq", "gemm_w", "head.bias"], ["linear"], "node_linear", transB=1),
        *_rounded("linear", "l", "logits"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _rounded(tensor: str, scale: str, result: str) -> list:
    arguments = [f"{scale}_scale", "zero"]
    return [
        helper.make_node("QuantizeLinear", [tensor, *arguments], [f"{result}_q"], f"q_{result}"),
        helper.make_node("DequantizeLinear", [f"{result}_q", *arguments], [result], f"dq_{result}"),
    ]
