"""Two caches side by side: the ratio of amax, worst first."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass

from calib.caches.cache import CalibrationCache
from calib.texts import plain_text, table_of_names, wrapped


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that both caches hold.

    Attributes:
        tensor: Its name.
        first: amax in the first cache, activation units.
        second: amax in the second.
        ratio: second / first.
    """

    tensor: str
    first: float
    second: float
    ratio: float


@dataclass(frozen=True)
class CacheDifference:
    """How two caches differ.

    Attributes:
        tensors: Tensors in both; those whose ratio is furthest from 1, in either direction, come first.
        only_first: Tensors that the second cache lacks.
        only_second: Tensors that the first cache lacks.
    """

    tensors: tuple[TensorDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def median_ratio(self) -> float | None:
        """Median of the ratios; None when no tensor is in both."""
        return statistics.median(t.ratio for t in self.tensors) if self.tensors else None

    def share_within(self, tolerance: float) -> float:
        """Share, 0..1, of the tensors in both whose ratio is within 1 - tolerance .. 1 + tolerance."""
        near = sum(abs(t.ratio - 1) <= tolerance for t in self.tensors)
        return near / len(self.tensors) if self.tensors else 0.0


def difference(first: CalibrationCache, second: CalibrationCache) -> CacheDifference:
    """Compare two caches tensor by tensor."""
    a, b = first.amax, second.amax
    both = [TensorDifference(name, a[name], b[name], b[name] / a[name]) for name in a if name in b]
    return CacheDifference(
        tuple(sorted(both, key=lambda t: -abs(math.log(t.ratio)))),
        tuple(name for name in a if name not in b),
        tuple(name for name in b if name not in a),
    )


def json_from_difference(found: CacheDifference) -> str:
    """The whole difference as JSON."""
    document = {
        "median_ratio": found.median_ratio,
        "tensors": [asdict(tensor) for tensor in found.tensors],
        "only_first": found.only_first,
        "only_second": found.only_second,
    }
    return json.dumps(document, indent=1) + "\n"


def text_from_difference(found: CacheDifference, names: tuple[str, str], width: int | None = None) -> str:
    """A table for people: the median ratio, the tensors with the worst first, and those that only one cache holds.

    Args:
        found: What to show.
        names: What to call the two caches.
        width: Columns of the terminal; None for any.
    """
    if not found.tensors:
        lines = ["no tensors in both"]
    else:
        shares = (f"{found.share_within(part):.0%} within {part:.0%}" for part in (0.01, 0.05))
        summary = f"{len(found.tensors)} tensors in both; amax of {names[1]} over {names[0]}: "
        summary += f"median ratio {found.median_ratio:.4f}, {', '.join(shares)}"
        rows = [(plain_text(t.tensor), (f"{t.first:.6g}", f"{t.second:.6g}", f"{t.ratio:.4f}")) for t in found.tensors]
        lines = [*wrapped(summary, width), *table_of_names(("tensor", "amax A", "amax B", "ratio"), rows, width)]
    for name, only in zip(names, (found.only_first, found.only_second), strict=True):
        if only:
            lines += [f"only in {name}, {len(only)}:", *(f"  {plain_text(tensor)}" for tensor in only)]
    return "\n".join(lines) + "\n"
