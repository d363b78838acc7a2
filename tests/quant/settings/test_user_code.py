"""Files of a user's own, which are imported."""

import sys

import pytest

from quant.errors import SettingsError
from quant.settings.user_code import load_callable


def test_importing_a_file_leaves_nothing_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "calib_test_helper.py").write_text("SHIFT = 2\n")
    (tmp_path / "own.py").write_text("from calib_test_helper import SHIFT\n\ndef score(x):\n    return x + SHIFT\n")
    (tmp_path / "broken.py").write_text("import calib_test_helper\n1 / 0\n")
    (tmp_path / "script.py").write_text("import sys\n\ndef score(x):\n    return x\n\nsys.exit(0)\n")
    before = sorted(tmp_path.rglob("*"))
    assert load_callable(f"{tmp_path / 'own.py'}:score", "metric")(1) == 3
    with pytest.raises(SettingsError, match="line 2: ZeroDivisionError"):
        load_callable(f"{tmp_path / 'broken.py'}:score", "metric")
    with pytest.raises(SettingsError, match="line 6: SystemExit: 0"):  # the command would end as if it were done
        load_callable(f"{tmp_path / 'script.py'}:score", "metric")
    assert sorted(tmp_path.rglob("*")) == before
    assert not sys.dont_write_bytecode
    monkeypatch.delitem(sys.modules, "calib_test_helper")
