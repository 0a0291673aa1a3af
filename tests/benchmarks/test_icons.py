"""The icon benchmark: licences, splits, planting, metrics, methods and its resumable table."""

import hashlib
import io
import itertools
import json
import re
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.icons import __main__ as icons
from benchmarks.icons import (
    data,
    emoji,
    evaluation,
    figures,
    filtering,
    methods,
    plan,
    pool,
    sets,
    students,
    teacher,
)
from benchmarks.icons.model import Recipe
from benchmarks.icons.pool import Pair
from benchmarks.icons.report import Table, describe, job, tabulate, write
from benchmarks.icons.statistics import paired
from d2prune.errors import UserError

LICENCES = {"spdx": "MIT"}
SETS = {
    # prefix: (licence, category)
    "tabler": (LICENCES, "UI 24px"), "ic": (LICENCES, "Material"), "jam": (LICENCES, "UI 24px"),
    "clarity": (LICENCES, "UI 24px"), "cbi": ({"spdx": "CC-BY-NC-SA-4.0"}, "UI 24px"),
    "nameless": ({"title": "Mine"}, "UI 24px"), "bare": (None, "UI 24px"),
    "logos": ({"spdx": "CC0-1.0"}, "Logos"),
}  # fmt: skip


def square(size):
    return {"body": f'<path fill="currentColor" d="M0 0h{size}v{size}H0z"/>'}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package like `@iconify/json`: 12 icons a set, one of them empty; `jam-x0` is also in `ic`."""
    path = tmp_path_factory.mktemp("package") / "iconify.tgz"
    files = {"collections.json": {}}
    for number, (prefix, (licence, category)) in enumerate(SETS.items()):
        files["collections.json"][prefix] = {"license": licence, "category": category}
        drawings = {f"word{i}-{'ab'[i % 2]}": square(1 + i + 12 * number) for i in range(11)}
        drawings["empty"] = {"body": "<g/>"}
        if prefix in ("ic", "jam"):
            drawings["x0"] = square(100)
        files[f"json/{prefix}.json"] = {"prefix": prefix, "icons": drawings, "width": 128, "height": 128}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            blob = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return path


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory):
    """A pool that was built from the package."""
    out = tmp_path_factory.mktemp("icons")
    (out / "iconify.tgz").write_bytes(package.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
        pool.build(out)
    return out


def test_only_permitted_licences_and_no_logos_are_used(package):
    assert {icon.prefix for icon in pool.read_icons(package)} == {"tabler", "ic", "jam", "clarity"}
    assert not any("NC" in licence or "ND" in licence for licence in sets.LICENCES)


def test_families_are_in_one_split():
    assert not sets.TEACHER & sets.CHOOSING and not sets.TEACHER & sets.TESTING
    assert not sets.CHOOSING & sets.TESTING
    for prefixes in (("bx", "bxs", "boxicons"), ("fa-solid", "fa7-solid", "la"), ("fluent", "fluent-color"),
                     ("heroicons", "heroicons-solid"), ("ion", "famicons"), ("uil", "uis")):  # fmt: skip
        assert len({sets.split_of(prefix) for prefix in prefixes}) == 1
    assert [sets.split_of(p) for p in ("tabler", "mdi", "clarity", "jam")] == list(sets.SPLITS)


def test_the_tars_hold_every_rendered_icon_once_with_its_truth(folder):
    record = json.loads((folder / "pool.json").read_text())
    # Per set 11 icons; the empty one has no image, and jam's x0 repeats an image of the pool.
    assert {name: part["pairs"] for name, part in record["splits"].items()} == {
        "teacher": 11, "pool": 12, "choosing": 11, "testing": 11,
    }  # fmt: skip
    uids = set()
    for split in sets.SPLITS:
        for png, text, truth in pool.read(folder / split):
            assert data.resize(png, 24).shape == (24, 24, 3)
            assert (truth["own_caption"] != text) == truth["planted_wrong"] and truth["caption"] == text
            assert sets.split_of(truth["set"]) == split and len(truth["uid"]) == 32
            uids.add(truth["uid"])
    assert len(uids) == 45


def test_building_again_gives_the_same_bytes_and_other_settings_are_refused(folder, tmp_path, monkeypatch):
    blob = (folder / "iconify.tgz").read_bytes()
    (tmp_path / "iconify.tgz").write_bytes(blob)
    with pytest.raises(UserError, match=r"iconify\.tgz: found SHA-256 .*; expected"):
        pool.build(tmp_path)
    monkeypatch.setattr(sets, "SHA256", hashlib.sha256(blob).hexdigest())
    assert pool.build(tmp_path) == json.loads((folder / "pool.json").read_text())
    for path in folder.glob("*/*.tar"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="found a pool with other settings"):
        pool.build(tmp_path, share=0.0)


def test_a_limit_keeps_so_many_of_each_split(package):
    kept = pool.sample(pool.read_icons(package), 6)
    splits = [sets.split_of(icon.prefix) for icon in kept]
    assert [splits.count(name) for name in sets.SPLITS] == [6, 6, 2, 2]


@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_planting_exchanges_captions_of_a_share(n, share, other):
    pairs = [Pair(f"{i}", "ic", b"", f"name {i}", f"name {i}") for i in range(n)]
    planted = pool.plant(pairs, share)
    wrong = {i for i, pair in enumerate(planted) if pair.is_wrong}
    swapped = round(share * n)
    # A single pair has no partner.
    assert len(wrong) == (swapped if swapped != 1 else 0)
    assert sorted(pair.caption for pair in planted) == sorted(pair.own for pair in pairs)
    assert planted == pool.plant(pairs, share)
    if other >= share and swapped != 1:
        assert wrong <= {i for i, pair in enumerate(pool.plant(pairs, other)) if pair.is_wrong}


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_ranks_and_zero_shot_equal_their_definitions(n, n_captions, seed):
    rng = np.random.default_rng(seed)
    # Small integers, so that there are ties and products are exact.
    image = rng.integers(-2, 3, (n, 4)).astype(np.float32)
    caption = np.concatenate(
        [np.arange(min(n, n_captions)), rng.integers(0, min(n, n_captions), max(0, n - n_captions))]
    )
    text = rng.integers(-2, 3, (caption.max() + 1, 4)).astype(np.float32)
    cosine = image @ text.T
    by_image, by_text = evaluation.retrieval_ranks(image, text, caption)
    assert by_image.tolist() == [sum(cosine[i] >= cosine[i, caption[i]]) for i in range(n)]
    for c in range(len(text)):
        best = max(cosine[i, c] for i in range(n) if caption[i] == c)
        assert by_text[c] == 1 + sum(cosine[i, c] >= best for i in range(n) if caption[i] != c)
    expected = [(sum(r <= 2 for r in ranks) / len(ranks)) for ranks in (by_image, by_text)]
    assert evaluation.recall((by_image, by_text), 2) == pytest.approx(np.mean(expected))
    labels = np.where(rng.random(n) < 0.3, -1, caption)
    shares = []
    for c in sorted(set(labels.tolist()) - {-1}):
        mine = [i for i in range(n) if labels[i] == c]
        shares.append(np.mean([np.argmax(cosine[i]) == c for i in mine]))
    assert evaluation.zero_shot(image, text, labels) == pytest.approx(np.mean(shares) if shares else 0.0)


def test_words_are_frequent_and_label_captions_with_one_of_them():
    captions = ["home outline", "home arrow", "home alert", "arrow left", "arrow", "ok ok ok", "alert alert"]
    assert data.frequent_words(captions, 2) == ["arrow", "home"]
    assert data.label(captions, ["arrow", "home"]).tolist() == [1, -1, 1, 0, 0, -1, -1]


@pytest.mark.parametrize("group", plan.GROUPS)
def test_every_planned_method_is_a_valid_configuration(group, tmp_path):
    for each in plan.GROUPS[group]:
        assert describe(each.method)
        if each.method not in methods.REFERENCES:
            config = filtering.configure(tmp_path, each.teacher, each.method, each.fraction, each.seed)
            assert config.select.fraction == each.fraction


def test_subsets_without_a_score_are_trained_once_for_all_teachers():
    for each in plan.GROUPS["teachers"]:
        assert (each.teacher == plan.TEACHER) == (each.method in methods.UNSCORED)
    results = [students.Result(*vars(job("right")).values(), "testing", 9, 0.0, 0.1, 0.2, 0.3, 9.0)]
    assert Table(results).seeds(job("right", teacher="weak"), "testing").keys() == {0}
    assert not Table(results).seeds(job("score", teacher="weak"), "testing")


def test_a_teacher_learns_from_its_own_sets_alone():
    for each in teacher.TEACHERS.values():
        assert all(sets.split_of(name) == "teacher" for name in each.sets)
    names = ["openmoji", "ph", "fluent-emoji-flat", "fluent"] * 25
    rows = {name: teacher.choose(names, each, 0) for name, each in teacher.TEACHERS.items()}
    assert sorted(rows["base"]) == list(range(100)) and len(rows["weak"]) == 25
    assert {names[row] for row in rows["distant"]} == {"openmoji", "fluent-emoji-flat"}
    with pytest.raises(ValueError, match="found no pair of the sets"):
        teacher.choose(["ph"], teacher.TEACHERS["distant"], 0)


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("random", {"select": {"method": "random", "seed": 3}}),
        ("score@s_clip_loss", {"score": {"difficulty": "s_clip_loss"}, "select": {"method": "score"}}),
        ("d2:1:1", {"graph": {"n_neighbors": 1}, "select": {"gamma_forward": "1", "gamma_reverse": "1"}}),
        ("d2:5:1:4/median+text", {
            "graph": {"n_neighbors": 5, "features": "text"},
            "select": {"gamma_forward": "1", "gamma_reverse": "4/median"},
        }),
        ("semdedup:0.9", {
            "dedup": {"near": 0.9}, "graph": {"features": "image"}, "select": {"method": "score"},
        }),
        ("d2:5:1:4/median^5", {"select": {"gamma_forward": "1", "gamma_reverse": "4/median"}}),
        ("info_max:3:0.1", {"graph": {"n_neighbors": 3}, "select": {"method": "score"}}),
        ("forward:5:4/median", {"select": {"method": "forward", "gamma_forward": "4/median"}}),
    ],
)  # fmt: skip
def test_names_of_methods_are_settings(method, changed):
    found = methods.settings(method, seed=3)
    for section, options in changed.items():
        assert options.items() <= found[section].items()


@pytest.mark.parametrize(
    "method",
    ["", "best", "d2", "d2:5:1^", "d2:5:1^5.5", "d2:5", "random:1", "score+both", "d2:5:1:1:1", "D2:5:1",
     "info_max:5", "info_max:5:x"],
)  # fmt: skip
def test_unknown_methods_are_one_line(method):
    with pytest.raises(UserError, match="^--methods " + re.escape(method) + ": "):
        methods.settings(method)


def test_paired_differences_equal_the_textbook():
    found = paired({0: 3.0, 1: 5.0, 2: 4.0, 7: 1.0}, {0: 1.0, 1: 2.0, 2: 3.0, 9: 9.0})
    # Differences 2, 3, 1: mean 2, deviation 1, t(2) = 4.303.
    assert (found.mean, found.pairs, found.sign) == (2.0, 3, 0)
    assert found.margin == pytest.approx(4.303 / 3**0.5)
    assert paired({0: 1.0, 1: 1.1}, {0: 0.0, 1: 0.1}).sign == 1
    assert paired({0: 1.0}, {0: 0.0}).sign == 0
    with pytest.raises(ValueError, match="common seed"):
        paired({0: 1.0}, {1: 0.0})


def test_students_resume_from_their_table(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(students, "RECIPE", Recipe(batch_size=8))
    jobs = [students.Job(0.3, "base", name, 0.5, seed, 16) for seed in (0, 1) for name in ("all", "right")]
    table = tmp_path / "icons.csv"
    assert not students.train_all(folder, table, jobs, 0.3, seconds=-1)
    assert students.train_all(folder, table, jobs[:3], 0.3)
    before = table.read_bytes()
    assert students.train_all(folder, table, jobs[:3], 0.3) and table.read_bytes() == before
    assert students.train_all(folder, table, jobs, 0.3) and table.read_bytes().startswith(before)
    results = students.read_table(table)
    assert [r.job for r in results[::2]] == jobs == [r.job for r in results[1::2]]
    assert {(r.method, r.kept, r.wrong > 0) for r in results} == {("all", 12, True), ("right", 6, False)}
    again = tmp_path / "again.csv"
    students.train_all(folder, again, jobs[:1], 0.3)
    assert [r.recall_10 for r in students.read_table(again)] == [r.recall_10 for r in results[:2]]
    # A pool with another share of wrong captions is another folder.
    assert students.train_all(folder, again, [students.Job(0.45, "base", "all", 0.5, 0, 16)], 0.3)


def test_the_page_has_the_tables_and_their_figures(tmp_path):
    results = [
        students.Result(
            *vars(each).values(), split, 100, 0.1, 0.02, 0.1 + shift + each.seed / 100, 0.2 + shift, 9.0
        )
        for group in plan.GROUPS.values()
        for each in group
        for split, shift in (("choosing", 0.0), ("testing", 0.1 if each.method == plan.DEFAULT else 0.05))
    ]  # fmt: skip
    text = tabulate(Table(results), [("ours", job(plan.DEFAULT)), ("none", job("d2:9:9"))], job("score"))
    assert "| ours | 10.0 % | 2.0 ± 0.0 | 22.0 ± 1.6 | 30.0 ± 0.0 | **+5.0 (+5.0 to +5.0)** |" in text
    assert "none" not in text and text.startswith("Differences are to top by CLIP score.\n\n| ")
    assert tabulate(Table(results), [("none", job("d2:9:9"))], None) == "Not run.\n"
    page = tmp_path / "icons.md"
    page.write_text("# Icons\n\n<!-- main -->\nold\n<!-- /main -->\nWhy.\n")
    write(results, page, tmp_path)
    written = page.read_text()
    assert written.startswith("# Icons\n\n<!-- main -->\nDifferences are to ") and written.endswith(
        "<!-- /main -->\nWhy.\n"
    )
    assert f"| {describe(plan.DEFAULT)} | 10.0 % |" in written and "old" not in written
    assert "random sampling" in (tmp_path / "icons-main.svg").read_text()
    gaps = (tmp_path / "icons-compute.svg").read_text()
    # Three settings of D2 and SemDeDup against the score, in two panels.
    assert f">{describe(plan.DEFAULT)}<" in gaps and gaps.count('fill="none"') == 8
    # A table that has only begun, and a page that does not exist.
    write(results[:4], tmp_path / "new.md", tmp_path)
    assert (tmp_path / "new.md").read_text().count("<!-- /") == 12


@pytest.mark.parametrize("values", [{}, {1.0: [0.0]}, {1.0: [-2.0, -1.0], 4.0: [3.0]}, {1.0: [-40.0, 9.5]}])
def test_lines_draw_a_dot_for_every_value_inside_the_panel(values):
    drawing = figures.lines([("a < b", [values, {}])], ["R@10", "zero-shot"], "samples")
    heights = [float(y) for y in re.findall(r'cy="([^"]*)"', drawing)]
    assert len(heights) == sum(map(len, values.values())) and all(30 <= y <= 250 for y in heights)
    ticks = [int(text) for text in re.findall(r'text-anchor="end">([+-]\d+)<', drawing)]
    assert 0 in ticks and len({b - a for a, b in itertools.pairwise(ticks[: len(ticks) // 2])}) == 1
    assert "a &lt; b" in drawing and "nan" not in drawing and "-0<" not in drawing


def test_a_mistake_is_one_line(tmp_path, capsys):
    (tmp_path / "iconify.tgz").write_bytes(b"")
    assert icons.main(["pool", "--out", str(tmp_path)]) == 2
    assert "iconify.tgz: found SHA-256" in capsys.readouterr().err


def test_emoji_are_filtered_by_every_method(package, tmp_path, monkeypatch):
    (tmp_path / "iconify.tgz").write_bytes(package.read_bytes())
    monkeypatch.setattr(sets, "SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    monkeypatch.setattr(emoji, "COPIED", 2)
    pairs = emoji.build(tmp_path, "tabler")
    n = len(pairs) - 2 * emoji.COPIES
    assert len({pair.uid for pair in pairs}) == len(pairs) and len({pair.png for pair in pairs[:n]}) == n
    assert sum(pair.is_wrong for pair in pairs) == round(emoji.WRONG * n)
    stored = [(png, text, truth["uid"]) for png, text, truth in pool.read(tmp_path / "tabler" / "pool")]
    assert stored == [(pair.png, pair.caption, pair.uid) for pair in pairs]
    assert data.resize(stored[0][0], 112).shape == (112, 112, 3)
    configs = []

    def keep(config):
        configs.append(config)
        return [pair.uid for pair in pairs if not pair.is_wrong]

    monkeypatch.setattr(emoji.filtering, "with_offset", lambda config, method: config)
    monkeypatch.setattr(emoji.filtering, "keep", keep)
    rows = emoji.tabulate(tmp_path / "tabler", pairs).splitlines()[2:]
    assert len(rows) == len(emoji.METHODS) and all("| 0.0% | 100.0% | " in row for row in rows)
    assert {config.select.fraction for config in configs} == {emoji.FRACTION}
    assert configs[0].select.method == "score" and configs[1].select.gamma_reverse == "10/median"
