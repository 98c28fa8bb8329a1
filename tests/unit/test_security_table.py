"""docs/security.md names a test for each threat, and those tests exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`")


def rows() -> list[str]:
    """The lines of the threat table, without its head."""
    lines = (ROOT / "docs/security.md").read_text(encoding="utf-8").splitlines()
    head = lines.index("| Threat | What stands against it | Test |")
    table = lines[head + 2 :]
    end = next((i for i, line in enumerate(table) if not line.startswith("|")), len(table))
    return table[:end]


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_threat_has_a_test_that_exists() -> None:
    assert len(rows()) > 20
    for row in rows():
        threat, _, tests = (cell.strip() for cell in row.strip("|").split("|"))
        named = _NAMED.findall(tests)
        assert named, f"no test is named for: {threat}"
        for file, name in named:
            assert (ROOT / file).is_file(), f"{file} is not there"
            assert name in functions(ROOT / file), f"{file} has no {name}"


def test_the_policy_leads_to_the_table() -> None:
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
