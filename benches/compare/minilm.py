"""Recomputes the measures of all-MiniLM-L6-v2 on a BEIR folder with transformers, PyTorch and ir_measures.

With --run and --json it also measures the TREC run of `anced evaluate --run` with ir_measures, prints those values beside
the ones that `anced evaluate --json` gave, and fails where two differ by more than 1e-4.

    benches/compare/minilm.py tests/data/nl2bash
    benches/compare/minilm.py tests/data/nl2bash --run test.trec --json test.json --only-run
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import ir_measures
from ir_measures import RR, R, nDCG

TOLERANCE = 1e-4
DEPTH = 1000
BLOCK = 256
MEASURES = {"nDCG@10": nDCG @ 10, "MRR@10": RR @ 10, "Recall@100": R @ 100, "Recall@1000": R @ 1000}


def read_lines(folder: Path, name: str) -> Iterator[dict]:
    plain, packed = folder / name, folder / f"{name}.gz"
    with plain.open(encoding="utf-8") if plain.exists() else gzip.open(packed, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def read_judgments(folder: Path, split: str) -> list[ir_measures.Qrel]:
    lines = (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return [ir_measures.Qrel(query, document, int(grade)) for query, document, grade in rows]


def embed(model, tokenizer, texts: list[str]):
    """Means of the last hidden states over the tokens, at length 1: [texts, dimension], in the order of `texts`."""
    import torch

    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    vectors = torch.empty(len(texts), model.config.hidden_size)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = tokenizer(
            [texts[at] for at in rows], padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=1)
    return vectors


def search(folder: Path, model_folder: Path, wanted: set[str]) -> Iterable[ir_measures.ScoredDoc]:
    """The exact top documents of each wanted query."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModel.from_pretrained(model_folder).eval()
    documents = list(read_lines(folder, "corpus.jsonl"))
    queries = [query for query in read_lines(folder, "queries.jsonl") if query["_id"] in wanted]
    passages = embed(model, tokenizer, [f"{one.get('title', '')} {one['text']}".strip() for one in documents])
    asked = embed(model, tokenizer, [query["text"] for query in queries])
    for start in range(0, len(queries), BLOCK):
        scores, rows = (asked[start : start + BLOCK] @ passages.T).topk(min(DEPTH, len(documents)))
        for query, of_query, at in zip(queries[start : start + BLOCK], scores.tolist(), rows.tolist(), strict=True):
            for score, row in zip(of_query, at, strict=True):
                yield ir_measures.ScoredDoc(query["_id"], documents[row]["_id"], score)


def measure(judgments: list, run: Iterable) -> dict[str, float]:
    values = ir_measures.calc_aggregate(MEASURES.values(), judgments, run)
    return {name: values[of] for name, of in MEASURES.items()}


def print_row(name: str, values: dict[str, float]) -> None:
    print(f"| {name} | {' | '.join(f'{values[one]:.4f}' if one in values else '-' for one in MEASURES)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder in BEIR layout")
    parser.add_argument("--model", type=Path, default=Path("models/all-MiniLM-L6-v2"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--run", type=Path, help="what `anced evaluate --run` wrote")
    parser.add_argument("--json", type=Path, help="what `anced evaluate --json` printed")
    parser.add_argument("--only-run", action="store_true", help="do not encode anything")
    arguments = parser.parse_args()
    if (arguments.run is None) != (arguments.json is None):
        parser.error("--run and --json go together")
    if arguments.only_run and arguments.run is None:
        parser.error("--only-run needs --run and --json")

    judgments = read_judgments(arguments.folder, arguments.split)
    print(f"| {arguments.folder.name}, {arguments.split} | {' | '.join(MEASURES)} |")
    print(f"| --- | {' | '.join(['--:'] * len(MEASURES))} |")
    if not arguments.only_run:
        wanted = {judgment.query_id for judgment in judgments}
        found = list(search(arguments.folder, arguments.model, wanted))
        print_row("transformers and PyTorch, exact", measure(judgments, found))
    if arguments.run is None:
        return

    of_run = measure(judgments, ir_measures.read_trec_run(str(arguments.run)))
    said = json.loads(arguments.json.read_text(encoding="utf-8"))["measures"]
    print_row("anced's run, by ir_measures", of_run)
    print_row("anced's run, by anced", said)
    differences = {name: abs(of_run[name] - said[name]) for name in MEASURES if name in said}
    print(f"| difference | {' | '.join(f'{differences[one]:.1e}' if one in differences else '-' for one in MEASURES)} |")
    missing = [name for name in MEASURES if name not in said]
    wide = [name for name, difference in differences.items() if not difference <= TOLERANCE]
    if missing or wide:
        sys.exit(f"not given by anced: {missing}; more than {TOLERANCE} apart: {wide}")


if __name__ == "__main__":
    main()
