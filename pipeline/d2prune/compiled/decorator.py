"""numba's decorators with this project's settings and with types that mypy sees."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

import numba
import numba.extending

from d2prune.compiled.cache import KernelCache

P = ParamSpec("P")
R = TypeVar("R")


@overload
def kernel(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def kernel(**options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def kernel(function: Any = None, /, **options: Any) -> Any:
    """Compile a function to machine code that is cached on disk and runs without the GIL.

    Args:
        function: the function, if the decorator is used without parentheses.
        **options: further options of `numba.njit`, such as `inline`, `error_model` or `fastmath`.

    Returns:
        The compiled function, with the signature of the original.
    """

    def compile_function(function: Any) -> Any:
        compiled = numba.njit(nogil=True, **options)(function)
        # With NUMBA_DISABLE_JIT the result is the function itself.
        if compiled is not function:
            # What `enable_caching` does with numba's own class.
            compiled._cache = KernelCache(compiled, options)
        return compiled

    return compile_function if function is None else compile_function(function)


intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.extending.intrinsic
"""`numba.extending.intrinsic`: kernels call the decorated function without its typing context."""
