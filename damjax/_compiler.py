"""Which releases of jaxlib compile sums of products wrongly, and a warning of them."""

import importlib.metadata
import importlib.util
import re
import warnings

import jax

LAST_RIGHT_JAXLIB = "0.10.1"  # pyproject.toml says why, and caps jaxlib there


def warn_of_wrong_sums() -> None:
    """Warn where jax runs on a CPU by a jaxlib that compiles sums of others wrongly; nothing is started to find out."""
    installed = importlib.metadata.version("jaxlib")
    platforms = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
    if sums_go_wrong(installed, platforms, with_plugins=importlib.util.find_spec("jax_plugins") is not None):
        warnings.warn(
            f"jaxlib {installed} compiles some sums of products wrongly on CPUs (jax issue 39103): damjax's own are"
            f" written so that they are right, but those in your functions may not be; install"
            f" 'jaxlib<={LAST_RIGHT_JAXLIB}'",
            RuntimeWarning,
            stacklevel=3,
        )


def sums_go_wrong(jaxlib: str, platforms: str | None, *, with_plugins: bool) -> bool:
    """Whether this jaxlib will compile for a CPU, and is one that gets sums wrong.

    Args:
        jaxlib: its version.
        platforms: that jax may use, the preferred one first, as in JAX_PLATFORMS; None or "" where it chooses.
        with_plugins: whether there are plugins for accelerators, which jax then prefers.

    Example:
        >>> sums_go_wrong("0.12.0.1", None, with_plugins=False), sums_go_wrong("0.10.1", "cpu", with_plugins=False)
        (True, False)
    """
    on_cpu = platforms.startswith("cpu") if platforms else not with_plugins
    return on_cpu and _release(jaxlib) > _release(LAST_RIGHT_JAXLIB)


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version starts with."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
