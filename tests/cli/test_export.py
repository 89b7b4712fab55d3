import pytest


@pytest.fixture
def model(folder, quantize):
    assert quantize("--preset", "fast")[0] == 0
    return folder / "net.octavo"


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_file_for_other_runtimes(model, run, suffix):
    target = model.with_suffix(suffix)
    code, out, _ = run("export", model, target)
    assert (code, "written" in out, target.is_file()) == (0, True, True)


def test_another_suffix_is_refused_with_the_known_ones(model, run):
    code, _, err = run("export", model, model.with_suffix(".pb"))
    assert code == 2
    assert ".onnx, .xml" in err
