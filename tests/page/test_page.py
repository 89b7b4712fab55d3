from collections import OrderedDict

import pytest
import torch
from torch import nn

import octavo
from octavo import FormatError
from octavo.page import as_decibels, write_page


@pytest.mark.parametrize(
    "value, text", [(None, ""), ("inf", "exact"), ("-inf", "none"), (31.25, "31.2")]
)
def test_decibels(value, text):
    assert as_decibels(value) == text


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="there is no folder"):
        write_page("", tmp_path / "none" / "page.html")


# ---- in a browser


@pytest.fixture(scope="module")
def results():
    torch.manual_seed(0)
    layers = {"stem": nn.Linear(16, 32), "act": nn.ReLU(), "body": nn.Linear(32, 8)}
    net = nn.Sequential(OrderedDict(layers | {"head": nn.Linear(8, 4)})).eval()
    data = torch.randn(64, 16)
    q = octavo.quantize(net, data)
    return {
        "compare": octavo.compare(net, q, data, rounds=2),
        "sensitivity": octavo.sensitivity(net, data),
    }


@pytest.fixture(params=["compare", "sensitivity"])
def opened(request, browser, results, tmp_path):
    results[request.param].html(tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    yield browser, results[request.param]
    assert browser.get_log("browser") == []


def modules(page, result):
    cells = page.find_elements("css selector", "table.sortable tbody tr")
    paths = {s.path for s in result.sites}
    return [next(p for p in c.text.split() if p in paths) for c in cells if c.is_displayed()]


def test_operators_are_listed_in_order_and_found(opened):
    page, result = opened
    assert modules(page, result) == [s.path for s in result.sites]
    page.find_element("css selector", "button[data-key=path]").click()
    assert modules(page, result) == sorted((s.path for s in result.sites), reverse=True)
    page.find_element("id", "filter").send_keys("nothing like it")
    assert modules(page, result) == [] and page.find_element("id", "none").is_displayed()


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(opened, width):
    page, _ = opened
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_each_point_of_the_curves_is_drawn(browser, results, tmp_path):
    found = results["sensitivity"]
    found.html(tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    elements = browser.find_elements("css selector", "title")
    titles = [e.get_attribute("textContent") for e in elements]
    drawn = [t for t in titles if t.endswith((" dB", " ms"))]
    finite = [p for p in found.curve if p.sqnr != float("inf")]
    assert len(drawn) == len(finite) + len(found.curve)
    assert f"0: {found.curve[0].sqnr:.4g} dB" in drawn
