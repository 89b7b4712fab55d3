import os
import sys

import pytest
from benchmarks.measuring import (
    UNTIMED_CALLS,
    attempt,
    error_line,
    in_fresh_process,
    peak_memory,
    reset_peak_memory,
    resident_memory,
    time_alternately,
)


def test_attempt_gives_the_value_and_the_seconds():
    done = attempt(lambda x: x + 1, 1)
    assert done.value == 2
    assert done.seconds >= 0
    assert done.error == ""


def test_attempt_gives_the_error_in_one_line():
    def fail():
        raise ValueError("\nfirst\nsecond")

    assert attempt(fail).error == "ValueError: first"


def test_error_lines_are_cut():
    error = ValueError("first\n\nsecond\nthird")
    assert error_line(error, lines=2) == "ValueError: first | second"
    assert error_line(error, length=12) == "ValueError: "
    assert error_line(ValueError()) == "ValueError: "


def test_calls_are_timed_in_turns():
    made = []
    calls = {name: lambda name=name: made.append(name) for name in "ab"}
    times = time_alternately(calls, rounds=3, repeats=2)
    assert {name: len(ms) for name, ms in times.items()} == {"a": 6, "b": 6}
    turn = UNTIMED_CALLS + 2
    turns = [made[i : i + turn] for i in range(0, len(made), turn)]
    assert all(len(set(names)) == 1 for names in turns)
    assert sorted(names[0] for names in turns[:2]) == ["a", "b"]


def test_work_in_a_fresh_process():
    assert in_fresh_process(os.getpid) != os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_counts_from_the_reset():
    reset_peak_memory()
    before = peak_memory()
    block = bytearray(b"x") * 50_000_000  # written, so that it takes memory
    assert peak_memory() > before + 40
    del block
    reset_peak_memory()
    assert peak_memory() < before + 40
    assert resident_memory() <= peak_memory() + 1
