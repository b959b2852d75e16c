"""What becomes of the runs: one line for each row, tables, and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from sis_core.workbench.benchmark import Summary, summarise
from speed.children import Run
from speed.limits import UNITS_OF, Work
from speed.machine import QUIET
from speed.plan import LABELS, SHARES, Contest

SMALLER_IS_BETTER = ("load", *SHARES)


@attrs.frozen
class Limits:
    """What was measured in the same sitting; None or a missing entry where it could not be.

    Attributes:
        read: bytes a second, by file.
        macs: multiply-adds a second, by unit.
        work: what each file asks for.
    """

    read: Mapping[str, float]
    macs: Mapping[str, float]
    work: Mapping[str, Work]

    def fastest(self, isa: str | None) -> tuple[str, float] | None:
        """The fastest unit that an instruction set may use, and its multiply-adds a second."""
        allowed = UNITS_OF.get(isa or "", tuple(self.macs))
        return max(((unit, self.macs[unit]) for unit in allowed if unit in self.macs), key=lambda u: u[1], default=None)

    def of(self, contest: Contest, row: str) -> float | None:
        """Tokens a second that the machine allows for a row."""
        unit, name = self.fastest(contest.isa), contest.file.name
        work = self.work.get(name)
        return work.limit(row, self.read.get(name), unit[1] if unit else None) if work else None


@attrs.frozen
class Line:
    """One row of the table. ``ratio`` is how many times better sis is; ``noisy`` of ``n`` readings were disturbed."""

    contest: str
    row: str
    ours: Summary | None
    theirs: Summary | None
    best: str
    ratio: float | None
    goal: float | None
    limit: float | None
    noisy: int
    n: int

    @property
    def reached(self) -> float | None:
        """The part of the limit that sis reaches."""
        return self.ours.median / self.limit if self.ours and self.limit else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none, or nothing to hold against it."""
        if self.goal is None:
            return None
        if self.row in SHARES:
            return self.ours.median <= self.goal if self.ours else None
        return self.ratio >= self.goal if self.ratio is not None else None


def lines(contests: Sequence[Contest], runs: Sequence[Run], limits: Limits) -> list[Line]:
    """Medians over rounds; of the peer's ways to run, the one that is best in the row."""
    found = []
    for contest in contests:
        mine = [run for run in runs if run["contest"] == contest.name]
        names = list(dict.fromkeys(run["side"] for run in mine))
        for row in contest.rows:
            readings = {
                name: [run["readings"][row] for run in mine if run["side"] == name and row in run["readings"]]
                for name in names
            }
            medians = {name: summarise([r["value"] for r in values]) for name, values in readings.items() if values}
            ours = medians.pop("sis", None)
            sign = -1 if row in SMALLER_IS_BETTER else 1
            best = max(medians, key=lambda name: sign * medians[name].median, default="")
            theirs = medians.get(best)
            ratio = (ours.median / theirs.median) ** sign if ours and theirs else None
            used = readings.get("sis", []) + readings.get(best, [])
            noisy = sum(reading["others"] > QUIET for reading in used)
            goal, limit = contest.goal(row), limits.of(contest, row)
            found.append(Line(contest.name, row, ours, theirs, best, ratio, goal, limit, noisy, len(used)))
    return found


def missing(contests: Sequence[Contest], runs: Sequence[Run]) -> list[str]:
    """One line for each run that did not measure all it should, with the reason."""
    rows = {contest.name: contest.rows for contest in contests}
    found = []
    for run in runs:
        wanted = [row for row in rows.get(run["contest"], ()) if row not in SHARES or run["side"] == "sis"]
        if run["side"].startswith("llama-bench"):
            wanted = [row for row in wanted if row.startswith(("prompt", "decode"))]
        without = [row for row in wanted if row not in run["readings"]]
        if without:
            reason = run["error"] or "it said nothing of them"
            found.append(
                f"{run['contest']}, {run['side']}, round {run['round'] + 1}: no {', '.join(without)}: {reason}"
            )
    return found


# --- Markdown --------------------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _spread(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    if summary.n == 1:
        return _number(summary.median)
    return f"{_number(summary.median)} ({_number(summary.low)}–{_number(summary.high)})"


def table(found: Sequence[Line]) -> str:
    """The table of the rows, as Markdown: tokens a second, medians with lowest and highest."""
    text = [
        "| file | work | sis | peer | its best | ratio | goal | limit | reached | noisy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for line in found:
        goal = "" if line.goal is None else f"{'≤' if line.row in SHARES else '≥'} {line.goal:g}"
        verdict = {True: " ✓", False: " ✗", None: ""}[line.met]
        cells = [
            line.contest,
            LABELS[line.row],
            _spread(line.ours),
            _spread(line.theirs),
            line.best,
            "" if line.ratio is None else f"{line.ratio:.2f}",
            goal + verdict,
            "" if line.limit is None else _number(line.limit),
            "" if line.reached is None else f"{line.reached:.0%}",
            f"{line.noisy} of {line.n}" if line.noisy else "",
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def limits_table(limits: Limits, reasons: Mapping[str, str]) -> str:
    """What the machine could do, and what of it each file asks for."""
    text = ["| limit | measured |", "| --- | --- |"]
    text += [f"| read {name} ({limits.work[name].n_bytes / 1e6:.0f} MB) | {rate / 1e9:.1f} GB/s |"
             for name, rate in limits.read.items() if name in limits.work]  # fmt: skip
    text += [f"| {unit} | {rate / 1e12:.3f} T multiply-adds/s |" for unit, rate in limits.macs.items()]
    text += [f"| {name} | {reason} |" for name, reason in reasons.items()]
    return "\n".join(text)


def describe(machine: Mapping[str, Any]) -> str:
    """The machine in three lines."""
    cpus = f", pinned to {','.join(map(str, machine['cpus']))}" if machine["cpus"] else ", not pinned"
    load = " ".join(f"{value:g}" for value in machine["load_average"])
    return (
        f"{machine['processor']} ({', '.join(machine['features'])})\n"
        f"{machine['threads']} threads{cpus}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"huge pages: {machine['huge_pages']}, {machine['clock']}\n"
        f"{machine['system']}, Python {machine['python']}, load average at the start {load}"
    )


def markdown(state: Mapping[str, Any], contests: Sequence[Contest], found: Sequence[Line], limits: Limits) -> str:
    """The whole report."""
    runs: Sequence[Run] = state["runs"]
    about = dict.fromkeys(f"{run['side'].partition(',')[0]}: {run['about']}" for run in runs if run["about"])
    rounds = len({run["round"] for run in runs})
    parts = [describe(state["machine"]), "\n".join(about), table(found)]
    parts.append(
        f"Tokens a second (seconds to load): medians of {rounds} rounds, lowest and highest. `limit` is what reading "
        "memory and the fastest multiplying unit allow, `reached` what sis reaches of it."
    )
    if any(line.noisy for line in found):
        parts.append("**Other processes used the processors**: rows with a number under `noisy` are not to be trusted.")
    parts.append(limits_table(limits, state["no_limit"]))
    if gaps := missing(contests, runs):
        parts.append("Not measured:\n\n" + "\n".join(f"- {gap}" for gap in gaps))
    return "\n\n".join(parts)


def as_json(found: Sequence[Line]) -> list[dict[str, Any]]:
    """The table for programs."""
    return [attrs.asdict(line) | {"reached": line.reached, "met": line.met} for line in found]


def draw(found: Sequence[Line], path: Path) -> None:
    """The ratios as bars, with a mark at each goal."""
    from sis_core.workbench.comparison import new_figure

    figure = new_figure(path)
    shown = [line for line in found if line.ratio is not None]
    figure.set_size_inches(8, 1.5 + 0.3 * len(shown))
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [line.ratio for line in shown], color=["C1" if line.noisy else "C0" for line in shown])
    for place, line in zip(places, shown, strict=True):
        if line.goal is not None:
            axes.plot([line.goal] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.set_yticks(places, [f"{line.contest}: {LABELS[line.row]}" for line in shown])
    axes.invert_yaxis()
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="times as fast as llama.cpp at its best (black: goal; orange: disturbed)")
    figure.savefig(path)
