import json

import pytest


def test_float_and_quantized(folder, run, quantize):
    assert quantize("--preset", "fast")[0] == 0
    models = f"{folder}/net.py:make", folder / "net.octavo"
    code, out, _ = run("compare", *models, "--data", folder / "data")
    assert code == 0 and "20 samples" in out and "conv2d + relu" in out
    _, out, _ = run("compare", *models, "--data", folder / "data", "--json", "--samples", 8)
    found = json.loads(out)
    assert found["samples"] == 8 and found["sqnr"] > 20
    assert found["sites"][0]["precision"][0] == "float"
    page = folder / "page.html"
    code, out, err = run("compare", *models, "--data", folder / "data", "--html", page)
    assert (code, out) == (0, "") and "page.html" in err
    assert "same answer" in page.read_text()


@pytest.mark.parametrize("name, message", [("none.octavo", "cannot read"), ("none", "MODEL is")])
def test_what_is_no_model(folder, run, name, message):
    code, _, err = run("compare", f"{folder}/net.py:make", name, "--data", folder / "data")
    assert code == 2 and message in err
