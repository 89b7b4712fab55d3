import json


def test_a_table_or_json(folder, run):
    call = ("sensitivity", f"{folder}/net.py:make", "--data", folder / "data", "--no-timed")
    code, out, _ = run(*call)
    assert code == 0 and "best kept float" in out and "SQNR dB" in out
    _, out, _ = run(*call, "--json", "--preset", "fast")
    found = json.loads(out)
    assert found["curve"][0]["floats"] == 0
    assert found["curve"][-1]["floats"] == len(found["sites"])
    code, out, _ = run(*call, "--html", folder / "page.html")
    assert (code, out) == (0, "") and "<polyline" in (folder / "page.html").read_text()


def test_a_wrong_setting(folder, run):
    call = ("sensitivity", f"{folder}/net.py:make", "--data", folder / "data")
    code, _, err = run(*call, "--observer", "max")
    assert (code, "observer='max'" in err) == (2, True)
