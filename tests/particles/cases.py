"""Problems that the tests of the particle study share."""

import jax
import jax.numpy as jnp
import numpy as np

from damjax import particles
from damjax.particles import bigrams, embeddings

GOOD = {
    "input_gram": np.eye(3),
    "output_gram": np.eye(2),
    "frequencies": np.full(3, 1 / 3),
    "targets": np.eye(2)[[0, 1, 1]],
}


def random_instance(key, num_tokens, dim, *, kind="gaussian", num_classes=3):
    """Embeddings and a problem of a kind: inputs, outputs, problem."""
    keys = jax.random.split(key, 4)
    if kind == "low rank":
        factors = jax.random.normal(keys[0], (num_tokens, 2)) @ jax.random.normal(keys[3], (2, dim))
        inputs = factors / jnp.linalg.norm(factors, axis=1, keepdims=True)
    elif kind == "correlated":
        inputs = 0.9 + 0.3 * embeddings.gaussian(keys[0], num_tokens, dim)
    else:
        inputs = embeddings.gaussian(keys[0], num_tokens, dim)
    outputs = embeddings.gaussian(keys[1], num_classes, dim + 1)
    classes = jax.random.randint(keys[2], (num_tokens,), 0, num_classes)
    frequencies = embeddings.zipf(num_tokens)
    targets = jax.nn.one_hot(classes, num_classes)
    return inputs, outputs, particles.from_embeddings(inputs, outputs, frequencies, targets)


PROBLEM = particles.Problem(**GOOD)

# Tokens, triggers and length of the small bigram task.
V, K, T = 7, 2, 12
# Compiled, since one by one its operations would take longer to compile.
sample = jax.jit(bigrams.sample, static_argnums=2)


def small_task(key=0, outputs=None, length=T):
    """The bigram-with-triggers task of these sizes."""
    source = bigrams.zipf_source(jax.random.key(key), V)
    return bigrams.trigger_task(source, num_triggers=K, length=length, outputs=outputs)
