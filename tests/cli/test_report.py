import json

import pytest


def test_a_table_or_json(folder, run, quantize):
    assert quantize("--preset", "fast")[0] == 0
    code, out, _ = run("report", folder / "net.octavo")
    assert code == 0
    assert "conv2d + relu" in out
    code, out, _ = run("report", folder / "net.octavo", "--json")
    found = json.loads(out)
    assert found["rows"][0]["precision"] == "int8" and found["latency"] is None
    code, out, _ = run("report", folder / "net.octavo", "--json", "--time")
    assert json.loads(out)["latency"]["milliseconds"] > 0


@pytest.mark.parametrize(
    "name, message", [("net.py", "is not an Octavo file"), ("none.octavo", "cannot read")]
)
def test_a_file_that_is_no_model(folder, run, name, message):
    code, _, err = run("report", folder / name)
    assert (code, message in err) == (2, True)
