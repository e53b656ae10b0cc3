"""Trains the demonstration model and keeps resumable checkpoints.  See README.md for the command of the committed one.

The learning rate warms up, stays, and falls to zero over the last --decay steps.  The first --drill steps
teach to look words up in the text (drills.py), then every row is one document, and the last --long steps use packed
rows of --long-length, so that far positions are learned.  Step k's data depends on (seed, k) alone: a resumed run equals an
uninterrupted one.
"""

import argparse
import json
import pathlib
import random
import time

import torch

import bpe
import chats
import model
from muon import Muon


def document_ids(encoder, rng, form):
    """Ids of a document, and for each whether it is to be learned."""
    ids, learn = [], []
    for text, special, wanted in chats.document(rng, form):
        new = [encoder.special[text]] if special else encoder.encode(text)
        ids += new
        learn += [wanted] * len(new)
    return ids, learn


def row(encoder, rng, length, stage):
    """length + 1 ids: one document, cut, or filled up with drills; in the last stage half of them long conversations."""
    def form():
        return "drill" if stage == "drill" else "long" if stage == "long" and rng.random() < 0.5 else "any"

    ids, learn = document_ids(encoder, rng, form())
    while stage != "drill" and len(ids) < length:
        more = document_ids(encoder, rng, form() if stage == "long" else "drill")
        ids, learn = ids + more[0], learn + more[1]
    padding = max(0, length + 1 - len(ids))
    return (ids + [0] * padding)[: length + 1], (learn + [False] * padding)[: length + 1]


def sequences(encoder, seed, step, count, length, stage):
    """Inputs and targets of a step, [count, length]; targets that are not learned are -100."""
    rng = random.Random(f"{seed}/{step}")
    rows, labels = [], []
    for _ in range(count):
        ids, learn = row(encoder, rng, length, stage)
        rows.append(ids[:-1])
        labels.append([i if w else -100 for i, w in zip(ids[1:], learn[1:])])
    return torch.tensor(rows), torch.tensor(labels)


def rate_at(step, o):
    """Fraction of the full learning rate."""
    return min(1.0, (step + 1) / o.warmup, (o.steps - step) / o.decay)


def causal_mask(length):
    return torch.full((length, length), float("-inf")).triu(1).to(torch.bfloat16)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="folder of tokenizer.json")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder of checkpoints and the log")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=int, default=400)
    parser.add_argument("--drill", type=int, default=200, help="first steps, on texts of drills.py")
    parser.add_argument("--long", type=int, default=200, help="last steps, on packed long rows")
    parser.add_argument("--drill-length", type=int, default=48)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--long-length", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=4608, help="per step")
    parser.add_argument("--muon-rate", type=float, default=0.02, help="of the matrices")
    parser.add_argument("--adam-rate", type=float, default=3e-3, help="of the embedding and the norms")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--stop-at", type=int, help="end after this step, to be resumed")
    return parser.parse_args()


def make_optimizers(parameters, o):
    matrices = [p for n, p in parameters.items() if p.dim() > 1 and "embed" not in n]
    others = [p for n, p in parameters.items() if p.dim() == 1 or "embed" in n]
    return [Muon(matrices, lr=o.muon_rate), torch.optim.AdamW(others, lr=o.adam_rate, betas=(0.9, 0.95), eps=1e-9,
                                                               weight_decay=0.0)]


def train_step(parameters, config, optimizers, batch, rope, mask):
    for p in parameters.values():
        p.grad = None
    loss = model.loss_of(parameters, config, *batch, rope, mask)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def main():
    o = parse()
    torch.set_num_threads(o.threads)
    o.work.mkdir(parents=True, exist_ok=True)
    encoder = bpe.Encoder(json.loads((o.tokenizer / "tokenizer.json").read_text(encoding="utf-8")))
    config = model.Config(vocab_size=len(encoder.ids))
    parameters = model.initial_parameters(config, o.seed)
    optimizers = make_optimizers(parameters, o)
    full_rates = [optimizer.defaults["lr"] for optimizer in optimizers]
    checkpoint, first, spent = o.work / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        for name, value in state["parameters"].items():
            parameters[name].data.copy_(value)
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        first, spent = state["step"], state["seconds"]
    print(f"{sum(p.numel() for p in parameters.values())} parameters, from step {first}", flush=True)
    begin, length, average = time.time() - spent, None, None
    for step in range(first, min(o.steps, o.stop_at or o.steps)):
        stage = "drill" if step < o.drill else "long" if step >= o.steps - o.long else "story"
        wanted = {"drill": o.drill_length, "story": o.length, "long": o.long_length}[stage]
        if length != wanted:
            length, rope, mask = wanted, model.rope_table(config, wanted), causal_mask(wanted)
        for optimizer, full in zip(optimizers, full_rates):
            optimizer.param_groups[0]["lr"] = full * rate_at(step, o)
        batch = sequences(encoder, o.seed, step, o.tokens // length, length, stage)
        loss = train_step(parameters, config, optimizers, batch, rope, mask)
        average = loss if average is None else 0.95 * average + 0.05 * loss
        if (step + 1) % 10 == 0:
            print(f"step {step + 1} loss {average:.4f} seconds {time.time() - begin:.0f}", flush=True)
        if (step + 1) % o.save_every == 0 or step + 1 == min(o.steps, o.stop_at or o.steps):
            state = {"step": step + 1, "seconds": time.time() - begin, "optimizers": [x.state_dict() for x in optimizers],
                     "parameters": {n: p.detach() for n, p in parameters.items()}}
            torch.save(state, o.work / "checkpoint.new")
            (o.work / "checkpoint.new").rename(checkpoint)


if __name__ == "__main__":
    main()
