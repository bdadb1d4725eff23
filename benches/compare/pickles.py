"""Makes tests/fixtures/pickles: a few tensors as PyTorch has saved them since 2018, and files that are made to do harm;
and fuzz/seeds/pickles: the smallest BERT.

Tensors of each type; a transposed one, a part of a larger one, two names for one storage, a scalar, an empty one; layer
norms under their old names. Beside them what they are, written by safetensors. Needs `torch`, `transformers` and `safetensors`.
"""

import collections
import io
import os
import pathlib
import pickle
import shutil
import zipfile

import safetensors.torch
import torch
import transformers

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "tests/fixtures/pickles"
SEEDS = ROOT / "fuzz/seeds/pickles"


def tensors():
    torch.manual_seed(1)
    whole = torch.randn(4, 6)
    state = collections.OrderedDict()
    state["a.weight"] = whole
    state["a.tied"] = whole
    state["a.part"] = whole[1:3, ::2]
    state["b.transposed"] = torch.randn(5, 3).t()
    state["b.f64"] = torch.randn(3, dtype=torch.float64)
    state["b.f16"] = torch.randn(2, 3).to(torch.float16)
    state["b.bf16"] = torch.randn(7).to(torch.bfloat16)
    state["position_ids"] = torch.arange(9).expand(1, -1)
    state["flags"] = torch.tensor([True, False, True])
    state["bytes"] = torch.arange(5, dtype=torch.uint8)
    state["i32"] = torch.tensor([-1, 2**31 - 1], dtype=torch.int32)
    state["scalar"] = torch.tensor(0.5)
    state["empty"] = torch.zeros(0, 4)
    state["LayerNorm.gamma"] = torch.nn.Parameter(torch.randn(4))
    state["LayerNorm.beta"] = torch.nn.Parameter(torch.randn(4))
    state["norm.gamma"] = torch.randn(2)
    return state


class Calls:
    """What a pickle does that runs a command when Python reads it."""

    def __reduce__(self):
        return os.system, ("touch pickle-was-executed",)


def seeds():
    config = transformers.BertConfig(
        vocab_size=5, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4,
        max_position_embeddings=8, type_vocab_size=2,
    )
    model = transformers.BertModel(config, add_pooling_layer=False)
    SEEDS.mkdir(exist_ok=True)
    torch.save(model.state_dict(), SEEDS / "zip")
    torch.save(model.state_dict(), SEEDS / "legacy", _use_new_zipfile_serialization=False)
    torch.save(model.half().state_dict(), SEEDS / "legacy-16", _use_new_zipfile_serialization=False, pickle_protocol=4)
    for name in ["calls", "expanded", "plain"]:
        shutil.copy(FOLDER / f"{name}.bin", SEEDS / name)


def main():
    FOLDER.mkdir(exist_ok=True)
    state = tensors()
    torch.save(state, FOLDER / "zip.bin")
    torch.save(state, FOLDER / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(state, FOLDER / "zip-protocol-4.bin", pickle_protocol=4)
    today = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    expected = {today.get(name, name): value.detach().clone().contiguous() for name, value in state.items()}
    safetensors.torch.save_file(expected, FOLDER / "expected.safetensors", {"format": "pt"})

    torch.save({"weight": torch.zeros(1).expand(2**31)}, FOLDER / "expanded.bin")
    torch.save({"weight": torch.zeros(1), "more": Calls()}, FOLDER / "calls.bin")
    torch.save({"weight": torch.sparse_coo_tensor([[0], [1]], [1.0], (2, 2))}, FOLDER / "sparse.bin")
    torch.save({"epoch": 3}, FOLDER / "no-tensors.bin")
    torch.save({"n.LayerNorm.gamma": torch.ones(1), "n.LayerNorm.weight": torch.ones(1)}, FOLDER / "both-names.bin")
    # The same file with its tensors' entry gone.
    with zipfile.ZipFile(FOLDER / "zip.bin") as source:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as target:
            for entry in source.infolist():
                if not entry.filename.endswith("/data/0"):
                    target.writestr(entry, source.read(entry))
    (FOLDER / "no-storage.bin").write_bytes(buffer.getvalue())
    (FOLDER / "plain.bin").write_bytes(pickle.dumps({"weight": [1.0, 2.0]}))
    seeds()


if __name__ == "__main__":
    main()
