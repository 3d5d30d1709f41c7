"""Run studies: read the stored cells of a study, compute and store the missing cells, and assemble the result."""

from lazynet.execution._files import result_files, write_figures, write_file
from lazynet.execution._folder import RunFolder, as_run_folder
from lazynet.execution._progress import Stages, TaskProgress, product_rate
from lazynet.execution._provenance import provenance
from lazynet.execution._runner import Output, Study, Task, assemble_shards, check_same_on_all_hosts, run
from lazynet.execution._store import RESULT, Arrays, Store, open_store
from lazynet.execution._store import Status as StoreStatus

__all__ = [
    "RESULT",
    "Arrays",
    "Output",
    "RunFolder",
    "Stages",
    "Store",
    "StoreStatus",
    "Study",
    "Task",
    "TaskProgress",
    "as_run_folder",
    "assemble_shards",
    "check_same_on_all_hosts",
    "open_store",
    "product_rate",
    "provenance",
    "result_files",
    "run",
    "write_figures",
    "write_file",
]
