import pytest

import octavo

COMMANDS = (
    *("quantize", "report", "compare", "sensitivity", "bench", "export"),
    *("inspect", "engines", "version"),
)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_80_columns(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "Usage" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert (
        not command
        or command[0] in ("engines", "version")
        or "For example:" in " ".join(out.split())
    )


def test_help_lists_the_commands(run):
    _, out, _ = run("--help")
    assert all(f" {name} " in out for name in COMMANDS)


def test_version(run):
    code, out, _ = run("--version")
    assert (code, octavo.__version__ in out) == (0, True)


@pytest.mark.parametrize("arguments", [("quantise",), ("report",), ("report", "x", "--colour")])
def test_what_no_command_takes_is_exit_code_2(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert "Usage" in err
