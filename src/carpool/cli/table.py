"""Text for terminals: tables, shares, ages, and texts of others made harmless."""

from collections.abc import Sequence

Cell = str | int | None


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns side by side, numbers to the right. None is empty."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell or "" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [any(isinstance(row[i], int) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (header, *cells)
    )


def percent(share: float) -> str:
    """A share of 1 with two significant digits or so: 0.0312 is "3.1 %"."""
    return f"{share * 100:.1f} %" if share >= 0.01 or share == 0 else f"{share * 100:.2f} %"


def age(seconds: float) -> str:
    """In the largest unit that fits."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def line(text: str, width: int) -> str:
    """A text in one line of at most `width` characters, without what would steer the terminal."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= width else plain[: max(0, width - 1)] + "…"
