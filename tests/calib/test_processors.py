import pytest

from calib import processors
from calib.processors import usable_processors


@pytest.mark.usefixtures("one_processor")
def test_processors_that_the_process_may_not_use_do_not_count():
    assert usable_processors() == 1


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups as files: the lines of /proc/self/cgroup, and the files of groups by path."""
    monkeypatch.setattr(processors, "_GROUPS", tmp_path / "self")
    monkeypatch.setattr(processors, "_MOUNT", tmp_path / "mount")
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

    def write(lines, **files):
        (tmp_path / "self").write_text("".join(f"{line}\n" for line in lines))
        for path, text in files.items():
            file = tmp_path / "mount" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", 16), ("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1), ("?", 16), ("", 16)],
)
def test_a_containers_quota_bounds_them(groups, text, expected):
    groups(["0::/"], **{"cpu.max": text})
    assert usable_processors() == expected


def test_the_least_quota_of_the_groups_above_counts(groups):
    files = {"a/b/c/cpu.max": "max 100000", "a/b/cpu.max": "800000 100000", "a/cpu.max": "300000 100000"}
    groups(["0::/a/b/c"], **files)
    assert usable_processors() == 3


def test_a_quota_of_the_older_control_groups_counts(groups):
    files = {"cpu/docker/x/cpu.cfs_quota_us": "400000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"}
    groups(["4:cpu,cpuacct:/docker/x", "1:name=systemd:/docker/x"], **files)
    assert usable_processors() == 4
    groups([], **{"cpu/docker/x/cpu.cfs_quota_us": "-1\n"})
    groups(["4:cpu,cpuacct:/docker/x"])
    assert usable_processors() == 16


def test_without_control_groups_all_count(groups):
    assert usable_processors() == 16
