"""The other way to the scores of benches/refresh/run: sentence-transformers on the checkpoint of each answer's generation.

    scores.py DATA ANSWERS      a data folder; JSON lines {"query", "generation", "hits": [[id, score, title, text], …]}

Prints JSON: how far the answers' scores are at most from those of their own generation's checkpoint, and how near they
come to what no answer may be: the scores of the other generation's checkpoint, and those of a query by the other
generation against the vectors of the answer's own. An answer fits where all of its hits do.
"""

import collections
import json
import sys
from pathlib import Path

import numpy
from sentence_transformers import SentenceTransformer

# 32-bit arithmetic in another order; what a step of training changes is far more.
TOLERANCE = 1e-4


def vectors_by_text(data: Path, generation: int, texts: list[str]) -> dict[str, numpy.ndarray]:
    folder = data / f"generations/{generation:06}"
    manifest = json.loads((folder / "manifest.json").read_text())
    model = SentenceTransformer(str(folder / "checkpoint"), device="cpu", local_files_only=True)
    if length := manifest["encoder"].get("max_seq_length"):
        model.max_seq_length = length
    if model.prompts and any(model.prompts.values()):
        sys.exit("queries and passages have prompts: they would have to be told apart here")
    vectors = model.encode(texts, batch_size=64, show_progress_bar=False)
    if manifest["similarity"] == "cosine":
        vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(texts, vectors))


def passage(title: str, text: str) -> str:
    return f"{title} {text}" if title else text


def furthest(query: numpy.ndarray, passages: dict, hits: list) -> float:
    return max((abs(float(query @ passages[passage(*hit[2:])]) - hit[1]) for hit in hits), default=0.0)


def main() -> int:
    data, file = Path(sys.argv[1]), Path(sys.argv[2])
    answers = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts = {answer["query"] for answer in answers}
    texts |= {passage(*hit[2:]) for answer in answers for hit in answer["hits"]}
    generations = sorted({answer["generation"] for answer in answers})
    by_generation = {number: vectors_by_text(data, number, sorted(texts)) for number in generations}

    own, others, mixed = [], [], []
    for answer in answers:
        query, number, hits = answer["query"], answer["generation"], answer["hits"]
        ours = by_generation[number]
        own.append(furthest(ours[query], ours, hits))
        for other in generations:
            if other != number and hits:
                others.append(furthest(by_generation[other][query], by_generation[other], hits))
                mixed.append(furthest(by_generation[other][query], ours, hits))
    unfit = [answer for answer, apart in zip(answers, own) if not apart <= TOLERANCE]
    result = {
        "tolerance": TOLERANCE,
        "answers": len(answers),
        "hits": sum(len(answer["hits"]) for answer in answers),
        "by_generation": collections.Counter(str(answer["generation"]) for answer in answers),
        "furthest": max(own, default=0.0),
        "unfit": unfit[:20],
        "other_fits": sum(apart <= TOLERANCE for apart in others),
        "other_nearest": min(others, default=0.0),
        "mixed_fits": sum(apart <= TOLERANCE for apart in mixed),
        "mixed_nearest": min(mixed, default=0.0),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
