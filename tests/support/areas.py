"""Which area each file of tests belongs to, and which tests are slow: conftest.py marks the tests accordingly."""

from __future__ import annotations

from pathlib import Path

# pytest -m lens runs the tests of one area; pyproject.toml says what the areas are.
AREAS = {
    "core": """architecture attention build cpu fuzz gradient kept_backend map map_families maps_cpu mask packaging
        packed plain_gradient properties public quantized tensorlike torch weights weights_gradient""",
    "hf": "cache decoder families hf",
    "nn": "encoder language_model language_model_token nn plain",
    "lens": """compare decoding embed encode encoder_decoder forward generate lens predictions sentence_folders
        words""",
    "attribution": """answers ask_guide atlas atlas_proof atlas_texts attribution_agreement attribution_gradient
        attribution_guide attribution_knockout attribution_layers attribution_logits attribution_norms
        attribution_similarity attribution_target heads planted""",
    "corpus": "corpus corpus_conflicts corpus_errors corpus_output corpus_runs files formats",
    "train": "race train",
    "bench": "bench bench_atlas bench_compare bench_embed",
    "viewer": """atlas_picture chat html image notebooks playground_model playground_seq protocol server terminal tiles
        viewer_predictions widget""",
    "browser": """answer_page ask_page atlas_page chat_page lesson2_page lesson_page playground_client playground_page
        view_encoder_decoder view_maps view_page view_predictions viewer""",
    "cli": """atlas_cli atlas_guide cli cli_errors decoders_guide docs embedded_decoder guide playground_site readme
        writing""",
}
AREA = {f"test_{name}.py": area for area, names in AREAS.items() for name in names.split()}

# Files and tests that make check leaves out: together they would take minutes.
SLOW_FILES = [
    "answer_page",
    "answers",
    "ask_guide",
    "ask_page",
    "atlas",
    "atlas_cli",
    "atlas_guide",
    "atlas_page",
    "atlas_picture",
    "atlas_proof",
    "attribution_agreement",
    "attribution_gradient",
    "attribution_guide",
    "attribution_knockout",
    "attribution_layers",
    "attribution_logits",
    "attribution_norms",
    "attribution_similarity",
    "bench",
    "bench_atlas",
    "bench_compare",
    "bench_embed",
    "build",
    "chat",
    "chat_page",
    "cli",
    "cli_errors",
    "corpus",
    "corpus_conflicts",
    "corpus_errors",
    "corpus_output",
    "corpus_runs",
    "cpu",
    "decoders_guide",
    "embed",
    "families",
    "fuzz",
    "gradient",
    "guide",
    "heads",
    "html",
    "image",
    "lens",
    "lesson2_page",
    "lesson_page",
    "map",
    "map_families",
    "maps_cpu",
    "notebooks",
    "packed",
    "planted",
    "playground_client",
    "playground_model",
    "playground_page",
    "playground_seq",
    "playground_site",
    "properties",
    "race",
    "readme",
    "sentence_folders",
    "server",
    "tiles",
    "torch",
    "train",
    "view_encoder_decoder",
    "view_maps",
    "view_page",
    "view_predictions",
    "viewer",
    "weights_gradient",
    "widget",
    "writing",
]
SLOW_TESTS = [
    "test_it_is_compiled_as_one_graph",
    "test_the_embedded_decoder",
    "test_all_options_crossed",
    "test_memory_in_any_order",
    "test_threads_change_nothing",
    "test_what_is_around_a_model_changes_nothing",
    "test_a_sentence_transformer_is_told_apart",
    "test_as_saved",
    "test_every_shape_with_every_option",
    "test_long_texts_take_time_in_proportion",
    "test_a_wide_beam_finds_the_best_of_all",
    "test_the_kernel_computes_the_reductions",
    "test_the_files_are_made_again",
    "test_the_site_builds_without_warnings_and_asks_no_other_host",
    "test_the_python_of_a_page_runs",
]


def area(path: Path) -> str:
    """The area of a file of tests; of a module whose docstrings hold examples, the room that it is in."""
    rooms = (room for room in reversed(path.parts) if room in AREAS)
    return AREA.get(path.name) or next(rooms, "core")


def is_slow(path: Path, test: str) -> bool:
    """Whether a test, named without its parameters, is left out of make check."""
    return path.stem.removeprefix("test_") in SLOW_FILES or test in SLOW_TESTS
