"""Settings that decide how programs are compiled in the tests; this module must be imported before JAX.

Most programs in the tests run for milliseconds, and compiling them without optimization takes a third of the time that
it takes with optimization. Tests marked "exact" run only if LAZYNET_TEST_EXACT is set, in a process that compiles
programs as it does for users.
"""

import os
from importlib.metadata import version

EXACT = "LAZYNET_TEST_EXACT" in os.environ
UNOPTIMIZED = "jax_disable_most_optimizations"
FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    # Later versions have no fusion emitters for CPUs, and they abort if a flag is unknown.
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
if not EXACT and FLAGS not in os.environ.get("XLA_FLAGS", ""):
    # Flags that are already set come last, so that they take precedence.
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"
os.environ.setdefault(UNOPTIMIZED.upper(), "0" if EXACT else "1")
