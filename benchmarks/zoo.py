"""Networks of the conformance matrix that timm has not, or not for small images: `python:benchmarks.zoo:NAME`."""

from torch import nn


def shufflenet_v2(num_classes: int) -> nn.Module:
    """Return torchvision's ShuffleNetV2 x1.0 (Ma et al. 2018, arXiv 1807.11164)."""
    from mobilekd.training.torchvision_ops import declare_torchvision_ops

    declare_torchvision_ops()
    from torchvision.models import shufflenet_v2_x1_0

    network: nn.Module = shufflenet_v2_x1_0(num_classes=num_classes)
    return network


def vgg11_bn(num_classes: int) -> nn.Module:
    """Return timm's VGG-11 with BatchNorm, its three wide layers (made for maps of 7 x 7) replaced by a mean."""
    from mobilekd.training.torchvision_ops import declare_torchvision_ops

    declare_torchvision_ops()
    from timm.models import vgg11_bn as timm_vgg11_bn

    features: nn.Module = timm_vgg11_bn().features
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))


def mobilenetv2_050_cifar(num_classes: int) -> nn.Module:
    """Return timm's MobileNetV2 x0.5 for images of 32 x 32: stem and second stage keep their size, 4 x 4 at the end."""
    from mobilekd.training.torchvision_ops import declare_torchvision_ops

    declare_torchvision_ops()
    import timm

    network: nn.Module = timm.create_model("mobilenetv2_050", num_classes=num_classes)
    strided = [one for one in network.modules() if isinstance(one, nn.Conv2d) and one.stride == (2, 2)]
    for convolution in strided[:2]:
        convolution.stride = (1, 1)
    return network
