"""The verdict in a sentence, with its uncertainty."""

from __future__ import annotations

from typing import Any

from quant.evaluation.fidelity import channels_text
from quant.report.views.names import baseline_name, build_names, chosen_name


def headline(document: dict[str, Any]) -> str:
    """What the precision that was asked for loses and gains, how sure that is, and whether it is allowed."""
    builds, names = document["builds"], build_names(document)
    if len(builds) == 1:
        top1, metric = builds[0]["top1"], document.get("metric") or {}
        if metric.get("against") == "labels":
            return f"{names[0]} reaches {metric['builds'][0]['told']}."
        return f"Only {names[0]} was run." if top1 is None else f"{names[0]} reaches {top1:.2f} % top-1."
    row, name, baseline = builds[-1], names[-1], names[0]
    images = document["data"]["evaluation"]["images"]
    buys = f"is {_speed(row)} and {_size(row)}"
    if document.get("metric"):
        return _of_metric(document, name, baseline, buys)
    if document["verdict"] == "invalid":
        top1 = builds[0]["top1"]
        return f"{baseline} reaches {top1:.2f} % top-1 on {images:,} images, near chance, so nothing was shown."
    if row["drop_top1"] is None:
        return f"{_worst(row, name)}{_agreement(row, baseline, images)}{name} {buys}; its accuracy drop is not known."
    limit = document["max_drop"]
    verb, points, low, high = _change(row["drop_top1"], row["drop_ci95"], ".2f")
    judged = _judgement(row, row["drop_top1"] <= limit, f"{limit}", gained=verb == "gains")
    return (
        f"{name} {verb} {points:.2f} points of top-1 (95 % CI {low:.2f} to {high:.2f}) against {baseline} on "
        f"{images:,} images, {buys}: {judged}."
    )


def advice(document: dict[str, Any]) -> str:
    """What to use; nothing where nothing was shown, and no praise where no label tells."""
    name = chosen_name(document)
    if document["verdict"] == "unlabelled" and name == baseline_name(document):
        return f"use {name}"  # it is what all others are held against
    return {
        "invalid": "nothing was shown",
        "unlabelled": f"{name} as far as images without labels tell",
    }.get(document["verdict"], f"use {name}")


def _worst(row: dict[str, Any], name: str) -> str:
    """The worst output in words, which leads where there are no labels."""
    worst = next(iter(row.get("outputs") or ()), None)
    if worst is None:
        return f"{name} ran. "
    if worst["worst_db"] is None:
        return f"All outputs of {name} are equal to the baseline's. "
    where = f"output '{worst['name']}'"
    if worst["groups"] and worst["groups"][0]["sqnr_db"] == worst["worst_db"]:
        group = worst["groups"][0]
        where += f", {channels_text(group['first'], group['last'], group['channels'])}"
    return f"{name} has the lowest SQNR, {worst['worst_db']:.1f} dB, in {where}. "


def _agreement(row: dict[str, Any], baseline: str, images: int) -> str:
    if row["agreement"] is None:
        return ""
    low, high = row["agreement_ci95"]
    return (
        f"It agrees with {baseline} on {row['agreement']:.2f} % (95 % CI {low:.2f} to {high:.2f}) of {images:,} "
        "unlabelled images. "
    )


def reason_says_more(document: dict[str, Any]) -> bool:
    """Does the reason of the choice say anything that the headline does not: why it is not the build examined?"""
    return bool(document["verdict"] != "pass" or document["chosen"] != document.get("examined"))


def _of_metric(document: dict[str, Any], name: str, baseline: str, buys: str) -> str:
    """The same if the user's metric decides instead of top-1."""
    metric = document["metric"]
    row = metric["builds"][-1]
    if metric.get("against") == "fp32":
        return (
            f"{name}'s {metric['what']} agree with {baseline}'s to {row['told']} on {metric['images']:,} images. "
            f"{name} {buys}; its accuracy drop is not known."
        )
    if metric.get("task"):
        return _of_task(document, name, baseline, buys)
    verb, points, low, high = _change(row["drop"], row["drop_ci95"], ".4g")
    score = metric["builds"][0]["score"]
    allowed = f"{metric['allowed_drop']:.4g} ({document['max_drop']:g} % of {baseline}'s {score:.4g})"
    judged = _judgement(row, row["drop"] <= metric["allowed_drop"], allowed, gained=verb == "gains")
    return (
        f"{name} {verb} {points:.4g} of {metric['name']} (95 % CI {low:.4g} to {high:.4g}) "
        f"against {baseline} on {metric['images']:,} images, {buys}: {judged}."
    )


def _of_task(document: dict[str, Any], name: str, baseline: str, buys: str) -> str:
    """The same of the score of a task, which may be an error: a build adds to that."""
    metric = document["metric"]
    row = metric["builds"][-1]
    if document["verdict"] == "invalid":
        told = metric["builds"][0]["told"]
        return f"{baseline} reaches {told} on {metric['images']:,} images, so nothing was shown."
    in_points = metric["unit"] == "points"
    form, unit = (".2f", "points ") if in_points else (".4g", "")
    verb, drop, low, high = _change(row["drop"], row["drop_ci95"], form)
    judged = _judgement(row, row["drop"] <= metric["allowed_drop"], metric["limit"], gained=verb == "gains")
    of = f"of {metric['name']}"
    if metric["lower_is_better"]:
        verb, of = ("adds", f"to the {metric['name']}") if verb == "loses" else ("takes", f"off the {metric['name']}")
    return (
        f"{name} {verb} {drop:{form}} {unit}{of} (95 % CI {low:{form}} to {high:{form}}) against {baseline} on "
        f"{metric['images']:,} images, {buys}: {judged}."
    )


def _change(drop: float, interval: list[float], form: str) -> tuple[str, float, float, float]:
    """Whether it loses or gains, as far as the shown digits tell, how much, and the interval."""
    low, high = interval
    amount = abs(drop)
    if drop < 0 and float(f"{amount:{form}}") > 0:
        return "gains", amount, 0.0 - high, 0.0 - low
    return "loses", amount, low, high


def _speed(row: dict[str, Any]) -> str:
    speed = row["speedup"]
    return "of unknown speed" if not speed else _times(speed, "faster", "slower", "as fast")


def _size(row: dict[str, Any]) -> str:
    ratio = row["size_ratio"]
    return "of unknown size" if not ratio else _times(ratio, "smaller", "larger", "as large")


def _times(ratio: float, more: str, less: str, same: str) -> str:
    """A ratio in words, with two significant digits: 2.4 times faster, 12 times slower."""
    factor, word = (ratio, more) if ratio >= 1 else (1 / ratio, less)
    if factor < 1.05:
        return same
    return f"{factor:.1f} times {word}" if factor < 9.95 else f"{factor:.0f} times {word}"


def _judgement(row: dict[str, Any], fits: bool, allowed: str, *, gained: bool) -> str:
    """Whether that is allowed; of a gain, whether a loss that is not allowed is ruled out."""
    needed = row["images_needed"]
    if gained and fits:
        if row["enough_images"]:
            return f"a loss above the allowed {allowed} is ruled out"
        unsure = f"no loss as measured, but not enough images to rule out one above the allowed {allowed}"
        return unsure if needed is None else f"{unsure}; about {needed:,} would be needed"
    within = f"within the allowed {allowed}" if fits else f"above the allowed {allowed}"
    if row["enough_images"]:
        return within
    if needed is None:
        return f"{within} as measured, but so close to the limit that no number of images would be enough to tell"
    return f"{within} as measured, but not enough images to tell; about {needed:,} would be needed"
