"""Draws the figures of the documentation, as text: SVG by hand, on fixed places, with no tools.

The figure of the lifecycle comes from the library's own table of transitions. The figures of
debounce and of the limits come from `SCENARIOS` and `RULES` below, which
`tests/edges/test_figures.py` replays on a virtual clock: what they show is what happens.
"""

import sys
from math import hypot
from pathlib import Path
from typing import Any, Final, NamedTuple

from asyncdefer import Defer, RateLimit
from asyncdefer._core.lifecycle import TRANSITIONS, Event, State

DOCS: Final = Path(__file__).parent.parent / "docs"
BEGIN: Final = "<!-- lifecycle: written by scripts/figures -->\n"
END: Final = "<!-- /lifecycle -->"

INK, FAINT, LIVE, ENDED, CALL, RUN = "#222", "#888", "#e3f0ff", "#f2f2f2", "#e08a00", "#2f6fb3"


class Scenario(NamedTuple):
    """What becomes of the calls of one key. Times are seconds; a call is labelled by its place."""

    name: str
    title: str
    options: dict[str, Any]  # of the task
    takes: int  # how long a run takes
    calls: list[int]
    waits: list[tuple[int, int]]  # from the first call of a run to its start
    runs: list[tuple[int, str]]  # start, and the calls that became it
    drops: str = ""  # the calls that never ran

    def named(self) -> list[tuple[int, str]]:
        """The calls with their letters."""
        return list(zip(self.calls, "abcdefgh", strict=False))


DEBOUNCE: Final[dict[str, Any]] = {"delay": 30, "defer": ["key"]}
ONCE: Final = RateLimit(1, per=30, key=["key"])
STREAM, BURST = [0, 12, 24, 36, 48, 100], [0, 5, 10, 15, 25, 110]
SCENARIOS: Final = [
    Scenario("debounce-plain", "Three calls, one run, 30 s after the last call.",
             DEBOUNCE, 6, [0, 10, 30], [(0, 60)], [(60, "abc")]),
    Scenario("debounce-max-wait", "Calls that do not stop: a run 50 s after the first call of each burst.",
             {"delay": 30, "defer": Defer(["key"], max_wait=50)}, 6,
             [0, 20, 40, 60, 80, 100], [(0, 50), (60, 110)], [(50, "abc"), (110, "def")]),
    Scenario("debounce-leading", "The first call runs at once, the others fold into one run.",
             {"delay": 30, "defer": Defer(["key"], leading=True)}, 6,
             [0, 10, 20], [(0, 50)], [(0, "a"), (50, "bc")]),
    Scenario("debounce-running", "Calls during a run wait for their time and for its end.",
             DEBOUNCE, 50, [0, 35, 45], [(0, 30), (35, 80)], [(30, "a"), (80, "bc")]),
    Scenario("limit-throttle", "A run each 30 s, with the newest call; after a rest, at once.",
             {"defer": ["key"], "rate_limit": ONCE}, 6, STREAM,
             [(12, 30), (36, 60)], [(0, "a"), (30, "bc"), (60, "de"), (100, "f")]),
    Scenario("limit-rate", "Each call runs; starts are 20 s apart.",
             {"rate_limit": RateLimit(1, per=20)}, 6, BURST,
             [(5, 20), (10, 40), (15, 60), (25, 80)],
             [(0, "a"), (20, "b"), (40, "c"), (60, "d"), (80, "e"), (110, "f")]),
    Scenario("limit-burst", "Three calls run at once, the others 20 s apart.",
             {"rate_limit": RateLimit(1, per=20, burst=3)}, 4, BURST,
             [(15, 20), (25, 40)], [(0, "a"), (5, "b"), (10, "c"), (20, "d"), (40, "e"), (110, "f")]),
    Scenario("limit-drop", "Calls less than 30 s after the last start are dropped.",
             {"rate_limit": RateLimit(1, per=30, key=["key"], drop=True)}, 6, STREAM,
             [], [(0, "a"), (36, "d"), (100, "f")], drops="bce"),
]  # fmt: skip

SAME: Final = [0, 8, 16, 40, 55]
RULES: Final = [
    Scenario("debounce", "delay=30, defer", DEBOUNCE, 10, SAME, [(0, 85)], [(85, "abcde")]),
    Scenario("debounce, bounded", "max_wait=50", {"delay": 30, "defer": Defer(["key"], max_wait=50)}, 10,
             SAME, [(0, 50), (55, 85)], [(50, "abcd"), (85, "e")]),
    Scenario("debounce, leading", "leading=True", {"delay": 30, "defer": Defer(["key"], leading=True)}, 10,
             SAME, [(0, 85)], [(0, "a"), (85, "bcde")]),
    Scenario("throttle", "1 per 30 s, defer", {"defer": ["key"], "rate_limit": ONCE}, 10,
             SAME, [(8, 30), (40, 60)], [(0, "a"), (30, "bc"), (60, "de")]),
    Scenario("rate limit", "1 per 30 s", {"rate_limit": ONCE}, 10,
             SAME, [(8, 30), (16, 60), (40, 90), (55, 120)],
             [(0, "a"), (30, "b"), (60, "c"), (90, "d"), (120, "e")]),
    Scenario("rate limit, burst", "1 per 30 s, burst=3", {"rate_limit": RateLimit(1, per=30, burst=3)}, 10,
             SAME, [(55, 60)], [(0, "a"), (8, "b"), (16, "c"), (40, "d"), (60, "e")]),
    Scenario("cooldown", "1 per 30 s, drop=True", {"rate_limit": RateLimit(1, per=30, drop=True)}, 10,
             SAME, [], [(0, "a"), (40, "d")], drops="bce"),
    Scenario("concurrency", "concurrency=1", {"concurrency": 1}, 10,
             SAME, [(8, 10), (16, 20)], [(0, "a"), (10, "b"), (20, "c"), (40, "d"), (55, "e")]),
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


# -- calls, waits and runs

SCALE: Final = 5  # pixels in a second
LEFT: Final = 60
CALLS_Y, WAITS_Y, RUNS_Y, AXIS_Y = 30, 60, 90, 122
STEP: Final = 12  # from one that waits to the next
SMALL: Final = f' fill="{FAINT}" font-size="12"'
WHITE: Final = ' fill="#fff" font-weight="bold"'


def axis(left: int, y: int, end: int) -> list[str]:
    parts = [
        f'<path d="M{left} {y} {left + end * SCALE} {y}" stroke="{FAINT}" marker-end="url(#arrow)"/>'
    ]
    for tick in range(0, end, 10):
        at = left + tick * SCALE
        parts.append(f'<path d="M{at} {y - 3} v6" stroke="{FAINT}"/>')
        parts.append(text(at, y + 19, f"{tick} s" if not tick else f"{tick}", more=SMALL))
    return parts


def circle(x: int, name: str) -> list[str]:
    return [
        f'<circle cx="{x}" cy="{CALLS_Y}" r="9" fill="{CALL}"/>',
        text(x, CALLS_Y + 5, name, more=WHITE),
    ]


def cross(x: int, y: int) -> str:
    return f'<path d="M{x - 5} {y - 5} l10 10 m0 -10 l-10 10" stroke="{CALL}" stroke-width="2"/>'


def bar(x: int, y: int, takes: int, name: str, more: str = "") -> list[str]:
    width = takes * SCALE
    return [
        f'<rect x="{x}" y="{y - 10}" width="{width}" height="20" rx="3" fill="{RUN}"{more}/>',
        text(x + width / 2, y + 5, name, more=WHITE),
    ]


def heights(waits: list[tuple[int, int]]) -> list[int]:
    """Where each wait is drawn: above those that wait already, so that no line crosses another."""
    found: list[int] = []
    for at, (start, _) in enumerate(waits):
        below = [found[other] for other in range(at) if waits[other][1] > start]
        found.append(max(below, default=-1) + 1)
    return found


def timing(scenario: Scenario) -> str:
    """One picture: calls above, runs below, and between them what waits."""

    def x(seconds: int) -> int:
        return LEFT + seconds * SCALE

    high = heights(scenario.waits)
    lower = max(high, default=0) * STEP
    lines = [WAITS_Y + lower - height * STEP for height in high]
    runs_y, axis_y = RUNS_Y + lower, AXIS_Y + lower
    last = max(start for start, _ in scenario.runs) + scenario.takes
    end = -(-last // 10) * 10 + 4
    second = "waits" if scenario.waits else "drops"
    parts = [
        text(12, CALLS_Y + 4, "calls", anchor="start", more=SMALL),
        text(12, WAITS_Y + 4, second, anchor="start", more=SMALL),
        text(12, runs_y + 4, "runs", anchor="start", more=SMALL),
        *axis(LEFT, axis_y, end),
    ]
    for (start, until), y in zip(scenario.waits, lines, strict=True):
        parts.append(
            f'<path d="M{x(start)} {y} {x(until)} {y}" stroke="{CALL}"'
            ' stroke-width="2" stroke-dasharray="5 4"/>'
            f'<path d="M{x(until)} {y} V{runs_y - 11}" stroke="{CALL}" stroke-width="2"/>'
        )
    for start, calls in scenario.runs:
        parts += bar(x(start), runs_y, scenario.takes, calls[-1])
    for at, name in scenario.named():
        over = [y for (a, b), y in zip(scenario.waits, lines, strict=True) if a <= at <= b]
        below = (over[-1] if over else runs_y - 10) - 2
        if name in scenario.drops:
            parts.append(cross(x(at), WAITS_Y))
            below = WAITS_Y - 8
        parts.append(
            f'<path d="M{x(at)} {CALLS_Y + 10} V{below}" stroke="{FAINT}" stroke-dasharray="1 3"/>'
        )
        parts += circle(x(at), name)
    return svg(x(end) + 20, axis_y + 32, scenario.title, parts)


# -- the same calls under each rule

NAMES: Final = 170  # the width of their column
ROW: Final = 44


def merged(waits: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """When anything waits: dashes over dashes would look like another line."""
    found: list[tuple[int, int]] = []
    for start, until in waits:
        joins = bool(found) and start <= found[-1][1]
        found.append((found.pop()[0] if joins else start, until))
    return found


def comparison() -> str:
    """One row for each rule: the runs that it makes of the same calls."""

    def x(seconds: int) -> int:
        return NAMES + seconds * SCALE

    axis_y = CALLS_Y + len(RULES) * ROW + 34
    last = max(start + rule.takes for rule in RULES for start, _ in rule.runs)
    parts = [text(12, CALLS_Y + 4, "calls", anchor="start", more=SMALL)]
    for at, name in RULES[0].named():
        line = f"M{x(at)} {CALLS_Y + 10} V{axis_y - 12}"
        parts.append(f'<path d="{line}" stroke="{FAINT}" stroke-dasharray="1 3"/>')
        parts += circle(x(at), name)
    for place, rule in enumerate(RULES):
        y = CALLS_Y + (place + 1) * ROW
        parts.append(text(12, y - 1, rule.name, anchor="start", more=' font-weight="bold"'))
        parts.append(text(12, y + 14, rule.title, anchor="start", more=SMALL))
        for start, until in merged(rule.waits):
            line = f"M{x(start)} {y} {x(until)} {y}"
            parts.append(
                f'<path d="{line}" stroke="{CALL}" stroke-width="2" stroke-dasharray="5 4"/>'
            )
        for start, calls in rule.runs:
            parts += bar(x(start), y, rule.takes, calls[-1], ' stroke="#fff"')
        parts += [cross(x(at), y - 18) for at, name in rule.named() if name in rule.drops]
    parts += axis(NAMES, axis_y, last + 4)
    return svg(x(last + 4) + 20, axis_y + 32, "What each rule makes of the same five calls", parts)


def figures() -> dict[Path, str]:
    """Every file that is drawn, with its text."""
    drawn = {DOCS / "img" / "lifecycle.svg": lifecycle()}
    for scenario in SCENARIOS:
        drawn[DOCS / "img" / f"{scenario.name}.svg"] = timing(scenario)
    drawn[DOCS / "img" / "limit-all.svg"] = comparison()
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
