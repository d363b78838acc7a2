"""The user's own metric in the report: a sentence and a table."""

from __future__ import annotations

from typing import Any


def metric_table(metric: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column titles, then a row of texts a build."""
    titles = ["Build", metric["name"], "Drop", "Drop's 95 % CI"]
    rows = []
    for build in metric["builds"]:
        drop, interval = build.get("drop"), build.get("drop_ci95")
        rows.append(
            [
                build["precision"],
                f"{build['score']:.6g}",
                "-" if drop is None else f"{drop:+.4g}",
                "-" if interval is None else f"{interval[0]:+.4g} to {interval[1]:+.4g}",
            ]
        )
    return titles, rows


def metric_sentence(metric: dict[str, Any]) -> str:
    """How the figures came about."""
    return (
        f"Average of {metric['spec']} over {metric['images']:,} images, higher is better; the interval is a paired "
        f"bootstrap of {metric['resamples']:,} resamples, seed {metric['seed']}."
    )
