"""The table of layers in a terminal."""

from mobilekd.show_bench import layer_cost, show_bench, summed

HEAD = {"ran_on": "host", "why": "", "worries": []}
ROW = {"deployment": "tflite-int8", "latency_kind": "wall", "p50_ms": 1.0, "ci95_ms": [1.0, 1.0]}


def shown(capsys, **more):
    show_bench({**HEAD, "models": [{**ROW, **more}]}, as_json=False)
    return capsys.readouterr().out


def test_layers_after_the_fifteenth_are_one_line(capsys):
    layers = [{"name": f"layer{at}", "operator": "Conv", "ms": 0.05, "share": 0.05} for at in range(20)]

    told = shown(capsys, layers=layers, layers_note="")

    assert "layer14" in told
    assert "layer15" not in told
    assert "5 others" in told
    assert "0.2500 ms" in told
    assert "25.0 %" in told


def test_nothing_is_said_of_layers_that_were_not_asked_for(capsys):
    assert "layer" not in shown(capsys)


def test_reason_stands_where_layers_are_not_known(capsys):
    assert "not known: an emulator's time is none" in shown(capsys, layers=[], layers_note="an emulator's time is none")


def test_counted_layers_are_never_milliseconds():
    assert layer_cost(summed([{"instructions": 1500, "share": 0.5}, {"instructions": 500, "share": 0.5}])) == (
        "2.0 k instr."
    )
