"""What docs/troubleshooting.md quotes is what the program says."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def said() -> str:
    """Every text in the source, pieces that are written side by side put together."""
    texts = []
    for file in (REPOSITORY / "src" / "brushwork").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                pieces = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                texts.append("".join(map(str, pieces)))
    return "\n".join(texts)


def test_every_message_that_is_quoted_is_one_that_can_be_read() -> None:
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    source = said()

    assert len(quoted) > 10
    assert [text for text in quoted if not all(part in source for part in text.split("..."))] == []
