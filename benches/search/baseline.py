"""The smallest search server one would write instead of anced: FastAPI, sentence-transformers and faiss HNSW.

Usage: baseline.py CORPUS_FOLDER MODEL_FOLDER PORT
"""

import gzip
import json
import sys
from pathlib import Path

import faiss
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

corpus, model_folder, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

with gzip.open(corpus / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
    documents = [json.loads(line) for line in lines]
texts = [f"{document['title']} {document['text']}".strip() for document in documents]

model = SentenceTransformer(model_folder, device="cpu")
vectors = model.encode(texts, normalize_embeddings=True)
index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
index.hnsw.efConstruction = 128
index.hnsw.efSearch = 128
index.add(vectors)

app = FastAPI()


class Search(BaseModel):
    query: str
    k: int = 10


@app.post("/search")
def search(request: Search):
    vector = model.encode([request.query], normalize_embeddings=True)
    scores, rows = index.search(vector, request.k)
    return {
        "hits": [
            {"id": documents[row]["_id"], "score": float(score), "text": documents[row]["text"]}
            for score, row in zip(scores[0], rows[0])
        ]
    }


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
