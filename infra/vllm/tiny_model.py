"""Makes a tiny language model on the spot, without a network: `python tiny_model.py FOLDER`.

A Qwen3 of about 230,000 random weights and a byte-level tokenizer, trained on the repository's LICENSE, a text
that does not change, so that the same versions give the same tokens. What it writes is nonsense. Its weights are
moved a little so that a text ends by itself after some dozens of tokens, as a real model's does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch  # type: ignore[import-not-found]  # these three are in vLLM's environment only
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # type: ignore[import-not-found]
from transformers import Qwen3Config, Qwen3ForCausalLM  # type: ignore[import-not-found]

CORPUS = Path(__file__).resolve().parents[2] / "LICENSE"
VOCABULARY = 2_048
CONTEXT = 8_192
"""The longest prompt and answer together, in tokens."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PAD, END = 0, 2
LEANING, ENDING = 0.3, 0.85
"""How far all embeddings, and that of the token that ends a text, lean in one direction."""
TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def make_tokenizer(folder: Path) -> None:
    """The tokenizer, with the ChatML template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(CORPUS)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def make_model(folder: Path) -> None:
    """The configuration and the weights."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += LEANING
        model.get_input_embeddings().weight[END, 0] += ENDING
    model.generation_config.update(bos_token_id=None, eos_token_id=[END, PAD], pad_token_id=PAD)
    model.save_pretrained(folder)


def main() -> None:
    """Makes the model in the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    make_model(folder)


if __name__ == "__main__":
    main()
