#!/usr/bin/env python3
"""Random graded judgments and rankings with many ties, and what ir_measures makes of them.

Writes qrels, run.trec and expected.json into tests/fixtures/measures/, which tests/measures.rs holds anced against.
Needs `pip install ir_measures`.
"""

import json
import random
from pathlib import Path

import ir_measures
from ir_measures import RR, Qrel, R, ScoredDoc, nDCG

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "measures"
MEASURES = {
    "nDCG@10": nDCG @ 10,
    "MRR@10": RR @ 10,
    "Recall@100": R @ 100,
    "Recall@1000": R @ 1000,
    "nDCG@3": nDCG @ 3,
    "MRR@2": RR @ 2,
    "Recall@5": R @ 5,
}
QUERIES = 40
DOCUMENTS = [f"{prefix}{number}" for prefix in ("d", "D", "ä") for number in range(60)]


def main() -> None:
    chance = random.Random(20261122)
    qrels: list[Qrel] = []
    run: list[ScoredDoc] = []
    for number in range(QUERIES):
        query = f"q{number}"
        grades = [0] if number % 10 == 3 else [-1, 0, 0, 1, 1, 2, 3]
        if number % 10 != 5:  # queries without a judgment are left out
            judged = chance.sample(DOCUMENTS, chance.randint(1, 25))
            qrels += [Qrel(query, document, chance.choice(grades)) for document in judged]
        if number % 10 != 7:  # queries without a ranking are worth 0
            found = chance.sample(DOCUMENTS, chance.randint(1, len(DOCUMENTS)))
            levels = chance.choice([1, 3, 10, 1000])  # few levels of score make many ties
            run += [ScoredDoc(query, document, chance.randint(0, levels) / 8) for document in found]

    values = {name: {} for name in MEASURES}
    names = {measure: name for name, measure in MEASURES.items()}
    for metric in ir_measures.iter_calc(MEASURES.values(), qrels, run):
        values[names[metric.measure]][metric.query_id] = metric.value
    means = ir_measures.calc_aggregate(MEASURES.values(), qrels, run)
    expected = {name: {"mean": means[measure], "queries": dict(sorted(values[name].items()))} for name, measure in MEASURES.items()}

    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "qrels").write_text("".join(f"{one.query_id} 0 {one.doc_id} {one.relevance}\n" for one in qrels))
    (FOLDER / "run.trec").write_text("".join(f"{one.query_id} Q0 {one.doc_id} 0 {one.score} random\n" for one in run))
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{len(qrels)} judgments and {len(run)} lines of a run, measured by ir_measures {ir_measures.__version__}")


if __name__ == "__main__":
    main()
