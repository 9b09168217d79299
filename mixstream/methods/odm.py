"""ODM: a bandit (EXP3) that reads more of the sources on which the training loss is high.

Source: Albalak et al. 2023, Efficient Online Data Mixing (arXiv 2312.02406) and its authors' code,
github.com/alon-albalak/online-data-mixing. In round t one source i is drawn with probability pi_i, a batch
of it trained on, and its loss is the reward:

    R_i    <- R_i + r_i / pi_i,   r_i = loss / 10                    of the source drawn; the others keep theirs
    eps_t   = min(1 / K, sqrt(ln K / (K t)))                         exploration
    pi_i    = (1 - K eps_t) exp(eps_(t-1) R_i) / sum_j exp(eps_(t-1) R_j) + eps_t

as the code has it (it also divides the loss by 10). Every pi_i is at least eps_t.

Ours: a batch of our loader holds all sources in exact proportion, so a round is a batch and all arms are
seen in it. Over n rounds at probabilities pi that source is drawn in n pi_i of them, and its sum grows by
n pi_i x r_i / pi_i = n r_i: the importance weight cancels, and what is added is the expectation of the
code's sum without the noise of its draws. In the code the next draw of a source that was long not drawn makes
up for that by 1 / pi_i. Here nothing would, so a source that was not read, since it has not joined or its share
of the rounds is less than a row, adds the mean reward of the rows that were: it stays where it was among them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mixstream.errors import MixtureError, StateError
from mixstream.methods.learning.losses import told_losses
from mixstream.methods.learning.online import Observation, Signal
from mixstream.mixture.simplex import Float64, is_real


def exploration(rounds: int, num_sources: int) -> float:
    """Return eps_t = min(1 / K, sqrt(ln K / (K t))), the least probability of a source; 1 / K before round 1."""
    if rounds == 0:
        return 1 / num_sources
    return min(1 / num_sources, math.sqrt(math.log(num_sources) / (num_sources * rounds)))


def add_rewards(rewards: Float64, losses: Float64, shares: Float64, rounds: int, scale: float) -> Float64:
    """Return R after some rounds in which every source was read in proportion: R_i + n loss_i / scale.

    A source that was not read has the mean loss, sum_j p_j loss_j.

    Args:
        rewards: (K,) R.
        losses: (K,) mean training losses of these rounds in nats/token, nan of a source that was not read.
        shares: (K,) p, what part of the rows each source had, sum 1; 0 of what was not read.
        rounds: n.
        scale: what a loss is divided by, so that rewards are of order 1.
    """
    is_read = ~np.isnan(losses)
    mean = float(shares[is_read] @ losses[is_read])
    added: Float64 = rounds * np.where(is_read, losses, mean) / scale
    return rewards + added


def exp3_weights(rewards: Float64, rounds: int) -> Float64:
    """Return pi after round t, (K,), each at least eps_t.

    The greatest reward is subtracted before the exponential, so that no sum of rewards overflows.

    Args:
        rewards: (K,) R.
        rounds: t, at least 1.
    """
    count = len(rewards)
    now = exploration(rounds, count)
    raised = np.exp(exploration(rounds - 1, count) * (rewards - rewards.max()))
    weights: Float64 = (1 - count * now) * raised / raised.sum() + now
    return weights


class ODM:
    """EXP3 on training losses; keeps the sums of rewards and the batch that they are of."""

    needs: Signal | None = "losses"

    def __init__(self, *, reward_scale: float = 10.0) -> None:
        """Learn from losses divided by `reward_scale`.

        Raises:
            MixtureError: a scale that is not positive.
        """
        if not is_real(reward_scale) or not 0 < reward_scale < math.inf:
            raise MixtureError(f"reward_scale={reward_scale!r}; expected a finite number above 0, ODM's is 10")
        self._scale = reward_scale
        self._rewards: Float64 | None = None
        self._batch = 0

    def update(self, seen: Observation) -> Float64:
        """Return the weights after the batches since the last update.

        Raises:
            ScoreError: a loss that is not a number though its source was read.
            StateError: the state is of another number of sources.
        """
        losses = told_losses(seen)
        rewards = np.zeros(len(losses)) if self._rewards is None else self._rewards
        if len(rewards) != len(losses):
            raise StateError(
                f"ODM's state is of {len(rewards)} sources, the run has {len(losses)}; resume with the plan it was "
                f"saved under"
            )
        self._rewards = add_rewards(rewards, losses, seen.shares, seen.batch - self._batch, self._scale)
        self._batch = seen.batch
        return exp3_weights(self._rewards, seen.batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of rewards and their batch."""
        return {"rewards": None if self._rewards is None else self._rewards.tolist(), "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._rewards = None if state["rewards"] is None else np.array(state["rewards"], dtype=np.float64)
        self._batch = state["batch"]
