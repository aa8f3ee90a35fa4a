"""Train the embedded demo model and its cross-layer transcoder, from nothing, on two CPU cores.

    python examples/train_demo.py all --work runs/demo

Four stages, each resumable from its own safetensors checkpoints (an interrupted run is simply
started again):

1. ``tokenizer``: a byte-level BPE tokenizer on text of the package's own task generators;
2. ``model``: a GPT-2-architecture model (4 layers, width 128) on the same text;
3. ``clt``: a cross-layer transcoder of 4 x 1024 features. BatchTopK while it learns: the theta
   that lets k features a token through is estimated on every batch; then theta is frozen, which
   makes every feature a JumpReLU with a threshold of its own;
4. ``export``: the HuggingFace folder and the circuit-tracer folder that the package ships.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from demo_clt import Clt, Tensors, fit_scales, replaced_logits
from demo_corpus import BOS, PAD, Batch, batch, corpus

N_LAYERS, D_MODEL, N_HEADS, CONTEXT = 4, 128, 4, 128

#: GPT-2's words, but digits in pairs, so that a year is two tokens for greater-than
WORDS = r" ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; merges go on until every word of the corpus is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=10,
        special_tokens=[BOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed, 40_000), trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(vocab_size: int, bos: int, pad: int) -> GPT2LMHeadModel:
    """The untrained model."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=CONTEXT,
            n_embd=D_MODEL,
            n_layer=N_LAYERS,
            n_head=N_HEADS,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=bos,
            eos_token_id=bos,
            pad_token_id=pad,
        )
    )


def save_checkpoint(
    path: Path, step: int, state: Tensors, optimizer: torch.optim.Optimizer
) -> None:
    """Parameters, optimizer moments and step in one safetensors file, replaced atomically."""
    tensors = {f"p.{k}": v.detach().contiguous().clone() for k, v in state.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"o.{i}.{k}": torch.as_tensor(v).clone() for k, v in moments.items()}
    save_file(tensors, f"{path}.part", metadata={"step": str(step)})
    Path(f"{path}.part").replace(path)


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> tuple[int, Tensors]:
    """The step a checkpoint was taken at and its parameters; the optimizer is restored."""
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("o."):
            _, i, name = key.split(".", 2)
            state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return step, {k[2:]: v for k, v in tensors.items() if k.startswith("p.")}


def steps(what: str, start: int, end: int, note: dict[str, str]) -> Iterator[int]:
    """Count steps with progress; plain lines where the output is not a terminal."""
    columns = (*Progress.get_default_columns()[:2], TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}")) as progress:
        bar = progress.add_task(what, total=end, completed=start, note="")
        for step in range(start, end):
            yield step
            text = " ".join(note.values())
            progress.update(bar, advance=1, note=text)
            if not progress.console.is_terminal and step % 100 == 0:
                print(f"{what} {step}/{end} {text}", flush=True)


def schedule(step: int, total: int, warmup: int = 100) -> float:
    """Factor of the learning rate: linear warm-up, cosine to 2%."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def token_loss(logits: torch.Tensor, data: Batch) -> tuple[torch.Tensor, float]:
    """Mean cross-entropy, answers counted 4 times; and the share of answers that are top-1."""
    target, mask = data.ids[:, 1:], data.mask[:, 1:]
    losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), target.flatten(), reduction="none")
    weight = mask.float()
    rows = data.answer_at >= 0
    weight[rows.nonzero().squeeze(1), data.answer_at[rows]] = 4.0
    at = logits[rows.nonzero().squeeze(1), data.answer_at[rows]].argmax(-1)
    right = (at == data.ids[rows.nonzero().squeeze(1), data.answer_at[rows] + 1]).float().mean()
    return (losses * weight.flatten()).sum() / weight.sum(), float(right)


def train_model(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> GPT2LMHeadModel:
    """Train the language model, or pick up where a checkpoint stopped."""
    torch.manual_seed(args.seed)
    model = new_model(len(tokenizer), tokenizer.bos_token_id, tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.05
    )
    path, start = args.work / "model.safetensors", 0
    if path.exists():
        start, state = load_checkpoint(path, optimizer)
        model.load_state_dict(state, strict=False)  # the tied lm_head is stored once
    notes: dict[str, str] = {}
    for step in steps("model", start, args.model_steps, notes):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * schedule(step, args.model_steps)
        right = []
        for kind, share in (("long", 0.5), ("short", 0.5)):
            data = batch(tokenizer, kind, f"model/{args.seed}/{step}")
            loss, hits = token_loss(model(data.ids).logits, data)
            (loss * share).backward()
            right.append((kind, loss.item(), hits))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        notes |= {k: f"{k} loss {v:.3f} top-1 {h:.3f}" for k, v, h in right}
        if (step + 1) % 250 == 0 or step + 1 == args.model_steps:
            state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
            save_checkpoint(path, step + 1, state, optimizer)
    return model.eval()


def mlp_pairs(
    model: GPT2LMHeadModel, ids: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Inputs and outputs ``[batch, pos, d]`` of every MLP, and the last hidden state."""
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []

    def hook(_: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        inputs.append(args[0])
        outputs.append(out)

    handles = [block.mlp.register_forward_hook(hook) for block in model.transformer.h]
    with torch.no_grad():
        hidden = model.transformer(ids).last_hidden_state
    for handle in handles:
        handle.remove()
    return inputs, outputs, hidden


def clt_batch(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """``[L, n, d]`` inputs and outputs; row 0 is the (constant) first position, then all others."""
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []
    for kind in ("long", "short"):
        data = batch(tokenizer, kind, name)
        mask = data.mask.clone()
        mask[:, 0] = False
        x, y, _ = mlp_pairs(model, data.ids)
        if not rows:
            rows.append((torch.stack(x)[:, :1, 0], torch.stack(y)[:, :1, 0]))
        rows.append((torch.stack(x)[:, mask], torch.stack(y)[:, mask]))
    return torch.cat([r[0] for r in rows], 1), torch.cat([r[1] for r in rows], 1)


def train_clt(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace
) -> Clt:
    """Train the transcoder: BatchTopK, then fixed thresholds, then the replaced model's KL."""
    model.requires_grad_(False)
    torch.manual_seed(args.seed + 1)
    scale_in, scale_out, mean_out = fit_scales(
        [clt_batch(model, tokenizer, f"scale/{i}") for i in range(8)]
    )
    clt = Clt(N_LAYERS, args.features, D_MODEL, scale_in, scale_out, mean_out)
    optimizer = torch.optim.Adam(clt.parameters(), lr=args.clt_lr, betas=(0.9, 0.99))
    path, start = args.work / "clt.safetensors", 0
    if path.exists():
        start, state = load_checkpoint(path, optimizer)
        clt.load_state_dict(state)
    total = args.clt_steps + args.kl_steps
    fired = torch.zeros(N_LAYERS, args.features)
    notes: dict[str, str] = {}
    for step in steps("clt", start, total, notes):
        for group in optimizer.param_groups:
            group["lr"] = args.clt_lr * schedule(step, total)
        x, y = clt_batch(model, tokenizer, f"clt/{args.seed}/{step}")
        # k falls from 3k to its final value over the first fifth, which leaves fewer dead features
        k = args.k * (1 + 2 * max(0.0, 1 - step / (0.2 * args.clt_steps)))
        out, active = clt(x, k=k if step < args.clt_steps else None)
        loss, r2 = clt.loss(out, y)
        fired += active
        if step >= args.clt_steps:
            data = batch(tokenizer, "long" if step % 2 else "short", f"kl/{args.seed}/{step}")
            kl = kl_loss(model, clt, data)
            loss = loss + args.kl_weight * kl
            notes["kl"] = f"KL {kl.item():.4f}"
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clt.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        l0 = " ".join(f"{v:.1f}" for v in (active.sum(1) / x.shape[1]).tolist())
        notes["fit"] = f"R2 {' '.join(f'{v:.3f}' for v in r2)} active {l0}"
        if (step + 1) % 200 == 0 and step < 0.5 * args.clt_steps:
            n_dead = clt.revive(fired < 1, x, clt.scaled(y) - out.detach(), optimizer)
            notes["dead"] = f"revived {n_dead}"
            fired.zero_()
        if (step + 1) % 200 == 0 or step + 1 == total:
            save_checkpoint(path, step + 1, clt.state_dict(), optimizer)
    return clt


def kl_loss(model: GPT2LMHeadModel, clt: Clt, data: Batch) -> torch.Tensor:
    """Mean KL(model || replaced model) over all positions, answers counted 8 times."""
    with torch.no_grad():
        target = model(data.ids).logits.log_softmax(-1)
    logits = replaced_logits(model, clt, data.ids).log_softmax(-1)
    kl = (target.exp() * (target - logits)).sum(-1)
    weight = data.mask.float()
    rows = (data.answer_at >= 0).nonzero().squeeze(1)
    weight[rows, data.answer_at[rows]] = 8.0
    weight[:, 0] = 0.0
    return (kl * weight).sum() / weight.sum()


def export(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, clt: Clt, args: argparse.Namespace
) -> None:
    """Write the two folders that the package ships."""
    for name in ("model", "clt"):
        shutil.rmtree(args.out / name, ignore_errors=True)
        (args.out / name).mkdir(parents=True)
    model.save_pretrained(args.out / "model")
    tokenizer.save_pretrained(args.out / "model")
    for file, tensors in clt.files().items():
        save_file(tensors, args.out / "clt" / file)
    config = {
        "model_name": "pie-fast-demo",
        "model_kind": "cross_layer_transcoder",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
    }
    lines = "".join(f"{key}: {value}\n" for key, value in config.items())
    (args.out / "clt" / "config.yaml").write_text(lines)
    config_path = args.out / "model" / "tokenizer_config.json"
    settings = json.loads(config_path.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name every version knows
    for key in ("is_local", "local_files_only"):
        settings.pop(key, None)
    config_path.write_text(json.dumps(settings, indent=2) + "\n")
    for file in args.out.rglob("*.safetensors"):
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(json.dumps({"out": str(args.out), "bytes": size}))


def main() -> None:
    """Parse the command line and run the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=["tokenizer", "model", "clt", "export", "all"])
    parser.add_argument("--work", type=Path, default=Path("runs/demo"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("python/pie_fast/data/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model-steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--clt-steps", type=int, default=1200)
    parser.add_argument("--kl-steps", type=int, default=200)
    parser.add_argument("--kl-weight", type=float, default=1.0)
    parser.add_argument("--clt-lr", type=float, default=2e-3)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--k", type=float, default=12.0, help="active features per token and layer")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    folder = args.work / "tokenizer"
    if not folder.exists():
        train_tokenizer(args.seed).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    print(f"{len(tokenizer)} tokens", flush=True)
    if args.stage == "tokenizer":
        return
    model = train_model(tokenizer, args)
    if args.stage == "model":
        return
    clt = train_clt(model, tokenizer, args)
    if args.stage in ("export", "all"):
        export(model, tokenizer, clt, args)


if __name__ == "__main__":
    main()
