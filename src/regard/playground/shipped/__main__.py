"""Trains the models that come with the package: python -m regard.playground.shipped FOLDER."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from regard._internal import progress
from regard._internal.files import atomic_write
from regard.nn import Transformer
from regard.playground.stories import stories
from regard.race import kept, training
from regard.race.tasks import TASKS
from regard.train.options import Options
from regard.train.run import train

STORIES = 20_000
DECODER = Options(
    decoder=True, layers=5, dim=64, heads=8, groups=4, vocab_size=512, seq_length=256, steps=4000, learning_rate=4e-3
)
DATES_STEPS = 2000


def make_stories(folder: Path) -> None:
    """As regard train stories.txt --decoder with the options of `DECODER`; then the weights are rounded to float16."""
    from safetensors.torch import load_file, save

    with tempfile.TemporaryDirectory() as temporary:
        text, out = Path(temporary) / "stories.txt", Path(temporary) / "model"
        text.write_text(stories(STORIES), encoding="utf-8")
        with progress.training(DECODER.steps) as show:
            report = train([text], out, DECODER, progress=lambda at: show(at.step, at.loss, at.accuracy, at.tokens))
        print(f"stories: held-out loss {report['best']['loss']:.3f}, accuracy {report['best']['accuracy']:.1%}")
        halves = {name: tensor.half() for name, tensor in load_file(out / "model.safetensors").items()}
        content = save(halves, {"format": "pt"})
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((out / name).read_bytes())
        atomic_write(folder / "model.safetensors", lambda file: file.write(content))


def make_dates(folder: Path) -> None:
    """As regard race --task dates --dim 64 --steps 2000 --keep FOLDER, without the recurrent model; in float16."""
    task = TASKS["dates"]
    model = training.make("transformer", task.vocab_size, 64)
    assert isinstance(model, Transformer)
    with progress.counter(f"of {DATES_STEPS:,} steps") as advance:
        result = training.train(model, task, DATES_STEPS, 32, 1e-3, 0, advance)
    kept.save(folder, model, task, torch.float16)
    for name, trained in (("float32", model), ("float16", kept.load(folder).model)):
        training.evaluate(trained, task, result, 1000, 0)
        print(f"dates: {result.accuracy:.1%} of held-out dates right in {name}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    makers: dict[str, Callable[[Path], None]] = {"dates": make_dates, "stories": make_stories}
    for name, make in makers.items():
        make(Path(sys.argv[1]) / name)
