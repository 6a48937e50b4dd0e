"""Docstrings of regard as reStructuredText, and names in them as links.

Docstrings are written to be read in an editor: names and code stand in single backticks, equations and drawings are
indented, and arguments follow `Args:`. Sphinx reads reStructuredText, in which some of this means something else.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from textwrap import dedent, indent

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

PAGES = Path(__file__).parents[1] / "api"
SHORT = {  # names as annotations write them, where the module that they come from is imported for type checkers alone
    "Tensor": "torch.Tensor",
    "nn.Module": "torch.nn.Module",
    "nn.Linear": "torch.nn.Linear",
    "nn.LayerNorm": "torch.nn.LayerNorm",
    "Path": "pathlib.Path",
    "Any": "typing.Any",
    "Literal": "typing.Literal",
    "Sequence": "collections.abc.Sequence",
    "Iterable": "collections.abc.Iterable",
    "Iterator": "collections.abc.Iterator",
    "Mapping": "collections.abc.Mapping",
    "Callable": "collections.abc.Callable",
    "np.ndarray": "numpy.ndarray",
    "PreTrainedModel": "transformers.PreTrainedModel",
    "AttentionInterface": "transformers.AttentionInterface",
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "torch.nn.modules.normalization.LayerNorm": "torch.nn.LayerNorm",
}


@cache
def documented(pages: Path = PAGES) -> list[str]:
    """The full name of each object that the pages of the API list, and that therefore has a page of its own."""
    names = []
    for page in sorted(pages.glob("*.md")):
        listed = r"^\.\. currentmodule:: (\S+)\n\n\.\. autosummary::\n((?:   .*\n|\n)*)"
        for room, block in re.findall(listed, page.read_text("utf-8"), re.MULTILINE):
            names += [f"{room}.{name}" for name in re.findall(r"^   (\w+)$", block, re.MULTILINE)]
    return names


def full_name(name: str, context: str, known: list[str]) -> str | None:
    """The object that a name means in the docstring of `context`: of its own class, its own room, or any room."""
    owner = next((full for full in known if context == full or context.startswith(f"{full}.")), None)
    if owner and "." not in name and hasattr(resolve_name(owner), name):
        return f"{owner}.{name}"
    matches = [full for full in known if full == name or full.endswith(f".{name}")]
    if matches:
        return min(matches, key=lambda full: (full.rpartition(".")[0] != context.rpartition(".")[0], len(full)))
    first, _, member = name.rpartition(".")
    owner = full_name(first, context, known) if first else None
    return f"{owner}.{member}" if owner and hasattr(resolve_name(owner), member) else None


def converted(text: str, context: str, known: list[str]) -> str:
    """A docstring as reStructuredText."""
    output: list[str] = []
    fields = ""  # what Args or a paragraph of Raises and Returns stand under
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        first = block.lstrip("\n").split("\n", 1)[0]
        named = re.match(r"(Args|Attributes|Returns|Raises|Yields):( .*|$)", first)
        if named:
            fields = named[1]
            body = block.strip("\n")[len(named[1]) + 1 :]
            output.append(_field(fields, body, context, known))
        elif first.startswith(">>>"):
            output.append(block.strip("\n"))
        elif fields in ("Args", "Attributes") and first.startswith("    "):
            output.append(indent(_entries(dedent(block), context, known), "    "))
        elif first.startswith("    "):
            output.append(f"::\n\n{indent(dedent(block), '    ')}")
        else:
            fields = ""
            output.append(_marked(block, context, known))
    return "\n\n".join(output)


def _field(name: str, body: str, context: str, known: list[str]) -> str:
    title = {"Args": "Parameters"}.get(name, name)
    if body.startswith(" "):
        head, _, rest = body.strip().partition("\n")
        body = f"{head}\n{dedent(rest)}".strip()
        return f":{title}:\n{indent(_marked(body, context, known), '    ')}"
    return f":{title}:\n{indent(_entries(dedent(body.strip(chr(10))), context, known), '    ')}"


def _entries(body: str, context: str, known: list[str]) -> str:
    """`name, name: text` and what is indented below, as a list."""
    entries = re.split(r"\n(?=\S)", body)
    items = []
    for entry in entries:
        names, colon, text = entry.partition(": ")
        text = re.sub(r"\s*\n\s*", " ", text if colon else entry)
        marked = _marked(text, context, known)
        items.append(f"- **{names}** – {marked}" if colon else f"- {marked}")
    return "\n".join(items)


def _marked(text: str, context: str, known: list[str]) -> str:
    """Backticks as links or literals, and nothing else as markup."""
    pieces = re.split(r"(``.+?``|`[^`]+`)", text, flags=re.S)
    return "".join(
        _code(piece, context, known) if piece.startswith("`") else re.sub(r"([*|\\]|_(?![A-Za-z0-9]))", r"\\\1", piece)
        for piece in pieces
    )


def _code(piece: str, context: str, known: list[str]) -> str:
    code = re.sub(r"\s+", " ", piece.strip("`"))
    name = code.removesuffix("()")
    full = None
    if re.fullmatch(r"[A-Za-z_][\w.]*", name):
        elsewhere = name if name.startswith(("torch.", "numpy.", "transformers.")) else None
        full = full_name(name, context, known) or SHORT.get(name, elsewhere)
    return f":py:obj:`{code} <{full}>`" if full else f"``{code}``"


def _process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    text = "\n".join(lines)
    if text.strip():
        lines[:] = [*converted(text, name, documented()).split("\n"), ""]


def _name_in_full(app: Sphinx, document: nodes.document) -> None:
    """Annotations name things as the source does: give each reference the full name of what it means."""
    for reference in document.findall(pending_xref):
        if reference.get("refdomain") == "py":
            target = reference["reftarget"]
            context = ".".join(filter(None, (reference.get("py:module"), reference.get("py:class"))))
            reference["reftarget"] = full_name(target, f"{context}.", documented()) or SHORT.get(target, target)
            reference["refspecific"] = False


def _signature(app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str):
    """Without the constructors of what `attention` and `times` make; defaults that a function makes as an ellipsis."""
    if name in ("regard.Weights", "regard.Map"):
        return "", None
    return signature and (signature.replace("<factory>", "..."), returns)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _name_in_full)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
