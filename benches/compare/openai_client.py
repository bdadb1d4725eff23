"""Asks a running server for embeddings through OpenAI's Python client and compares them with POST /embed.

Exits with 1 where a vector differs by more than 1e-5 or an answer is not what the client promises. In a virtual
environment:

    python3 -m venv .venv-openai
    .venv-openai/bin/pip install openai
    .venv-openai/bin/python benches/compare/openai_client.py http://127.0.0.1:8080
"""

import argparse
import array
import base64
import json
import os
import sys
import urllib.request

import openai

TOLERANCE = 1e-5
TEXTS = [
    "find files larger than 100 MB",
    "",
    "Größe, 大きい, 🗂️ and \u0000",
    "a longer text about dense retrieval " * 60,
]


def embed(url: str, key: str | None, texts: list[str]) -> list[list[float]]:
    """The vectors of POST /embed, as passages."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    body = json.dumps({"texts": texts, "kind": "passage"}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/embed", body, headers)) as answer:
        return json.load(answer)["vectors"]


def largest_difference(ours: list[list[float]], theirs: list[list[float]]) -> float:
    if [len(vector) for vector in ours] != [len(vector) for vector in theirs]:
        return float("inf")
    pairs = (pair for vectors in zip(ours, theirs, strict=True) for pair in zip(*vectors, strict=True))
    return max(abs(one - other) for one, other in pairs)


def refusal(call) -> openai.APIStatusError | None:
    try:
        call()
    except openai.APIStatusError as error:
        return error
    return None


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    url = arguments.parse_args().url.rstrip("/")
    key = os.environ.get("ANCED_SEARCH_KEY")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0)
    failures = 0

    def report(what: str, holds: bool, shown: object) -> None:
        nonlocal failures
        failures += not holds
        print(f"{'ok  ' if holds else 'FAIL'} {what}: {shown}")

    models = [model.id for model in client.models.list()]
    report("models.list", len(models) == 1 and bool(models[0]), models)
    model = models[0] if models else "any"

    expected = embed(url, key, TEXTS)
    # The client asks for base64 by itself where no format is given, and decodes it.
    formats = {"default": {}, "float": {"encoding_format": "float"}, "base64": {"encoding_format": "base64"}}
    for name, options in formats.items():
        answer = client.embeddings.create(model=model, input=TEXTS, **options)
        vectors = [item.embedding for item in answer.data]
        if name == "base64":
            vectors = [decoded(vector) for vector in vectors]
        difference = largest_difference(vectors, expected)
        report(f"list, {name}", difference <= TOLERANCE, f"largest difference {difference:.1e}")
        in_order = [item.index for item in answer.data] == list(range(len(TEXTS)))
        report(f"list, {name}, order and usage", in_order and answer.usage.total_tokens > 0, answer.usage.total_tokens)
        report(f"list, {name}, model", answer.model == model, answer.model)

    answer = client.embeddings.create(model=model, input=TEXTS[0])
    difference = largest_difference([answer.data[0].embedding], expected[:1])
    report("one text", difference <= TOLERANCE, f"largest difference {difference:.1e}")
    size = len(expected[0])
    answer = client.embeddings.create(model=model, input=TEXTS[0], dimensions=size)
    report("its own dimensions", len(answer.data[0].embedding) == size, size)

    error = refusal(lambda: client.embeddings.create(model=model, input=TEXTS[0], dimensions=size + 1))
    report("other dimensions are refused", error is not None and error.param == "dimensions", error)
    error = refusal(lambda: client.embeddings.create(model=model, input=[[1, 2, 3]]))
    is_right = isinstance(error, openai.UnprocessableEntityError) and error.type == "invalid_request_error"
    report("token ids are refused", is_right and error.param == "input", error)
    error = refusal(lambda: client.chat.completions.create(model=model, messages=[]))
    report("what is not there is not found", isinstance(error, openai.NotFoundError), error)
    print(f"openai {openai.__version__}: {failures} failures")
    return int(failures > 0)


def decoded(vector: str | list[float]) -> list[float]:
    """The client leaves base64 that was asked for by name as it is."""
    if isinstance(vector, list):
        return vector
    numbers = array.array("f", base64.b64decode(vector))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


if __name__ == "__main__":
    sys.exit(main())
