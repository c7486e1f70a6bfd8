"""README and docs: links lead somewhere, and what they name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code forges make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings(page):
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page):
    known = set(re.findall(r'"(\w+) = \w+\.commands\.\w+"', (ROOT / "setup.py").read_text(encoding="utf-8")))
    named = re.findall(r"(?:^|`)streampetr ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= known


def test_troubleshooting_has_every_state_of_the_node():
    names = set()
    for file in ("assembly.py", "diagnosis.py", "diagnostics.py", "guard.py", "node.py", "publishers.py"):
        source = (ROOT / "streampetr_ros" / file).read_text(encoding="utf-8")
        names |= set(re.findall(r'(?:State|watching|fault|idle)\(\s*"([^"]+)"', source))
        constants = re.findall(r'^[A-Z_]+(?:, [A-Z_]+)? = "([\w ]+)"(?:, "([\w ]+)")?', source, re.MULTILINE)
        names |= {text for pair in constants for text in pair if text}
    assert {
        "no images",
        "internal error",
        "incompatible QoS",
        "unusable stamps",
        "no transform",
        "over budget",
        "not active",
        "unusable CameraInfo",
    } <= names
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert sorted(name for name in names if f"`{name}`" not in page) == []


def test_what_troubleshooting_quotes_of_our_messages_is_said_somewhere():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sections = re.findall(
        r"## (?:The node does not configure|`no transform`|A bag does not play)\n(.*?)(?=\n## )", page, re.S
    )
    first_cells = re.findall(r"^\| (`.+?`) \|", "\n".join(sections), re.MULTILINE)
    quoted = {text for cell in first_cells for text in re.findall("`([^`]+)`", cell)}
    assert len(quoted) > 10
    folders = ("streampetr_core", "streampetr_ros", "ros_overlay")
    sources = " ".join(file.read_text(encoding="utf-8") for folder in folders for file in (ROOT / folder).rglob("*.py"))
    sources = re.sub(r'"\s+f?"', "", sources)  # texts that go on in the next line
    sources = re.sub(r"\{backend\}|\{precision\}|\{way\}|\{passed\}", "*", sources)
    missing = [text for text in quoted if not _said(text, sources)]
    assert not missing


def _said(text: str, sources: str) -> bool:
    return text in sources or any(text.replace(word, "*") in sources for word in ("future", "past", "int8"))
