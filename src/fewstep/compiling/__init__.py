"""Compilation of a function and its gradient as one graph, for ``MetaLearner(compile=True)``."""

from fewstep.compiling.compiled_gradient import CompiledGradient, compiler_missing

__all__ = ["CompiledGradient", "compiler_missing"]
