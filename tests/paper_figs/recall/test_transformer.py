"""What the figure of the Transformer at test time claims, in its numbers, at a smaller size."""

import dataclasses

import pytest

from paper_figs.recall import transformer

SMALL = dataclasses.replace(
    transformer.Protocol(), num_seeds=2, num_tuning_seeds=2, num_steps=120, num_points=3, rates=(4.0,)
)


@pytest.mark.long
def test_agents_teach_one_another_the_output_memory():
    panels = transformer.compute(SMALL)
    own, others = ({name: x.mean(axis=0) for name, x in panels[about].samples.items()} for about in ("own", "others"))
    assert others[transformer.CENTRAL][-1] > 0.95
    for name in ("OGD", "C-DOGD", "DAM-TOGD"):
        assert min(own[name][-1], others[name][-1]) > others[transformer.CENTRAL][-1] - 0.05
    assert own["alone"][-1] > 0.95
    assert others["alone"].max() < 0.05
    assert others["DAM-TOGD"][0] < others["OGD"][0] + 0.02
