"""What was done about an INT8 build that lost too much, as data."""

from __future__ import annotations

from typing import Any

from quant.report.contents.figures import rounded
from quant.report.contents.sensitivity import rows_of_sensitivities
from quant.report.result import Recovered
from quant.settings.output_names import PRECISIONS, RECOVERED_CACHE, RECOVERED_MODEL


def recovery_from_result(recovered: Recovered | None) -> dict[str, Any] | None:
    """The key `recovery` of a report; None where nothing had to be done."""
    if recovered is None:
        return None
    recovery = recovered.recovery
    left = recovery.candidate.float_nodes
    total = sum(recovery.macs.values())
    return {
        "before": recovered.first,
        "used": recovered.used,
        "met": recovered.used and recovery.met,
        "steps": [
            {
                "step": rung.step,
                "kept": rung.kept,
                "outcome": "kept" if rung.kept else "not better",
                "before_db": rounded(rung.before_db, 2),
                "after_db": rounded(rung.after_db, 2),
                "gain_db": rounded(rung.after_db - rung.before_db, 2),
                "seconds": round(rung.seconds, 2),
                "detail": rung.detail,
            }
            for rung in recovery.rungs
        ],
        "looks": list(recovery.looks),
        "algo": recovery.candidate.algo,
        "int8_share": rounded(100 * recovery.int8_share, 2),
        "float_nodes": sorted(left),
        "sensitivity": rows_of_sensitivities(recovery.sensitivities, total, left),
        "evaluations": recovery.evaluations + len(recovery.looks),
        "seconds": round(recovery.seconds, 2),
        "model": RECOVERED_MODEL if recovered.used else None,
        "cache": RECOVERED_CACHE if recovered.used else None,
        "precisions": PRECISIONS if recovered.precisions else None,
    }
