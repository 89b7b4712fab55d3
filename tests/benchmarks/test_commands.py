import runpy
import sys

import pytest

COMMANDS = ["peers", "profiles", "accuracy", "accuracy.cost", "accuracy.error_sources"]
COMMANDS += ["accuracy.target", "sweep.latency", "sweep", "serving", "image_bytes"]


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(f"benchmarks.{command}", run_name="__main__", alter_sys=False)
    return stopped.value.code


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command(monkeypatch, capsys, command):
    assert run(monkeypatch, command, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m benchmarks.{command} ")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("peers", ["resnet19"], "unknown model resnet19"),
        ("peers", ["--peers", "nccf"], "invalid choice: 'nccf'"),
        ("accuracy", ["lite1"], "unknown network lite1; there are mobilenet_v2, lite0"),
    ],
)
def test_unknown_names_are_errors(monkeypatch, capsys, command, arguments, message):
    assert run(monkeypatch, command, *arguments) == 2
    assert message in capsys.readouterr().err
