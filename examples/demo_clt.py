"""The demo's cross-layer transcoder while it learns; what it becomes is in ``Clt.files``.

Everything is learned in scaled units: inputs divided by one number per layer, outputs centred and
divided by their standard deviation (one number per layer), so that the layers weigh the same.
The first position (BOS) always holds the same vectors. It enters every batch as one row, is
rebuilt with a weight of its own, and is left out of R2 and of the count of active features.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2LMHeadModel

Tensors = dict[str, torch.Tensor]

#: weight of the BOS row's relative error in the loss
BOS_WEIGHT = 0.1


def fit_scales(
    batches: list[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``scale_in [L]``, ``scale_out [L]`` and ``mean_out [L, d]`` of batches without their BOS."""
    x = torch.cat([b[0][:, 1:] for b in batches], 1)
    y = torch.cat([b[1][:, 1:] for b in batches], 1)
    return x.pow(2).mean((1, 2)).sqrt(), y.var(1).mean(1).sqrt(), y.mean(1)


def quantile(scores: torch.Tensor, k: float) -> torch.Tensor:
    """The theta that about ``k`` of each row's scores ``[n, F]`` exceed, from every 13th score."""
    sample = scores.reshape(-1)[::13]
    keep = max(1, int(sample.numel() * k / scores.shape[1]))
    return sample.kthvalue(sample.numel() - keep).values.clamp(min=1e-6)


class Clt(nn.Module):
    """Encoders ``[L, F, d]``, decoders ``[F, L-l, d]`` for each layer l, one theta a layer."""

    def __init__(
        self,
        n_layers: int,
        n_features: int,
        d: int,
        scale_in: torch.Tensor,
        scale_out: torch.Tensor,
        mean_out: torch.Tensor,
    ) -> None:
        super().__init__()
        directions = F.normalize(torch.randn(n_layers, n_features, d), dim=-1)
        self.enc = nn.Parameter(directions)
        self.b_enc = nn.Parameter(torch.zeros(n_layers, n_features))
        self.dec = nn.ParameterList(
            nn.Parameter(0.2 * F.normalize(torch.randn(n_features, n_layers - i, d), dim=-1))
            for i in range(n_layers)
        )
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d))
        self.register_buffer("scale_in", scale_in)
        self.register_buffer("scale_out", scale_out)
        self.register_buffer("mean_out", mean_out)
        self.register_buffer("theta", torch.zeros(n_layers))

    def norms(self, layer: int) -> torch.Tensor:
        """``[F]`` length of each feature's write over all target layers."""
        return self.dec[layer].detach().pow(2).sum((1, 2)).sqrt()

    def pre(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """``[n, F]`` pre-activations of raw inputs ``[n, d]``."""
        return (x / self.scale_in[layer]) @ self.enc[layer].T + self.b_enc[layer]

    def decode(self, layer: int, pre: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
        """``[n, L-l, d]`` what the features that are on write (scaled); gathers only their rows."""
        n = pre.shape[0]
        rows, features = on.nonzero(as_tuple=True)
        starts = torch.zeros(n, dtype=torch.long)
        starts[1:] = on.sum(1).cumsum(0)[:-1]
        dec = self.dec[layer]
        out = F.embedding_bag(
            features,
            dec.flatten(1),
            starts,
            mode="sum",
            per_sample_weights=pre[rows, features],
        )
        return out.view(n, *dec.shape[1:])

    def forward(self, x: torch.Tensor, k: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Rebuild the outputs.

        Args:
            x: ``[L, n, d]`` raw inputs, row 0 the BOS.
            k: Active features per token and layer to aim at; None uses the stored theta.

        Returns:
            ``[L, n, d]`` scaled outputs, and how often each feature was on, ``[L, F]``.
        """
        n_layers = x.shape[0]
        pre = [self.pre(i, x[i]) for i in range(n_layers)]
        scores = [pre[i].detach() * self.norms(i) for i in range(n_layers)]
        theta = self.theta
        if k is not None:
            theta = torch.stack([quantile(s[1:], k) for s in scores])
            self.theta.lerp_(theta, 0.02 if self.theta[0] > 0 else 1.0)
        out = list(self.b_dec[:, None, :].expand(-1, x.shape[1], -1))
        active = []
        for i in range(n_layers):
            on = scores[i] > theta[i]
            active.append(on[1:].sum(0))
            writes = self.decode(i, pre[i], on)
            for j in range(n_layers - i):
                out[i + j] = out[i + j] + writes[:, j]
        return torch.stack(out), torch.stack(active)

    def loss(self, out: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        """Scaled squared error, BOS apart; and R2 per layer without the BOS."""
        target = self.scaled(y)
        error = (out - target).pow(2)
        per_layer = error[:, 1:].mean((1, 2))
        bos = (error[:, 0].sum(-1) / target[:, 0].pow(2).sum(-1)).mean()
        centred = target[:, 1:] - target[:, 1:].mean(1, keepdim=True)
        r2 = 1 - per_layer.detach() / centred.pow(2).mean((1, 2))
        return per_layer.sum() + BOS_WEIGHT * bos, r2.tolist()

    def scaled(self, y: torch.Tensor) -> torch.Tensor:
        """Outputs ``[L, n, d]`` in the units of the loss."""
        return (y - self.mean_out[:, None]) / self.scale_out[:, None, None]

    @torch.no_grad()
    def revive(
        self,
        dead: torch.Tensor,
        x: torch.Tensor,
        error: torch.Tensor,
        optimizer: torch.optim.Optimizer,
    ) -> int:
        """Point features that never fire at tokens that are rebuilt badly.

        Args:
            dead: ``[L, F]`` bool.
            x: ``[L, n, d]`` raw inputs.
            error: ``[L, n, d]`` scaled target minus output.
            optimizer: Its moments of the changed rows are cleared.

        Returns:
            How many were revived.
        """
        moments = [optimizer.state[p] for p in (self.enc, self.b_enc, *self.dec)]
        for layer in range(x.shape[0]):
            rows = dead[layer].nonzero().squeeze(1)
            if len(rows) == 0:
                continue
            weight = error[layer:, 1:].pow(2).sum((0, 2))
            tokens = 1 + torch.multinomial(weight, len(rows), replacement=True)
            # just above the threshold on their own token, or hundreds of new features at once
            # would drown what the others have learned
            seen = x[layer, tokens] / self.scale_in[layer]
            reach = 1.5 * self.theta[layer] / 0.2
            self.enc[layer, rows] = reach * seen / seen.pow(2).sum(-1, True)
            self.b_enc[layer, rows] = 0.0
            wanted = error[layer:, tokens].transpose(0, 1)
            self.dec[layer][rows] = 0.2 * wanted / (wanted.pow(2).sum((1, 2), True).sqrt() + 1e-6)
            for state, index in (
                (moments[0], (layer, rows)),
                (moments[1], (layer, rows)),
                (moments[2 + layer], (rows,)),
            ):
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name][index] = 0.0
        return int(dead.sum())

    @torch.no_grad()
    def files(self) -> dict[str, Tensors]:
        """The circuit-tracer files, in raw units.

        Each feature is rescaled so that its (scaled) write has length 1: activations of different
        features are then comparable, and theta is the threshold of every feature of a layer.
        """
        files: dict[str, Tensors] = {}
        for i, dec in enumerate(self.dec):
            norms = self.norms(i).clamp(min=1e-6)
            files[f"W_enc_{i}.safetensors"] = {
                f"W_enc_{i}": (self.enc[i] * norms[:, None] / self.scale_in[i]).contiguous(),
                f"b_enc_{i}": self.b_enc[i] * norms,
                f"b_dec_{i}": self.b_dec[i] * self.scale_out[i] + self.mean_out[i],
                f"threshold_{i}": self.theta[i].expand(len(norms)).contiguous(),
            }
            write = dec / norms[:, None, None] * self.scale_out[i:, None]
            files[f"W_dec_{i}.safetensors"] = {f"W_dec_{i}": write.bfloat16().contiguous()}
        return files


def replaced_logits(model: GPT2LMHeadModel, clt: Clt, ids: torch.Tensor) -> torch.Tensor:
    """``[batch, pos, vocab]`` logits with every MLP output rebuilt by the transcoder, no errors."""
    n_layers = len(model.transformer.h)
    pending = list(clt.b_dec[:, None, :].expand(-1, ids.numel(), -1))

    def hook(layer: int, x: torch.Tensor) -> torch.Tensor:
        pre = clt.pre(layer, x.flatten(0, 1))
        writes = clt.decode(layer, pre, pre.detach() * clt.norms(layer) > clt.theta[layer])
        for j in range(n_layers - layer):
            pending[layer + j] = pending[layer + j] + writes[:, j]
        out = pending[layer] * clt.scale_out[layer] + clt.mean_out[layer]
        return out.view_as(x)

    handles = [
        block.mlp.register_forward_hook(lambda _, args, __, i=i: hook(i, args[0]))
        for i, block in enumerate(model.transformer.h)
    ]
    try:
        return model(ids).logits
    finally:
        for handle in handles:
            handle.remove()
