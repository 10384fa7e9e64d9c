"""Draws the figures of the documentation, as text: SVG by hand, on fixed places, with no tools.

The figure of the lifecycle comes from the library's own table of transitions. The figures of
debounce come from `SCENARIOS` below, which `tests/edges/test_figures.py` replays on a virtual
clock: what they show is what happens.
"""

import sys
from math import hypot
from pathlib import Path
from typing import Final, NamedTuple

from asyncdefer._core.lifecycle import TRANSITIONS, Event, State

DOCS: Final = Path(__file__).parent.parent / "docs"
BEGIN: Final = "<!-- lifecycle: written by scripts/figures -->\n"
END: Final = "<!-- /lifecycle -->"

INK, FAINT, LIVE, ENDED, CALL, RUN = "#222", "#888", "#e3f0ff", "#f2f2f2", "#e08a00", "#2f6fb3"


class Scenario(NamedTuple):
    """A picture of debounce with `delay=30`. Times are seconds; a call is labelled by its place."""

    name: str
    title: str
    rule: dict[str, object]  # for Defer, beside the key
    takes: int  # how long a run takes
    calls: list[int]
    waits: list[tuple[int, int]]  # from the first call of a burst to its run
    runs: list[tuple[int, str]]  # start, and the calls that became it


SCENARIOS: Final = [
    Scenario("plain", "Three calls, one run, 30 s after the last call.",
             {}, 6, [0, 10, 30], [(0, 60)], [(60, "abc")]),
    Scenario("max-wait", "Calls that do not stop: a run 50 s after the first call of each burst.",
             {"max_wait": 50}, 6, [0, 20, 40, 60, 80, 100], [(0, 50), (60, 110)], [(50, "abc"), (110, "def")]),
    Scenario("leading", "The first call runs at once, the others fold into one run.",
             {"leading": True}, 6, [0, 10, 20], [(0, 50)], [(0, "a"), (50, "bc")]),
    Scenario("running", "Calls during a run wait for their time and for its end.",
             {}, 50, [0, 35, 45], [(0, 30), (35, 80)], [(30, "a"), (80, "bc")]),
]  # fmt: skip


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """A whole picture on a white sheet, so that it can be read on a dark page too."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" role="img" font-family="sans-serif" font-size="13" fill="{INK}">'
    )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
        f' markerHeight="7" orient="auto"><path d="M0 1 10 5 0 9z" fill="{FAINT}"/></marker></defs>'
    )
    sheet = f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>'
    return "\n".join([head, f"<title>{title}</title>", arrow, sheet, *parts, "</svg>\n"])


def text(x: float, y: float, words: str, *, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{words}</text>'


# -- the life of a job

BOX: Final = (112, 34)
PLACES: Final[dict[State, tuple[int, int]]] = {
    State.HELD: (90, 200),
    State.SCHEDULED: (270, 200),
    State.RUNNING: (540, 200),
    State.SUCCEEDED: (760, 140),
    State.FAILED: (760, 260),
    State.EXPIRED: (160, 60),
    State.REPLACED: (405, 60),
    State.CANCELLED: (310, 350),
    State.DROPPED: (500, 350),
}
HALO: Final = ' font-style="italic" stroke="#fff" stroke-width="4" paint-order="stroke"'


def edge(start: State, end: State, events: list[Event]) -> str:
    """An arrow from box to box; of two arrows that go both ways, each keeps to its right."""
    label = ", ".join(events)
    (x1, y1), (x2, y2) = PLACES[start], PLACES[end]
    if start is end:
        x, y = x1 - BOX[0] / 2 + 14, y1 + BOX[1] / 2
        loop = f"M{x + 20:g} {y:g} q0 34 -20 34 q-20 0 -20 -18 q0 -16 18 -16"
        line = f'<path d="{loop}" fill="none" stroke="{FAINT}" marker-end="url(#arrow)"/>'
        return line + text(x - 26, y + 34, label, anchor="end", more=HALO)
    length = hypot(x2 - x1, y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    both = any((end, event) in TRANSITIONS and TRANSITIONS[end, event] is start for event in Event)
    aside = 9 if both else 0
    x1, y1, x2, y2 = x1 - dy * aside, y1 + dx * aside, x2 - dy * aside, y2 + dx * aside
    inside = min(
        BOX[0] / 2 / abs(dx) if dx else length,
        (BOX[1] / 2 - (aside if not dy else 0)) / abs(dy) if dy else length,
    )
    x1, y1 = round(x1 + dx * inside, 1), round(y1 + dy * inside, 1)
    x2, y2 = round(x2 - dx * inside, 1), round(y2 - dy * inside, 1)
    line = f'<path d="M{x1:g} {y1:g} {x2:g} {y2:g}" stroke="{FAINT}" marker-end="url(#arrow)"/>'
    at = 0.4 if dy else 0.5
    off = 0 if dy else 14 if both and dx > 0 else -5  # a level arrow has its label beside it
    x, y = round(x1 + (x2 - x1) * at, 1), round(y1 + (y2 - y1) * at + off, 1)
    return line + text(x, y, label, more=HALO)


def lifecycle() -> str:
    edges: dict[tuple[State, State], list[Event]] = {}
    for (state, event), follows in TRANSITIONS.items():
        edges.setdefault((state, follows), []).append(event)
    parts = [edge(start, end, events) for (start, end), events in edges.items()]
    leaves = {state for state, _ in TRANSITIONS}
    for state, (x, y) in PLACES.items():
        fill = LIVE if state in leaves else ENDED
        dash = ' stroke-dasharray="4 3"' if not any(state in pair for pair in edges) else ""
        parts.append(
            f'<rect x="{x - BOX[0] / 2:g}" y="{y - BOX[1] / 2:g}" width="{BOX[0]}" height="{BOX[1]}"'
            f' rx="8" fill="{fill}" stroke="{INK}"{dash}/>'
        )
        parts.append(text(x, y + 5, state.name))
    parts.append(text(16, 400, "blue: alive · grey: ended · dashed: nothing leads here yet",
                      anchor="start", more=f' fill="{FAINT}" font-size="12"'))  # fmt: skip
    return svg(850, 412, "The states of a job and the events between them", parts)


def table() -> str:
    """The table of transitions in Markdown: a row per event, a column per state that one can leave."""
    states = [state for state in State if any(state is start for start, _ in TRANSITIONS)]
    rows = [["event", *(state.name for state in states)], ["---"] * (len(states) + 1)]
    for event in Event:
        cells = (TRANSITIONS.get((state, event)) for state in states)
        rows.append([f"`{event}`", *("" if cell is None else cell.name for cell in cells)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


# -- debounce

SCALE: Final = 5  # pixels in a second
LEFT: Final = 60
CALLS_Y, WAITS_Y, RUNS_Y, AXIS_Y = 30, 60, 90, 122


def debounce(scenario: Scenario) -> str:
    def x(seconds: float) -> float:
        return LEFT + seconds * SCALE

    last = max(start for start, _ in scenario.runs) + scenario.takes
    end = -(-last // 10) * 10 + 4
    faint = f' fill="{FAINT}" font-size="12"'
    parts = [
        text(12, CALLS_Y + 4, "calls", anchor="start", more=faint),
        text(12, WAITS_Y + 4, "waits", anchor="start", more=faint),
        text(12, RUNS_Y + 4, "runs", anchor="start", more=faint),
        f'<path d="M{x(0):g} {AXIS_Y} {x(end):g} {AXIS_Y}" stroke="{FAINT}" marker-end="url(#arrow)"/>',
    ]
    for tick in range(0, end, 10):
        parts.append(f'<path d="M{x(tick):g} {AXIS_Y - 3} v6" stroke="{FAINT}"/>')
        parts.append(text(x(tick), AXIS_Y + 19, f"{tick} s" if not tick else f"{tick}", more=faint))
    for start, until in scenario.waits:
        parts.append(
            f'<path d="M{x(start):g} {WAITS_Y} {x(until):g} {WAITS_Y}" stroke="{CALL}"'
            ' stroke-width="2" stroke-dasharray="5 4"/>'
            f'<path d="M{x(until):g} {WAITS_Y} V{RUNS_Y - 11}" stroke="{CALL}" stroke-width="2"/>'
        )
    for start, calls in scenario.runs:
        width = scenario.takes * SCALE
        parts.append(
            f'<rect x="{x(start):g}" y="{RUNS_Y - 10}" width="{width}" height="20" rx="3" fill="{RUN}"/>'
        )
        middle = x(start) + width / 2
        parts.append(text(middle, RUNS_Y + 5, calls[-1], more=' fill="#fff" font-weight="bold"'))
    for at, name in zip(scenario.calls, "abcdefgh", strict=False):
        parts.append(
            f'<path d="M{x(at):g} {CALLS_Y + 10} V{WAITS_Y - 2}" stroke="{FAINT}" stroke-dasharray="1 3"/>'
        )
        parts.append(f'<circle cx="{x(at):g}" cy="{CALLS_Y}" r="9" fill="{CALL}"/>')
        parts.append(text(x(at), CALLS_Y + 5, name, more=' fill="#fff" font-weight="bold"'))
    return svg(round(x(end)) + 20, 154, scenario.title, parts)


def figures() -> dict[Path, str]:
    """Every file that is drawn, with its text."""
    drawn = {DOCS / "img" / "lifecycle.svg": lifecycle()}
    for scenario in SCENARIOS:
        drawn[DOCS / "img" / f"debounce-{scenario.name}.svg"] = debounce(scenario)
    page = DOCS / "explanation" / "lifecycle.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, behind = rest.partition(END)
    drawn[page] = f"{before}{BEGIN}\n{table()}\n{END}{behind}"
    return drawn


if __name__ == "__main__":
    for path, content in figures().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")
