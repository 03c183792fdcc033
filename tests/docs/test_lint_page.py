"""The page on the lint lists the rules that there are."""

import re
from pathlib import Path

from exporter.lint.tensorrt import RULES

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"


def test_the_table_of_rules_is_what_the_rules_say():
    rows = re.findall(
        r"^\| `([\w-]+)` \| (\w+) \|.*\| (yes|no)[^|]*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert rows == [(rule.name, rule.severity, "yes" if rule.fix is not None else "no") for rule in RULES]
