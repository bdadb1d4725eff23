"""Makes tests/fixtures/answers/expected.json: which answers are in which texts by the rule of DPR (Karpukhin et al. 2020), written anew.

Tokens of the NFD form by a regular expression, lower-case, one list of tokens within the other. Needs `regex`.
"""

import json
import pathlib
import unicodedata

import regex

TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]", regex.IGNORECASE | regex.UNICODE | regex.MULTILINE)

TEXTS = [
    "",
    "The capital of France is Paris, on the Seine.",
    "paris-based airlines; PARIS!",
    "Parisian cafe\u0301s and caf\u00e9s",
    "It cost $1,234.50 in 1999 (about 3.5 %).",
    "The U.S. and the U.K. signed on 4 July 1776.",
    "\u041c\u043e\u0441\u043a\u0432\u0430 \u2014 \u0441\u0442\u043e\u043b\u0438\u0446\u0430 \u0420\u043e\u0441\u0441\u0438\u0438",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059",
    "\u0130stanbul, \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2, STRASSE and Stra\u00dfe, \ufb01nd",
    "line one\nline two\ttabbed\u00a0space\u200bzero\u00adsoft",
    "rock 'n' roll, rock \u2019n\u2019 roll; Moses' brother's \"tent\"",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e, \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "emoji \U0001f600\U0001f3fd and \u00bd \u2460 x\u00b2",
    "a b a b c",
    "snake_case e-mail C++ AT&T",
]
ANSWERS = [
    "Paris", "paris", "Par", "the Seine", "Seine .", "Seine.", "France is Paris", "Paris France", "caf\u00e9s", "cafe\u0301s", "cafes",
    "1,234.50", "1234", "$1", "1999", "999", "3.5 %", "3.5%", "U.S.", "US", "U. S.", "4 July 1776", "july 4",
    "\u043c\u043e\u0441\u043a\u0432\u0430", "\u0420\u043e\u0441\u0441\u0438\u0438", "\u0420\u043e\u0441\u0441\u0438\u044f", "\u6771\u4eac", "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059", "i\u0307stanbul", "istanbul", "\u0130STANBUL",
    "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3", "strasse", "stra\u00dfe", "find", "one line", "one\nline", "tabbed space", "zero", "space\u200bzero",
    "softly", "soft", "rock 'n' roll", "rock n roll", "Moses' brother", "Moses brother", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0928\u092e\u0938", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\U0001f600", "\U0001f3fd",
    "\u00bd", "1\u20442", "\u2460", "x\u00b2", "x2", "a b c", "b a b", "a c", "snake_case", "snake case", "snake", "e-mail", "email", "C++", "C", "AT&T",
]


def tokens(text):
    return [token.lower() for token in TOKEN.findall(unicodedata.normalize("NFD", text))]


def holds(text, answer):
    text, answer = tokens(text), tokens(answer)
    return any(text[at : at + len(answer)] == answer for at in range(len(text) - len(answer) + 1))


if __name__ == "__main__":
    found = [[answer for answer in ANSWERS if holds(text, answer)] for text in TEXTS]
    expected = {"texts": TEXTS, "answers": ANSWERS, "found": found, "tokens": [tokens(text) for text in TEXTS]}
    file = pathlib.Path(__file__).parents[2] / "tests/fixtures/answers/expected.json"
    file.write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
