"""Labelled results: what ``damjax.sweep`` returns, and its statistics over seeds as methods of any xarray.Dataset.

Importing this module gives every Dataset with a "seed" dimension, fresh or read from a file, those of ``Statistics``:

    results.sweep.mean()                                   mean over seeds
    results.sweep.normal_interval()                        its 95% interval
    results.sweep.bootstrap_interval(key)                  the same, by resampling the seeds
    results.sweep.paired_difference("algorithm", "OGD")    seed by seed, against one algorithm
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.stats
from jaxtyping import Array, Key

from damjax._checks import missing_extra
from damjax.sweeps.axes import matching
from damjax.sweeps.plan import SEED, own_dims

try:
    import xarray as xr
except ImportError as _error:
    raise missing_extra("labelled results need xarray", "sweeps") from _error

__all__ = ["Statistics", "label"]


FINITE, LIMIT, RESAMPLE = "finite", "limit", "resample of the seeds"


def label(
    arrays: Mapping[str, np.ndarray],
    coordinates: Mapping[str, tuple[str, np.ndarray]],
    dims: tuple[str, ...],
    batch_size: int,
    own_dims_of: Mapping[str, tuple[str, ...]] | None = None,
) -> xr.Dataset:
    """Arrays over ``dims``, and own axes that are called as the mapping says, or else by their number, as a Dataset.

    Example:
        >>> labelled = label({"loss": np.zeros((2, 4, 3))}, {"rho": ("rho", np.array([0.0, 1.0]))}, ("rho", SEED), 4)
        >>> labelled.loss.dims
        ('rho', 'seed', 'loss_0')
    """
    named = {name: own_dims(name, array.ndim - len(dims)) for name, array in arrays.items()} | dict(own_dims_of or {})
    variables = {name: ((*dims, *named[name]), array) for name, array in arrays.items()}
    seeds = np.arange(next(iter(arrays.values())).shape[len(dims) - 1])
    return xr.Dataset(variables, coords={**coordinates, SEED: seeds, "batch_size": batch_size})


@xr.register_dataset_accessor("sweep")
class Statistics:
    """Statistics of a sweep along its seeds. NaN stays NaN: a run that failed is never left out in silence.

    Example:
        >>> runs = xr.Dataset(
        ...     {"loss": (("algorithm", "seed"), np.array([[1.0, 3.0, 2.0], [2.0, 4.0, 3.5]]))},
        ...     coords={"algorithm": ["OGD", "C-DOGD"], "seed": [0, 1, 2]})
        >>> runs.sweep.mean().loss.values.round(3).tolist()
        [2.0, 3.167]
        >>> gap = runs.sweep.paired_difference("algorithm", "OGD")
        >>> gap.loss.sel(algorithm="C-DOGD").values.tolist()
        [1.0, 1.0, 1.5]
        >>> gap.sweep.normal_interval().loss.sel(algorithm="C-DOGD").values.round(2).tolist()
        [0.45, 1.88]
    """

    def __init__(self, dataset: xr.Dataset):
        if SEED not in dataset.dims:
            raise ValueError(f"the dataset must have the dimension 'seed', but it has {list(dataset.dims)}")
        self._dataset = dataset

    def mean(self) -> xr.Dataset:
        """The mean over seeds; of ``finite`` it is the share of runs without NaN or infinity."""
        numbers = self._numbers()
        if FINITE in self._dataset:
            numbers[FINITE] = self._dataset[FINITE].astype(float)
        return numbers.mean(SEED, skipna=False)

    def normal_interval(self, level: float = 0.95) -> xr.Dataset:
        """Ends of the interval of the mean, along a new last dimension "limit": "low" and "high".

        mean -+ t s / sqrt(S), exact for normal samples: s is their standard deviation and t the quantile of Student's
        distribution with S - 1 degrees of freedom (at 95% 4.30 for three seeds, 1.96 for very many).

        Args:
            level: of confidence, in (0, 1).

        Raises:
            ValueError: a level outside (0, 1), fewer than two seeds, results that are complex.
        """
        self._check(level)
        num_seeds = self._dataset.sizes[SEED]
        numbers = self._real_numbers()
        quantile = scipy.stats.t.ppf((1 + level) / 2, num_seeds - 1)
        half = quantile * numbers.std(SEED, ddof=1, skipna=False) / num_seeds**0.5
        return _ends(numbers.mean(SEED, skipna=False) - half, numbers.mean(SEED, skipna=False) + half)

    def bootstrap_interval(self, key: Key[Array, ""], level: float = 0.95, num_resamples: int = 2000) -> xr.Dataset:
        """As ``normal_interval``, from quantiles of the means of resampled seeds; for samples that are far from normal.

        Every setting is resampled alike, so the seeds stay paired.

        Args:
            key: typed PRNG key.
            level: of confidence, in (0, 1).
            num_resamples: how many means.
        """
        self._check(level)
        num_seeds = self._dataset.sizes[SEED]
        shares = np.asarray(jax.random.multinomial(key, num_seeds, np.full((num_resamples, num_seeds), 1 / num_seeds)))
        weights = xr.DataArray(shares / num_seeds, dims=(RESAMPLE, SEED))

        def ends(values: xr.DataArray) -> xr.DataArray:
            means = xr.dot(values, weights, dim=SEED)
            return means.quantile([(1 - level) / 2, (1 + level) / 2], RESAMPLE, skipna=False)

        both = self._real_numbers().map(ends).drop_vars("quantile")
        return _ends(both.isel(quantile=0), both.isel(quantile=1))

    def paired_difference(self, dim: str, baseline: Any) -> xr.Dataset:
        """Every setting along ``dim`` less the ``baseline``, seed by seed.

        Args:
            dim: such as "algorithm".
            baseline: its label.

        Returns:
            A Dataset with seeds, whose mean and interval are those of the differences; ``finite`` where both are.

        Raises:
            ValueError: no such dimension or label, or a label that comes twice.
        """
        dataset = self._dataset
        if dim not in dataset.dims or dim == SEED:
            raise ValueError(f"dim must be an axis of the sweep, but it is {dim!r}; there are {list(dataset.dims)}")
        places = np.flatnonzero(matching("baseline", dataset[dim].values, np.asarray(baseline)))
        if not len(places):
            raise ValueError(
                f"baseline must be a label of {dim}, but no setting has {baseline!r}; there are"
                f" {dataset[dim].values.tolist()}"
            )
        # Others may come twice: of axes that are zipped, only one makes the labels.
        if len(places) > 1:
            raise ValueError(
                f"baseline must be the label of one setting, but {len(places)} along {dim} have {baseline!r}, at the"
                f" places {places.tolist()}; drop all but one of them, such as by drop_duplicates({dim!r})"
            )
        place = {dim: int(places[0])}
        numbers = self._numbers()
        differences = numbers - numbers.isel(place, drop=True)
        if FINITE in dataset:
            differences[FINITE] = dataset[FINITE] & dataset[FINITE].isel(place, drop=True)
        return differences

    def _numbers(self) -> xr.Dataset:
        """The variables that have seeds, in double precision; yes and no are 1 and 0."""
        arrays = {name: array for name, array in self._dataset.items() if SEED in array.dims and name != FINITE}
        numeric = {
            name: array.astype(complex if array.dtype.kind == "c" else float)
            for name, array in arrays.items()
            if array.dtype.kind in "biufc"
        }
        return self._dataset[list(numeric)].assign(numeric)

    def _real_numbers(self) -> xr.Dataset:
        numbers = self._numbers()
        if complex_names := [name for name, array in numbers.items() if array.dtype.kind == "c"]:
            raise ValueError(
                f"intervals exist for real results, but {complex_names} are complex; replace each by its parts, such as"
                f" dataset.assign({complex_names[0]}=abs(dataset[{complex_names[0]!r}])), or drop it by drop_vars"
            )
        return numbers

    def _check(self, level: float) -> None:
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), but it is {level}")
        if self._dataset.sizes[SEED] < 2:
            raise ValueError("an interval needs at least two seeds, but there is one")


def _ends(low: xr.Dataset, high: xr.Dataset) -> xr.Dataset:
    limits = xr.DataArray(["low", "high"], dims=LIMIT, name=LIMIT)
    return xr.concat([low, high], dim=limits).transpose(..., LIMIT)
