"""Writes a checkpoint of train.py as a Hugging Face model folder beside the tokenizer.json that is already there.

    python3 export.py --checkpoint WORK/checkpoint.pt --out DIR
"""

import argparse
import json
import pathlib

import torch

import chats
import model

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of tokenizer.json")
    options = parser.parse_args()
    tokens = json.loads((options.out / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    ids = {t["content"]: t["id"] for t in tokens}
    config = model.Config()
    bos, eos, end = ids[chats.BOS], ids[chats.EOS], ids[chats.IM_END]
    write(options.out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads, "head_dim": config.head_dim, "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings, "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": bos, "eos_token_id": [eos, end],
        "initializer_range": 0.02, "use_cache": True,
    })
    write(options.out / "generation_config.json", {
        "bos_token_id": bos, "eos_token_id": [eos, end], "pad_token_id": eos, "do_sample": True, "temperature": 0.8,
        "top_p": 0.9,
    })
    special = {"bos_token": chats.BOS, "eos_token": chats.EOS, "pad_token": chats.EOS,
               "additional_special_tokens": [chats.IM_START, chats.IM_END]}
    write(options.out / "special_tokens_map.json", special)
    write(options.out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", **special, "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": False, "add_bos_token": True, "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in tokens},
    })
    state = torch.load(options.checkpoint)
    model.save_safetensors(options.out / "model.safetensors", state["parameters"])
    print(f"step {state['step']}, {(options.out / 'model.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
