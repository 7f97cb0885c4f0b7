"""Where networks are tapped, and what comes out."""

import pytest
import torch
from torch import nn

from mobilekd.errors import ConfigError
from mobilekd.training import networks
from mobilekd.training.device import compiled
from mobilekd.training.taps import Taps, classifier_path, tap_paths
from tests.training.nets import narrow

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
KNOWN = [
    ("timm:resnet18", ("act1", "layer1", "layer2", "layer3", "layer4"), "fc", (64, 64, 128, 256, 512), 512),
    (
        "timm:mobilenetv2_050", ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"), "classifier",
        (8, 16, 16, 48, 160), 1280,
    ),
    (
        "timm:mobilenetv4_conv_small", ("bn1", "blocks.0", "blocks.1", "blocks.2", "blocks.4"), "classifier",
        (32, 32, 64, 96, 960), 1280,
    ),
    ("python:benchmarks.cifar_resnet:resnet20", ("layer1", "layer2", "layer3"), "linear", (16, 32, 64), 64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "paths", "classifier", "channels", "width"), KNOWN)
def test_a_known_network_is_tapped_at_the_end_of_its_stages(name, paths, classifier, channels, width) -> None:
    network = networks.build(name, 10)
    outputs = Taps(network, None, embedding=True, stages=True)(IMAGES)
    assert (tap_paths(network, IMAGES), classifier_path(network, IMAGES)) == (paths, classifier)
    assert tuple(one.shape[1] for one in outputs.stages) == channels
    assert outputs.embedded().shape == (2, width)


def test_a_wrapped_network_is_tapped_as_close_to_the_root_as_its_resolutions_show() -> None:
    wrapped = nn.Sequential(nn.Sequential(narrow().layer1, narrow().layer2), nn.Flatten(), nn.LazyLinear(3))
    assert tap_paths(wrapped, IMAGES) == ("0.0", "0")


def test_the_embedding_is_what_the_classifier_turns_into_logits() -> None:
    network = narrow()
    outputs = Taps(network, None, embedding=True, stages=False)(IMAGES)
    torch.testing.assert_close(network.linear(outputs.embedded()), outputs.logits)


def test_looking_for_taps_leaves_mode_and_statistics() -> None:
    network = narrow().train()
    network.layer2.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tap_paths(network, IMAGES)
    assert (network.layer1[1].training, network.layer2[1].training) == (True, False)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_stages_carry_gradients_to_the_layers_before_them() -> None:
    network = narrow()
    Taps(network, ("layer2",), embedding=False, stages=True)(IMAGES).stages[0].sum().backward()
    assert network.layer1[0].weight.grad is not None
    assert network.layer3[0].weight.grad is None


def test_taps_without_features_put_no_hook_on_the_network() -> None:
    network = narrow()
    Taps(network, None, embedding=False, stages=False)(IMAGES)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_closed_taps_leave_no_hook_behind() -> None:
    network = narrow()
    taps = Taps(network, None, embedding=True, stages=True)
    taps(IMAGES)
    taps.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_taps_work_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = Taps(narrow(), None, embedding=True, stages=True)(IMAGES)
    assert {len(outputs.stages), outputs.logits.dtype} == {3, torch.bfloat16}


def test_a_wrong_path_is_an_error_with_the_near_ones() -> None:
    with pytest.raises(ConfigError, match="no module 'layr2'") as caught:
        Taps(narrow(), ("layr2",), embedding=False, stages=True)
    assert "layer2" in caught.value.hint


def test_a_stage_that_is_no_feature_map_is_an_error_with_its_shape() -> None:
    with pytest.raises(ConfigError, match=r"'linear' gives \[2, 3\]"):
        Taps(narrow(), ("linear",), embedding=False, stages=True)(IMAGES)


def test_a_network_of_linear_layers_has_no_stages() -> None:
    with pytest.raises(ConfigError, match="gives no feature maps"):
        tap_paths(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), IMAGES)


def test_a_network_without_a_linear_layer_has_no_embedding() -> None:
    with pytest.raises(ConfigError, match=r"runs no nn\.Linear"):
        classifier_path(narrow().layer1, IMAGES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_taps_read_a_compiled_network_whose_class_was_compiled_without_them() -> None:
    images, plain, tapped = torch.randn(4, 3, 16, 16), _TwoStages(), _TwoStages()
    with compiled(plain, torch.device("cpu"), enabled=True):
        plain(images)
    taps = Taps(tapped, ("first", "second"), embedding=False, stages=True)
    with compiled(tapped, torch.device("cpu"), enabled=True):
        outputs = taps(images)
    assert [stage.shape[1] for stage in outputs.stages] == [4, 8]


class _TwoStages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images).relu()).mean(dim=(2, 3))
