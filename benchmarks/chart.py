"""Draw the ratios of a run, from its JSON: ``python -m benchmarks.chart run.json chart.svg``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# What is drawn, and how: (peers that are the same thing in different rows), label, colour, marker.
SERIES = (
    (("websockets", "websockets.sync"), "websockets", "#4269d0", "o"),
    (("picows",), "picows (callbacks)", "#ff725c", "s"),
    (("picows.websockets",), "picows.websockets", "#efb118", "D"),
    (("aiohttp",), "aiohttp", "#3ca951", "^"),
    (("wsproto",), "wsproto", "#a463f2", "v"),
    (("websocket-client",), "websocket-client", "#9c6b4e", "P"),
)


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw a chart: a line for each row, a mark for each peer, wsframe at 1.

    Args:
        report: what ``python -m benchmarks --json`` writes.
        path: where to draw it; the suffix says how: .svg or .png.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    rows = [row for row in report["rows"] if any(values["ratio"] for values in row["peers"].values())]
    if not rows:
        raise ValueError("there are no ratios to draw")
    about = report["environment"]
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "wsframe"}):
        figure = Figure(figsize=(9, 1.5 + 0.26 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.axvspan(1e-9, 1, color="#f3f3f3", zorder=0)
        axes.axvline(1, color="black", linewidth=1.5, zorder=2)
        drawn: list[float] = []
        for peers, label, colour, marker in SERIES:
            points = [
                (ratio, number)
                for number, row in enumerate(rows)
                for peer in peers
                if (ratio := row["peers"].get(peer, {}).get("ratio"))
            ]
            if points:
                x, y = zip(*points, strict=True)
                axes.scatter(x, y, s=34, color=colour, marker=marker, label=label, zorder=3)
                drawn += x
        axes.set_xlim(min(*drawn, 0.8) / 1.2, max(*drawn, 1.25) * 1.2)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}x"))
        axes.grid(axis="x", which="both", color="#dddddd", linewidth=0.6, zorder=1)
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6, zorder=1)
        axes.set_xlabel("how many times faster wsframe is, or less it takes; left of 1 the peer is ahead")
        versions = ", ".join(f"{peer} {number}" for peer, number in about["peers"].items() if number)
        title = f"wsframe {about['wsframe']}, {about['build']} build, beside its peers\n{versions}\n"
        machine = f"{about['python']}, {about['loop']}, {about['processor']}, {about['cores']} cores"
        axes.set_title(title + machine, fontsize=8)
        figure.legend(loc="outside upper center", ncols=len(SERIES), frameon=False, fontsize=8)
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a date, the same figures give the same file.
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
