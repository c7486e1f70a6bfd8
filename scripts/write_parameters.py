"""Write the table of the node's parameters into docs/node.md, from their declarations.

python -m scripts.write_parameters
"""

from pathlib import Path

from streampetr_ros.parameters import parameter_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "node.md"
BEGIN, END = (
    "<!-- parameters: the table is written by `python -m scripts.write_parameters` -->",
    "<!-- end of parameters -->",
)


def with_table(text: str) -> str:
    """Return the page with the table of now between its marks."""
    before, rest = text.split(f"{BEGIN}\n")
    _, after = rest.split(f"\n{END}")
    return f"{before}{BEGIN}\n{parameter_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
