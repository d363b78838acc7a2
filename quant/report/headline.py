"""The verdict in a sentence, with its uncertainty."""

from __future__ import annotations

from typing import Any


def headline(document: dict[str, Any]) -> str:
    """What the precision that was asked for costs and buys, how sure that is, and whether it is allowed."""
    builds = document["builds"]
    row = next((build for build in reversed(builds) if build["precision"] != "fp32"), None)
    if row is None:
        fp32 = next((build for build in builds if build["top1"] is not None), None)
        return "FP32 alone was run." if fp32 is None else f"FP32 reaches {fp32['top1']:.2f} % top-1."
    name = row["precision"].upper()
    images = document["data"]["evaluation"]["images"]
    buys = f"is {_speed(row)} and {_size(row)}"
    if row["drop_top1"] is None:
        agreed = f"agrees with FP32 on {row['agreement']:.2f} % of" if row["agreement"] is not None else "ran on"
        return f"{name} {agreed} {images:,} unlabelled images, {buys}; its accuracy drop is not known."
    low, high = row["drop_ci95"]
    verb, points = ("loses", row["drop_top1"]) if row["drop_top1"] >= 0 else ("gains", -row["drop_top1"])
    return (
        f"{name} {verb} {points:.2f} points of top-1 (95 % CI of the drop {low:.2f} to {high:.2f}) against FP32 on "
        f"{images:,} images, {buys}: {_judgement(row, document['max_drop'])}."
    )


def _speed(row: dict[str, Any]) -> str:
    speed = row["speedup"]
    if speed is None:
        return "of unknown speed"
    return f"{speed:.2f} times faster" if speed >= 1 else f"slower ({speed:.2f} times the speed)"


def _size(row: dict[str, Any]) -> str:
    ratio = row["size_ratio"]
    if ratio is None:
        return "of unknown size"
    return f"{ratio:.2f} times smaller" if ratio >= 1 else f"larger (FP32 has {ratio:.2f} times its size)"


def _judgement(row: dict[str, Any], max_drop: float) -> str:
    within = f"within the allowed {max_drop:g}" if row["drop_top1"] <= max_drop else f"above the allowed {max_drop:g}"
    if row["enough_images"]:
        return within
    needed = row["images_needed"]
    if needed is None:
        return f"{within} as measured, but not enough images to tell, and so close to it that no number would do"
    return f"{within} as measured, but not enough images to tell; about {needed:,} would be needed"
