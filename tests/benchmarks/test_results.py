from benchmarks.accuracy import results as accuracy
from benchmarks.accuracy.error_sources import count_to_half
from benchmarks.peers import results as peers
from benchmarks.sweep import results as sweep
from rich import box


def peer(name, **figures):
    return peers.Result("resnet18", 1, name, **figures)


def test_peers_are_compared_with_octavo():
    results = [
        peer("octavo", median_ms=2.0, ready_s=3.0),
        peer("nncf", median_ms=4.0, ready_s=6.0),
        peer("onnxruntime", median_ms=8.0),
        peer("torchao", error="ImportError: torchao"),
    ]
    assert peers.octavo_by_peer(results, "median_ms")["resnet18", "nncf"] == 0.5
    text = peers.results_text(results, box.MARKDOWN)
    fastest = "geometric mean 0.50, max 0.50 (resnet18)"
    assert f"- Octavo's median / fastest other int8 peer's: {fastest}\n" in text
    assert f"- Octavo's ready / NNCF's: {fastest}\n" in text
    assert "- resnet18, torchao + inductor fails: ImportError: torchao\n" in text
    assert text.startswith("\n## Batch 1\n\n| model ")


def test_accuracy_is_compared_with_the_best_of_the_others():
    results = [
        accuracy.Result("net", "float", sqnr=300.0),
        accuracy.Result("net", "fast", sqnr=30.0, seconds=2.0),
        accuracy.Result("net", "nncf", sqnr=20.0),
        accuracy.Result("net", "torchao", sqnr=25.0),
        accuracy.Result("net", "torch.ao", error="TypeError: x"),
    ]
    assert accuracy.summary(results, ["fast", "best"]) == [
        "fast: SQNR less best peer's: mean +5.0 dB, least +5.0 dB (net)",
        "net, torch.ao: TypeError: x",
    ]
    assert accuracy.means(results[:2]) == ["fast: mean SQNR 30.00 dB, 2 s"]


def test_an_exact_output_has_no_sqnr_in_the_table():
    table = accuracy.results_table(
        [accuracy.Result("net", "float", accuracy=0.5, sqnr=float("inf"))], box.MARKDOWN
    )
    assert [next(iter(column.cells)) for column in table.columns[2:5]] == ["50.00", "", ""]


def test_how_many_energies_make_half():
    assert count_to_half([4.0, 3.0, 2.0, 1.0]) == 2
    assert count_to_half([5.0, 1.0]) == 1


def test_a_low_architecture_tells_its_float_sites():
    low = sweep.Result("net", "done", "", 0.5, 12.0, 40.0, 1.0, "", {"mul: a | b": 2})
    failed = sweep.Result("other", "build", error="took more than 3 s")
    assert sweep.line(low) == "| net | 50.0% | 12.0 | 40.0 | 1.0 | 2 x mul: a / b |"
    assert sweep.line(failed) == "| other |  |  |  |  | build: took more than 3 s |"
    fixed = sweep.Result("net", "done", "", 0.5, 12.0, 40.0, 1.0, "slow", notes=["only 3 | 4"])
    assert sweep.line(fixed) == "| net | 50.0% | 12.0 | 40.0 | 1.0 | slow; only 3 / 4 |"
    text = sweep.as_markdown([low, failed])
    assert text.startswith("2 architectures, 1 captured, 1 quantized and run on both engines; 0 of")
