import numpy as np
import pytest

from octavo.cli import main


@pytest.fixture
def folder(tmp_path):
    """A folder with a model, `net.py:make`, and calibration data for it, `data`."""
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2))\n"
    )
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "x.npy", np.random.rand(20, 3, 12, 12).astype(np.float32))
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run the command line: (exit code, stdout, stderr)."""

    def run(*args):
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as e:
            code = e.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def quantize(run, folder):
    """Run `octavo quantize` on the model in `folder`, with further options."""

    def quantize(*more):
        data, out = folder / "data", folder / "net.octavo"
        return run("quantize", f"{folder}/net.py:make", "--data", data, "--out", out, *more)

    return quantize
