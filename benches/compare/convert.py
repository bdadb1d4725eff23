"""Whether `anced model convert` makes of a checkpoint of before what transformers and sentence-transformers read of it.

    benches/compare/convert.py [ANCED]

all-MiniLM-L6-v2 is pickled by torch (as a ZIP archive, and as before 1.6) with its tokenizer.json taken away, and a dense
layer put behind it; a RoBERTa is made with a byte-pair vocabulary of the sample corpus. Both are converted and compared:
weights bit for bit, token ids and vectors as sentence-transformers and transformers have them for the folder of before.
Needs `torch`, `sentence-transformers` and the set-up of `make setup`.
"""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import safetensors.torch
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from tokenizers import ByteLevelBPETokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANCED = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/anced"
MINILM = ROOT / "models/all-MiniLM-L6-v2"


def texts():
    odd = json.load(open(ROOT / "tests/fixtures/reference/minilm/texts.json"))
    odd += ["", "  two  spaces ", "<mask> [MASK] </s>", "ÀÉ Straße 東京 i̇", "a\u200bb\r\n\tc", "x" * 120 + " don't 'll"]
    with gzip.open(ROOT / "tests/data/nl2bash/corpus.jsonl.gz", "rt") as lines:
        return odd + [json.loads(line)["text"] for line in list(lines)[:2000]]


def convert(source, target):
    started = time.monotonic()
    done = subprocess.run([ANCED, "model", "convert", "--json", source, target], check=True, capture_output=True, text=True)
    print(f"{source.name}: {time.monotonic() - started:.1f} s, {json.loads(done.stdout)['made']}")


def tokens(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text, truncation=True, max_length=256)["input_ids"] for text in TEXTS]


def minilm(folder, legacy):
    """The folder of before: a sentence-transformers model with its weights pickled and no tokenizer.json."""
    model = SentenceTransformer(str(MINILM), device="cpu")
    torch.manual_seed(1)
    dense = Dense(384, 96)
    model = SentenceTransformer(modules=[model[0], model[1], dense], device="cpu")
    model.save(str(folder))
    for weights in folder.rglob("model.safetensors"):
        state = safetensors.torch.load_file(weights)
        torch.save(state, weights.with_name("pytorch_model.bin"), _use_new_zipfile_serialization=not legacy)
        weights.unlink()
    (folder / "tokenizer.json").unlink()
    shutil.copy(MINILM / "vocab.txt", folder)
    return model


def compare_minilm(work, legacy):
    name = "legacy" if legacy else "zip"
    before, after = work / f"minilm-{name}", work / f"minilm-{name}-new"
    model = minilm(before, legacy)
    wanted = model.encode(TEXTS, normalize_embeddings=False)
    convert(before, after)
    for pickled in before.rglob("pytorch_model.bin"):
        old = torch.load(pickled, weights_only=True)
        new = safetensors.torch.load_file(after / pickled.relative_to(before).with_name("model.safetensors"))
        assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old), pickled
    found = SentenceTransformer(str(after), device="cpu").encode(TEXTS, normalize_embeddings=False)
    print(f"  vectors of sentence-transformers: off by {abs(found - wanted).max():.1e} at most")
    assert tokens(after) == tokens(before), "token ids"
    print(f"  token ids of {len(TEXTS)} texts: equal")


def compare_roberta(work):
    before, after = work / "roberta", work / "roberta-new"
    before.mkdir()
    words = ByteLevelBPETokenizer()
    words.train_from_iterator(TEXTS, vocab_size=3000, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    words.save_model(str(before))
    config = transformers.RobertaConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=514, type_vocab_size=1,
    )
    model = transformers.RobertaModel(config)
    config.save_pretrained(before)
    torch.save(model.state_dict(), before / "pytorch_model.bin")
    convert(before, after)
    reference = transformers.RobertaTokenizer.from_pretrained(before)
    wanted = [reference(text, truncation=True, max_length=256)["input_ids"] for text in TEXTS]
    assert tokens(after) == wanted, "token ids"
    print(f"  token ids of {len(TEXTS)} texts: equal")


TEXTS = texts()
with tempfile.TemporaryDirectory() as place:
    for legacy in (False, True):
        compare_minilm(pathlib.Path(place), legacy)
    compare_roberta(pathlib.Path(place))
