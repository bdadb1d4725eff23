"""Weights after five optimiser steps in PyTorch, for tests/training.rs.

Reads `model.safetensors` and the batches of `training.safetensors` in tests/fixtures/reference/{bert-mean,roberta-ance},
trains with transformers' modules, checks the losses against those that the file records, and writes `steps.safetensors`:
`adamw.NAME` and `lamb.NAME` under the names of the checkpoint. Needs torch, transformers and safetensors.
"""

import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertModel, RobertaModel

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/reference"
RATE, CLIP, EPSILON = 1e-3, 1.0, 1e-8


class Mean(torch.nn.Module):
    """Mean pooling and normalisation, as modules.json of bert-mean says."""

    def __init__(self, folder):
        super().__init__()
        self.bert = BertModel(AutoConfig.from_pretrained(folder), add_pooling_layer=False)
        self.bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)

    def forward(self, input_ids, attention_mask):
        hidden = self.bert(input_ids, attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(pooled, dim=1)

    def names(self):
        return {f"bert.{name}": name for name, _ in self.bert.named_parameters()}


class Ance(torch.nn.Module):
    """`RobertaDot_NLL_LN`: first token, linear, layer normalisation."""

    def __init__(self, folder):
        super().__init__()
        config = AutoConfig.from_pretrained(folder)
        self.roberta = RobertaModel(config, add_pooling_layer=False)
        weights = load_file(folder / "model.safetensors")
        size, width = weights["embeddingHead.weight"].shape
        self.embeddingHead = torch.nn.Linear(width, size)
        self.norm = torch.nn.LayerNorm(size)
        missing, _ = self.load_state_dict(weights, strict=False)
        assert not [name for name in missing if "position_ids" not in name], missing

    def forward(self, input_ids, attention_mask):
        hidden = self.roberta(input_ids, attention_mask).last_hidden_state
        return self.norm(self.embeddingHead(hidden[:, 0]))

    def names(self):
        return {name: name for name, _ in self.named_parameters()}


class Lamb(torch.optim.Optimizer):
    """As the authors of ANCE use it: no bias correction, the norm of a weight clamped to 10."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                m, v = state["m"], state["v"]
                m.mul_(0.9).add_(p.grad, alpha=0.1)
                v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                u = m / (v.sqrt() + EPSILON)
                weight, direction = p.norm().clamp(0, 10), u.norm()
                ratio = weight / direction if weight > 0 and direction > 0 else 1.0
                p.sub_(RATE * ratio * u)


def optimizer(kind, model):
    if kind == "lamb":
        return Lamb(model.parameters())
    return torch.optim.AdamW(model.parameters(), lr=RATE, eps=EPSILON, weight_decay=0.01)


def train(kind, model, data):
    steps, losses = optimizer(kind, model), []
    for number in (0, 1, 2, 0, 1):
        sides = [
            model(data[f"batch.{number}.{side}.input_ids"], data[f"batch.{number}.{side}.attention_mask"])
            for side in "qpn"
        ]
        q, p, n = sides
        loss = torch.nn.functional.softplus((q * n).sum(1) - (q * p).sum(1)).mean()
        steps.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        steps.step()
        losses.append(loss.item())
    off = (torch.tensor(losses) - data[f"{kind}.losses"]).abs().max().item()
    assert off < 1e-5, f"{kind}: losses {losses} are off the recorded ones by {off}"
    weights = dict(model.named_parameters())
    return {f"{kind}.{theirs}": weights[ours].detach().clone() for ours, theirs in model.names().items()}, off


def main():
    for folder, build in (("bert-mean", Mean), ("roberta-ance", Ance)):
        data, tensors = load_file(ROOT / folder / "training.safetensors"), {}
        for kind in ("adamw", "lamb"):
            weights, off = train(kind, build(ROOT / folder).eval(), data)
            tensors |= weights
            print(f"{folder}, {kind}: losses off the recorded ones by {off:.1e}")
        save_file(tensors, ROOT / folder / "steps.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
