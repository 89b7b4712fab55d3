import pytest
import torch
from torch import nn

import octavo
from octavo.page.report import advice, report_page


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.norm((x + self.body(x)).mean((2, 3))))


@pytest.fixture(scope="module")
def report():
    return octavo.quantize(Net().eval(), [torch.randn(8, 3, 16, 16) for _ in range(4)]).report()


def test_a_page_needs_nothing_else(report, tmp_path):
    report.html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for row in report.rows:
        assert f">{row.path or row.name}</button>" in text
    assert f"{report.output_sqnr:.1f} dB" in text


def test_names_are_escaped(report):
    data = report.to_dict()
    rows = [row | {"path": "</script><b>", "reason": "a < b & c"} for row in data["rows"]]
    text = report_page(data | {"rows": rows})
    assert "</script><b>" not in text and "&lt;/script&gt;" in text


def test_settings_to_try(report):
    rows = report.to_dict()["rows"]
    found = {row["operator"]: advice(row, rows) for row in rows}
    assert found["linear"] == [
        'octavo.Config(keep_float=["head"])',
        'octavo.Config(sites={"head": octavo.SiteConfig(activations="dynamic")})',
    ]
    assert found["layer_norm"] == []


def test_a_row_whose_path_names_others_too_is_named_by_its_number(report):
    row = next(r for r in report.to_dict()["rows"] if r["precision"] == "int8")
    rows = [row | {"path": path, "site": i} for i, path in enumerate(("a", "a.b", "ab", "c", "c"))]
    expected = ["0", '"a.b"', '"ab"', "3", "4"]
    assert [advice(r, rows)[0] for r in rows] == [
        f"octavo.Config(keep_float=[{entry}])" for entry in expected
    ]


# ---- in a browser


@pytest.fixture
def page(browser, report, tmp_path):
    report.html(tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def all_of(page, selector):
    return page.find_elements("css selector", selector)


def shown(page):
    return [b.text for b in all_of(page, "tbody tr .open") if b.is_displayed()]


def test_rows_are_sorted_and_filtered(page, report):
    paths = [r.path or r.name for r in report.rows]
    assert shown(page) == paths
    (share,) = all_of(page, "button[data-key=noise_share]")
    share.click()
    first = max(report.rows, key=lambda r: r.noise_share or 0)
    assert shown(page)[0] == (first.path or first.name)
    assert share.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    (text,) = all_of(page, "#filter")
    text.send_keys("conv2d")
    assert sorted(shown(page)) == sorted(r.path for r in report.rows if "conv2d" in r.operator)
    text.send_keys(" nothing like it")
    assert shown(page) == [] and all_of(page, "#none")[0].is_displayed()


def test_a_site_opens_by_keyboard_with_its_histogram(page):
    button = all_of(page, ".open")[0]
    button.send_keys("\n")
    assert button.get_attribute("aria-expanded") == "true"
    (detail,) = all_of(page, "tr.detail")
    assert "keep_float=" in detail.text and "beyond" in detail.text
    assert len(detail.find_elements("css selector", "figure svg")) == 2
    button.send_keys("\n")
    assert all_of(page, "tr.detail") == []


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    all_of(page, ".open")[0].click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    pdf = page.execute_cdp_cmd("Page.printToPDF", {})
    assert len(pdf["data"]) > 1000
