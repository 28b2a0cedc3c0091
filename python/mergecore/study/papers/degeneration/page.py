"""What is read off a run of Qing et al.? Figures 3 to 7, tables 1 and 2, and what weakens them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mergecore.diagnose.association import scipy_stats
from mergecore.evaluate import rows as files
from mergecore.evaluate import tally
from mergecore.study import statistics
from mergecore.study.papers.degeneration import figures as drawing
from mergecore.study.papers.degeneration.rows import Apart, Point, apart, point
from mergecore.study.results import Results, Row
from mergecore.study.sections import Cell, Section, Table

_HEADS = (
    "reward",
    "low",
    "high",
    "degenerate of the lowest",
    "low",
    "high",
    "of all",
    "low",
    "high",
)


def sections(results: Results) -> list[Section]:
    """Every section whose parts were run."""
    made = (
        _models,
        _rewards,
        _extrapolation,
        _density,
        _interpolation,
        _methods,
        _configs,
        _experts,
    )
    return [section for make in made for section in make(results)]


def _models(results: Results) -> Iterator[Section]:
    values = results.about["values"]
    pairs = [[p["name"], p["sft"], p["rl"]] for p in values["pairs"]]
    mixes = [[m["name"], m["kind"], m["first"], m["second"], m["base"]] for m in values["mixes"]]
    experts = [[role, model] for role, model in values["experts"].items()]
    experts.append(["reward model", values["reward"]["model"]])
    yield Section(
        "Models",
        tables=[
            Table("table-1", "Table 1: SFT and RL models", ("pair", "SFT", "RL"), pairs),
            Table("table-1-mixes", "Pairs that are interpolated",
                  ("pair", "kind", "first", "second", "base"), mixes),
            Table("table-2", "Table 2: further models", ("role", "model"), experts),
        ],
    )  # fmt: skip


def _rewards(results: Results) -> Iterator[Section]:
    """Figure 3."""
    values: dict[str, list[float]] = {"degenerate": [], "sound": []}
    seen = set()
    for part, row in results.everything():
        name = str(row["configuration"])
        if row["weights"] in seen or row["reward"] is None:
            continue
        seen.add(row["weights"])
        rewards = files.by_id(results.rows(part, name, "rewards"))
        for verdict in results.rows(part, name, "verdicts"):
            bad = tally.degenerate(verdict)
            if bad is not None and verdict["id"] in rewards:
                kind = "degenerate" if bad else "sound"
                values[kind].append(float(rewards[verdict["id"]]["reward"]))
    if not values["degenerate"] or not values["sound"]:
        return
    found = scipy_stats().mannwhitneyu(values["degenerate"], values["sound"])
    lower = 1 - found.statistic / len(values["degenerate"]) / len(values["sound"])
    yield Section(
        "Are degenerate answers rewarded less? (figure 3)",
        [
            f"A degenerate answer is rewarded less than a sound one in {lower:.0%} of pairs (Mann-"
            f"Whitney p {max(found.pvalue, 1e-300):.2g} or less;"
            f" {len(values['degenerate']):,} degenerate and {len(values['sound']):,} sound answers"
            " of all configurations). The paper: degenerate answers are concentrated at low"
            " rewards."
        ],
        charts=[drawing.histogram(values)],
    )


def _extrapolation(results: Results) -> Iterator[Section]:
    """Figure 4, left."""
    part, series = "extrapolation", _series(results, "extrapolation", "grid.pair", "grid.alpha")
    if not series:
        return
    rows: list[list[Cell]] = []
    told: list[list[Cell]] = []
    words, tests = [], []
    rises = falls = degenerates = 0
    for name, points in series.items():
        rows += [[name, alpha, *_cells(p)] for alpha, p in points.items()]
        if len(points) < 3 or 0.0 not in points:
            continue
        best = max(points, key=lambda alpha: points[alpha].reward)
        last = max(points)
        rises += best > 0
        falls += points[last].reward < points[best].reward
        degenerates += points[last].every > points[0.0].every
        rates = [p.every for p in points.values()]
        told.append([name, best, *_rising(list(points), rates)])
        for alpha in points:
            if alpha > 0:
                one = apart(results, (part, points[alpha].name), (part, points[0.0].name))
                tests.append((name, alpha, one))
    count = len(told)
    words.append(
        f"Extrapolation raises the mean reward at some α in {rises} of {count} pairs, and at the"
        f" largest α it is below its best in {falls}. The paper: five of six rise up to"
        " 0.5, and decline at 0.8."
    )
    words.append(
        f"At the largest α more of all answers are degenerate than of the RL model's in"
        f" {degenerates} of {count} pairs. The paper: in six of six (of the lowest 100)."
    )
    yield Section(
        "Extrapolation from SFT to RL (figure 4, left)",
        words,
        [
            Table("figure-4-left", "Reward and degeneration over α", ("pair", "α", *_HEADS), rows),
            Table("extrapolation-trend", "Does degeneration rise with α?",
                  ("pair", "α of highest reward", "Spearman's ρ of degeneration", "p"), told,
                  "p by all orders of the values: of four it cannot fall below 0.08."),
            _tests("extrapolation-tests", "Beside the RL model, on the same prompts",
                   ("pair", "α"), [((name, alpha), one) for name, alpha, one in tests]),
        ],
        [drawing.curves(series, "α", "Reward and degeneration over α")],
        _about_rates(series),
    )  # fmt: skip


def _density(results: Results) -> Iterator[Section]:
    """Figure 4, right."""
    part = "density"
    rows, tests = [], []
    series: dict[str, dict[float, Point]] = {}
    start: dict[str, str] = {}
    for row in results.table(part):
        found = point(results, part, row)
        if found is None:
            continue
        if row.get("grid.density") is None:
            start[row["grid.pair"]] = found.name
            continue
        name = f"{row['grid.pair']} {row['grid.method']}"
        series.setdefault(name, {})[row["grid.density"]] = found
        rows.append([row["grid.pair"], row["grid.method"], row["grid.density"], *_cells(found)])
    if not rows:
        return
    words = []
    for name, points in series.items():
        full = points.get(1.0)
        if full is None:
            continue
        spread = max(p.reward for p in points.values()) - min(p.reward for p in points.values())
        fewest = min(points, key=lambda density: points[density].every)
        words.append(
            f"{name}: the reward varies by {spread:.3f} over densities; fewest of all answers are"
            f" degenerate at density {fewest} ({points[fewest].every:.1%}, {full.every:.1%} at 1)."
        )
        for density, one in points.items():
            if density < 1:
                tests.append(((name, density), apart(results, (part, one.name), (part, full.name))))
    yield Section(
        "Do TIES and DARE-TIES prevent degeneration? (figure 4, right; α = 0.5)",
        [*words, "The paper: density hardly moves the reward, and does not reliably prevent"
         " degeneration."],
        [
            Table("figure-4-right", "Over densities", ("pair", "method", "density", *_HEADS), rows),
            _tests("density-tests", "Beside density 1", ("merge", "density"), tests),
        ],
        [drawing.curves(series, "density", "Reward and degeneration over density")],
    )  # fmt: skip


def _interpolation(results: Results) -> Iterator[Section]:
    """Figure 5."""
    part = "interpolation"
    series = _series(results, part, "grid.mix", "grid.lambda")
    if not series:
        return
    rows: list[list[Cell]] = []
    told: list[list[Cell]] = []
    tests = []
    counted = [0, 0, 0]
    for name, points in series.items():
        rows += [[name, share, *_cells(p)] for share, p in points.items()]
        if not {0.0, 1.0} <= set(points):
            continue
        ends = points[0.0].reward, points[1.0].reward
        inner = {share: p for share, p in points.items() if 0 < share < 1}
        inside = sum(min(ends) <= p.reward <= max(ends) for p in inner.values())
        above = sum(p.reward > max(ends) for p in inner.values())
        counted = [a + b for a, b in zip(counted, (inside, above, len(inner)), strict=True)]
        straight = statistics.linear_fit(list(points), [p.reward for p in points.values()])
        told.append([name, _kind(results, name), inside, above, len(inner) - inside - above,
                     None if straight != straight else straight])  # fmt: skip
        best = 0.0 if ends[0] >= ends[1] else 1.0
        for share, one in inner.items():
            test = apart(results, (part, one.name), (part, points[best].name))
            tests.append(((name, share), test))
    inside, above, total = counted
    yield Section(
        "Interpolation (figure 5)",
        [f"Of {total} mixtures {inside} are rewarded between their parents, {above} above both, and"
         f" {total - inside - above} below both. The paper: all in between, nearly on a straight"
         " line; the pair of different bases at or below the weaker."],
        [
            Table("figure-5", "Over λ", ("pair", "λ", *_HEADS), rows),
            Table("interpolation-hull", "Between the parents?",
                  ("pair", "kind", "between", "above both", "below both", "R² of a line"), told),
            _tests("interpolation-tests", "Beside the better parent", ("pair", "λ"), tests),
        ],
        [drawing.curves(series, "λ", "Reward and degeneration over λ")],
        ["Between the parents is said of means; the table of tests says which differences could be"
         " chance."],
    )  # fmt: skip


def _methods(results: Results) -> Iterator[Section]:
    """Figure 6."""
    part = "methods"
    parents = _series(results, "interpolation", "grid.mix", "grid.lambda")
    rows: list[list[Cell]] = []
    cells, tests = [], []
    above: dict[tuple[str, str], list[int]] = {}
    for row in results.table(part):
        found = point(results, part, row)
        if found is None:
            continue
        key = (str(row["grid.mix"]), str(row["grid.method"]))
        rows.append([*key, row["grid.density"], row["grid.lambda"], *_cells(found)])
        cells.append({"pair": key[0], "method": key[1], "density": row["grid.density"],
                      "λ": row["grid.lambda"], "reward": found.reward,
                      "degenerate": found.every})  # fmt: skip
        ends = parents.get(key[0], {})
        if not {0.0, 1.0} <= set(ends):
            continue
        best = max((ends[0.0], ends[1.0]), key=lambda p: p.reward)
        counted = above.setdefault(key, [0, 0])
        counted[0] += found.reward > best.reward
        counted[1] += 1
        tests.append((key, apart(results, (part, found.name), ("interpolation", best.name))))
    if not rows:
        return
    adjusted = statistics.holm([test.p for _, test in tests])
    told: list[list[Cell]] = []
    beyond = 0
    for key, (higher, count) in above.items():
        own = [(test, p) for (k, test), p in zip(tests, adjusted, strict=True) if k == key]
        sure = sum(test.reward > 0 and p < 0.05 for test, p in own)
        beyond += sure
        worse = sum(test.reward < 0 and p < 0.05 for test, p in own)
        told.append([*key, _kind(results, key[0]), higher, sure, worse, count])
    yield Section(
        "Interpolation by TIES and DARE-TIES (figure 6)",
        [f"{sum(h for h, _ in above.values())} of {sum(n for _, n in above.values())} merges are"
         f" rewarded above the better parent, {beyond} of them beyond"
         " chance (paired t-test, Holm over all). The paper: mild gains where parents share a base"
         " or an SFT model, none across bases."],
        [
            Table("figure-6-summary", "Above the better parent",
                  ("pair", "method", "kind", "above", "beyond chance", "below beyond chance", "of"),
                  told),
            Table("figure-6", "Over λ and densities",
                  ("pair", "method", "density", "λ", *_HEADS), rows),
        ],
        [drawing.maps(cells, "reward", "Reward over λ and density"),
         drawing.maps(cells, "degenerate", "Degenerate answers, of all, over λ and density")],
    )  # fmt: skip


def _configs(results: Results) -> Iterator[Section]:
    """A correction of figure 5."""
    part = "configs"
    rows: list[list[Cell]] = []
    by: dict[tuple[str, float], dict[str, Point]] = {}
    for row in results.table(part):
        found = point(results, part, row)
        if found is not None:
            rows.append([row["grid.mix"], row["grid.config"], row["grid.lambda"], *_cells(found)])
            by.setdefault((row["grid.mix"], row["grid.lambda"]), {})[row["grid.config"]] = found
    if not rows:
        return
    tests = [
        (key, apart(results, (part, two["first"].name), (part, two["second"].name)))
        for key, two in by.items()
        if len(two) == 2
    ]
    sure = sum(p < 0.05 for p in statistics.holm([test.p for _, test in tests]))
    yield Section(
        "Pairs of different bases, once with each parent's config",
        [f"The config (rope_theta and its like) that the merge is given changes the mean reward"
         f" beyond chance in {sure} of {len(tests)} merges (Holm): a collapse of such a pair may be"
         " the config's, not the weights'. The paper does not say which config it took."],
        [
            Table("configs", "Over λ", ("pair", "config of the", "λ", *_HEADS), rows),
            _tests("configs-tests", "First's config beside second's", ("pair", "λ"), tests),
        ],
    )  # fmt: skip


def _experts(results: Results) -> Iterator[Section]:
    """Figure 7."""
    part, values = "experts", results.about["values"]
    skills = {"math": values["mathematics"], "code": values["coding"]}
    start: Point | None = None
    series: dict[str, dict[float, Point]] = {}
    for row in results.table(part):
        found = point(results, part, row)
        if found is None:
            continue
        if row.get("grid.panel") is None:
            start = found
        else:
            series.setdefault(row["grid.panel"], {})[row["grid.coefficient"]] = found
    if start is None or not series:
        return
    series = {panel: {0.0: start, **points} for panel, points in series.items()}
    rows: list[list[Cell]] = [
        [panel, c, *(p.tasks.get(task) for task in skills.values()), *_cells(p)]
        for panel, points in series.items()
        for c, p in points.items()
    ]
    words = []
    for panel, points in series.items():
        last = points[max(points)]
        gained = ", ".join(
            f"{skill} {start.tasks[task]:.0%} → {last.tasks[task]:.0%}"
            for skill, task in skills.items()
            if task in start.tasks and task in last.tasks
        )
        words.append(
            f"chat + {panel} at {max(points)}: {gained}; reward {start.reward:.3f} →"
            f" {last.reward:.3f}; degenerate, of the lowest, {start.worst:.0%} → {last.worst:.0%},"
            f" of all {start.every:.1%} → {last.every:.1%}"
        )
    tests = [
        ((panel, c), apart(results, (part, p.name), (part, start.name)))
        for panel, points in series.items()
        for c, p in points.items()
        if c > 0
    ]
    yield Section(
        "Experts added to a chat model (figure 7)",
        [*words, "The paper: math .18 → .9 degenerate of the lowest at 0.8, code mild, both .58."],
        [
            Table("figure-7", "Over the coefficient",
                  ("experts", "c", *skills.values(), *_HEADS), rows),
            _tests("experts-tests", "Beside the chat model", ("experts", "c"), tests),
        ],
        [drawing.curves(series, "coefficient", "Reward and degeneration over the coefficient"),
         drawing.skills(series, skills)],
    )  # fmt: skip


def _rising(x: Sequence[float], y: Sequence[float]) -> list[Cell]:
    """Spearman's ρ and its p; none where nothing changes."""
    if len(set(y)) < 2:
        return [None, None]
    one, other = (list(map(float, scipy_stats().rankdata(values))) for values in (x, y))
    return [statistics.trend(x, y).spearman.statistic, statistics.permuted(one, other)]


def _series(results: Results, part: str, of: str, over: str) -> dict[str, dict[float, Point]]:
    """Points by a name and a number, in the number's order; those that have no number left out."""
    found: dict[str, dict[float, Point]] = {}
    for row in results.table(part):
        one = point(results, part, row)
        if one is not None and row.get(over) is not None:
            found.setdefault(str(row[of]), {})[float(row[over])] = one
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def _cells(p: Point) -> list[Cell]:
    shares: list[Cell] = [p.worst, p.worst_low, p.worst_high, p.every, p.every_low, p.every_high]
    return [p.reward, p.reward_low, p.reward_high, *shares]


def _tests(
    name: str, title: str, heads: tuple[str, ...], tests: Sequence[tuple[tuple[Any, ...], Apart]]
) -> Table:
    rewards = statistics.holm([test.p for _, test in tests])
    flips = statistics.holm([test.flips_p for _, test in tests])
    rows = [
        [*key, t.reward, t.low, t.high, t.p, p, t.worse, t.better, t.flips_p, q]
        for (key, t), p, q in zip(tests, rewards, flips, strict=True)
    ]
    columns = ("reward", "low", "high", "p", "p (Holm)", "newly degenerate", "no longer",
               "McNemar's p", "p (Holm)")  # fmt: skip
    note = "Differences over the same prompts: bootstrap interval, paired t-test, McNemar's test."
    return Table(name, title, (*heads, *columns), rows, note)


def _kind(results: Results, mix: str) -> str:
    kinds: dict[str, Row] = {m["name"]: m for m in results.about["values"]["mixes"]}
    return str(kinds.get(mix, {}).get("kind", ""))


def _about_rates(series: dict[str, dict[float, Point]]) -> list[str]:
    points = [p for own in series.values() for p in own.values()]
    counts = {p.worst_count for p in points}
    wide = max(p.worst_high - p.worst_low for p in points)
    return [
        f"The paper's rate is of the lowest 100 of 805 by reward, here of the lowest"
        f" {' or '.join(map(str, sorted(counts)))}: it says nothing of how often a model"
        f" degenerates, and its interval is up to {wide:.0%} wide. The share of all answers"
        " stands beside it."
    ]
