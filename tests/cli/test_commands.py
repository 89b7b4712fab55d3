import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import octavo
from octavo.cli import main
from octavo.config import PRESETS


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2))\n"
    )
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.random.rand(20, 3, 12, 12).astype(np.float32))
    return tmp_path


def run(capsys, *args):
    """(exit code, stdout, stderr) of the command line."""
    code = 0
    try:
        main([str(a) for a in args])
    except SystemExit as e:
        code = e.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


def quantize(capsys, folder, *more):
    data, out = folder / "data", folder / "net.octavo"
    return run(capsys, "quantize", f"{folder}/net.py:make", "--data", data, "--out", out, *more)


def test_quantize_report_and_bench(folder, capsys):
    weights = {k: torch.randn(v) for k, v in WEIGHTS.items()}
    save_file(weights, folder / "w.safetensors")
    code, out, _ = quantize(capsys, folder, "--weights", folder / "w.safetensors", "--samples", 16)
    assert (code, "100.0% of multiply-adds in int8" in out) == (0, True)
    q = octavo.load(folder / "net.octavo")
    assert q(torch.rand(2, 3, 12, 12)).shape == (2, 2)
    code, out, _ = run(capsys, "report", folder / "net.octavo")
    assert code == 0
    assert "conv2d + relu" in out
    code, out, _ = run(capsys, "report", folder / "net.octavo", "--json")
    assert json.loads(out)["rows"][0]["precision"] == "int8"
    args = ("--weights", folder / "w.safetensors", "--data", folder / "data", "--rounds", 3)
    code, out, _ = run(capsys, "bench", f"{folder}/net.py:make", folder / "net.octavo", *args)
    assert code == 0
    for name in ("PyTorch float", "OpenVINO float", "OpenVINO int8", "SQNR dB", "median ms"):
        assert name in out
    assert "Convolution" not in out
    args = ("--rounds", 1, "--profile", *args[:4])
    code, out, _ = run(capsys, "bench", f"{folder}/net.py:make", folder / "net.octavo", *args)
    assert (code, out.count("Convolution")) == (0, 2)  # by operator and by kind


def test_export(folder, capsys):
    assert quantize(capsys, folder)[0] == 0
    for name in ("net.onnx", "net.xml"):
        code, out, _ = run(capsys, "export", folder / "net.octavo", folder / name)
        assert (code, "written" in out, (folder / name).is_file()) == (0, True, True)
    code, _, err = run(capsys, "export", folder / "net.octavo", folder / "net.pb")
    assert code == 2
    assert ".onnx, .xml" in err


WEIGHTS = {"0.weight": (8, 3, 3, 3), "0.bias": (8,), "4.weight": (2, 8), "4.bias": (2,)}


def test_options_reach_the_config(folder, capsys):
    more = ("--observer", "entropy", "--keep-float", "linear", "--min-sqnr", 0)
    assert quantize(capsys, folder, *more, "--preset", "fast", "--target-sqnr", 12)[0] == 0
    config = octavo.load(folder / "net.octavo").config
    settings = {"observer": "entropy", "keep_float": ("linear",), "min_sqnr": 0.0}
    assert config == dataclasses.replace(PRESETS["fast"], **settings, target_sqnr=12.0)


@pytest.mark.parametrize("command", [(), ("quantize",), ("report",), ("bench",), ("export",)])
def test_help(capsys, command):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "Usage" in out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--keep-float", "nothing.*"), "matches no site"),
        (("--observer", "max"), "observer='max'"),
        (("--weights", "none.safetensors"), "cannot load weights"),
        (("--mean", "a,b"), "numbers with commas"),
        (("--mean", "0.5"), "one number each, or three"),
        (("--data", "nowhere"), "holds no data"),
        (("--out", "no/such/folder/x"), "no folder"),
        (("--samples", "0"), "--samples"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(folder, capsys, more, message):
    code, _, err = quantize(capsys, folder, *more)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert not (folder / "net.octavo").exists()


def test_a_file_that_is_no_model(folder, capsys):
    for command in (("report",), ("bench", f"{folder}/net.py:make")):
        code, _, err = run(capsys, *command, folder / "net.py")
        assert (code, "cannot read" in err) == (2, True)


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert (code, octavo.__version__ in out) == (0, True)


@pytest.mark.parametrize("moment", ["octavo.calibrate.calibrator.Calibrator.run_node", "os.fsync"])
def test_an_interrupted_quantize_leaves_no_file_and_no_traceback(folder, moment):
    with open(folder / "net.py", "a") as f:
        f.write(
            "\nimport os, signal, time, octavo\n"
            "def interrupted(*args):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    time.sleep(60)\n"
            f"{moment} = interrupted\n"
        )
    command = [sys.executable, "-m", "octavo", "quantize", f"{folder}/net.py:make"]
    command += ["--data", folder / "data", "--out", folder / "net.octavo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert not [p for p in folder.iterdir() if "octavo" in p.name]
