"""Loads a checkpoint that anced trained in sentence-transformers and compares its vectors with anced's own.

LINES is a file of JSON lines, {"text": …, "vector": […]}, made by anced with the same checkpoint, as POST /embed answers
them. Prints the largest difference of a component and exits with 1 where it is above 1e-4. The folder must have a
modules.json: without one sentence-transformers pools in a way of its own.

    benches/compare/trained.py data/generations/000002/checkpoint vectors.jsonl --kind query

A test makes both from models/all-MiniLM-L6-v2, trained for three steps; FOLDER must not be there yet:

    ANCED_TRAINED_OUT=FOLDER cargo test --test minilm minilm_trains_and_is_written
    benches/compare/trained.py FOLDER FOLDER.jsonl
"""

import argparse
import json
import sys
from pathlib import Path

import numpy
from sentence_transformers import SentenceTransformer

TOLERANCE = 1e-4
# The names under which anced looks for a prompt.
PROMPTS = {"query": ["query"], "passage": ["document", "passage"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkpoint folder that anced wrote")
    parser.add_argument("lines", type=Path, metavar="LINES")
    parser.add_argument("--kind", choices=PROMPTS, default="passage", help="what the texts were encoded as")
    arguments = parser.parse_args()
    if not (arguments.folder / "modules.json").is_file():
        parser.error(f"{arguments.folder} has no modules.json")

    lines = [json.loads(line) for line in arguments.lines.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        parser.error(f"{arguments.lines} is empty")
    ours = numpy.array([line["vector"] for line in lines], dtype=numpy.float32)
    model = SentenceTransformer(str(arguments.folder), device="cpu", local_files_only=True)
    prompt = next((name for name in PROMPTS[arguments.kind] if name in model.prompts), None)
    theirs = model.encode([line["text"] for line in lines], prompt_name=prompt)
    if ours.shape != theirs.shape:
        sys.exit(f"anced's vectors have the shape {ours.shape}, those of sentence-transformers {theirs.shape}")
    difference = float(numpy.abs(ours - theirs).max())
    print(f"{len(lines)} texts, {ours.shape[1]} components, largest difference {difference:.1e}")
    # Not `>`: a difference that is no number is too large as well.
    return int(not difference <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
