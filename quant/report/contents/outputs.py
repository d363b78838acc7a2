"""How close a build's outputs are to the baseline's, output by output, and what it does where it is deployed."""

from __future__ import annotations

from typing import Any

from quant.evaluation.accuracy import Evaluation
from quant.evaluation.deployment import differs, missing_instructions, most_changed
from quant.evaluation.fidelity import OutputFidelity
from quant.report.contents.figures import rounded


def outputs_from_evaluation(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row for each compared output, the worst first; SQNR in dB, null where the output is equal to the baseline's."""
    rows = sorted(evaluation.fidelity, key=lambda fidelity: fidelity.floor_db)
    return [_row(fidelity) for fidelity in rows]


def _row(fidelity: OutputFidelity) -> dict[str, Any]:
    return {
        "name": fidelity.name,
        "sqnr_db": rounded(fidelity.sqnr_db, 3),
        "worst_db": rounded(fidelity.floor_db, 3),
        "worst_channel": fidelity.worst_channel,
        "worst_channel_db": rounded(fidelity.worst_channel_db, 3),
        "groups": [
            {
                "first": group.first,
                "last": group.last,
                "channels": group.channels,
                "sqnr_db": rounded(group.sqnr_db, 3),
            }
            for group in fidelity.groups
        ],
    }


def deployed_from_evaluation(evaluation: Evaluation) -> dict[str, Any] | None:
    """The build as it is deployed beside the build as it is written, on the same images; null where both are one."""
    written, deployed = evaluation.written, evaluation.deployed
    if written is None or deployed is None:
        return None
    pair = most_changed(evaluation)
    return {
        "images": deployed.images,
        "sqnr_db": rounded(deployed.sqnr_db, 3),
        "top1": rounded(deployed.top1, 4),
        "written_sqnr_db": rounded(written.sqnr_db, 3),
        "written_top1": rounded(written.top1, 4),
        "output": None if pair is None else pair[0].name,
        "output_db": None if pair is None else rounded(pair[1].floor_db, 3),
        "written_output_db": None if pair is None else rounded(pair[0].floor_db, 3),
        "differs": differs(evaluation),
        "missing_instructions": missing_instructions() or None,
    }
