"""An atlas as heat maps and in the terminal: what is drawn and marked, and atlases that are out of the ordinary."""

import io

import pytest
import torch
from PIL import Image
from rich.console import Console

from regard._internal import plotting
from regard.atlas.atlas import Atlas, Example
from regard.atlas.difference import difference
from regard.atlas.proof import Effect, Proof
from regard.attribution.heads.scores import SCORES
from regard.output.atlas import picture, table

nan = torch.nan
PREVIOUS = torch.tensor([[0.1, 0.92, 0.0], [0.5, 0.03, nan]])
ENTROPY = torch.tensor([[0.2, 3.1, 4.6], [1.4, 0.9, nan]])
ALIGNMENT = torch.tensor([[-0.8, 0.1, 0.55]])


def atlas_of(scores, **others):
    """An atlas of a model with one attention."""
    return Atlas("made-up", "", {"": scores}, **others)


def panels(figure):
    """The axes of the scores, by name."""
    return {axes.get_label(): axes for axes in figure.axes if axes.get_label() and not axes.get_label().startswith("<")}


def marked(axes):
    """(layer, head) of the dots."""
    return sorted((int(y), int(x)) for dots in axes.collections for x, y in dots.get_offsets().tolist())


def shown(atlas, width):
    """What the terminal prints."""
    console = Console(width=width, file=io.StringIO(), highlight=False, markup=False, emoji=False)
    console.print(table(atlas, width))
    return console.file.getvalue()


# The picture


def test_a_panel_for_each_score_with_its_own_scale():
    drawn = panels(picture(atlas_of({"previous": PREVIOUS, "entropy": ENTROPY})))
    assert list(drawn) == ["previous", "entropy"]
    for (name, axes), numbers in zip(drawn.items(), (PREVIOUS, ENTROPY), strict=True):
        image = axes.images[0]
        assert torch.equal(torch.tensor(image.get_array().filled(nan)).nan_to_num(-1), numbers.double().nan_to_num(-1))
        assert image.get_clim() == pytest.approx((0, float(numbers.nan_to_num().max())))
        assert axes.get_ylim() == (1.5, -0.5)  # layer 0 is at the top
        assert [" ".join(text.get_text().split()) for text in axes.texts] == [name, SCORES[name].phrase]


def test_dots_mark_the_heads_that_are_found():
    drawn = panels(picture(atlas_of({"previous": PREVIOUS, "entropy": ENTROPY})))
    assert marked(drawn["previous"]) == [(0, 1), (1, 0)]  # 0.5 is enough
    assert marked(drawn["entropy"]) == []  # it only describes


def test_noise_stays_dark():
    axes = panels(picture(atlas_of({"previous": PREVIOUS / 100})))["previous"]
    assert axes.images[0].get_clim() == (0, SCORES["previous"].found_from)
    assert marked(axes) == []


def test_colours_diverge_where_a_score_has_negative_numbers():
    axes = panels(picture(atlas_of({"alignment": ALIGNMENT})))["alignment"]
    assert axes.images[0].get_clim() == pytest.approx((-0.8, 0.8))
    assert axes.images[0].get_cmap().name == "PuOr_r"
    assert marked(axes) == [(0, 2)]


def test_the_title_is_the_model_and_what_was_read():
    figure = picture(atlas_of({"previous": PREVIOUS}, tokens={"text": 4096, "needle": 0}))
    assert figure.get_suptitle() == "made-up"
    caption = " ".join(figure.texts[1].get_text().split())
    assert caption.startswith("2 layers × 3 heads; 4,096 tokens of text. A dot marks")


def test_the_attentions_of_an_encoder_decoder_stand_in_groups():
    scores = {"encoder": {"next": PREVIOUS}, "decoder": {"previous": PREVIOUS}, "cross": {"alignment": ALIGNMENT}}
    figure = picture(Atlas("made-up", "", scores))
    assert list(panels(figure)) == ["next", "previous", "alignment"]
    headings = {text.get_text(): text.get_position()[1] for text in figure.texts}
    places = [axes.get_position() for axes in panels(figure).values()]
    for heading, place, above in zip(("Encoder", "Decoder", "Cross-attention"), places, [None, *places], strict=False):
        assert headings[heading] > place.y1
        assert above is None or headings[heading] < above.y0
    assert "encoder 2 layers × 3 heads" in figure.texts[1].get_text()


@pytest.mark.parametrize(("layers", "heads"), [(30, 9), (6, 12), (2, 4), (1, 1), (80, 64)])
def test_panels_do_not_overlap_and_lie_within_the_picture(layers, heads):
    names = [name for name, score in SCORES.items() if score.of != "cross"]
    drawn = [axes.get_position() for axes in panels(picture(atlas_of(dict.fromkeys(names, torch.rand(layers, heads)))))
             .values()]  # fmt: skip
    assert len(drawn) == len(names)
    for n, place in enumerate(drawn):
        assert 0 < place.x0 < place.x1 < 1
        assert 0 < place.y0 < place.y1 < 1
        assert not any(place.overlaps(other) for other in drawn[:n])


@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_files(file_format):
    content = plotting.to_bytes(picture(atlas_of({"previous": PREVIOUS})), file_format)
    if file_format == "png":
        with Image.open(io.BytesIO(content)) as made:
            assert made.width > 600
    else:
        assert b"attends to the previous" in content


# The terminal


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits_its_width(width):
    names = [name for name, score in SCORES.items() if score.of != "cross"]
    torch.manual_seed(0)
    text = shown(atlas_of(dict.fromkeys(names, torch.rand(30, 9)), tokens={"text": 4096}), width)
    assert max(map(len, text.splitlines())) <= width
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert all(any(line.startswith(name) for line in text.splitlines()) for name in names)


def test_the_table_line_by_line():
    assert shown(atlas_of({"previous": PREVIOUS, "entropy": ENTROPY}, tokens={"text": 512}), 60).splitlines() == [
        "made-up",
        "2 layers × 3 heads; 512 tokens of text",
        "",
        "             found  heads: layer.head and score",
        "previous         2    0.1 0.920    1.0 0.500    0.0 0.100",
        "   attends to the previous token",
        "entropy          –    0.2 4.60    0.1 3.10    1.0 1.40",
        "   spreads its weight over many tokens",
    ]
    assert "0.2 0.000" not in shown(atlas_of({"previous": PREVIOUS}), 120)  # a head without any
    parts = {"encoder": {"previous": PREVIOUS}, "cross": {"alignment": ALIGNMENT}}
    lines = shown(Atlas("made-up", "", parts), 60).splitlines()
    assert lines[lines.index("Encoder") :][:2] == ["Encoder", "             found  heads: layer.head and score"]
    assert lines[lines.index("Cross-attention") + 2 :] == [
        "alignment        1    0.2 0.550    0.1 0.100    0.0 −0.800",
        "   goes through the source in step with the target",
    ]


def test_an_example_has_its_words():
    examples = [
        Example("", "previous", 1, 0, "fruit", [("time", 0.5)]),
        Example("", "previous", 0, 1, "like", [("flies", 0.914), ("time", 0.05)]),
    ]
    text = shown(atlas_of({"previous": PREVIOUS, "entropy": ENTROPY}, examples=examples), 80)
    assert "attends to the previous token; 0.1: “like” to “flies”, 91%\n" in text
    assert "fruit" not in text  # that is not the first head


def test_a_proof_is_two_numbers_and_a_verdict():
    effects = [
        Effect("zero", "matters", 3.2141, [0.02, -0.01, 0.05]),
        Effect("edges", "matters", -0.5, []),
        Effect("zero", "elsewhere", 0.1, [0.1]),
    ]
    heads = [(5, 1), (13, 0)]
    proof = Proof("induction", "decoder", heads, "nats", "repeated random tokens", "texts", (0.4, 2.9), effects)
    lines = shown(atlas_of({"previous": PREVIOUS}, proofs=[proof]), 200).splitlines()
    assert proof.verdict == "not confirmed"
    assert lines[lines.index("Proof: heads switched off together") + 1 :] == [
        "decoder, induction: not confirmed",
        f"   {proof.sentence}",
        "   Heads 5.1 13.0; the loss in nats.",
        "   on repeated random tokens, 0.40 as it is",
        "   zero    +3.21   random heads   +0.05",
        "   edges   −0.50   random heads       –",
        "   on texts, 2.90 as it is",
        "   zero    +0.10   random heads   +0.10",
    ]
    narrow = shown(atlas_of({"previous": PREVIOUS}, proofs=[proof]), 40)
    assert max(map(len, narrow.splitlines())) <= 40


# A difference


def changed():
    """An atlas with a head less and a head more than its base."""
    now = torch.tensor([[0.6, 0.92, 0.0], [0.4, 0.03, nan]])
    base = Atlas("base", "", {"": {"previous": PREVIOUS, "entropy": ENTROPY}})
    return difference(
        base, Atlas("tuned", "", {"": {"previous": now, "entropy": ENTROPY + 1e-7}}, tokens={"text": 512})
    )


def test_colours_of_a_difference_diverge_around_zero():
    drawn = panels(picture(changed()))
    for axes, largest in zip(drawn.values(), (0.5, 0.46), strict=True):  # a tenth of the entropy: nothing changed
        assert axes.images[0].get_cmap().name == "PuOr_r"
        assert axes.images[0].get_clim() == pytest.approx((-largest, largest), rel=1e-5)


def test_marks_of_a_difference():
    figure = picture(changed())
    dots, rings = panels(figure)["previous"].collections
    assert dots.get_offsets().tolist() == [[0, 0]]
    assert rings.get_offsets().tolist() == [[0, 1]]
    assert len(dots.get_facecolor()) == 1
    assert len(rings.get_facecolor()) == 0  # empty inside
    assert figure.get_suptitle() == "base → tuned"
    assert "a ring, one that no longer is" in " ".join(figure.texts[1].get_text().split())


@pytest.mark.parametrize("width", [40, 120])
def test_the_table_of_a_difference(width):
    lines = shown(changed(), width).splitlines()
    assert lines[0] == "base → tuned"
    assert max(map(len, lines)) <= width
    if width == 120:
        assert "             found  heads: layer.head and change" in lines
        assert "previous       2→2    0.0 +0.500    1.0 −0.100" in lines


# Out of the ordinary


def test_what_is_no_number_is_left_out():
    atlas = atlas_of({"previous": PREVIOUS, "copying": torch.full((2, 3), nan)})
    assert list(panels(picture(atlas))) == ["previous"]
    assert "copying      not measured" in shown(atlas, 60).splitlines()


def test_nothing_at_all():
    for atlas in (atlas_of({}), atlas_of({"copying": torch.full((2, 3), nan)})):
        assert panels(picture(atlas)) == {}
        assert shown(atlas, 60).startswith("made-up")


def test_one_head_of_one_layer_and_a_score_of_zero():
    atlas = atlas_of({"previous": torch.ones(1, 1), "next": torch.zeros(1, 1)})
    drawn = panels(picture(atlas))
    assert marked(drawn["previous"]) == [(0, 0)]
    assert marked(drawn["next"]) == []
    assert "next             0" in shown(atlas, 60).splitlines()
    assert "1 layer × 1 head" in shown(atlas, 60)


def test_scores_and_texts_that_a_newer_version_measured():
    atlas = atlas_of({"a$b_{c} newer score": PREVIOUS - 0.2}, tokens={"pictures": 5}, note="“x” is new")
    (name,) = panels(picture(atlas))
    assert name == "a$b_{c} newer score"
    assert panels(picture(atlas))[name].images[0].get_clim() == pytest.approx((-0.72, 0.72))
    text = shown(atlas, 60)
    assert "a$b_{c} new…     –    0.1 0.720" in text
    assert "5 tokens of pictures" in text
    assert "“x” is new" in text


def test_the_name_of_a_model_is_text():
    atlas = Atlas("$\\frac{1$ \x1b[31m" + "long " * 60, "", {"": {"previous": PREVIOUS}})
    assert plotting.to_bytes(picture(atlas), "svg")
    assert "\x1b" not in shown(atlas, 60)
