"""Compilation of LLVM IR for the host processor."""

from typing import Any


def machine_code(assembly: str) -> Any:
    """Compile a module in LLVM IR.

    Compilation takes tens of milliseconds.

    Args:
        assembly: LLVM IR source text of the module.

    Returns:
        The LLVM execution engine, whose method `get_function_address` returns the address of a function. The engine
        owns the machine code, so it must be kept alive.
    """
    # LLVM is slow to load and is not needed to import lazynet.
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(assembly), machine)
    engine.finalize_object()
    return engine
