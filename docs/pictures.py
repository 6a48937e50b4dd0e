"""The pictures of from-scratch.md and of atlas.md.

python docs/pictures.py [FOLDER]
"""

import sys
from functools import cache
from pathlib import Path

import torch

import regard
from regard import nn as ours
from regard._internal import plotting
from regard._internal.plotting import INK

COLOURS = {"line": "#440154", "other": "#e08214", "map": "viridis"}


def scaling():
    """The largest of 200 weights against the dimension, of random queries and keys."""
    dims, largest = [2**n for n in range(1, 12)], {"as they are": [], "divided by √dim": []}
    for dim in dims:
        scores = torch.randn(200, dim) @ torch.randn(200, dim).T
        for name, scale in zip(largest, (1, dim**0.5), strict=True):
            largest[name].append((scores / scale).softmax(-1).max(-1).values.mean().item())
    figure = plotting.new_figure(6.4, 3.2, dpi=110)
    axes = figure.subplots()
    plotting.style_axes(axes, "The largest of 200 weights, of scores …")
    for (name, shares), colour in zip(largest.items(), (COLOURS["other"], COLOURS["line"]), strict=True):
        axes.plot(dims, shares, "o-", label=name, color=colour, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [f"{dim:,}" for dim in dims])
    axes.set_ylim(0, 1)
    axes.set_xlabel("dim of query and key", fontsize=9, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def positions():
    """The sines and cosines of 64 positions."""
    encoding = ours.SinusoidalPositions()(torch.zeros(1, 64, 48))[0]
    figure = plotting.new_figure(6.4, 3.2, dpi=110)
    axes = figure.subplots()
    plotting.style_axes(axes, "What is added to a word at each position")
    axes.grid(visible=False)
    image = axes.imshow(encoding.T.numpy(), cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xlabel("position", fontsize=9, color=INK)
    axes.set_ylabel("dimension", fontsize=9, color=INK)
    bar = figure.colorbar(image, ticks=[-1, 0, 1])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.outline.set_visible(False)
    return figure


def masks():
    """Which query may attend to which key."""
    x = torch.zeros(1, 1, 12, 4)
    kinds = {
        "all": {},
        "causal": {"causal": True},
        "lengths=9": {"lengths": [9]},
        "window=(2, 2)": {"window": (2, 2)},
        "segments 5, 4, 3": {"segments": torch.tensor([0, 5, 9, 12])},
    }
    figure = plotting.new_figure(10, 2.5, dpi=110)
    for axes, (name, options) in zip(figure.subplots(1, len(kinds)), kinds.items(), strict=True):
        plotting.style_axes(axes, name)
        axes.grid(visible=False)
        seen = regard.attention(x, x, x, **options).weights.dense()[0, 0] > 0
        axes.imshow(seen.numpy(), cmap=COLOURS["map"], vmin=-0.3, vmax=1.2, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("key", fontsize=8, color=INK)
    figure.axes[0].set_ylabel("query", fontsize=8, color=INK)
    return figure


def alignment():
    """The attention of the Transformer of the last section to its source."""
    bos, eos, letters = 1, 2, "abcdefghij"
    model = ours.Transformer(13, layers=1, dim=64, heads=4, dropout=0.0, pre_norm=True)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(300):
        source = torch.randint(3, 13, (64, 5))
        start, stop = torch.full((64, 1), bos), torch.full((64, 1), eos)
        logits, _ = model(source, torch.cat((start, source.flip(1)), 1))
        loss = ours.smoothed_loss(logits, torch.cat((source.flip(1), stop), 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source = torch.tensor([[5, 3, 8, 4, 10]])
    written = ours.greedy(model.eval(), source, bos_id=bos, eos_id=eos, max_new_tokens=6)
    _, alignments = model(source, torch.cat((torch.tensor([[bos]]), written[:, :-1]), 1))
    weights = alignments[0].weights.dense()[0].mean(0).detach()
    figure = plotting.new_figure(3.6, 3.4, dpi=110)
    axes = figure.subplots()
    plotting.style_axes(axes, "Reversing")
    axes.grid(visible=False)
    axes.imshow(weights.sqrt().numpy(), cmap=COLOURS["map"], vmin=0, vmax=1, interpolation="nearest")
    names = [letters[n - 3] for n in source[0].tolist()]
    axes.set_xticks(range(5), names, color=INK)
    axes.set_yticks(range(6), [letters[n - 3] if n > eos else "end" for n in written[0].tolist()], color=INK)
    axes.set_xlabel("looks at", fontsize=9, color=INK)
    axes.set_ylabel("writes", fontsize=9, color=INK)
    return figure


def flies():
    """A head of the embedded model, and where its words attend."""
    from regard.output.image import picture

    return picture(regard.Lens().read("Time flies like an arrow"), layer=5, head=11)


DECODER = "SmolLM2-135M-Instruct"
WORDS = "river chair paper green seven moon table glass horse copper window bread"


@cache
def opened():
    """The embedded decoder, and the atlas of its heads."""
    lens = regard.Lens(DECODER)
    return lens, lens.atlas(proof=False)


def atlas():
    """What the heads of the embedded decoder do."""
    from regard.output.atlas import picture

    return picture(opened()[1])


def atlas_induction():
    """Two planted heads that complete a pattern, and the heads of the embedded decoder that do it."""
    figure = plotting.new_figure(10, 3.1, dpi=110)
    maps = {**planted(), **found()}
    for axes, (name, (weights, names)) in zip(figure.subplots(1, len(maps)), maps.items(), strict=True):
        plotting.style_axes(axes, name)
        axes.grid(visible=False)
        axes.imshow(weights.sqrt().numpy(), cmap=COLOURS["map"], vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 10 else 90)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=9 if len(names) < 10 else 5.5)
        axes.set_xlabel("looks at", fontsize=8, color=INK)
    figure.axes[0].set_ylabel("token", fontsize=8, color=INK)
    return figure


def planted():
    """The weights of the two heads of atlas.md on ^catca: row 5 of the second is at the t."""
    letters, text = "^cat", "^catca"
    letter, place = torch.eye(4)[[letters.index(one) for one in text]], torch.eye(6)
    before = regard.attention(8 * place @ torch.ones(5).diag(-1), place, letter, causal=True, scale=1)
    after = regard.attention(8 * letter, before.output, letter, causal=True, scale=1)
    return {
        "Planted: the token before": (before.weights.dense(), list(text)),
        "Planted: what followed": (after.weights.dense(), list(text)),
    }


def found():
    """The heads of the embedded decoder with the largest scores, on words that come twice."""
    lens, heads = opened()
    reading = lens.read(f" {WORDS} {WORDS}")
    maps = {}
    for name, score in (("the token before", "previous"), ("what followed", "induction")):
        [head] = heads.top(score, 1)
        weights = reading.weights(head.layer)[head.head].float()
        maps[f"{head.layer}.{head.head}: {name}"] = (weights, [unit.text for unit in reading.units])
    return maps


PICTURES = {"from-scratch": [flies, scaling, positions, masks, alignment], "atlas": [atlas, atlas_induction]}


def main(folder: Path, *pages: str) -> None:
    """Draw all pictures of these pages into a folder; without any, of all."""
    for page in pages or PICTURES:
        for draw in PICTURES[page]:
            torch.manual_seed(0)
            content = plotting.to_bytes(draw(), "png")
            (folder / f"{draw.__name__.replace('_', '-')}.png").write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
