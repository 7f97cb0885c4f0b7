import pickle
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from mobilekd.errors import ConfigError
from mobilekd.stages.distill import Distill
from mobilekd.stages.teacher import Teacher
from mobilekd.training import networks


def test_a_timm_name_is_found_without_importing_timm() -> None:
    assert "resnet18" in networks.timm_names()
    assert networks.check_name("timm:resnet18.a1_in1k") == "timm:resnet18.a1_in1k"


def test_an_unknown_timm_network_names_close_ones() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        networks.check_name("timm:resnet_18")


@pytest.mark.parametrize("name", ["resnet18", "timm:", "python:x", "hub:resnet18", "python:nowhere.at_all:make"])
def test_a_name_of_no_known_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"network|module"):
        networks.check_name(name)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "def small(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))\n"
        "def wrong(num_classes):\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "python:my_nets:small"
    sys.modules.pop("my_nets", None)


def test_a_factory_of_the_user_is_built(user_module) -> None:
    network = networks.build(networks.check_name(user_module), 5)
    assert network(torch.zeros(2, 3, 2, 2)).shape == (2, 5)


def test_the_users_source_is_part_of_what_decides(user_module) -> None:
    assert networks.source_files(user_module, None)["network"].name == "my_nets.py"


def test_a_missing_factory_lists_what_the_module_has(user_module) -> None:
    with pytest.raises(ConfigError, match="no function 'smal'") as caught:
        networks.build("python:my_nets:smal", 5)
    assert "small" in caught.value.hint


def test_a_factory_that_gives_no_module_is_refused(user_module) -> None:
    with pytest.raises(ConfigError, match="gave int"):
        networks.build("python:my_nets:wrong", 5)


def test_logits_must_match_the_classes() -> None:
    with pytest.raises(ConfigError, match=r"\[2, 4\] for 2 images; the data has 5 classes"):
        networks.check_output(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), "python:x:y", torch.zeros(2, 3, 2, 2), 5)


def test_an_image_of_a_size_that_a_network_refuses_is_named_with_the_size_that_it_takes() -> None:
    network = networks.build("timm:vit_tiny_patch16_224", 3)
    with pytest.raises(ConfigError, match=r"does not take an image of \[2, 3, 32, 32\]: Input height") as caught:
        networks.check_output(network, "timm:vit_tiny_patch16_224", torch.zeros(2, 3, 32, 32), 3)
    assert caught.value.hint == "set data.image_size to what the network takes: 224"


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(3, 2)


def test_a_safetensors_checkpoint_is_loaded(tmp_path) -> None:
    save_file({f"module.{name}": value for name, value in linear().state_dict().items()}, tmp_path / "w.safetensors")
    network = nn.Linear(3, 2)
    networks.load_checkpoint(network, tmp_path / "w.safetensors")
    assert torch.equal(network.weight, linear().weight)


def test_a_checkpoint_from_before_batch_counters_is_loaded(tmp_path) -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3))
    state = {name: value + 1 for name, value in norm.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "w.th")
    networks.load_checkpoint(norm, tmp_path / "w.th")
    assert torch.equal(norm[0].weight, torch.full((3,), 2.0))


def test_a_checkpoint_below_state_dict_is_loaded(tmp_path) -> None:
    torch.save({"state_dict": linear().state_dict()}, tmp_path / "w.th")
    network = nn.Linear(3, 2)
    networks.load_checkpoint(network, tmp_path / "w.th")
    assert torch.equal(network.weight, linear().weight)


class Evil:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_pickle_that_wants_code_is_refused(tmp_path) -> None:
    with (tmp_path / "w.pt").open("wb") as stream:
        pickle.dump({"state_dict": Evil()}, stream, protocol=2)
    with pytest.raises(ConfigError, match="could run code"):
        networks.load_checkpoint(nn.Linear(3, 2), tmp_path / "w.pt")


def test_a_checkpoint_of_another_network_names_what_differs(tmp_path) -> None:
    torch.save({**linear().state_dict(), "bias": torch.zeros(7)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"another network: bias is \[7\], not \[2\]"):
        networks.load_checkpoint(nn.Linear(3, 2), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_cut_off_checkpoint_is_refused(tmp_path, name: str) -> None:
    save_file(dict(linear().state_dict()), tmp_path / "whole")
    (tmp_path / name).write_bytes((tmp_path / "whole").read_bytes()[:20])
    with pytest.raises(ConfigError, match=name):
        networks.load_checkpoint(nn.Linear(3, 2), tmp_path / name)


def test_a_missing_checkpoint_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        networks.load_checkpoint(nn.Linear(3, 2), tmp_path / "none.pt")


@pytest.mark.parametrize("stage", [Teacher, Distill])
def test_an_unknown_network_is_refused_when_the_options_are_read(stage) -> None:
    with pytest.raises(ValidationError, match="timm has no network 'mobilenet9'"):
        stage(network="timm:mobilenet9")
