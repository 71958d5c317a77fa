"""How much memory is free, and how many runs fit in it."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from damjax._programs import Device


def bytes_per_device(compiled: jax.stages.Compiled) -> int:
    """What XLA says that one call of the program needs on each device; 0 where it does not say."""
    found = compiled.memory_analysis()
    if found is None:
        return 0
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def free_bytes(devices: Sequence[Device]) -> int:
    """Memory that is free for each of these devices."""
    stats = [device.memory_stats() for device in devices]
    if all(stats):
        return min(stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats if stat)
    return _free_host_bytes() // len(devices)


def _free_host_bytes() -> int:
    """Free memory of the machine, or of this process's control group (SLURM, a container) where that is less."""
    free = _read(Path("/proc/meminfo"), r"MemAvailable:\s+(\d+) kB")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else 1024 * free
    root, group = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
    own = re.search(r"^0::/(.*)$", group.read_text(), re.MULTILINE) if group.exists() else None
    folder = root / (own[1] if own else "")
    for place in (folder, *folder.parents):
        limit, used = _read(place / "memory.max", r"(\d+)"), _read(place / "memory.current", r"(\d+)")
        if limit is not None and used is not None:
            # Files that were read count as used, until somebody needs their memory.
            cached = _read(place / "memory.stat", r"^inactive_file (\d+)") or 0
            free = min(free, limit - used + cached)
    return free


def _read(path: Path, pattern: str) -> int | None:
    """The number that the pattern finds in a file; None where there is no such file or number (no limit is "max")."""
    found = re.search(pattern, path.read_text(), re.MULTILINE) if path.is_file() else None
    return int(found[1]) if found else None


def fit_batch_size(compile_for: Callable[[int], Sequence[jax.stages.Compiled]], largest: int, memory: int) -> int:
    """The largest batch, up to ``largest``, whose programs need at most ``memory`` bytes per device.

    Found by compiling: the largest first, then one run, then what lies between by proportion.

    Raises:
        ValueError: not even one run fits.

    Example:
        >>> import jax.numpy as jnp
        >>> compile_for = lambda size: [jax.jit(lambda x: x + 1).lower(jnp.zeros((size, 1024))).compile()]
        >>> fit_batch_size(compile_for, 64, 10 * 8 * 1024)  # 4 KiB in and 4 KiB out for each run
        10
    """
    size, needed = largest, needed_by(compile_for(largest))
    if needed <= memory:
        return size
    alone = needed_by(compile_for(1))
    if alone > memory:
        raise ValueError(
            f"memory is {shown(memory)} per device, but one run needs {shown(alone)}; give more, use fewer devices, or"
            f" return less from run (observe numbers instead of memories)"
        )
    while needed > memory and size > 1:
        # What all runs share, and what each adds.
        size = max(1, min(size - 1, 1 + (size - 1) * (memory - alone) // (needed - alone)))
        needed = needed_by(compile_for(size)) if size > 1 else alone
    return size


def needed_by(programs: Sequence[jax.stages.Compiled]) -> int:
    """Bytes per device of the largest of these programs."""
    return max(bytes_per_device(program) for program in programs)


def shown(size: int) -> str:
    """A number of bytes for people.

    Example:
        >>> shown(10), shown(12_345), shown(3 * 2**30)
        ('10 bytes', '12.1 KiB', '3.0 GiB')
    """
    unit = min((max(size, 1).bit_length() - 1) // 10, 4)
    return f"{size} bytes" if unit == 0 else f"{size / 2 ** (10 * unit):.1f} {'KMGT'[unit - 1]}iB"
