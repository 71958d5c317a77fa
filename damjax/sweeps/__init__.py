"""Sweeps: one pure function of a key, over settings and seeds, on all devices and hosts, without losing a run.

    job (plan, programs) -> compute, batch by batch, from the store and into it -> labelled results

``damjax.sweep`` is the way in; ``labelled`` gives every xarray.Dataset with seeds its statistics.
"""

__all__: list[str] = []
