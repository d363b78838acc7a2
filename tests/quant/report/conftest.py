import numpy as np
import pytest

from quant.evaluate import Evaluation


@pytest.fixture(scope="session")
def evaluation():
    """An evaluation out of labels, answers, confidences and margins; images are called a.png, b.png and so on."""

    def make(labels, predicted, confidence=None, margin=None):
        count = len(predicted)
        column = lambda values, default: np.array(values if values is not None else [default] * count, np.float32)  # noqa: E731
        return Evaluation(
            images=count,
            labels=None if labels is None else np.array(labels),
            predicted=np.array(predicted),
            in_top5=None,
            confidence=column(confidence, 0.5),
            margin=column(margin, 1.0),
            cosine=1.0,
            sqnr_db=30.0,
            names=tuple(f"{chr(97 + i)}.png" for i in range(count)),
        )

    return make
