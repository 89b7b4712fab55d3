import json

import pytest


@pytest.fixture
def bench(folder, run, quantize):
    assert quantize("--preset", "fast")[0] == 0

    def bench(*more):
        return run("bench", f"{folder}/net.py:make", folder / "net.octavo", *more)

    return bench


def test_three_variants_on_data(bench, folder):
    code, out, _ = bench("--data", folder / "data", "--rounds", 3)
    assert code == 0
    for name in ("PyTorch float", "OpenVINO float", "OpenVINO int8", "SQNR dB", "median ms"):
        assert name in out
    assert "Convolution" not in out


def test_time_by_operator_on_random_inputs(bench):
    code, out, _ = bench("--rounds", 1, "--profile")
    assert (code, out.count("Convolution")) == (0, 2)  # by operator and by kind


def test_json(bench):
    _, out, _ = bench("--rounds", 2, "--json")
    first, _, int8, *others = json.loads(out)
    assert [r["name"] for r in others] == ["ONNX Runtime int8", "PyTorch int8"]
    assert (first["name"], first["sqnr"]) == ("PyTorch float", "inf")
    assert int8["sqnr"] > 20 and 0 < int8["least_ms"] <= int8["median_ms"]


@pytest.mark.parametrize("option", ["--threads", "--rounds", "--batch-size"])
def test_a_number_out_of_range_is_exit_code_2(bench, option):
    code, _, err = bench(option, 0)
    assert (code, option in err) == (2, True)


def test_a_file_that_is_no_model(folder, run):
    code, _, err = run("bench", f"{folder}/net.py:make", folder / "net.py")
    assert (code, "is not an Octavo file" in " ".join(err.split())) == (2, True)
