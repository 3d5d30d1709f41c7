"""Hosts learn of each other's errors, agree on what they do, and end with a clear message if one is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lazynet import hosts

SCRIPT = Path(__file__).with_name("on_hosts.py")


def run_hosts(out, killed="none"):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, address, str(host), out, str(killed)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in (0, 1)
    ]
    printed = [process.communicate(timeout=90) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, printed, strict=True)]


@pytest.mark.whole
def test_two_hosts_agree_and_hear_of_each_other(tmp_path):
    ends = run_hosts(tmp_path)
    assert [code for code, _, _ in ends] == [2, 2], ends
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith('["')] for _, out, _ in ends]
    first, second = ({stage: error for stage, *error in host} for host in lines)
    refused = "steps must be a positive integer, got 0."
    assert first["arguments"] == ["HostStopped", f"Host 1 stopped: ValueError: {refused}"]
    assert second["arguments"] == ["ValueError", refused]
    differ = "All hosts must be given the same study, but host 1 has steps = 6 instead of 5."
    assert first["steps"] == second["steps"] == ["ValueError", differ]
    assert first["time"] == second["time"]
    assert first["time"][0] == "TimeoutError"
    assert second["measure"] == ["ValueError", "the measure fails"]
    # The first host may be waiting for the devices of the second one, in which case its process ends.
    assert "Host 1 stopped: ValueError: the measure fails." in first.get("measure", ends[0][2])
    # The hosts are at different points of the program, so they share no work until they are restarted.
    assert second["after"][0] == "HostStopped"
    assert len(list(tmp_path.glob("measure/cells/*.npz"))) == 1


@pytest.mark.whole
@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_host_ends_the_other_one(killed, tmp_path):
    ends = run_hosts(tmp_path, killed)
    assert ends[killed][0] == -signal.SIGKILL
    code, _, printed = ends[1 - killed]
    assert code == 2, printed
    (sentence,) = [line for line in printed.splitlines() if line.startswith("lazynet: ")]
    assert sentence.startswith(f"lazynet: Host {killed} was lost: ")


def test_a_single_host_agrees_with_itself():
    assert not hosts.several()
    assert hosts.is_first()
    assert hosts.agreed({"α": 1}) == {"α": 1}
    assert hosts.of_all(7) == [7]
    with pytest.raises(ZeroDivisionError), hosts.together(), hosts.working():
        raise ZeroDivisionError
