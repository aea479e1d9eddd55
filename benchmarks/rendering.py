"""Results to docs/performance.md (between its markers) and docs/performance.svg."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
TITLES = {
    "postgres_to_postgres": "PostgreSQL to PostgreSQL",
    "json_records": "Nested JSON over HTTP",
    "files": "Files",
    "merge": "Merge",
    "singer": "Singer tap",
    "airbyte": "Airbyte source",
    "memory": "Memory",
    "webhooks": "Webhooks",
    "small_stream": "One small stream",
    "definitions_load": "Definitions of 500 streams",
    "volume_detection": "Volume check on synthetic histories",
    "mart_rollback": "Rollback of a mart",
}
OURS = "headwater"
Result = Mapping[str, Any]


def read_results(folder: Path, names: Sequence[str]) -> dict[str, Result]:
    """The kept lines, by benchmark, in the order of `names`."""
    return {
        name: _same_form(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
        for name in names
        if (folder / f"{name}.json").exists()
    }


def _same_form(result: Result) -> Result:
    """`definitions_load` speaks of CPU seconds alone."""
    if "paths" in result:
        return result
    target = {
        "claim": "CPU seconds", "measured": result["cpu_seconds"], "bound": result["target_cpu_seconds"],
        "is_minimum": False, "is_met": result["passed"],
    }  # fmt: skip
    return {"size": f"{result['streams']} streams", "paths": [], "targets": [target], "cores": None, **result}


def render(results: Mapping[str, Result], folder: Path) -> None:
    """Put the tables between the page's markers, and draw the plot beside it."""
    page = folder / "performance.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{_tables(results)}\n{END}{after}", encoding="utf-8")
    _plot(results, folder / "performance.svg")


def _tables(results: Mapping[str, Result]) -> str:
    lines = ["", "| claim | measured | target | |", "|---|---|---|---|"]
    for name, result in results.items():
        for target in result["targets"]:
            sign = "at least" if target["is_minimum"] else "at most"
            met = {True: "met", False: "**missed**", None: "not measured"}[target["is_met"]]
            claim = f"{TITLES[name]}, {result['size']}: {target['claim']}"
            lines.append(f"| {claim} | {_number(target['measured'])} | {sign} {target['bound']:g} | {met} |")
    for name, result in results.items():
        if not result["paths"]:
            continue
        lines += [
            "",
            f"### {TITLES[name]}: {result['size']}",
            "",
            "| path | seconds | ratio | peak MB | |",
            "|---|---|---|---|---|",
        ]
        for path in result["paths"]:
            label = f"**{path['path']}**" if path["path"].startswith(OURS) else path["path"]
            cells = [
                _number(path["seconds"]),
                _number(path["ratio"]),
                _number(path["peak_mb"], 0),
                _short(path["note"]),
            ]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    versions = next((result["versions"] for result in results.values() if "versions" in result), {})
    if versions:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        cores = next((result["cores"] for result in results.values() if result.get("cores")), "?")
        loads = [result["load"] for result in results.values() if "load" in result]
        busy = ""
        if loads:
            busy = (
                f" The machine's load was {min(loads):g} to {max(loads):g} over each run;"
                " well above its cores means that others worked on it."
            )
        lines += ["", f"Measured on {cores} cores with {told}.{busy}"]
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _short(note: str) -> str:
    """One line for a table's cell, without terminal colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", note).replace("|", "/")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:100] if lines else ""


def _plot(results: Mapping[str, Result], path: Path) -> None:
    """Bars of each path's ratio to the limit, one panel a benchmark, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("svg")
    # the same picture for the same figures
    mpl.rcParams["svg.hashsalt"] = "headwater"
    mpl.rcParams["font.size"] = 9
    from matplotlib import pyplot

    shown = {
        name: [item for item in result["paths"] if item["ratio"]]
        for name, result in results.items()
        if any(item["path"] == "limit" for item in result["paths"])
    }
    if not shown:
        return
    heights = [len(paths) for paths in shown.values()]
    figure, axes = pyplot.subplots(
        len(shown), 1, figsize=(8, 0.32 * sum(heights) + 0.9 * len(shown)), height_ratios=heights, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for (name, paths), (axis,) in zip(shown.items(), axes, strict=True):
        labels, ratios = [item["path"] for item in paths], [item["ratio"] for item in paths]
        colours = [
            "#1f6feb" if label.startswith(OURS) else "#2da44e" if label == "limit" else "#8c959f" for label in labels
        ]
        bars = axis.barh(labels, ratios, color=colours)
        axis.bar_label(bars, labels=[f"{ratio:g}" for ratio in ratios], padding=3)
        axis.set_xscale("log")
        axis.set_xlim(0.8, max(10.0, *(2 * ratio for ratio in ratios)))
        axis.invert_yaxis()
        axis.set_title(f"{TITLES[name]}, {results[name]['size']}", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1][0].set_xlabel("time, as a multiple of the limit (less is better)")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
