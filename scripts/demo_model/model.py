"""The demonstration model in PyTorch: a Llama-style decoder, and its checkpoint in the Hugging Face form.

RMSNorm before each block, rotary positions (first half of a head with the second), grouped query heads, SwiGLU,
the embedding also as the output matrix, no biases.  Parameters are f32; products run in bf16.
"""

import dataclasses
import json
import math
import struct

import torch
import torch.nn.functional as F


@dataclasses.dataclass
class Config:
    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 640
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


def parameter_shapes(c):
    """Hugging Face name -> shape, in file order."""
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    shapes = {"model.embed_tokens.weight": (c.vocab_size, c.hidden_size)}
    for i in range(c.num_hidden_layers):
        p = f"model.layers.{i}."
        shapes |= {
            p + "input_layernorm.weight": (c.hidden_size,),
            p + "self_attn.q_proj.weight": (q, c.hidden_size),
            p + "self_attn.k_proj.weight": (kv, c.hidden_size),
            p + "self_attn.v_proj.weight": (kv, c.hidden_size),
            p + "self_attn.o_proj.weight": (c.hidden_size, q),
            p + "post_attention_layernorm.weight": (c.hidden_size,),
            p + "mlp.gate_proj.weight": (c.intermediate_size, c.hidden_size),
            p + "mlp.up_proj.weight": (c.intermediate_size, c.hidden_size),
            p + "mlp.down_proj.weight": (c.hidden_size, c.intermediate_size),
        }
    return shapes | {"model.norm.weight": (c.hidden_size,)}


def initial_parameters(c, seed):
    """Normal: 0.02 for the embedding, 1/sqrt(inputs) for matrices, those into the residual stream smaller; norms one."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, shape in parameter_shapes(c).items():
        if len(shape) == 1:
            value = torch.ones(shape)
        else:
            deviation = 0.02 if "embed" in name else shape[1] ** -0.5
            value = torch.randn(shape, generator=generator) * deviation
            if "o_proj" in name or "down_proj" in name:
                value /= math.sqrt(2 * c.num_hidden_layers)
        parameters[name] = value.requires_grad_()
    return parameters


def rms_norm(x, weight, eps):
    return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight).to(torch.bfloat16)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rope_table(c, length):
    frequency = c.rope_theta ** (-torch.arange(0, c.head_dim, 2, dtype=torch.float64) / c.head_dim)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return angle.cos().to(torch.bfloat16), angle.sin().to(torch.bfloat16)


def attention(q, k, v, mask):
    """Causal attention of [batch * heads, length, head_dim]."""
    scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=1.0 / math.sqrt(q.shape[-1]))
    return torch.bmm(F.softmax(scores, dim=-1), v)


def forward(parameters, c, ids, rope, mask):
    """Hidden states after the last norm, [batch, length, hidden], bf16; the logits are these times the embedding."""
    batch, length = ids.shape
    heads, groups = c.num_attention_heads, c.num_attention_heads // c.num_key_value_heads
    w = {n: p if p.dim() == 1 else p.to(torch.bfloat16) for n, p in parameters.items()}
    x = F.embedding(ids, parameters["model.embed_tokens.weight"])

    def split(y, n):
        return y.view(batch, length, n, c.head_dim).transpose(1, 2)

    def flat(y):
        return y.reshape(batch * heads, length, c.head_dim)

    for i in range(c.num_hidden_layers):
        p = f"model.layers.{i}."
        h = rms_norm(x, w[p + "input_layernorm.weight"], c.rms_norm_eps)
        q = rotate(split(F.linear(h, w[p + "self_attn.q_proj.weight"]), heads), *rope)
        k = rotate(split(F.linear(h, w[p + "self_attn.k_proj.weight"]), c.num_key_value_heads), *rope)
        v = split(F.linear(h, w[p + "self_attn.v_proj.weight"]), c.num_key_value_heads)
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = attention(flat(q), flat(k), flat(v), mask).view(batch, heads, length, c.head_dim)
        y = y.transpose(1, 2).reshape(batch, length, heads * c.head_dim)
        x = x + F.linear(y, w[p + "self_attn.o_proj.weight"])
        h = rms_norm(x, w[p + "post_attention_layernorm.weight"], c.rms_norm_eps)
        h = F.silu(F.linear(h, w[p + "mlp.gate_proj.weight"])) * F.linear(h, w[p + "mlp.up_proj.weight"])
        x = x + F.linear(h, w[p + "mlp.down_proj.weight"])
    return rms_norm(x, w["model.norm.weight"], c.rms_norm_eps), w["model.embed_tokens.weight"]


def loss_of(parameters, c, ids, targets, rope, mask):
    """Mean cross entropy over the targets that are not -100."""
    hidden, embedding = forward(parameters, c, ids, rope, mask)
    wanted = targets.reshape(-1) >= 0
    logits = F.linear(hidden.reshape(-1, c.hidden_size)[wanted], embedding)
    return F.cross_entropy(logits.float(), targets.reshape(-1)[wanted])


def save_safetensors(path, parameters):
    """bf16 tensors: an 8-byte header length, a JSON header with offsets, the data (padded header: 8-byte aligned)."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in parameters.items():
        data = value.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [offset, offset + len(data)]}
        blobs.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
