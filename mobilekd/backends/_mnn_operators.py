"""Names of MNN's operators: the enum OpType of its schema/default/MNN.fbs, whose numbers are part of the format."""

_FROM_0 = """
AbsVal QuantizedAdd ArgMax AsString InstanceNorm BatchToSpaceND Copy BinaryOp Bnll Cast Concat Const Convolution
ConvolutionDepthwise Crop CropAndResize ImageProcess Deconvolution DeconvolutionDepthwise Dequantize DetectionOutput
Dropout Eltwise ELU Unique Exp ExpandDims Fill Flatten Im2Col Gather GatherV2 Im2Seq InnerProduct Input Interp Log LRN
LSTM MatMul MoE NonMaxSuppression NonMaxSuppressionV2 Normalize Pack Padding Permute Pooling Power PReLU PriorBox
Proposal QuantizedAvgPool QuantizedBiasAdd QuantizedConcat QuantizedDepthwiseConv2D QuantizedLogistic
RasterAndInterpolate QuantizedMaxPool Texture RasterDiff QuantizedReshape QuantizedSoftmax QuantizeMaxMin QuantizeV2
Range Rank ReduceJoin Reduction ReLU ReLU6 RequantizationRange Requantize Reshape Resize RNN ROIPooling Scale Selu
Seq2Out Shape Sigmoid Size Slice SliceTf Softmax SpaceToBatchND SpatialProduct Col2Im Segment Squeeze StridedSlice
CastLike StringSplit StringToNumber TanH TfQuantizedConv2D Threshold Tile TopKV2 Transpose UnaryOp Unpack Where Moments
RNNSequenceGRU BatchMatMul Unsqueeze CosineSimilarity DepthToSpace SpaceToDepth ReverseSequence Pooling3D Convolution3D
MatrixBandPart GatherND DetectionPostProcess UnravelIndex ScatterNd OneHot BroadcastTo Dilation2D Interp3D
"""
_FROM_128 = "Raster ConvertTensor ArgMin LinSpace RandomUniform"
_FROM_142 = "Reverse ROIAlign RandomNormal"
_FROM_147 = """
EyeLike CumSum Det CumProd ScatterElements GatherElements Svd Histogram DynamicQuant Stft
"""
_FROM_256 = "Plugin Select ZerosLike Broastcast SetDiff1D ReluGrad Identity"
_OTHERS = {
    267: "BatchNorm",
    268: "ConvTranspose3D",
    299: "Attention",
    304: "GroupNorm",
    512: "Extra",
    513: "ConvInt8",
    514: "Int8ToFloat",
    515: "DepthwiseConvInt8",
    517: "FloatToInt8",
    518: "EltwiseInt8",
    600: "While",
    601: "If",
    603: "LayerNorm",
    604: "GridSample",
}
_RANGES = {0: _FROM_0, 128: _FROM_128, 142: _FROM_142, 147: _FROM_147, 256: _FROM_256}
_NAMES = {first + at: name for first, names in _RANGES.items() for at, name in enumerate(names.split())} | _OTHERS


def operator_name(number: int) -> str:
    """Return the name of an operator, as "Convolution"; "operator 999" for a number that the schema of 3.6.1 has not.

    Example:
        >>> operator_name(12), operator_name(122), operator_name(603), operator_name(999)
        ('Convolution', 'Interp3D', 'LayerNorm', 'operator 999')
    """
    return _NAMES.get(number, f"operator {number}")
