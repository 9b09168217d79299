"""One measurement of benchmarks/convert.py in a process of its own, whose threads are its own; prints JSON last.

python benchmarks/convert_parts.py encode_batch TOKENIZER TEXTS.jsonl THREADS MEGABYTES
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BATCH_CHARACTERS = 1 << 20
LENGTH = 2048


def texts_of(path: str, megabytes: float) -> Iterator[str]:
    """Yield the texts of a JSONL file until they have so many bytes."""
    left = megabytes * 1e6
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            yield text
            left -= len(text.encode())
            if left <= 0:
                return


def size_of(texts: Iterable[str]) -> float:
    """Return the megabytes of texts in UTF-8."""
    return sum(len(text.encode()) for text in texts) / 1e6


def encode(method: str, tokenizer: str, path: str, threads: str, megabytes: str) -> float:
    """Encode texts in memory in batches of a megabyte, keep nothing; return megabytes a second."""
    os.environ["RAYON_NUM_THREADS"] = threads
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if int(threads) > 1 else "false"
    from tokenizers import Tokenizer

    from converters.tokens.tokenise import batches

    loaded = Tokenizer.from_file(tokenizer)
    texts = list(texts_of(path, float(megabytes)))
    call = getattr(loaded, method)
    call(texts[:8], add_special_tokens=False)
    begun = time.perf_counter()
    for batch in batches(texts, BATCH_CHARACTERS):
        call(batch, add_special_tokens=False)
    return size_of(texts) / (time.perf_counter() - begun)


def our_encode(tokenizer: str, path: str, megabytes: str) -> float:
    """As `encode`, with what convert calls, to numpy arrays, in one thread."""
    from converters.tokens.tokenise import batches, load_tokenizer, use_one_thread

    use_one_thread()
    loaded = load_tokenizer(tokenizer)
    texts = list(texts_of(path, float(megabytes)))
    loaded.encode(texts[:8])
    begun = time.perf_counter()
    for batch in batches(texts, BATCH_CHARACTERS):
        loaded.encode(batch)
    return size_of(texts) / (time.perf_counter() - begun)


def concatenated(texts: Iterable[str], tokenize: Any, eod_token_id: int) -> Iterator[dict[str, Any]]:
    """Yield samples in the way of llm-foundry's ConcatTokensDataset: a call a document, a list that is cut in front."""
    import numpy as np

    buffer: list[int] = []
    for text in texts:
        buffer = [*buffer, *tokenize(text), eod_token_id]
        while len(buffer) >= LENGTH:
            sample, buffer = buffer[:LENGTH], buffer[LENGTH:]
            yield {"tokens": np.asarray(sample, dtype=np.int32)}


def foundry(tokenizer: str, path: str, megabytes: str, documents: str = "many") -> float:
    """Convert as llm-foundry does, from JSONL to MDS; return megabytes a second.

    Args:
        tokenizer: tokenizer.json.
        path: JSONL.
        megabytes: of text.
        documents: many, or one: all the text is one.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from streaming import MDSWriter
    from transformers import PreTrainedTokenizerFast

    loaded = PreTrainedTokenizerFast(tokenizer_file=tokenizer, eos_token="<|endoftext|>")
    loaded.model_max_length = int(1e30)

    def tokenize(text: str) -> list[int]:
        found: list[int] = loaded(text, truncation=False, padding=False)["input_ids"]
        return found

    texts: Iterable[str] = texts_of(path, float(megabytes))
    if documents == "one":
        texts = ["\n".join(texts)]
    size = 0.0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with MDSWriter(out=f"{folder}/out", columns={"tokens": "ndarray:int32"}) as writer:
            for sample in concatenated(texts, tokenize, loaded.eos_token_id):
                writer.write(sample)
        seconds = time.perf_counter() - begun
    size = size_of(texts if documents == "one" else texts_of(path, float(megabytes)))
    return size / seconds


def reading(path: str, writes: str) -> float:
    """Read JSONL as convert does, in one process; if asked, write what its bytes take as tokens; return megabytes/s."""
    import numpy as np

    from converters.config import FieldsConfig, corpora_of_paths
    from converters.tokens.reading import Reading

    corpora, _ = corpora_of_paths([path], FieldsConfig(), "mul.web")
    size = 0
    with tempfile.TemporaryFile() as file:
        begun = time.perf_counter()
        for document in Reading().documents(corpora):
            size += len(document.content)
            if writes == "write":
                file.write(np.frombuffer(document.content, np.uint8).astype(np.uint16))
        file.flush()
        return size / 1e6 / (time.perf_counter() - begun)


def long_document(tokenizer: str, path: str, megabytes: str) -> float:
    """Encode one text as convert does; return seconds."""
    from converters.tokens.tokenise import load_tokenizer, use_one_thread

    use_one_thread()
    loaded = load_tokenizer(tokenizer)
    text = "\n".join(texts_of(path, float(megabytes)))
    begun = time.perf_counter()
    loaded.encode([text])
    return time.perf_counter() - begun


PARTS = {
    "encode_batch": lambda *given: encode("encode_batch", *given),
    "encode_batch_fast": lambda *given: encode("encode_batch_fast", *given),
    "our_encode": our_encode,
    "foundry": foundry,
    "reading": reading,
    "long_document": long_document,
}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    print(json.dumps(PARTS[sys.argv[1]](*sys.argv[2:])))
