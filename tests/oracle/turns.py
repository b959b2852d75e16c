"""What llama-server answers to six turns of SmolLM2: the golden of `test_turns_are_those_of_llama_server`.

    llama-server -m "$(python -c 'import real_models as r; print(r.real(r.SMOLLM2))')" -c 2048 -np 1 --port 8080
    PYTHONPATH=tests python tests/oracle/turns.py http://127.0.0.1:8080 tests/goldens/real/smollm2-turns.json

Prompts by its own rendering and tokenizer, replies by the best token, at most 24.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

QUESTIONS = [
    "Hello! Who are you?",
    "Write one sentence about the sea.",
    "Now make it shorter.",
    "What is 2 + 2?",
    "Name three colours.",
    "Thank you, goodbye.",
]
MOST = 24


def main(server: str, golden: str) -> None:
    def ask(path: str, **body: Any) -> Any:
        with urlopen(Request(server + path, json.dumps(body).encode()), timeout=600) as answer:
            return json.load(answer)

    messages: list[dict[str, str]] = []
    turns = []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        text = ask("/apply-template", messages=messages)["prompt"]
        prompt = ask("/tokenize", content=text, parse_special=True, add_special=False)["tokens"]
        reply = ask("/completion", prompt=prompt, temperature=0, n_predict=MOST, return_tokens=True)
        turns.append({"question": question, "prompt": prompt, "reply": reply["tokens"], "content": reply["content"]})
        messages.append({"role": "assistant", "content": reply["content"]})
    Path(golden).write_text("[\n" + ",\n".join(map(json.dumps, turns)) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
