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
    """Run the command line: (exit code, stdout, stderr with its lines joined)."""

    def run(*args):
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as e:
            code = e.code or 0
        out = capsys.readouterr()
        return code, out.out, " ".join(out.err.split())

    return run


@pytest.fixture
def quantize(run, folder):
    """Run `octavo quantize` on the model in `folder`, with further options."""

    def quantize(*more):
        data, out = folder / "data", folder / "net.octavo"
        return run("quantize", f"{folder}/net.py:make", "--data", data, "--out", out, *more)

    return quantize


@pytest.fixture(scope="session")
def text_model(tmp_path_factory):
    """A folder with a small classifier of texts, as transformers saves it, with its tokenizer."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("text_model")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "film",
        "was",
        "very",
        "good",
        "bad",
        "dull",
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 16}
    config = transformers.BertConfig(
        vocab_size=len(words), num_hidden_layers=1, num_attention_heads=2, **sizes
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    """The same for images, with its image processor."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("image_model")
    sizes = {"image_size": 24, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64}
    config = transformers.ViTConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": 24, "width": 24}
    transformers.ViTImageProcessor(size=size, image_mean=[0.5] * 3).save_pretrained(folder)
    return folder
