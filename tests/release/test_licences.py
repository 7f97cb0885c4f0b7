import pytest

from mobilekd.errors import ConfigError
from mobilekd.release.licences import licences_of, with_network_licences
from mobilekd.stages.bundle import Bundle

from .workshop import Workshop


def test_a_stated_licence_is_that_of_the_network_wherever_it_stands(workshop: Workshop):
    stated = with_network_licences(workshop.evidence(), {"timm:mobilenetv3_small_100": "MIT"})
    licences = {one.covers: one.licence for one in licences_of(stated, "MIT")}
    assert licences["network timm:mobilenetv3_small_100"] == "MIT"
    assert licences["network timm:resnet18"] == "Apache-2.0"


def test_a_licence_of_a_network_that_is_not_there_is_refused(workshop: Workshop):
    with pytest.raises(ConfigError, match=r"bundle.network_licences names 'timm:resnet'") as refusal:
        with_network_licences(workshop.evidence(), {"timm:resnet": "MIT"})
    assert "did you mean 'timm:resnet18'?" in refusal.value.hint


def test_networks_without_a_stated_licence_leave_no_trace_in_the_key():
    assert "network_licences" not in Bundle().options()
