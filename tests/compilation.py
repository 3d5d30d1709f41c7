"""How programs of the tests are compiled, set on import, which has to precede that of JAX.

Most programs of the tests run for milliseconds, and compiling them without optimization takes a third of the time.
Tests that are marked "exact" run where LAZYNET_TEST_EXACT is set, in a process that compiles as users do.
"""

import os
from importlib.metadata import version

EXACT = "LAZYNET_TEST_EXACT" in os.environ
UNOPTIMIZED = "jax_disable_most_optimizations"
FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    # Later versions have no such emitters for a CPU, and end at a flag that they do not know.
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
if not EXACT and FLAGS not in os.environ.get("XLA_FLAGS", ""):
    # The flags that a developer gives come last and win.
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
os.environ.setdefault(UNOPTIMIZED.upper(), "0" if EXACT else "1")
