"""Steps of pairwise training in PyTorch and transformers, the same work as benches/train.rs: prints one line of JSON.

A step: queries in one batch, positives and negatives in another, through one tower; pooled as the model's modules say
(mean and length 1 where there are none); loss mean softplus(scale (q·n − q·p)); gradients clipped at norm 1; AdamW.
The batch is the same at every step. Its ids come from SplitMix64, so that whoever draws them alike gets the same losses.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, BertConfig, BertModel
from transformers.utils import logging

SEED = 1
# Below are the special tokens of BERT's and RoBERTa's vocabularies, the padding among them.
FIRST_ID = 5
PADDING = 0
SCALE = 20.0
CLIP = 1.0
LEARNING_RATE = 1e-6
WEIGHT_DECAY = 0.01
BITS = (1 << 64) - 1


class SplitMix64:
    def __init__(self, seed: int) -> None:
        self.state = seed

    def below(self, bound: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & BITS
        mixed = self.state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & BITS
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & BITS
        return (mixed ^ (mixed >> 31)) % bound


def draw(chance: SplitMix64, rows: int, tokens: int, vocabulary: int, ragged: bool) -> list[list[int]]:
    """Row by row: its length, where rows differ in length, uniform in [tokens / 3, tokens]; then its ids."""
    least = max(tokens // 3, 1)
    drawn = []
    for _ in range(rows):
        length = least + chance.below(tokens - least + 1) if ragged else tokens
        drawn.append([FIRST_ID + chance.below(vocabulary - FIRST_ID) for _ in range(length)])
    return drawn


def padded(rows: list[list[int]], device: str) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


class Tower(nn.Module):
    def __init__(self, encoder: nn.Module, cls: bool, normalize: bool) -> None:
        super().__init__()
        self.encoder, self.cls, self.normalize = encoder, cls, normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.cls:
            pooled = hidden[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        return functional.normalize(pooled.float(), dim=1) if self.normalize else pooled.float()


def read_modules(folder: Path) -> tuple[bool, bool]:
    """Whether the first token's vector is taken in place of the mean, and whether vectors are brought to length 1."""
    modules = folder / "modules.json"
    if not modules.exists():
        return False, True
    cls, normalize = False, False
    for module in json.loads(modules.read_text()):
        match module["type"].rpartition(".")[2]:
            case "Transformer":
                pass
            case "Pooling":
                config = json.loads((folder / module["path"] / "config.json").read_text())
                cls = config.get("pooling_mode_cls_token", config.get("pooling_mode") == "cls")
                if not cls and not config.get("pooling_mode_mean_tokens", config.get("pooling_mode") == "mean"):
                    raise SystemExit(f"{folder}: pooling is neither mean nor cls")
            case "Normalize":
                normalize = True
            case other:
                raise SystemExit(f"{modules}: the module {other} is not supported")
    return cls, normalize


def open_tower(arguments) -> Tower:
    # The pooler of BERT is no part of an embedding.
    if arguments.bert_base:
        torch.manual_seed(SEED)
        config = BertConfig(attn_implementation=arguments.attention)
        return Tower(BertModel(config, add_pooling_layer=False), cls=False, normalize=True)
    encoder = AutoModel.from_pretrained(
        arguments.model, attn_implementation=arguments.attention, dtype=torch.float32, local_files_only=True
    )
    if hasattr(encoder, "pooler"):
        encoder.pooler = None
    return Tower(encoder, *read_modules(Path(arguments.model)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="models/all-MiniLM-L6-v2", help="a checkpoint folder")
    parser.add_argument("--bert-base", action="store_true", help="random weights in BERT-base's shape, no folder")
    parser.add_argument("--triples", type=int, default=8)
    parser.add_argument("--query-tokens", type=int, default=32)
    parser.add_argument("--passage-tokens", type=int, default=128)
    parser.add_argument("--ragged", action="store_true", help="lengths in [tokens / 3, tokens], padded to the longest")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="bf16: autocast, fp32 weights")
    parser.add_argument("--tf32", action="store_true", help="lets fp32 matrix products on a GPU use TF32")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--dropout", action="store_true", help="as the checkpoint's config says; off without")
    arguments = parser.parse_args()
    if min(arguments.triples, arguments.query_tokens, arguments.passage_tokens, arguments.steps) < 1:
        parser.error("triples, tokens and steps are at least 1")
    return arguments


def main() -> None:
    arguments = parse()
    logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high" if arguments.tf32 else "highest")
    on_gpu = arguments.device == "cuda"

    tower = open_tower(arguments).to(arguments.device).train(arguments.dropout)
    vocabulary = tower.encoder.config.vocab_size
    optimizer = torch.optim.AdamW(tower.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    encode = torch.compile(tower, dynamic=False) if arguments.compile else tower

    chance = SplitMix64(SEED)
    lengths = [arguments.query_tokens, arguments.passage_tokens, arguments.passage_tokens]
    drawn = [draw(chance, arguments.triples, tokens, vocabulary, arguments.ragged) for tokens in lengths]
    queries, passages = padded(drawn[0], arguments.device), padded(drawn[1] + drawn[2], arguments.device)

    def step() -> float:
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.dtype == "bf16"):
            query, passage = encode(**queries), encode(**passages)
        positive, negative = passage.chunk(2)
        loss = functional.softplus(SCALE * (query * (negative - positive)).sum(1)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    seconds, losses = [], []
    for _ in range(arguments.warmup + arguments.steps):
        if on_gpu:
            torch.cuda.synchronize()
        began = time.perf_counter()
        losses.append(step())
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    p10, median, p90 = np.percentile(seconds[arguments.warmup :], [10, 50, 90])

    words = ["pytorch", arguments.attention, arguments.dtype, arguments.device]
    words += [name for name in ("tf32", "compile", "dropout") if getattr(arguments, name)]
    report = {
        "what": " ".join(words),
        "steps": arguments.steps,
        "median_s": median,
        "p10_s": p10,
        "p90_s": p90,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if on_gpu:
        report["peak_device_mib"] = torch.cuda.max_memory_reserved() / 2**20
    report |= {"loss_first": losses[0], "loss_last": losses[-1], "torch": torch.__version__}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
