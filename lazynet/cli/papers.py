"""`lazynet reproduce`: the figures and statements of a paper, computed and checked."""

import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from lazynet.cli.common import FAILED_CHECK, print_json
from lazynet.sweep import Stages, check_new_folder, write_figures


@dataclass
class Reproduce:
    """Compute the figures of a paper and check what it claims."""

    paper: tyro.conf.Positional[Literal["arora2019"]]
    """Which paper: arora2019 (Arora, Du, Hu, Li and Wang, Fine-Grained Analysis)."""
    size: Literal["tiny", "small", "paper"] = "small"
    """tiny takes below a minute and no files, small some ten minutes on two cores, paper has the paper's n."""
    out: Path | None = None
    """New folder for summary.json and figures/."""
    check: bool = False
    """End with exit code 1 when a claim fails."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Reproduce; the exit code."""
        check_new_folder(self.out)
        module = importlib.import_module(f"lazynet.papers.{self.paper}")
        begun = time.perf_counter()
        with Stages(shown=not self.json) as stages:
            found = module.reproduce(self.size, lambda stage: stages.tell(stage, 0.0))
        summary = {"paper": self.paper, "size": self.size, "seconds": round(time.perf_counter() - begun, 1)}
        summary |= found.summary()
        if self.out is not None:
            self.out.mkdir(parents=True)
            (self.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
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
