"""Build the sdist and from it the wheel, install that in an environment of its own, and use it.

What the wheel needs is taken from the environment that runs this script; octavo is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = """
import pathlib, sys, tempfile, torch, octavo
assert pathlib.Path(octavo.__file__).is_relative_to(sys.prefix), octavo.__file__
q = octavo.quantize(torch.nn.Linear(8, 4).eval(), torch.randn(16, 8))
folder = pathlib.Path(tempfile.mkdtemp())
octavo.save(q, folder / "a.octavo")
assert torch.equal(octavo.load(folder / "a.octavo")(torch.ones(2, 8)), q(torch.ones(2, 8)))
q.report().html(folder / "a.html")
print("octavo", octavo.__version__, "works from its wheel")
"""


def main() -> None:
    """Build, install, use; stop at the first step that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT))
        (wheel,) = (folder / "dist").glob("*.whl")
        (_,) = (folder / "dist").glob("*.tar.gz")
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = str(scripts / "python")
        run(python, "-m", "pip", "install", "-q", "--no-deps", str(wheel))
        dependencies = os.environ | {"PYTHONPATH": sysconfig.get_paths()["purelib"]}
        run(python, "-W", "ignore", "-c", USE, env=dependencies)
        run(str(scripts / "octavo"), "version", env=dependencies)


def run(*command: str, env: dict[str, str] | os._Environ[str] | None = None) -> None:
    """Run a command outside the repository, whose packages it would find; stop where it fails."""
    quiet = subprocess.DEVNULL if "build" in command else None
    done = subprocess.run(command, cwd=tempfile.gettempdir(), env=env, check=False, stdout=quiet)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command[:4])}")


if __name__ == "__main__":
    main()
