import pytest


@pytest.fixture
def fake_race(monkeypatch):
    """Replace the timing of a module by a ratio, and count how often it is asked for."""

    def replace(module, ratio):
        known = {"ratio": ratio, "asked": 0}

        class Race:
            def __init__(self, *_):
                pass

            def ratio(self, module):
                known["asked"] += 1
                return known["ratio"]

        monkeypatch.setattr(module, "Race", Race)
        return known

    return replace
