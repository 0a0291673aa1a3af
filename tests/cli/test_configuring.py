"""Configurations from flags: the same as from a file and `--set`."""

import os
import shlex
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from d2prune.cli.configuring import load_config, restate
from d2prune.cli.main import main
from d2prune.cli.parser import build_parser
from d2prune.config.model import RunConfig
from d2prune.errors import UserError
from d2prune.runs.stages import STAGES, needs_budget
from tests.pools import write_pool

COMPLETE = "run pool --output out --work-dir w --fraction 0.3 --model ViT-B-32/openai"


def load(text, **options):
    return load_config(build_parser().parse_args(shlex.split(text)), **options)


def test_flags_are_a_complete_configuration():
    expected = {
        "input": ["pool"],
        "work_dir": "w",
        "output": "out",
        "embed": {"model": "ViT-B-32", "pretrained": "openai"},
        "select": {"fraction": 0.3},
    }
    assert load(COMPLETE) == RunConfig.parse(expected, "test")
    assert (
        load(COMPLETE.replace("run", "plan", 1))
        == load(COMPLETE.replace("run", "sweep", 1))
        == load(COMPLETE)
    )


@pytest.mark.parametrize(
    "model, names",
    [
        ("demo", ("demo", None)),
        ("ViT-L-14/datacomp_xl_s13b_b90k", ("ViT-L-14", "datacomp_xl_s13b_b90k")),
        ("ViT-B-32/~/w.pt", ("ViT-B-32", os.path.expanduser("~/w.pt"))),
        ("hf-hub:org/name", ("hf-hub:org/name", None)),
        ("~/model", (os.path.expanduser("~/model"), None)),
        ("local-dir:~/model", ("local-dir:" + os.path.expanduser("~/model"), None)),
        ("./model", ("./model", None)),
    ],
)
def test_model_flag_names_model_and_weights(model, names):
    embed = load(COMPLETE.replace("ViT-B-32/openai", model)).embed
    assert (embed.model, embed.pretrained) == names


def test_flags_and_sets_override_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text("{input: a, work_dir: b, output: c, select: {fraction: 0.1}}")
    words = f"run --config {tmp_path}/run.yaml --fraction 0.2"
    config = load(f"{words} --set write.samples_per_shard=5")
    assert (config.input, config.select.fraction, config.write.samples_per_shard) == ("a", 0.2, 5)
    # --set is nearer to the keys than a flag.
    assert (
        load(f"run --config {tmp_path}/run.yaml --fraction 0.2 --set select.fraction=0.4").select.fraction
        == 0.4
    )


@pytest.mark.parametrize(
    "words, message",
    [
        ("run", "command line: input is missing"),
        ("run pool --output out --work-dir w", "command line: select is missing"),
        ("run pool --output s3:// --work-dir w --fraction 0.3", "--output s3://: output"),
        ("run '' --output out --work-dir w --fraction 0.3", "POOL : input"),
        (
            "run pool --output out --work-dir out --fraction 0.3",
            "--output out: output: found out, the work_dir",
        ),
        (f"{COMPLETE} --set embed.models=[demo]", "not both"),
    ],
)
def test_fault_names_the_flag(words, message):
    with pytest.raises(UserError) as raised:
        load(words)
    assert message in str(raised.value)


def test_only_runs_up_to_the_selection_need_a_budget():
    without = COMPLETE.replace("--fraction 0.3", "")
    names = [stage.name for stage in STAGES]
    assert [name for name in names if not needs_budget(name)] == names[: names.index("select")]
    assert needs_budget(None) and needs_budget("nonsense")
    assert load(without, needs_budget=False).select.fraction == 1.0
    assert load(f"{without} --set select.method=score", needs_budget=False).select.method == "score"
    assert load(f"{without} --set select.size=7", needs_budget=False).select.size == 7
    with pytest.raises(UserError, match="select"):
        load(f"{without} --set select=3", needs_budget=False)


def test_stopping_after_embed_needs_no_select_and_prints_the_next_step(tmp_path, capsys):
    pool = write_pool(tmp_path / "a pool", shards=1, samples=4)
    place = f"--work-dir {tmp_path}/w --output {tmp_path}/out --model demo"
    assert main(["run", str(pool), *place.split(), "--no-ray", "--stop-after", "embed"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["embedded"].strip() == "4" and f"embed in {tmp_path}/w" in lines["complete"]
    command = shlex.split(lines["continue with"])
    assert command[:3] == ["d2prune", "run", str(pool)] and command[-2:] == ["--fraction", "0.3"]
    assert load(lines["continue with"].strip().removeprefix("d2prune ")).select.fraction == 0.3


def test_printed_command_has_no_home_and_gives_the_same_configuration():
    words = (
        "run '~/my pool' --work-dir=~/w --output '~/o' --model=~/m --set score.target=~/t.npy --fraction 0.3"
    )
    arguments = build_parser().parse_args(shlex.split(words))
    printed = restate(arguments, "run")
    assert "~" not in printed and load(printed.removeprefix("d2prune ")) == load_config(arguments)


class Page(BaseHTTPRequestHandler):
    """One file, with or without its length."""

    def __init__(self, data, sized, *arguments):
        self.data, self.sized = data, sized
        super().__init__(*arguments)

    def do_GET(self):
        self.send_response(200)
        if self.sized:
            self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.data)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("sized", [True, False])
def test_config_at_an_http_url(sized):
    data = b"{input: a, work_dir: b, output: c, select: {fraction: 0.1}}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Page, data, sized))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/run.yaml?version=3"
        assert load(f"run --config '{url}'").select.fraction == 0.1
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_config_in_memory_and_at_file_urls(tmp_path):
    import fsspec

    text = "{input: a, work_dir: b, output: c, select: {fraction: 0.1}}"
    (tmp_path / "run.yaml").write_text(text)
    fsspec.filesystem("memory").pipe("/configs/run.yaml", text.encode())
    for url in ("memory://configs/run.yaml", f"file://{tmp_path}/run.yaml"):
        assert load(f"run --config {url}").select.fraction == 0.1
