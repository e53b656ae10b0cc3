"""Trains the demonstration model and keeps resumable checkpoints.  See README.md for the command of the committed one.

The learning rate warms up, stays, and falls to zero over the last --decay steps (SIGUSR1 begins them at once).  The
first --drill steps teach to look words up in the text (drills.py), the next --begin steps to take them from a request
for the first lines of a story; then every row begins with one document, and the last --long steps use packed rows of
--long-length, so that far positions are learned.  Step k's data depends on (seed, k) alone: a resumed run equals an
uninterrupted one.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import signal
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
    """length + 1 ids: a document, cut; the first stages fill up with nothing, the stories with lessons of the first
    stages, the last stage with further documents, half of them long conversations."""
    def form():
        return "long" if rng.random() < 0.5 else "any"

    lesson = stage in ("drill", "begin")
    ids, learn = document_ids(encoder, rng, stage if lesson else form() if stage == "long" else "any")
    while not lesson and len(ids) < length:
        more = document_ids(encoder, rng, form() if stage == "long" else rng.choice(("drill", "begin")))
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


def rate_at(step, steps, o):
    """Fraction of the full learning rate in a training of `steps`."""
    return min(1.0, (step + 1) / o.warmup, (steps - step) / o.decay)


def stage_at(step, steps, o):
    if step < o.drill + o.begin:
        return "drill" if step < o.drill else "begin"
    return "long" if step >= steps - o.long else "story"


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
    parser.add_argument("--begin", type=int, default=100, help="next steps, on requests and first lines of stories")
    parser.add_argument("--long", type=int, default=200, help="last steps, on packed long rows")
    parser.add_argument("--drill-length", type=int, default=48)
    parser.add_argument("--begin-length", type=int, default=72)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--long-length", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=4096, help="per step")
    parser.add_argument("--muon-rate", type=float, default=0.02, help="of the matrices")
    parser.add_argument("--adam-rate", type=float, default=3e-3, help="of the embedding and the norms")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--stop-at", type=int, help="end after this step, to be resumed")
    return parser.parse_args()


def make_optimizers(parameters, o):
    matrices = [p for n, p in parameters.items() if p.dim() > 1 and "embed" not in n]
    others = [p for n, p in parameters.items() if p.dim() == 1 or "embed" in n]
    return [Muon(matrices, lr=o.muon_rate), torch.optim.AdamW(others, lr=o.adam_rate, betas=(0.9, 0.95), eps=1e-9,
                                                               weight_decay=0.0)]


def train_step(parameters, config, optimizers, batch, rope, mask, pool):
    """One step on all rows; each thread of the pool takes a share of them, so that threads meet once per step."""
    learned = (batch[1] >= 0).sum()

    def share(part):
        torch.set_num_threads(1)
        ids, targets = part
        loss = model.loss_of(parameters, config, ids, targets, rope, mask) * ((targets >= 0).sum() / learned)
        return loss.item(), torch.autograd.grad(loss, parameters.values())

    rows = min(len(batch[0]), pool._max_workers)
    shares = list(pool.map(share, zip(*(tensor.chunk(rows) for tensor in batch))))
    for p, *gradients in zip(parameters.values(), *(gradients for _, gradients in shares)):
        p.grad = sum(gradients)
    torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return sum(loss for loss, _ in shares)


class Run:
    """Everything that a checkpoint keeps, and how far the training is."""

    def __init__(self, o, config):
        self.path, self.step, self.steps, self.seconds = o.work / "checkpoint.pt", 0, o.steps, 0.0
        self.parameters = model.initial_parameters(config, o.seed)
        self.optimizers = make_optimizers(self.parameters, o)
        self.full_rates = [optimizer.defaults["lr"] for optimizer in self.optimizers]
        if self.path.exists():
            self.load(torch.load(self.path))
        self.begin = time.time() - self.seconds

    def load(self, state):
        for name, value in state["parameters"].items():
            self.parameters[name].data.copy_(value)
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step, self.steps, self.seconds = state["step"], state["steps"], state["seconds"]

    def finish(self, decay):
        """Begins the decay now; the weights are those of a run with --steps of the number that is printed."""
        self.steps = min(self.steps, self.step + decay)
        print(f"ends at step {self.steps}", flush=True)

    def elapsed(self):
        return time.time() - self.begin

    def save(self):
        new = self.path.with_suffix(".new")
        torch.save({"step": self.step, "steps": self.steps, "seconds": self.elapsed(),
                    "optimizers": [x.state_dict() for x in self.optimizers],
                    "parameters": {n: p.detach() for n, p in self.parameters.items()}}, new)
        new.rename(self.path)


def main():
    o = parse()
    torch.set_num_threads(1)
    o.work.mkdir(parents=True, exist_ok=True)
    encoder = bpe.Encoder(json.loads((o.tokenizer / "tokenizer.json").read_text(encoding="utf-8")))
    config = model.Config(vocab_size=len(encoder.ids))
    pool = concurrent.futures.ThreadPoolExecutor(o.threads)
    run = Run(o, config)
    signal.signal(signal.SIGUSR1, lambda *_: run.finish(o.decay))
    print(f"{sum(p.numel() for p in run.parameters.values())} parameters, from step {run.step}", flush=True)
    length, average = None, None
    while run.step < min(run.steps, o.stop_at or run.steps):
        stage = stage_at(run.step, run.steps, o)
        wanted = {"drill": o.drill_length, "begin": o.begin_length, "story": o.length, "long": o.long_length}[stage]
        if length != wanted:
            length, rope, mask, average = wanted, model.rope_table(config, wanted), causal_mask(wanted), None
        for optimizer, full in zip(run.optimizers, run.full_rates):
            optimizer.param_groups[0]["lr"] = full * rate_at(run.step, run.steps, o)
        batch = sequences(encoder, o.seed, run.step, o.tokens // length, length, stage)
        loss = train_step(run.parameters, config, run.optimizers, batch, rope, mask, pool)
        average = loss if average is None else 0.95 * average + 0.05 * loss
        run.step += 1
        if run.step % 10 == 0:
            print(f"step {run.step} {stage} loss {average:.4f} seconds {run.elapsed():.0f} processor "
                  f"{time.process_time():.0f}", flush=True)
        if run.step % o.save_every == 0:
            run.save()
    run.save()


if __name__ == "__main__":
    main()
