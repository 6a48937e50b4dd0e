"""The viewer's protocol: what is generated from it is as it was generated, and requests are checked against it."""

import json
import struct
from pathlib import Path

import pytest
import torch

pytest.importorskip("jaxtyping", reason="jaxtyping, regard[dev], is not installed")

from regard.viewer.protocol import MESSAGES, TileRequest, __main__
from regard.viewer.protocol.encode import encode
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.parse import parse

ROOT = Path(__file__).parents[1]
TILE = {"type": "tile", "reading": "a", "layer": 1, "head": 2, "level": 0, "row": 0, "column": 0}


def test_the_javascript_module_is_as_generated():
    module = ROOT / "frontend" / "src" / "protocol.js"
    assert module.read_text("utf-8") == __main__.javascript(), f"python -m regard.viewer.protocol > {module}"


def test_every_message_is_in_the_javascript_module():
    module = __main__.javascript()
    for request, reply in MESSAGES.values():
        assert f"@typedef {{object}} {request.__name__}\n" in module
        assert f"@typedef {{object}} {reply.__name__}\n" in module


def test_a_request_is_parsed_with_its_defaults():
    assert parse(TILE) == TileRequest(reading="a", layer=1, head=2, level=0, row=0, column=0)
    assert parse({**TILE, "reduce": "max", "hide": True, "job": None, "more": 1}).reduce == "max"
    assert (parse(TILE).map, parse({**TILE, "map": "norms", "target": "word:a"}).target) == ("weights", "word:a")
    page = parse({"type": "page", "reading": "a", "layer": 0, "head": 0, "comparison": {"word": "a", "texts": ["a"]}})
    assert page.comparison.texts == ["a"]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ([], "Expected a JSON object"),
        ({}, "type: expected one of start, read, metadata"),
        ({"type": []}, "type: expected one of"),
        ({"type": "cancel"}, "job: missing."),
        ({**TILE, "head": True}, "head: expected a whole number from 0. Got 'True'."),
        ({**TILE, "head": None}, "head: expected a whole number from 0. Got 'None'."),
        ({**TILE, "hide": 1}, "hide: expected one of true, false. Got '1'."),
        ({**TILE, "map": "flow"}, "map: expected one of weights, value-weighted, norms, gradient, logits. Got 'flow'."),
        ({**TILE, "target": 1}, "target: expected a string. Got '1'."),
        ({**TILE, "reduce": None}, "reduce: expected one of mean, max. Got 'None'."),
        ({"type": "metadata", "reading": {}}, "reading: expected a string."),
        ({"type": "compare", "word": "a", "texts": ["a"] * 33}, "texts: expected 1 to 32 texts."),
        ({"type": "page", "reading": "a", "layer": 0, "head": 0, "comparison": 1}, "comparison: expected an object"),
    ],
)
def test_what_is_no_request_is_refused(message, error):
    with pytest.raises(RequestError, match="^" + error.replace(".", r"\.")):
        parse(message)


def test_the_table_in_the_documentation_is_as_generated():
    page = (ROOT / "docs/view.md").read_text("utf-8")
    table = page.partition("<!-- python -m regard.viewer.protocol --table -->\n")[2].partition("<!-- end -->")[0]
    assert table == __main__.table(), "python -m regard.viewer.protocol --table"


def test_a_reply_is_encoded_with_its_arrays_aligned():
    content = encode({"rows": [1, 2], "weights": torch.tensor([[0.25, 0.5]], dtype=torch.float64), "made": None})
    (length,) = struct.unpack_from("<I", content)
    assert length % 4 == 0
    assert json.loads(content[4 : 4 + length]) == {"rows": [1, 2], "made": None, "arrays": [["weights", [1, 2]]]}
    assert struct.unpack_from("<2f", content, 4 + length) == (0.25, 0.5)
