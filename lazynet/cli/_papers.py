"""`lazynet reproduce`: compute the figures of a paper and check its claims."""

import importlib
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Literal

import tyro

from lazynet.cli._common import (
    FAILED_CHECK,
    Folder,
    Switch,
    in_words,
    print_json,
    print_plan,
    stoppable,
)
from lazynet.execution import Stages, product_rate, write_figures, write_file
from lazynet.papers.work import Work
from lazynet.plan import Job


@dataclass
class Reproduce:
    """Compute the figures of a paper and check its claims."""

    paper: tyro.conf.Positional[Literal["arora2019", "li2018"]]
    """Paper: arora2019 (Arora et al., Fine-Grained Analysis) or li2018 (Li and Liang, SGD on Structured Data)."""
    size: Literal["tiny", "small", "paper"] = "small"
    """Size: tiny (one minute, no downloads), small (ten minutes on two cores) or paper (the paper's data)."""
    folder: tyro.conf.OmitArgPrefixes[Folder] = field(default_factory=Folder)
    plan: Switch = False
    """Print the memory and number of operations that the reproduction needs, and exit."""
    check: Switch = False
    """Exit with code 1 if a claim fails."""
    json: Switch = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Run the reproduction and return the exit code."""
        out = self.folder.out
        self.folder.open()
        module = importlib.import_module(f"lazynet.papers.{self.paper}")
        if self.plan:
            return print_plan(module.jobs(self.size), self.json)
        begin = time.perf_counter()
        if self.size == "paper":
            print(estimate(module.jobs(self.size), product_rate("float32")), file=sys.stderr)
        with (
            Stages(shown=not self.json) as stages,
            Work(self.paper, self.size, out, stages.tell, self.folder.max_seconds) as work,
        ):
            # A TimeoutError can come from a download as well as from the time limit.
            with stoppable(out, lambda: work.out_of_time):
                reproduction = module.reproduce(self.size, work)
            summary = {"paper": self.paper, "size": self.size, "seconds": round(time.perf_counter() - begin, 1)}
            summary |= reproduction.summary()
            if out is not None:
                write_file(out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
                write_figures(out, reproduction.figures)
        if self.json:
            print_json(**summary)
        else:
            claims, figures = reproduction.claims, reproduction.figures
            print(*claims, sep="\n")
            print(f"\n{sum(claim.holds for claim in claims)} of {len(claims)} claims hold.")
            if out is not None:
                print(f"Written to {out}: summary.json, {len(figures)} figures")
        return FAILED_CHECK if self.check and not reproduction.passed else 0


def estimate(jobs: list[Job], rate: float) -> str:
    """List the estimated minimum time for each job in a long reproduction, as text.

    Args:
        jobs: Jobs in the reproduction.
        rate: Floating-point operations per second that this machine achieves in a matrix multiplication.
    """
    lines = [f"{job}: {in_words(job.seconds(rate))} or more" for job in jobs]
    return "\n".join([*lines, f"on this machine, which computes matrix products at {rate / 1e9:.0f} GFLOP/s"])
