"""A function and its gradient as one compiled graph. The learner asks for it; nothing else needs it."""

from fewstep.compiling.compiled_gradient import CompiledGradient, compiler_missing

__all__ = ["CompiledGradient", "compiler_missing"]
