"""The report on layers in float."""

from dataclasses import replace
from pathlib import Path

import pytest

from mobilekd.quant_table import FloatOperator
from mobilekd.release.evidence import Evidence
from mobilekd.release.network_record import MixedRecord
from mobilekd.release.report_mixed import float_operator_table, mixed_lede, mixed_table

from .workshop import Workshop

MIXED = MixedRecord(
    max_top1_drop=0.005,
    layers=("stem", "head"),
    top1_float=0.98,
    top1_int8=0.95,
    top1_mixed=0.9775,
    extra_bytes=12_345,
    float_macs_share=0.125,
)
FLOATS = (
    FloatOperator("conv", "Conv", "kept in float: max_top1_drop"),
    FloatOperator("norm", "LayerNormalization", "no int8 kernel in TensorRT"),
)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return Workshop(tmp_path_factory.mktemp("evidence")).evidence()


def with_mixed(evidence: Evidence, mixed: MixedRecord | None, floats: tuple[FloatOperator, ...] = FLOATS) -> Evidence:
    network = evidence.quantized.network.model_copy(update={"mixed": mixed})
    quantized, table = replace(evidence.quantized, network=network), replace(evidence.table, float_operators=floats)
    return replace(evidence, quantized=quantized, table=table)


def test_the_section_has_layers_drop_and_price(evidence: Evidence) -> None:
    found = with_mixed(evidence, MIXED)
    assert "stay float so that it holds: stem, head." in mixed_lede(found)
    assert "0.50 points" in mixed_lede(found)
    table = str(mixed_table(found))
    assert all(text in table for text in ("95.00 %", "−3.00", "97.75 %", "−0.25", "12,345", "12.50 %"))


def test_an_int8_network_that_holds_is_told_without_a_price(evidence: Evidence) -> None:
    found = with_mixed(evidence, MIXED.model_copy(update={"layers": ()}))
    assert "holds it with every layer in int8" in mixed_lede(found)
    assert str(mixed_table(found)) == ""


def test_decided_operators_stand_open_and_others_are_folded(evidence: Evidence) -> None:
    shown, _, folded = str(float_operator_table(with_mixed(evidence, None))).partition("<details")
    assert "kept in float: max_top1_drop" in shown
    assert "1 other float operators" in folded
    assert "no int8 kernel in TensorRT" in folded


def test_a_network_without_float_operators_has_no_section(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    assert "Computed in float" not in workshop.page(workshop.evidence())


def test_the_page_carries_the_section(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    assert "<h2>Computed in float</h2>" in workshop.page(with_mixed(workshop.evidence(), MIXED))
