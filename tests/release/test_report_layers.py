"""The report on layers."""

from dataclasses import replace

import pytest

from mobilekd.release.evidence import Evidence, LayerRow
from mobilekd.release.report_layers import layer_tables

from .workshop import Workshop


def with_layers(evidence: Evidence, *layers: LayerRow) -> Evidence:
    first, *others = evidence.latency.rows
    rows = (first.model_copy(update={"layers": layers}), *others)
    return replace(evidence, latency=evidence.latency.model_copy(update={"rows": rows}))


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return Workshop(tmp_path_factory.mktemp("workshop")).evidence()


def test_model_that_was_not_divided_has_no_table(evidence: Evidence):
    assert layer_tables(evidence) == ()


def test_layers_stand_in_a_folded_table_with_a_bar_of_the_most_expensive(evidence: Evidence):
    found = with_layers(evidence, LayerRow(name="head", operator="Conv", share=0.8, ms=0.4),
                        LayerRow(name="stem", operator="Conv", share=0.2, ms=0.1))  # fmt: skip

    (html,) = layer_tables(found)

    assert html.startswith("<details><summary>")
    assert "what each of 2 layers costs" in html
    assert [html.index(text) for text in ("head", "0.400", "80.00 %", "stem", "0.100", "20.00 %")] == sorted(
        html.index(text) for text in ("head", "0.400", "80.00 %", "stem", "0.100", "20.00 %")
    )
    assert 'width="100%"' in html


def test_counted_layers_show_instructions_and_no_time(evidence: Evidence):
    found = with_layers(evidence, LayerRow(name="stem", operator="Convolution", share=1.0, instructions=12_345))

    (html,) = layer_tables(found)

    assert "12,345" in html
    assert '<th class="n">ms</th>' not in html
