"""Counts lines of code, and fails where the package, a file or a function is larger than agreed.

    python scripts/check_size.py

Code is counted without blank lines, comments and docstrings. The limits are what there is, rounded
up. A change that saves lines lowers a limit; one that adds a feature may raise it, in a commit that
says why.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "octavo"
LIMIT = 15_015
CORE_LIMIT = 9_660  # without what knows the core and is not known by it
NOT_CORE = ("engines", "io", "cli", "bench.py", "__main__.py")
FILE_LIMIT, FUNCTION_LIMIT = 400, 50  # lines as they stand in the file
_SKIPPED = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(text: str) -> int:
    """Lines of code in a source text.

    >>> code_lines('def f():\\n    "Says what."\\n\\n    return 1  # one')
    2
    """
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {
        line
        for token in tokens
        if token.type not in _SKIPPED
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstrings)


def too_long(path: Path) -> Iterator[str]:
    """The file and functions of it that are longer than agreed."""
    text = path.read_text()
    name = path.relative_to(SOURCE)
    if (length := len(text.splitlines())) > FILE_LIMIT:
        yield f"{name}: {length} lines, more than {FILE_LIMIT}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[0].lineno
            if ast.get_docstring(node) is not None:
                start = (node.body[0].end_lineno or start) + 1
            length = (node.end_lineno or start) - start + 1
            if length > FUNCTION_LIMIT:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, not {FUNCTION_LIMIT}"


def main() -> int:
    """Print the lines of each folder and what is too long; 1 if anything is."""
    files = sorted(SOURCE.rglob("*.py"))
    folders: dict[str, int] = {}
    for path in files:
        parts = path.relative_to(SOURCE).parts
        folder = parts[0] if len(parts) > 1 else "(package)"
        if parts[0] in ("bench.py", "__main__.py"):
            folder = parts[0]
        folders[folder] = folders.get(folder, 0) + code_lines(path.read_text())
    for folder, lines in folders.items():
        print(f"{folder:12} {lines:5}")
    total = sum(folders.values())
    core = sum(lines for folder, lines in folders.items() if folder not in NOT_CORE)
    print(f"{'all':12} {total:5}  of {LIMIT}\n{'core':12} {core:5}  of {CORE_LIMIT}")
    faults = [fault for path in files for fault in too_long(path)]
    faults += [f"{total} lines of code, more than {LIMIT}"] if total > LIMIT else []
    faults += [f"{core} lines in the core, more than {CORE_LIMIT}"] if core > CORE_LIMIT else []
    for fault in faults:
        print(f"too long: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
