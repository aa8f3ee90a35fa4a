"""Parts of a report against oracles: order, layout, packing, tokens as text."""

from __future__ import annotations

import base64
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import report_world
from pie_fast.dump import DumpWriter, PromptTable, open_dump
from pie_fast.report.heat import limit, packed, partners, synergy_heat
from pie_fast.report.kept import Kept, counted_from_end, kept_units
from pie_fast.report.layout import lay_out
from pie_fast.report.ordering import cluster_order
from pie_fast.report.run import read_run
from pie_fast.report.tokens import visible
from pie_fast.types import FeatureId


def average_linkage(similarity: np.ndarray, threshold: float) -> tuple[list[int], list[int]]:
    """The same, every mean from its definition."""
    groups = [([i], [[i]]) for i in range(len(similarity))]
    while len(groups) > 1:
        means = {
            (a, b): similarity[np.ix_(groups[a][0], groups[b][0])].mean()
            for a in range(len(groups))
            for b in range(a + 1, len(groups))
        }
        a, b = max(means, key=lambda pair: means[pair])
        members = groups[a][0] + groups[b][0]
        clusters = [members] if means[a, b] >= threshold else groups[a][1] + groups[b][1]
        groups[a] = (members, clusters)
        del groups[b]
    clusters = groups[0][1] if groups else []
    starts = [sum(map(len, clusters[:i])) for i in range(len(clusters))]
    return [item for cluster in clusters for item in cluster], starts


@given(n=st.integers(0, 9), seed=st.integers(0, 99), threshold=st.floats(-1, 1))
def test_order_is_average_linkage(n: int, seed: int, threshold: float) -> None:
    values = np.random.default_rng(seed).normal(size=(n, n))
    similarity = values + values.T
    assert cluster_order(similarity, threshold) == average_linkage(similarity, threshold)


def test_ties_join_the_smallest_items_first() -> None:
    assert cluster_order(np.zeros((4, 4)), 0.0) == ([0, 1, 2, 3], [0])
    assert cluster_order(np.zeros((4, 4)), 0.1) == ([0, 1, 2, 3], [0, 1, 2, 3])
    blocks = np.kron(np.eye(2), np.ones((3, 3)))
    mixed = [0, 3, 1, 4, 2, 5]
    assert cluster_order(blocks[np.ix_(mixed, mixed)], 0.5) == ([0, 2, 4, 1, 3, 5], [0, 3])


PLACES = st.sampled_from(["1", "2", "10", "-1", "END", "?"])
UNITS = st.lists(st.tuples(st.integers(0, 3), PLACES, st.floats(0, 9)), max_size=40)


@given(UNITS)
def test_no_node_overlaps_another_or_leaves_its_cell(units: list[tuple[int, str, float]]) -> None:
    kept = [
        Kept(FeatureId(layer, i), i, 0.0, None, size, size, place)
        for i, (layer, place, size) in enumerate(units)
    ]
    layout = lay_out(kept)
    centers, radii = np.array(layout.centers).reshape(-1, 2), np.array(layout.radii)
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (distance >= radii[:, None] + radii[None]).all()
    columns = {band.name: band for band in layout.columns}
    rows = {band.name: band for band in layout.rows}
    for one, (x, y), r in zip(kept, layout.centers, layout.radii, strict=True):
        column, row = columns[one.place], rows[f"L{one.feature.layer}"]
        assert column.start <= x - r and x + r <= column.start + column.extent <= layout.width
        assert row.start <= y - r and y + r <= row.start + row.extent <= layout.height
    largest = max((size for _, _, size in units), default=0)
    assert all(r == radii.max() for one, r in zip(kept, radii, strict=True) if one.size == largest)


def test_a_mean_near_zero_has_no_sign() -> None:
    def sign(effect: float, size: float) -> int:
        return Kept(FeatureId(0, 0), 0, 0.0, None, effect, size, "1").sign

    assert [sign(0.09, 1), sign(-0.09, 1), sign(0.0, 0)] == [0, 0, 0]
    assert [sign(0.11, 1), sign(-0.11, 1), sign(-2, 2)] == [1, -1, -1]


def test_places_stand_in_the_order_of_the_prompt() -> None:
    places = [("10", 10), ("2", 2), ("END", 9), ("after S1", 4), ("?", None)]
    kept = [
        Kept(FeatureId(0, i), i, 0.0, None, 1.0, 1.0, place, position)
        for i, (place, position) in enumerate(places)
    ]
    layout = lay_out(kept)
    assert [band.name for band in layout.columns] == ["2", "after S1", "END", "10", "?"]
    assert [
        band.name for band in lay_out([*kept, Kept(FeatureId(3, 0), 5, 0, None, 1, 1, "2")]).rows
    ] == ["L3", "L0"]


@given(n=st.integers(1, 6), seed=st.integers(0, 50), scale=st.sampled_from([0.0, 1e-9, 1.0, 1e6]))
def test_a_packed_square_comes_back(n: int, seed: int, scale: float) -> None:
    square = (np.random.default_rng(seed).normal(size=(n, n)) * scale).astype(np.float32)
    np.fill_diagonal(square, np.nan)
    found = packed(square)
    levels = np.frombuffer(base64.b64decode(found["data"]), "<i2").reshape(n, n)
    back = np.where(levels == -32768, np.nan, levels * found["step"])
    np.testing.assert_allclose(back, square, atol=0.51 * found["step"])
    assert found["limit"] == limit(square) > 0


def test_positions_of_prompts_of_several_lengths_count_from_the_end(tmp_path: Path) -> None:
    run = read_run(report_world.write_run(tmp_path / "run", 2, full=False))
    assert not counted_from_end(run)
    last, first = (
        FeatureId(one["layer"], one["index"]).to_global(report_world.WIDTH)
        for one in run.result["features"]
    )
    zeros = np.zeros(2, np.int32)
    prompts = PromptTable(
        tokens=np.zeros(7, np.int32),
        prompt_ptr=np.array([0, 3, 7]),
        answer=zeros,
        foil=zeros,
        answer_position=np.array([2, 3], np.int32),
        metric_clean=np.ones(2),
        metric_baseline=np.zeros(2),
    )
    manifest = {"n_layers": report_world.N_LAYERS, "n_features": report_world.WIDTH}
    with DumpWriter(tmp_path / "dump", prompts=prompts, manifest=manifest) as writer:
        # The one acts at the last tokens, 2 and 3; the other at 1 of the first prompt.
        order = np.argsort([last, first])
        both = np.array([last, first], np.uint32)[order], np.array([2, 1], np.uint32)[order]
        features = np.append(both[0], np.uint32(last))
        positions = np.append(both[1], np.uint32(3))
        ones = np.ones(3, np.float32)
        writer.append(np.array([0, 2, 3]), features, positions, ones, ones)
    run = replace(run, dump=open_dump(tmp_path / "dump"))
    assert counted_from_end(run)
    assert [one.place for one in kept_units(run)] == ["-1", "-2"]


def test_a_heat_map_holds_what_the_matrix_knows(tmp_path: Path) -> None:
    run = read_run(report_world.write_run(tmp_path / "run", 12))
    assert run.synergy is not None and run.dump is not None
    inside = [FeatureId.from_global(int(i), report_world.WIDTH) for i in run.synergy.pool[:6]]
    heat = synergy_heat(run, [*inside, FeatureId(0, report_world.WIDTH - 1)])
    assert heat is not None and sorted(heat.features) == inside
    whole = np.asarray(run.synergy.values)
    for i, a in enumerate(heat.features):
        for j, b in enumerate(heat.features):
            at = run.synergy.positions([f.to_global(report_world.WIDTH) for f in (a, b)])
            expected = whole[at[0], at[1]] if i != j else np.nan
            np.testing.assert_equal(heat.synergy[i, j], expected)
    most, least = heat.strongest
    assert most[0][2] == np.nanmax(heat.synergy) and least[0][2] == np.nanmin(heat.synergy)
    first = partners(heat, 2)[heat.features[0]]
    assert abs(first[0][1]) == np.nanmax(np.abs(heat.synergy[0]))
    assert synergy_heat(run, inside[:1]) is None
    assert heat.meanings == ("back each other up (either does)", "need each other")
    run.synergy.direction = "denoising"
    other = synergy_heat(run, inside)
    assert other is not None
    assert other.meanings == ("need each other", "are redundant (either does)")


@given(st.text(max_size=12))
def test_no_character_of_a_token_is_invisible(token: str) -> None:
    shown = visible(token)
    assert shown
    for character in shown:
        assert unicodedata.category(character) not in {
            "Cc",
            "Cf",
            "Zs",
            "Zl",
            "Zp",
            "Cs",
            "Co",
            "Cn",
        }


def test_whitespace_has_marks() -> None:
    assert visible(" to\n\t") == "·to↵⇥"
    assert visible("") == "∅"
    assert visible("a\u200b\u202eb") == "a\\u{200b}\\u{202e}b"
