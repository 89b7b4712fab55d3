import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "fashion"))


@pytest.fixture(autouse=True)
def deterministic():
    torch.manual_seed(0)
    with torch.no_grad():
        yield
