import json

import octavo


def test_what_a_file_holds(folder, run, quantize):
    assert quantize("--preset", "fast", "--keep-float", "linear")[0] == 0
    code, out, _ = run("inspect", folder / "net.octavo")
    assert code == 0 and "float32 (any, 3, 12, 12)" in out and "keep_float" in out
    _, out, _ = run("inspect", folder / "net.octavo", "--json")
    found = json.loads(out)
    assert found["operators"] == {"int8": 1, "float": 3}
    assert found["settings"]["observer"] == "minmax" and "memory" not in found["settings"]


def test_a_file_that_is_no_model(folder, run):
    code, _, err = run("inspect", folder / "net.py")
    assert (code, "is not an Octavo file" in " ".join(err.split())) == (2, True)


def test_engines_and_version(run):
    _, out, _ = run("engines")
    assert all(name in out for name in ("openvino 2", "onnxruntime", "torch_int8", "reference"))
    assert octavo.__version__ in run("version")[1]
