"""Returns, advantages and the baseline, computed anew with plain loops."""

import numpy as np
import torch

from fewstep import rl


def ragged(tasks=2, episodes=3, time=7):
    lengths = torch.randint(2, time + 1, (tasks, episodes))
    mask = (torch.arange(time) < lengths[..., None]).double()
    return torch.randn(tasks, episodes, time).double(), mask, lengths


def test_generalized_advantages_by_their_definition():
    rewards, mask, lengths = ragged()
    values = torch.randn_like(rewards)
    found = rl.generalized_advantages(rewards, values, mask, discount=0.9, gae_lambda=0.7)
    for i, e in np.ndindex(2, 3):
        length = int(lengths[i, e])
        v = [*values[i, e, :length].tolist(), 0.0]
        delta = [rewards[i, e, t].item() + 0.9 * v[t + 1] - v[t] for t in range(length)]
        expected = [sum((0.9 * 0.7) ** (k - t) * delta[k] for k in range(t, length)) for t in range(length)]
        torch.testing.assert_close(found[i, e, :length], torch.tensor(expected).double())
        assert not found[i, e, length:].any()


def test_with_lambda_1_advantages_are_returns_less_values():
    rewards, mask, _ = ragged()
    values = torch.randn_like(rewards)
    returns = rl.discounted_returns(rewards, mask, 0.9)
    found = rl.generalized_advantages(rewards, values, mask, discount=0.9, gae_lambda=1.0)
    torch.testing.assert_close(found, (returns - values) * mask)


def test_normalisation_is_of_each_task_and_honours_the_mask():
    values, mask, _ = ragged()
    found = rl.normalized(values, mask)
    for i in range(2):
        kept = found[i][mask[i] == 1]
        torch.testing.assert_close(
            torch.stack([kept.mean(), kept.std(correction=0)]), torch.tensor([0.0, 1.0]).double()
        )
    assert not found[mask == 0].any()


def test_the_baseline_is_ridge_regression_on_each_tasks_own_steps():
    returns, mask, _ = ragged()
    observations = 20 * torch.randn(2, 3, 7, 2)
    found = rl.linear_baseline(observations, returns, mask)
    for i in range(2):
        o = observations[i].double().clamp(-10, 10).numpy()
        t = np.broadcast_to(np.arange(7) / 100, (3, 7))[..., None]
        features = np.concatenate([o, o**2, t, t**2, t**3, np.ones_like(t)], -1)
        kept = mask[i].numpy() == 1
        x, y = features[kept], returns[i].numpy()[kept]
        rows = np.concatenate([x, np.sqrt(1e-5) * np.eye(x.shape[1])]), np.concatenate([y, np.zeros(x.shape[1])])
        weights = np.linalg.lstsq(*rows, rcond=None)[0]
        torch.testing.assert_close(found[i], torch.from_numpy(features @ weights), rtol=1e-6, atol=1e-6)
