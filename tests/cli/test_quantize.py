import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import octavo
from octavo.config import PRESETS

WEIGHTS = {"0.weight": (8, 3, 3, 3), "0.bias": (8,), "4.weight": (2, 8), "4.bias": (2,)}


def test_a_model_with_weights_becomes_a_file(folder, quantize):
    weights = {k: torch.randn(v) for k, v in WEIGHTS.items()}
    save_file(weights, folder / "w.safetensors")
    code, out, _ = quantize("--weights", folder / "w.safetensors", "--samples", 16)
    assert (code, "100.0% of multiply-adds in int8" in out) == (0, True)
    q = octavo.load(folder / "net.octavo")
    assert q(torch.rand(2, 3, 12, 12)).shape == (2, 2)


def test_options_reach_the_config(folder, quantize):
    more = ("--observer", "entropy", "--keep-float", "linear", "--min-sqnr", 0)
    assert quantize(*more, "--preset", "fast", "--target-sqnr", 12)[0] == 0
    config = octavo.load(folder / "net.octavo").config
    settings = {"observer": "entropy", "keep_float": ("linear",), "min_sqnr": 0.0}
    assert config == dataclasses.replace(PRESETS["fast"], **settings, target_sqnr=12.0)


def test_a_model_of_bytes(folder, run, quantize):
    pixels = np.random.randint(0, 256, (20, 12, 12, 3), dtype=np.uint8)
    np.save(folder / "data" / "x.npy", pixels)
    normal = ("--mean", "0.4,0.5,0.6", "--std", "0.2,0.2,0.2")
    assert quantize("--bytes", "NHWC", *normal)[0] == 0
    q = octavo.load(folder / "net.octavo")
    assert q.signature.images == (("input", octavo.Image((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))),)
    assert q(torch.from_numpy(pixels[:2])).shape == (2, 2)
    file, net = folder / "net.octavo", f"{folder}/net.py:make"
    assert "input: images, NHWC, normalized with mean" in run("inspect", file)[1]
    assert run("compare", net, file, "--data", folder / "data", "--rounds", 1)[0] == 0
    assert run("bench", net, file, "--rounds", 1)[0] == 0
    assert "layout='HWC' is unknown" in quantize("--bytes", "HWC")[2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--keep-float", "nothing.*"), "matches no site"),
        (("--observer", "max"), "observer='max'"),
        (("--preset", "fastest"), "choose one of fast, balanced, best"),
        (("--tune-samples", "0"), "tune_samples=0"),
        (("--min-sqnr", "-1"), "min_sqnr=-1.0: a finite number of dB, 0 or more, is needed"),
        (("--target-sqnr", "nan"), "target_sqnr=nan"),
        (("--weights", "none.safetensors"), "cannot load weights"),
        (("--mean", "a,b"), "numbers with commas"),
        (("--mean", "0.5"), "one number each, or three"),
        (("--data", "nowhere"), "there is no file or folder nowhere"),
        (("--out", "no/such/folder/x"), "no folder"),
        (("--samples", "0"), "--samples"),
        (("--resize", "-1"), "--resize"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(folder, quantize, more, message):
    code, _, err = quantize(*more)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert not (folder / "net.octavo").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 1, 12, 12), np.float32), "to have 3 channels, but got 1"),
        (np.zeros((8, 12, 12, 3), np.uint8), "unsigned char"),
        (np.full((8, 3, 12, 12), np.nan), "NaN or infinity"),
    ],
    ids=["grey", "uint8", "nan"],
)
def test_data_that_the_model_does_not_take(folder, quantize, array, message):
    np.save(folder / "data" / "x.npy", array)
    code, _, err = quantize()
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("moment", ["octavo.calibrate.ranges.Ranges.observe", "os.fsync"])
def test_an_interrupted_quantize_leaves_no_file_and_no_traceback(folder, moment):
    with open(folder / "net.py", "a") as f:
        f.write(
            "\nimport os, signal, time, octavo\n"
            # which a shell's background jobs ignore
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
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


def test_settings_from_a_file_and_options_over_them(folder, quantize):
    (folder / "octavo.toml").write_text(
        'observer = "entropy"\nequalize = false\n[sites.linear]\nobserver = "minmax"\n'
    )
    file = ("--config", folder / "octavo.toml")
    assert quantize(*file, "--min-sqnr", 3)[0] == 0
    config = octavo.load(folder / "net.octavo").config
    assert (config.observer, config.equalize, config.min_sqnr) == ("entropy", False, 3.0)
    assert config.sites["linear"].observer == "minmax"
    code, out, _ = quantize(*file, "--print-config", "--tune-samples", 5)
    printed = octavo.Config.from_toml(out)
    assert (code, printed) == (0, dataclasses.replace(config, min_sqnr=10.0, tune_samples=5))


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("observer = 3", (), "observer=3 is unknown"),
        ("observers = 'mse'", (), "unknown settings: observers."),
        ("a b", (), "TOML"),
        ("", ("--preset", "fast"), "give one of them"),
    ],
)
def test_files_that_are_no_settings(folder, quantize, text, more, message):
    (folder / "octavo.toml").write_text(text)
    code, _, err = quantize("--config", folder / "octavo.toml", *more)
    assert code == 2 and message in err


def test_a_missing_file_of_settings(folder, quantize):
    code, _, err = quantize("--config", folder / "none.toml")
    assert code == 2 and "cannot read" in err


def test_histograms_are_kept_if_asked_for(folder, run, quantize):
    assert quantize("--histograms")[0] == 0
    assert octavo.load(folder / "net.octavo").report().spreads
    code, _, err = run("report", folder / "net.octavo", "--html", folder / "report.html")
    assert code == 0 and "kB" in err
    assert '"counts"' in (folder / "report.html").read_text()


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_a_model_of_transformers_and_lines_of_text(text_model, folder, run):
    texts = ["the film was good", "very bad", "the film was very very dull", "good"]
    (folder / "texts.txt").write_text("\n".join(texts * 8))
    model, data = f"transformers:{text_model}", folder / "texts.txt"
    code, _, err = run("quantize", model, "--data", data, "--out", folder / "net.octavo")
    assert code == 0 and "random" not in err
    q = octavo.load(folder / "net.octavo")
    ids = torch.tensor([[2, 5, 6, 3]])
    whole = {"input_ids": ids, "attention_mask": ids.sign(), "token_type_ids": ids * 0}
    assert q(**whole).logits.shape == (1, 2)
