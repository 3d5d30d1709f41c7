"""`lazynet reproduce`: the figures and statements of a paper, computed and checked."""

import importlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from lazynet.cli._common import FAILED_CHECK, INTERRUPTED, print_json, print_plan
from lazynet.execution._progress import Stages, product_rate
from lazynet.execution._store import write_figures, write_file
from lazynet.experiment._spec import check_new_folder
from lazynet.papers.work import Work
from lazynet.plan import Job


@dataclass
class Reproduce:
    """Compute the figures of a paper and check what it claims."""

    paper: tyro.conf.Positional[Literal["arora2019", "li2018"]]
    """Which paper: arora2019 (Arora, Du, Hu, Li and Wang, Fine-Grained Analysis), li2018 (Li and Liang, SGD on
    Structured Data)."""
    size: Literal["tiny", "small", "paper"] = "small"
    """tiny takes below a minute and no files, small some ten minutes on two cores, paper has the paper's n."""
    out: Path | None = None
    """New folder for summary.json, figures/ and what they are computed from."""
    resume: bool = False
    """Go on with a folder that was begun; one that does not exist is begun."""
    plan: bool = False
    """Print what it takes, and end."""
    check: bool = False
    """End with exit code 1 when a claim fails."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Reproduce; the exit code."""
        check_new_folder(self.out, self.resume)
        module = importlib.import_module(f"lazynet.papers.{self.paper}")
        if self.plan:
            return print_plan(module.jobs(self.size), self.json)
        begun = time.perf_counter()
        if self.size == "paper":
            print(_estimate(module.jobs(self.size)), file=sys.stderr)
        try:
            with Stages(shown=not self.json) as stages:
                work = Work(self.paper, self.size, self.out, stages.tell)
                found = module.reproduce(self.size, work)
        except KeyboardInterrupt:
            if self.out is None:
                raise
            print(f"lazynet: interrupted; --resume goes on with {self.out}", file=sys.stderr)
            return INTERRUPTED
        summary = {"paper": self.paper, "size": self.size, "seconds": round(time.perf_counter() - begun, 1)}
        summary |= found.summary()
        if self.out is not None:
            write_file(self.out / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
            write_figures(self.out, found.figures)
        if self.json:
            print_json(**summary)
        else:
            print(*found.claims, sep="\n")
            failed = sum(not claim.holds for claim in found.claims)
            print(f"\n{len(found.claims) - failed} of {len(found.claims)} claims hold.")
            if self.out is not None:
                print(f"Written to {self.out}: summary.json, {len(found.figures)} figures")
        return FAILED_CHECK if self.check and not found.passed else 0


def _estimate(jobs: list[Job]) -> str:
    """What a long reproduction takes on this machine, and what would ask for another one."""
    rate = product_rate("float32")
    lines = []
    for job in jobs:
        hours = sum(job.flops.values()) / (job.share * rate) / 3600
        lines.append(f"{job}: {hours * 60:.0f} min or more" if hours < 10 else f"{job}: {hours / 24:.0f} days or more")
    return "\n".join([*lines, f"on this machine, whose matrix product does {rate / 1e9:.0f} GFLOP/s"])
